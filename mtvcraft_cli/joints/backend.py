"""Who finds the people: the protocol of pose backends, what they hand on, and the choice between them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Confidence, JointsMm, Observed

Batch: TypeAlias = UInt8[np.ndarray, "_ H W 3"]
"""Some frames of a clip in order; RGB, 0..255. Batches of one clip may differ in length."""

Boxes: TypeAlias = Float32[np.ndarray, "T 4"]
"""x and y of the upper left corner, width, height; pixels."""


@dataclass(frozen=True)
class Smpl:
    """SMPL's own parameters per frame, from estimators that give them; NaN rows where nobody was found."""

    pose: Float32[np.ndarray, "T 72"]
    """24 rotations as axis times angle, radians; the first turns the whole body."""
    betas: Float32[np.ndarray, "T 10"]
    """Body shape; all zero is the neutral body."""
    transl: Float32[np.ndarray, "T 3"]
    """Camera space, metres, as SMPL has it."""


@dataclass(frozen=True)
class Estimate:
    """What a backend saw, one row per frame in order."""

    joints_mm: JointsMm
    """NaN rows where nobody was found."""
    confidence: Confidence
    """0 where nobody was found."""
    found: Observed
    smpl: Smpl | None = None


@dataclass(frozen=True)
class Person:
    """One person of a clip, followed from frame to frame."""

    estimate: Estimate
    """A row for each of the clip's T frames."""
    boxes_px: Boxes
    """Where the person is in the picture; NaN rows where nobody was found."""


@dataclass(frozen=True)
class Scene:
    """Everyone who was seen in a clip."""

    frames: int
    people: tuple[Person, ...]
    """Those first seen first, then from left to right; users count them from 1."""
    cuts: tuple[int, ...] = ()
    """Frames that begin a new shot, the first frame left out."""


@runtime_checkable
class PoseBackend(Protocol):
    """All that `mtvcraft pose` asks of an estimator."""

    name: str
    version: str

    def see(
        self,
        batches: Iterable[Batch],
        size_px: tuple[int, int],
        rate: Fraction,
        watch: Watch = silent,
        total: int | None = None,
    ) -> Scene:
        """Find everyone in the frames of one clip, and who is who from frame to frame.

        Args:
            batches: (n, H, W, 3) RGB 0..255, in order, all of one size.
            size_px: width and height of the frames.
            rate: frames a second.
            watch: told of every batch.
            total: how many frames there will be, where that is known.

        Returns:
            Nobody where there is nobody. Numbers last through crossings and short absences. Over a cut a person is
            followed only where there is exactly one on each side.

        Raises:
            ValueError: there are no frames.
        """
        ...


BACKENDS: Final = ("auto", "nlf", "mediapipe")


def choose_backend(
    name: str = "auto",
    *,
    file: Path | None = None,
    known: Collection[str] = (),
    trust_file: bool = False,
    device: str | None = None,
) -> PoseBackend:
    """Return the backend of that name; "auto" takes the most exact one that this machine can run well.

    Args:
        name: "nlf"; "mediapipe"; or "auto": NLF where its file is there and trusted and a CUDA card too, else
            MediaPipe.
        file: NLF's TorchScript file, if there is one.
        known: SHA-256 of the files that may be run.
        trust_file: run `file` whatever its hash.
        device: where NLF runs, "cuda" or "cpu"; by default the card if there is one.

    Raises:
        MtvcraftError: (`Exit.WEIGHTS`) the backend or NLF's file is missing, or isn't trusted; (`Exit.USAGE`) there is
            no such backend.
    """
    if name not in BACKENDS:
        raise MtvcraftError(
            f"there is no pose backend `{name}`", hint=f"choose one of {', '.join(BACKENDS)}", exit=Exit.USAGE
        )
    if name == "nlf" or (name == "auto" and file is not None and _suits(file, known, trust_file)):
        if file is None or not file.is_file():
            raise MtvcraftError(
                "NLF's weights are not here" if file is None else f"there is no file `{file}`",
                hint="fetch them with `mtvcraft download nlf --accept-license` (non-commercial research only), give a "
                "file of yours with `--trust-file`, or use `--backend mediapipe`",
                exit=Exit.WEIGHTS,
            )
        from mtvcraft_cli.joints.nlf import NlfPose

        return NlfPose(file, known, trust_file=trust_file, device=device)
    from mtvcraft_cli.joints.mediapipe import MediaPipePose

    return MediaPipePose()


def _suits(file: Path, known: Collection[str], trust_file: bool) -> bool:
    """Whether "auto" should run NLF's file: it may be run, and there is a card to run it on."""
    import torch

    return torch.cuda.is_available() and file.is_file() and (trust_file or sha256_of(file) in known)
