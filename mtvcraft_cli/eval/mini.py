"""The bench of the small model: unseen characters of the world do unseen motions, and the truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mtvcraft_cli.eval.psnr import EQUAL, psnr
from mtvcraft_cli.eval.silhouette import overlap, silhouettes
from mtvcraft_cli.eval.ssim import ssim
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.train.world.motions import Motions
from mtvcraft_cli.train.world.scenes import Scene, Split, scene

SPLITS: Final[tuple[Split, ...]] = ("human", "non-human", "mismatched")
METRICS: Final = (
    *("psnr", "ssim", "iou", "psnr_still", "psnr_other_motion"),
    *("iou_other_motion", "psnr_no_motion", "iou_no_motion"),
)


@runtime_checkable
class Animate(Protocol):
    """What is measured."""

    def __call__(self, reference: Picture, joints_mm: JointsMm | None, rate: Fraction, frames: int) -> Frames:
        """Make a clip.

        Args:
            reference: (H, W, 3) the character, the clip's first frame.
            joints_mm: (T, 24, 3) the driver's joints; None asks for the tokens that stand for no motion.
            rate: frames a second.
            frames: T.

        Returns:
            (T, H, W, 3); another size is brought to the truth's, and more or fewer frames are cut to the shorter.
        """
        ...


@dataclass(frozen=True)
class ClipScore:
    """What one clip got."""

    split: Split
    seed: int
    kind: str
    frames: int
    equal_frames: int
    values: Mapping[str, float]
    """By the names in `METRICS`."""


@runtime_checkable
class KeptScores(Protocol):
    """Where finished clips outlive the run, by name."""

    def get(self, name: str, /) -> Mapping[str, Any] | None:
        """What was kept under the name, or None."""
        ...

    def __setitem__(self, name: str, told: Mapping[str, Any], /) -> None:
        """Keep plain data."""
        ...


@dataclass(frozen=True)
class MiniReport:
    """What all clips got."""

    clips: Sequence[ClipScore]
    size_px: tuple[int, int]
    trained_on: str | None
    """Where the model was trained; None where nobody says."""

    @property
    def splits(self) -> dict[str, dict[str, float]]:
        """Means over the clips of each split."""
        return {split: _means([clip for clip in self.clips if clip.split == split]) for split in SPLITS}

    @property
    def totals(self) -> dict[str, float]:
        """Means over all clips."""
        return _means(self.clips)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data: the same run gives the same text."""
        return {
            "bench": "mini",
            "protocol": {
                "name": "mini",
                "frames": "all but the first, which is the reference itself",
                "size_px": list(self.size_px),
                "psnr": "per frame over height, width and colours",
                "ssim": "rgb_gauss11",
                "iou": "silhouettes against true masks",
                "average": "over frames, then over clips",
            },
            "trained_on": self.trained_on,
            "clips": [
                {
                    "split": clip.split,
                    "seed": clip.seed,
                    "kind": clip.kind,
                    "frames": clip.frames,
                    "equal_frames": clip.equal_frames,
                    **clip.values,
                }
                for clip in self.clips
            ],
            "splits": self.splits,
            "totals": self.totals,
        }


def run_mini_bench(
    animate: Animate,
    clips_per_split: int,
    size_px: tuple[int, int],
    lengths: Sequence[int],
    trained_on: str | None,
    motions: Motions | None = None,
    watch: Watch = silent,
    kept: KeptScores | None = None,
) -> MiniReport:
    """Measure a model on the held-out part of the world, made from seeds: no file, no network.

    Every clip is animated three times: with its own motion, with that of the split's next clip, and with the tokens
    for no motion. PSNR and SSIM are those of the protocol `mtvcraft`, but the first frame isn't counted: it is the
    reference, so whoever repeats that would get 100 dB for it. Clips are made and measured one by one, so memory
    doesn't grow with their number.

    Args:
        animate: the model.
        clips_per_split: at least 2, so that there is another motion.
        size_px: width and height of the clips, at least 11.
        lengths: frames of the clips, which take turns; at least 2 each.
        trained_on: "cpu" or "gpu", as the preset says.
        motions: recorded motion that the model hasn't seen; None for dances alone.
        watch: counts the clips.
        kept: where clips that are done are kept; it must be empty for another model or other motions.

    Raises:
        ValueError: too few clips or frames.
    """
    if clips_per_split < 2 or min(lengths) < 2:
        raise ValueError(f"{clips_per_split} clips of {min(lengths)} frames: at least 2 of 2 are needed")
    clips = [(split, seed) for split in SPLITS for seed in range(clips_per_split)]
    scores = []
    for split, seed in watch(clips, "bench", len(clips)):
        frames, following = lengths[seed % len(lengths)], (seed + 1) % clips_per_split
        name = f"{split} {seed} {following} {frames}"
        told = None if kept is None else kept.get(name)
        if told is None:
            own, other = (scene(each, split, size_px, frames, motions) for each in (seed, following))
            told = asdict(_score(animate, own, other, split, seed))
            if kept is not None:
                kept[name] = told
        scores.append(ClipScore(**told))
    return MiniReport(scores, size_px, trained_on)


def _score(animate: Animate, own: Scene, other: Scene, split: Split, seed: int) -> ClipScore:
    count = len(own.frames)
    moved, strange, unmoved = (
        _fitted(animate(own.reference, joints, own.rate, count), own.frames)
        for joints in (own.joints_mm, other.joints_mm, None)
    )
    still = np.repeat(own.reference[None], count, 0)
    each = psnr(moved[1:], own.frames[1 : len(moved)])
    values = {
        "psnr": each.mean(),
        "ssim": ssim(moved[1:], own.frames[1 : len(moved)]).mean(),
        "iou": _iou(moved, own),
        "psnr_still": psnr(still[1:], own.frames[1:]).mean(),
        "psnr_other_motion": psnr(strange[1:], own.frames[1 : len(strange)]).mean(),
        "iou_other_motion": _iou(strange, own),
        "psnr_no_motion": psnr(unmoved[1:], own.frames[1 : len(unmoved)]).mean(),
        "iou_no_motion": _iou(unmoved, own),
    }
    equal = int((each == EQUAL).sum())
    return ClipScore(split, seed, own.kind, len(moved) - 1, equal, {name: float(values[name]) for name in METRICS})


def _iou(frames: Frames, truth: Scene) -> float:
    masks = silhouettes(frames[1:], truth.empty)
    return float(overlap(masks, truth.masks[1 : len(frames)]).mean())


def _fitted(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> UInt8[np.ndarray, "_ _ _ 3"]:
    """Cut to the truth's length and bring to its size, as the protocol says: Pillow's bicubic."""
    result = result[: len(truth)]
    if len(result) < 2:
        raise ValueError(f"{len(result)} frames came back, and the first one isn't measured")
    height, width = truth.shape[1:3]
    if result.shape[1:3] == (height, width):
        return result
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in result]
    return np.stack([np.asarray(frame) for frame in resized])


def _means(clips: Sequence[ClipScore]) -> dict[str, float]:
    return {name: float(np.mean([clip.values[name] for clip in clips])) for name in METRICS}
