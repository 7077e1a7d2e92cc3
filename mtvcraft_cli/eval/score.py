"""One clip -> its numbers and features, each kept as soon as it is known, so that a stopped run goes on."""

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval import geometry
from mtvcraft_cli.eval.extract import Looks, PieceStream
from mtvcraft_cli.eval.fid_vid import for_resnet3d
from mtvcraft_cli.eval.flicker import restlessness
from mtvcraft_cli.eval.fvd import for_i3d
from mtvcraft_cli.eval.l1 import l1
from mtvcraft_cli.eval.pieces import disjoint, filled, humanvid_prefixes, sliding
from mtvcraft_cli.eval.poses import find_pose
from mtvcraft_cli.eval.protocols import TITLES, Protocol
from mtvcraft_cli.eval.psnr import psnr, psnr_wrapped
from mtvcraft_cli.eval.ssim import WINDOWS, ssim
from mtvcraft_cli.eval.views import Pair, View
from mtvcraft_cli.jobs.drive import Estimator
from mtvcraft_cli.shapes import Frames, Pieces

Array = npt.NDArray[np.float64]
STAGE: Final = "eval"
SMALLEST_LPIPS_PX: Final = 32
"""VGG16 halves frames four times; AlexNet begins with steps of four."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """What is measured of every clip, and with what."""

    protocol: Protocol
    metrics: frozenset[str]
    """From `protocols.TABLE` and `MORE`, and `lpips_alex`."""
    looks: Looks
    device: str
    """The kind of device: features of another one differ by float noise, and are kept apart."""
    cache: Cache
    estimator: Estimator | None = None
    """Who finds people, for motion-follow."""
    stopped: Event = field(default_factory=Event)
    """Once it is set, clips that are being worked on end early."""

    def score(self, pair: Pair) -> "ClipParts":
        """Measure a clip; what an earlier run has kept isn't done again.

        Raises:
            MtvcraftError: a frame can't be read, or is too small.
        """
        self._check_size(pair)
        both = [part for part in self._of_both(pair) if self._find(part.key) is None]
        sides = [
            [part for part in self._of_side(view) if self._find(part.key) is None] for view in (pair.truth, pair.made)
        ]
        if pair.truth.told() == pair.made.told():
            sides[1] = []  # the truth against itself
        if both or any(sides):
            needed = [bool(both or side) for side in sides]
            views = (pair.truth, pair.made)
            truth, made = (_padded(view, needs) for view, needs in zip(views, needed, strict=True))
            for one, other in zip(truth, made, strict=False):
                if self.stopped.is_set():
                    raise MtvcraftError("stopped", hint="run it again to go on")
                for part in both:
                    assert one is not None
                    assert other is not None
                    part.push(other, one)
                for parts, frames in zip(sides, (one, other), strict=True):
                    for part in parts:
                        assert frames is not None
                        part.push(frames)
            for part in (*both, *sides[0], *sides[1]):
                self._keep(part.key, part.result())
        if self.estimator is not None:
            for view in (pair.truth, pair.made):
                if self._find(self._pose_key(view)) is None:
                    self._keep(self._pose_key(view), find_pose(view, self.estimator))
        return self._gathered(pair)

    def _pose_key(self, view: View) -> str:
        assert self.estimator is not None
        return self._key("pose", {"view": view.told(), "by": self.estimator.told()})

    def pose(self, view: View) -> dict[str, npt.NDArray[Any]]:
        """Where the person is in a view that was scored, see `poses.find_pose`."""
        return self._load(self._pose_key(view))

    def _check_size(self, pair: Pair) -> None:
        windows = [len(WINDOWS[name].weights) for name in (self.protocol.ssim, *self.protocol.more_ssim)]
        needs = {"ssim": max(windows), "lpips": SMALLEST_LPIPS_PX, "lpips_alex": SMALLEST_LPIPS_PX}
        for metric, smallest in needs.items():
            if metric in self.metrics and min(pair.truth.size_px) < smallest:
                width, height = pair.truth.size_px
                raise MtvcraftError(
                    f"the frames of clip `{pair.truth.source.id}` (`{pair.truth.source.where}`) are "
                    f"{width} x {height}: too small for {TITLES[metric]}, which needs {smallest} pixels",
                    hint="score larger frames, or leave it out with `--metrics`",
                )

    def _gathered(self, pair: Pair) -> "ClipParts":
        values: dict[str, Array] = {}
        for part in self._of_both(pair):
            values |= self._load(part.key)
        features = [{part.name: self._folder(part.key) for part in self._of_side(v)} for v in (pair.truth, pair.made)]
        return ClipParts(pair, values, *features)

    def _of_both(self, pair: Pair) -> list["Part"]:
        """What is measured between the two sides."""
        told = {"truth": pair.truth.told(), "made": pair.made.told()}
        parts = []
        measures: dict[str, Callable[[Frames, Frames], Array]] = {}
        if "psnr" in self.metrics:
            measures |= {"psnr": psnr, "psnr_uint8_wrap": psnr_wrapped, "l1": l1}
        if "ssim" in self.metrics:
            measures["ssim"] = partial(ssim, window=self.protocol.ssim)
            measures |= {f"ssim_{window}": partial(ssim, window=window) for window in self.protocol.more_ssim}
        for name, measure in measures.items():
            what = {"window": self.protocol.ssim} if name == "ssim" else {}
            parts.append(Part(name, self._key(name, {**told, **what}), _PerFrame(name, measure)))
        looks = self.looks
        distances: dict[str, tuple[str, str, bool]] = {}
        if "lpips" in self.metrics:
            distances = {"lpips": ("vgg16", "vgg", False)}
            if self.protocol.name == "mtvcraft":
                distances["lpips_vgg_scaled"] = ("vgg16", "vgg", True)
        if "lpips_alex" in self.metrics:
            distances["lpips_alex"] = ("alexnet", "alex", True)
        for name, (file, network, scaled) in distances.items():
            key = self._key(name, {**told, "network": looks.sha256(file), "device": self.device})
            parts.append(Part(name, key, _PerFrame(name, partial(looks.lpips, network=network, scaled=scaled))))
        return parts

    def _of_side(self, view: View) -> list["Part"]:
        """What networks make of one side."""
        parts = []
        protocol, looks = self.protocol, self.looks
        if "fid" in self.metrics:
            parts.append(self._side("inception", "inception", view, {"px": protocol.fid_px}, _Inception(self)))
        if "fvd" in self.metrics and protocol.fvd == "prefixes":
            lengths = humanvid_prefixes(len(view.places))
            parts.append(self._side("prefixes", "i3d", view, {"lengths": lengths}, _Prefixes(looks, lengths)))
        elif "fvd" in self.metrics:
            pieces = self.pieces(view)
            stream = _Pieced(PieceStream(pieces, for_i3d), looks.i3d)
            parts.append(self._side("i3d", "i3d", view, {"pieces": pieces.tolist()}, stream))
        if "fid_vid" in self.metrics and protocol.fid_vid is not None:
            pieces = filled(len(view.places)) if protocol.fid_vid == "mean" else sliding(view.numbers)
            stream = _Pieced(PieceStream(pieces, for_resnet3d), looks.resnet3d)
            parts.append(self._side("resnet3d", "resnet3d", view, {"pieces": pieces.tolist()}, stream))
        if "flicker" in self.metrics:
            parts.append(Part("restless", self._key("restless", {"view": view.told()}), _Restless()))
        return parts

    def pieces(self, view: View) -> Pieces:
        """The pieces that I3D sees: those of FVD, and where a clip's mean is wanted also the filled-up last one."""
        if self.protocol.fvd == "sliding":
            return sliding(view.numbers)
        rows = {tuple(row) for row in (*disjoint(view.numbers).tolist(), *filled(len(view.places)).tolist())}
        return np.asarray(sorted(rows, key=lambda row: (row[-1], row[0])), np.int64).reshape(-1, 16)

    def _side(self, name: str, network: str, view: View, how: Mapping[str, Any], work: "Work") -> "Part":
        told = {"view": view.told(), **how, "network": self.looks.sha256(network), "device": self.device}
        return Part(name, self._key(name, told), work)

    def _key(self, name: str, told: Mapping[str, Any]) -> str:
        return key_of(STAGE, {"part": name, **told})

    def _find(self, key: str) -> Path | None:
        return self.cache.find(STAGE, key)

    def _folder(self, key: str) -> Path:
        folder = self._find(key)
        assert folder is not None  # it has just been made
        return folder

    def _keep(self, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        with self.cache.make(STAGE, key) as folder:
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array, allow_pickle=False)

    def _load(self, key: str) -> dict[str, npt.NDArray[Any]]:
        return {file.stem: np.load(file, allow_pickle=False) for file in sorted(self._folder(key).glob("*.npy"))}


