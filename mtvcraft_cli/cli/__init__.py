"""The front door: one file per command; each reads words, calls one function, prints the answer."""

import atexit
import gc
import sys
from typing import Annotated

import typer

from mtvcraft_cli import __version__
from mtvcraft_cli.cli import train
from mtvcraft_cli.cli.animate import animate
from mtvcraft_cli.cli.batch import batch
from mtvcraft_cli.cli.cache import cache
from mtvcraft_cli.cli.doctor import doctor
from mtvcraft_cli.cli.download import download
from mtvcraft_cli.cli.eval import eval_
from mtvcraft_cli.cli.front import app, command, group
from mtvcraft_cli.cli.front import main as run
from mtvcraft_cli.cli.plan import plan
from mtvcraft_cli.cli.pose import pose
from mtvcraft_cli.cli.presets import presets
from mtvcraft_cli.cli.replay import replay
from mtvcraft_cli.cli.tokenize import tokenize
from mtvcraft_cli.cli.train_ablations import ablations


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"mtvcraft {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """A picture of any character and a video of anyone moving give a video of that character moving so."""


for function in (animate, pose, tokenize, batch, eval_, download, presets, plan, doctor, replay, cache):
    command(function)
group("train", train.HELP)
for stage in (train.prepare, train.tokenizer, train.vae, train.dit, train.latents, train.pack, ablations):
    command(stage, within="train")


def main() -> None:
    """The program `mtvcraft`."""
    atexit.register(gc.freeze)  # or Python looks through all objects of torch once more before it ends: a second or two
    sys.exit(run())
