"""Frames -> what a network makes of them; networks are loaded when first asked for, in float32 and eval mode."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32

from mtvcraft_cli.shapes import Frames, Pieces

Features = npt.NDArray[np.float32]


@runtime_checkable
class Looks(Protocol):
    """What the metrics ask of networks; all of it can be asked by several threads at once."""

    def inception(self, frames: Frames) -> Features:
        """(n, H, W, 3) to (n, 2048)."""
        ...

    def i3d(self, pieces: Float32[np.ndarray, "P N S S 3"], pool_frames: int = 1) -> Features:
        """(p, t, 224, 224, 3) of -1..1 to (p, 400) logits."""
        ...

    def resnet3d(self, pieces: Float32[np.ndarray, "P N S S 3"]) -> Features:
        """(p, 16, 112, 112, 3) of 0..255 less the mean colour to (p, 2048)."""
        ...

    def lpips(self, made: Frames, truth: Frames, network: str, *, scaled: bool) -> npt.NDArray[np.float64]:
        """(n, H, W, 3) twice to (n,); `network` is "vgg" or "alex", `scaled` feeds -1..1 instead of 0..1."""
        ...

    def sha256(self, name: str) -> str:
        """The hash of a network's file, by its name in the weights' manifest."""
        ...


@dataclass
class Networks:
    """The real ones.

    Args:
        files: by the names of the weights' manifest: inception, i3d, resnet3d, vgg16, alexnet.
        hashes: SHA-256 of each file.
        device: where they work.
    """

    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    device: torch.device
    _loaded: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def inception(self, frames: Frames) -> Features:
        """See `Looks`."""
        from mtvcraft_cli.eval.fid import inception_features

        return inception_features(self._get("inception"), frames, batch=1)  # frames at full size are large as floats

    def i3d(self, pieces: Float32[np.ndarray, "P N S S 3"], pool_frames: int = 1) -> Features:
        """See `Looks`."""
        return self._run(self._get("i3d", pool_frames), pieces)

    def resnet3d(self, pieces: Float32[np.ndarray, "P N S S 3"]) -> Features:
        """See `Looks`."""
        return self._run(self._get("resnet3d"), pieces)

    def lpips(self, made: Frames, truth: Frames, network: str, *, scaled: bool) -> npt.NDArray[np.float64]:
        """See `Looks`."""
        from mtvcraft_cli.eval.lpips import Lpips
        from mtvcraft_cli.eval.networks.read import read_heads

        name: Any = {"vgg": "vgg16", "alex": "alexnet"}[network]
        return Lpips(self._get(name), read_heads(name))(made, truth, scaled=scaled)

    def sha256(self, name: str) -> str:
        """See `Looks`."""
        return self.hashes[name]

    def _run(self, network: torch.nn.Module, pieces: npt.NDArray[np.float32]) -> Features:
        from mtvcraft_cli.eval.networks.exact import as_channels, exact

        with exact():
            features: Features = network(as_channels(pieces, self.device).movedim(2, 1).contiguous()).cpu().numpy()
        return features

    def _get(self, name: Any, pool_frames: int | None = None) -> Any:
        from mtvcraft_cli.eval.networks.read import read_network

        with self._lock:
            key = f"{name} {pool_frames}"
            if key not in self._loaded:
                # For good: threads that each turn it off and on again would undo one another.
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
                self._loaded[key] = network = read_network(name, self.files[name], self.device)
                if pool_frames is not None:
                    network.pool_frames = pool_frames  # type: ignore[assignment]
            return self._loaded[key]


class PieceStream:
    """Frames in, pieces out as soon as their last frame is there; only frames that are still needed are held.

    Args:
        pieces: (P, 16) places of frames, each row rising or resting at its end.
        resize: (n, H, W, 3) to what the network is given.
    """

    def __init__(self, pieces: Pieces, resize: Callable[[Frames], Float32[np.ndarray, "_ _ _ 3"]]) -> None:
        self._waiting = sorted(map(tuple, pieces.tolist()), key=lambda piece: (piece[-1], piece[0]))
        self._resize = resize
        self.held: dict[int, npt.NDArray[np.float32]] = {}
        """Frames that are still needed, by their place."""
        self._next = 0
        self.order = list(self._waiting)
        """The pieces as they come out."""

    def push(self, frames: Frames) -> Iterator[Float32[np.ndarray, "P N S S 3"]]:
        """Take in the next frames, (n, H, W, 3), and give the pieces that are whole now, (p, 16, S, S, 3)."""
        for frame in frames:
            place, self._next = self._next, self._next + 1
            if any(place in piece for piece in self._waiting):
                self.held[place] = self._resize(frame[None])[0]
            while self._waiting and self._waiting[0][-1] == place:
                piece = self._waiting.pop(0)
                yield np.stack([self.held[each] for each in piece])[None]
            first = min((piece[0] for piece in self._waiting), default=self._next)
            self.held = {each: held for each, held in self.held.items() if each >= first}
