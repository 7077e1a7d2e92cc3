"""`mtvcraft doctor`: what is there, what is wrong, and what mends it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtvcraft_cli.cli.console import answer, console, say, table
from mtvcraft_cli.cli.front import running
from mtvcraft_cli.cli.options import Device, Weights
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.quantising import Comparison

MARKS = {"ok": "OK     ", "warning": "warning", "failure": "FAILURE"}


def doctor(
    device: Device = "auto",
    short: Annotated[
        bool, typer.Option("--short", help="Leave out the pose estimator and the run at toy size.")
    ] = False,
    quantised: Annotated[
        bool, typer.Option("--quantize", help="Measure instead what each kind of quantisation costs and saves.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Of --quantize: the model that is measured; default mini.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Look at everything that a run needs, then run it all at toy size; each line says how it is and what mends it.

    Exit code 1 where something fails; warnings are no failure.
    """
    from mtvcraft_cli.jobs.doctor import examine
    from mtvcraft_cli.sidecar import check_folders

    check_folders(weights=weights, trust_file=None)
    if quantised:
        return _show_quantised("mini" if preset is None or preset == "auto" else preset, weights, device)
    if "preset" in running.by_flag:  # a settings file may well have one, for other commands
        raise MtvcraftError(
            "`--preset` belongs to `--quantize`", hint="mtvcraft doctor --quantize --preset NAME", exit=Exit.USAGE
        )
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
    return None


def _show_quantised(preset: str, weights: Path | None, device: str) -> None:
    from mtvcraft_cli.jobs.quantising import compare
    from mtvcraft_cli.preset import load_preset

    found = compare(load_preset(preset), weights, device)
    for line in found.remarks:
        say(line)
    answer(_laid_out(found), found.told())


def _laid_out(found: "Comparison") -> str:
    """A line for each network and kind."""
    from mtvcraft_cli.jobs.fit import memory_text

    rows = [
        [
            each.part,
            each.kind,
            "does not run" if each.error is None else f"{each.error:.4f}",
            "" if each.bytes is None else memory_text(each.bytes),
            "" if each.seconds is None else f"{each.seconds:.3g} s",
        ]
        for each in found.rows
    ]
    whys = dict.fromkeys(f"{each.kind}: {each.why}" for each in found.rows if each.why)
    return "\n".join([table(["network", "stored as", "relative error", "weights", "one pass"], rows), *whys])
