"""`mtvcraft doctor`: what is there, what is wrong, and what mends it."""

from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, console
from mtvcraft_cli.cli.options import Device, Weights
from mtvcraft_cli.errors import Exit, MtvcraftError

MARKS = {"ok": "OK     ", "warning": "warning", "failure": "FAILURE"}


def doctor(
    device: Device = "auto",
    short: Annotated[
        bool, typer.Option("--short", help="Leave out the pose estimator and the run at toy size.")
    ] = False,
    weights: Weights = None,
) -> None:
    """Look at everything that a run needs, then run it all at toy size; each line says how it is and what mends it.

    Exit code 1 where something fails; warnings are no failure.
    """
    from mtvcraft_cli.jobs.doctor import examine
    from mtvcraft_cli.sidecar import check_folders

    check_folders(weights=weights, trust_file=None)
    findings = []
    for finding in examine(weights, device, short=short):
        findings.append(finding)
        if not console.json:
            mend = f"\n         -> {finding.mend}" if finding.mend else ""
            answer(f"{MARKS[finding.state]}  {finding.name}: {finding.says}{mend}", None)
    if console.json:
        answer("", {"findings": [finding.told() for finding in findings]})
    failed = [finding.name for finding in findings if finding.state == "failure"]
    if failed:
        raise MtvcraftError(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}",
            hint="do what their lines say, then run `mtvcraft doctor` again",
            exit=Exit.FAULT,
        )
