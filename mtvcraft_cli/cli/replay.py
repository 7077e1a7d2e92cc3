"""`mtvcraft replay`: make a video again."""

from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.animate import run_job
from mtvcraft_cli.cli.options import DryRun, Force, Gpus, Offload, TrustFile, Weights, Yes, typed


def replay(
    sidecar: Annotated[
        Path, typer.Argument(metavar="SIDECAR", help="The `.json` that lies beside a video made by mtvcraft.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it goes; default: the name it had, beside SIDECAR.")
    ] = None,
    trust_file: TrustFile = None,
    weights: Weights = None,
    offload: Offload = "auto",
    gpus: Gpus = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a video again from its sidecar: on the same machine, the same frames."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.device.split import read_cards
    from mtvcraft_cli.jobs.animation import job_of_sidecar

    job = job_of_sidecar(
        sidecar,
        open_cache(),
        output=output,
        weights=weights,
        trust_file=trust_file,
        offload=offload,
        gpus=read_cards(gpus) if gpus else (),
        force=force,
        command=typed(),
    )
    run_job(job, dry_run=dry_run, yes=yes)
