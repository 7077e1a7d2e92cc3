"""Options that several commands share, and the words they take."""

import shlex
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mtvcraft_cli.device.placement import Wanted
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.drive import DriveSettings, Framing
    from mtvcraft_cli.jobs.speed import Speed
    from mtvcraft_cli.preset import Preset

Force = Annotated[bool, typer.Option("--force", help="Write over a file that is already there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Fetch weights that are missing without asking.")]
PresetName = Annotated[str, typer.Option("--preset", help="Model and settings; see `mtvcraft presets`.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Folder of checkpoints laid out like the repositories, looked at before the hub's."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Offload = Annotated[
    Wanted,
    typer.Option(
        help="What stays on the card while a network works: all (none), it alone (model), two of its blocks (group) "
        "or layers (sequential); disk: two blocks, the rest in files."
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="N,N", help="Split the transformer's layers over these cards where one is too small."),
]
Quantize = Annotated[
    Literal["none", "int8", "nf4", "fp8"],
    typer.Option(help="Store matrices of transformer and text encoder in fewer bits: less memory, not exact."),
]
Background = Annotated[str, typer.Option(help="Colour behind what is transparent, as RRGGBB.")]

_of_the_driver = partial(typer.Option, rich_help_panel="The driver")
TrustFile = Annotated[
    Path | None,
    _of_the_driver("--trust-file", help="An NLF TorchScript file that you trust: loading it runs code from it."),
]


@dataclass(frozen=True, kw_only=True)
class DriveOptions:
    """How the motion is got out of the driver, whatever kind of file that is."""

    start: Annotated[
        str | None, _of_the_driver(metavar="TIME", help="Begin here: seconds, 1:02.5, or 00:01:02:12 with frames.")
    ] = None
    end: Annotated[str | None, _of_the_driver(metavar="TIME", help="End before this time.")] = None
    person: Annotated[
        str,
        _of_the_driver(
            metavar="largest|left|right|N", help="Whom to follow; numbers: `pose --list`, same --start/--end."
        ),
    ] = "largest"
    max_gap: Annotated[
        float, _of_the_driver(min=0, max=86400, help="Seconds without the person that are filled in; more is an error.")
    ] = 0.5
    smooth: Annotated[bool, _of_the_driver("--smooth", help="Calm joints that shake, by a one-euro filter.")] = False
    drive_fps: Annotated[
        str | None, _of_the_driver(help="Frame rate of pictures or of a motion, whatever it says.")
    ] = None
    clip: Annotated[str | None, _of_the_driver(metavar="N|NAME", help="Which motion of a file that holds several.")] = (
        None
    )
    camera: Annotated[str, _of_the_driver(metavar="auto|front|FILE", help="Camera before motion in world space.")] = (
        "auto"
    )
    joint_map: Annotated[
        Path | None, _of_the_driver(help="YAML or JSON: which joint of a BVH file is which of SMPL's.")
    ] = None
    body_model: Annotated[
        Path | None, _of_the_driver(help="SMPL body file of your own, for SMPL parameters and the neutral body.")
    ] = None
    backend: Annotated[Literal["auto", "nlf", "mediapipe"], _of_the_driver(help="What finds people in a video.")] = (
        "auto"
    )
    trust_file: TrustFile = None

    def settings(self, weights: Path | None, background: str = "ffffff") -> "DriveSettings":
        """What the rooms want to know.

        Raises:
            MtvcraftError: exit 2; a time, a rate, a colour or a rule that is none.
        """
        from mtvcraft_cli.jobs.drive import DriveSettings
        from mtvcraft_cli.joints.people import check_rule

        check_rule(self.person)
        return DriveSettings(
            start=self.start,
            end=self.end,
            person=self.person,
            max_gap_s=Fraction(str(self.max_gap)),
            smooth=self.smooth,
            rate=read_rate(self.drive_fps) if self.drive_fps else None,
            clip=self.clip,
            camera=self.camera if self.camera in ("auto", "front") else Path(self.camera),  # type: ignore[arg-type]
            joint_map=self.joint_map,
            body_model=self.body_model,
            backend=self.backend,
            trust_file=self.trust_file,
            weights=weights,
            background=read_colour(background),
        )


_of_the_motion = partial(typer.Option, rich_help_panel="The motion")


@dataclass(frozen=True, kw_only=True)
class FramingOptions:
    """How the driver's motion is changed before it is followed."""

    mirror: Annotated[bool, _of_the_motion("--mirror", help="Swap left and right.")] = False
    motion_strength: Annotated[
        float, _of_the_motion(min=0, max=2, help="1 is the driver's motion, 0 none, 2 twice as much.")
    ] = 1.0
    root: Annotated[
        Literal["keep", "centre", "follow"],
        _of_the_motion(help="Keep the driver's place, move it to the middle, or follow the driver with the camera."),
    ] = "keep"

    def settings(self) -> "Framing":
        """What the rooms want to know."""
        from mtvcraft_cli.jobs.drive import Framing

        return Framing(mirror=self.mirror, motion_strength=self.motion_strength, root=self.root)


_of_the_speed = partial(typer.Option, rich_help_panel="Speed")


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """How fast the work is done."""

    speed: Annotated[
        Literal["best", "balanced", "fast"],
        _of_the_speed(help="`best` leaves no work out; the others skip blocks that would change little."),
    ] = "best"
    compile: Annotated[
        bool, _of_the_speed("--compile", help="Compile the transformer's blocks first; pays off in long runs.")
    ] = False
    attention: Annotated[
        Literal["auto", "native", "flash", "sage"],
        _of_the_speed(help="What computes attention; auto takes the fastest of what is installed."),
    ] = "auto"

    def settings(self) -> "Speed":
        """What the rooms want to know."""
        from mtvcraft_cli.jobs.speed import Speed

        return Speed(level=self.speed, compile=self.compile, attention=self.attention)


_of_the_look = partial(typer.Option, rich_help_panel="Words and look")


@dataclass(frozen=True, kw_only=True)
class LookOptions:
    """What the video shows beside the character and the motion, and how it looks."""

    prompt: Annotated[str | None, _of_the_look(help="What the video shows, in words (models with text).")] = None
    negative_prompt: Annotated[str | None, _of_the_look(help="What it shall not show.")] = None
    text_guidance: Annotated[
        float | None, _of_the_look(min=0, help="How hard the prompt pulls; 1 is off and saves a pass.")
    ] = None
    guidance_range: Annotated[
        str | None, _of_the_look(metavar="START:END", help="Share of the steps in which guidance is on, such as 0:0.6.")
    ] = None
    lora: Annotated[
        list[str] | None,
        _of_the_look(metavar="PATH[:SCALE]", help="Merge a LoRA into the model; may be given several times."),
    ] = None
    size: Annotated[
        str | None, _of_the_look(metavar="WxH|auto", help="Size of the frames; auto: by the picture's shape.")
    ] = None
    clip_from: Annotated[
        Literal["reference", "previous"] | None,
        _of_the_look(help="What CLIP sees in later windows of a long video."),
    ] = None
    color_match: Annotated[
        bool, _of_the_look("--color-match", help="Give every window of a long video the picture's colours.")
    ] = False

    def applied(self, preset: "Preset") -> "Preset":
        """The preset with what was asked for.

        Raises:
            MtvcraftError: exit 2; a value is wrong, or means nothing to the preset's backbone.
        """
        from mtvcraft_cli.latents.wanvideo.sizes import checked_size
        from mtvcraft_cli.preset import AUTO_PX, checked

        sampler = preset.sampler
        if self.text_guidance is not None:
            sampler = replace(sampler, text_guidance=self.text_guidance)
        if self.guidance_range is not None:
            sampler = replace(sampler, guidance_range=read_range(self.guidance_range))
        given = {"prompt": self.prompt, "negative_prompt": self.negative_prompt, "clip_from": self.clip_from}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if self.size == "auto":
            changes |= {"size_px": AUTO_PX, "auto_size": True}
        elif self.size is not None:
            changes |= {"size_px": checked_size(read_size(self.size)), "auto_size": False}
        changes["loras"] = (*preset.loras, *map(whole_lora, self.lora or ()))
        return checked(replace(preset, sampler=sampler, color_match=self.color_match or preset.color_match, **changes))


def read_range(text: str) -> tuple[float, float]:
    """Two shares of the steps from `START:END`; either may be left out.

    Raises:
        MtvcraftError: they are no numbers, or START is not before END.
    """
    start, colon, end = text.partition(":")
    try:
        shares = float(start or 0), float(end or 1)
    except ValueError:
        shares = (1.0, 0.0)
    if not colon or not 0 <= shares[0] < shares[1] <= 1:
        raise MtvcraftError(f"`{text}` is no range of steps", hint="write it like 0:0.6 or 0.1:1", exit=Exit.USAGE)
    return shares


def read_size(text: str) -> tuple[int, int]:
    """Width and height from `WxH`.

    Raises:
        MtvcraftError: they are no whole numbers.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise MtvcraftError(f"`{text}` is no size", hint="write it like 512x512, or auto", exit=Exit.USAGE)
    return int(width), int(height)


def whole_lora(words: str) -> str:
    """A LoRA as a preset names it: a name of the weights manifest as it is, a path from the root.

    Raises:
        MtvcraftError: exit 2; there is no such file.
    """
    from mtvcraft_cli.preset import lora_of
    from mtvcraft_cli.weights.manifest import manifest

    source, scale = lora_of(words)
    if source in manifest():
        return words
    if not Path(source).exists():
        raise MtvcraftError(f"there is no LoRA `{source}`", hint="check the path given to `--lora`", exit=Exit.USAGE)
    return f"{Path(source).absolute()}:{scale:g}"


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
    """The input's name without what tells its kind: `drive` of drive.mp4, drive.tokens.npy and drive/*.png."""
    if path.name in ("", "..") or {"*", "?", "["} & set(path.name):  # a folder by its dots, or a pattern: its folder's
        path = (path if path.is_dir() else path.parent).resolve()
    return path.stem.removesuffix(".joints").removesuffix(".tokens")


Fps = Annotated[str | None, typer.Option(help="Another frame rate for the result, such as 25 or 30000/1001.")]


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["mtvcraft", *sys.argv[1:]])