@dataclass(frozen=True)
class ClipParts:
    """What is known of a clip: values per frame in memory, features on disk."""

    pair: Pair
    values: Mapping[str, Array]
    """(n,) each, by name."""
    truth: Mapping[str, Path]
    """Folders of features, by the network's name."""
    made: Mapping[str, Path]

    @property
    def id(self) -> str:
        """The clip's."""
        return self.pair.truth.source.id

    def side(self, side: str) -> View:
        """The view of one side, "truth" or "made"."""
        return self.pair.truth if side == "truth" else self.pair.made

    def features(self, name: str, side: str) -> npt.NDArray[Any]:
        """Read features, a row per frame or piece."""
        folder = (self.truth if side == "truth" else self.made)[name]
        array: npt.NDArray[Any] = np.load(folder / "features.npy", allow_pickle=False)
        return array


@runtime_checkable
class Work(typing.Protocol):
    """Takes frames in, and knows the result when all have come."""

    def push(self, *frames: Frames) -> None:
        """Take in the next frames: one side's, or the result's and the truth's."""
        ...

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays by name."""
        ...


@dataclass(frozen=True)
class Part:
    """Something to be known of a clip, and under which key it is kept."""

    name: str
    key: str
    work: Work

    def push(self, *frames: Frames) -> None:
        """See `Work`."""
        self.work.push(*frames)

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """See `Work`."""
        return self.work.result()


class _PerFrame:
    def __init__(self, name: str, measure: Callable[[Frames, Frames], Array]) -> None:
        self._name, self._measure, self._values = name, measure, list[Array]()

    def push(self, *frames: Frames) -> None:
        self._values.append(self._measure(*frames))

    def result(self) -> dict[str, npt.NDArray[Any]]:
        return {self._name: np.concatenate(self._values)}


class _Inception:
    def __init__(self, scorer: Scorer) -> None:
        self._looks, self._px, self._rows = scorer.looks, scorer.protocol.fid_px, list[npt.NDArray[Any]]()

    def push(self, *frames: Frames) -> None:
        [own] = frames
        if self._px is not None:
            own = geometry.stretched(own, (self._px, self._px), geometry.BILINEAR)
        self._rows.append(self._looks.inception(own))

    def result(self) -> dict[str, npt.NDArray[Any]]:
        return {"features": np.concatenate(self._rows)}


class _Pieced:
    def __init__(self, stream: PieceStream, network: Callable[..., npt.NDArray[Any]]) -> None:
        self._stream, self._network, self._rows = stream, network, list[npt.NDArray[Any]]()

    def push(self, *frames: Frames) -> None:
        [own] = frames
        self._rows += [self._network(piece) for piece in self._stream.push(own)]

    def result(self) -> dict[str, npt.NDArray[Any]]:
        return {"features": _joined(self._rows)}


class _Prefixes:
    """HumanVid's: the logits of the first so many frames, for several lengths."""

    def __init__(self, looks: Looks, lengths: list[int]) -> None:
        self._looks, self._lengths, self._frames = looks, lengths, list[npt.NDArray[Any]]()

    def push(self, *frames: Frames) -> None:
        [own] = frames
        self._frames.append(geometry.humanvid_i3d(own))

    def result(self) -> dict[str, npt.NDArray[Any]]:
        whole = np.concatenate(self._frames)
        rows = [self._looks.i3d(whole[None, :length], 2) for length in self._lengths]
        return {"features": _joined(rows)}


class _Restless:
    """How far each frame is from the mean of its neighbours."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.uint8] | None = None
        self._values: list[float] = []

    def push(self, *frames: Frames) -> None:
        [own] = frames
        known = own if self._last is None else np.concatenate([self._last, own])
        values = (restlessness(known[place : place + 3]) for place in range(len(known) - 2))
        self._values += [value for value in values if value is not None]
        self._last = known[-2:].copy()

    def result(self) -> dict[str, npt.NDArray[Any]]:
        return {"features": np.asarray(self._values, np.float64)}


def _joined(rows: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Rows one below the other; (0, 0) where there are none."""
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


def _padded(view: View, needed: bool) -> Iterator[Frames | None]:
    """The frames, or nothing at all for as long as the other side lasts."""
    if needed:
        yield from view.batches()
        return
    while True:
        yield None
