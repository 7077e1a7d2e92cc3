"""Options that several commands share, and the words they take."""

import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer

from mtvcraft_cli.errors import Exit, MtvcraftError

Force = Annotated[bool, typer.Option("--force", help="Write over a file that is already there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")]
PresetName = Annotated[str, typer.Option("--preset", help="Model and settings; see `mtvcraft presets`.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Folder of checkpoints laid out like the repositories, looked at before the hub's."),
]
Backend = Annotated[Literal["auto", "nlf", "mediapipe"], typer.Option(help="What finds the person in a video.")]
MaxGap = Annotated[
    float, typer.Option(min=0, max=86400, help="Seconds without a person that are filled in; a longer gap is an error.")
]
TrustFile = Annotated[
    Path | None,
    typer.Option("--trust-file", help="An NLF TorchScript file that you trust: loading it runs code from it."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

BROADCAST = {
    "23.976": Fraction(24000, 1001),
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
}
"""What people write for the rates of television, and mean."""


def read_rate(text: str) -> Fraction:
    """Frames per second from `25`, `12.5`, `30000/1001` or `29.97` (which means 30000/1001).

    Raises:
        MtvcraftError: it is no number above 0 and up to 1000.
    """
    try:
        rate = BROADCAST.get(text) or Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise MtvcraftError(f"`{text}` is no frame rate", hint="write it like 25, 12.5 or 30000/1001", exit=Exit.USAGE)
    return rate


def read_audio(text: str) -> Path | Literal["keep", "none"]:
    """`keep`, `none`, or the path of a file with sound."""
    return text if text in ("keep", "none") else Path(text)  # type: ignore[return-value]


def read_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, from RRGGBB.

    Raises:
        MtvcraftError: it is no such colour.
    """
    digits = text.removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError as error:
        raise MtvcraftError(
            f"`{text}` is no colour", hint="write it like ffffff (white) or 00ff00 (green)", exit=Exit.USAGE
        ) from error
    return red, green, blue


def stem_of(path: Path) -> str:
    """The input's name without what tells its kind: `drive` of drive.mp4, drive.joints.npz and drive.tokens.npy."""
    return path.stem.removesuffix(".joints").removesuffix(".tokens")


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["mtvcraft", *sys.argv[1:]])
