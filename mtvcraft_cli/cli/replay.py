"""`mtvcraft replay`: make a video again."""

from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.animate import run_job
from mtvcraft_cli.cli.options import DryRun, Force, Weights


def replay(
    sidecar: Annotated[
        Path, typer.Argument(metavar="SIDECAR", help="The `.json` that lies beside a video made by mtvcraft.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it goes; default: the name it had, in this folder.")
    ] = None,
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a video again from its sidecar: on the same machine, the same frames."""
    from mtvcraft_cli.jobs.animation import job_of_sidecar

    run_job(job_of_sidecar(sidecar, output=output, weights=weights, force=force), dry_run=dry_run)
