"""Small clips to score, and networks that cost nothing in place of the large ones."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_PX = (32, 40)


def clip(seed: int, frames: int, size_px: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """A pattern that moves, (T, H, W, 3)."""
    width, height = size_px
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    phases, speeds = rng.uniform(0, 6, 3), rng.uniform(-0.4, 0.4, 3)
    times = np.arange(frames)[:, None, None, None]
    waves = np.sin(rows[..., None] / 6 + phases + speeds * times) + np.cos(columns[..., None] / 5 - phases * times / 9)
    noise = rng.normal(0, 6, (frames, height, width, 3))
    return np.clip(waves * 55 + 128 + noise, 0, 255).astype(np.uint8)


def save_frames(folder: Path, frames: np.ndarray, first: int = 1, ending: str = "png") -> Path:
    """A folder of numbered pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        Image.fromarray(frame).save(folder / f"{number:04d}.{ending}", quality=95)
    return folder


def worse(frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same with noise: a result."""
    noise = np.random.default_rng(seed).normal(0, 14, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


class SmallLooks:
    """See `extract.Looks`: fixed random projections of small pictures, which change when the pictures do."""

    def __init__(self) -> None:
        self.calls = 0
        rng = np.random.default_rng(7)
        self._to = {name: rng.normal(0, 1, (12, width)) for name, width in (("a", 24), ("b", 20), ("c", 24))}

    def inception(self, frames):
        self.calls += 1
        return (_small(frames) @ self._to["a"]).astype(np.float32)

    def i3d(self, pieces, pool_frames=1):
        self.calls += 1
        return (100 * _moving(pieces) @ self._to["b"]).astype(np.float32)

    def resnet3d(self, pieces):
        self.calls += 1
        return (_moving(pieces) @ self._to["c"] / 100).astype(np.float32)

    def lpips(self, made, truth, network, *, scaled):
        self.calls += 1
        made, truth = made[:, ::4, ::4].astype(np.float64), truth[:, ::4, ::4]
        apart = np.abs(made - truth).mean((1, 2, 3)) / 255
        return apart * (1.03 if scaled else 1.0)

    def sha256(self, name):
        return f"small {name}"


def _small(frames: np.ndarray) -> np.ndarray:
    """(n, 12) of 0..1."""
    frames = frames[:, :: max(1, frames.shape[1] // 32), :: max(1, frames.shape[2] // 32)]
    halves = [part for half in np.array_split(frames, 2, 1) for part in np.array_split(half, 2, 2)]
    return np.concatenate([part.mean((1, 2)) for part in halves], 1) / 255


def _moving(pieces: np.ndarray) -> np.ndarray:
    """(p, 12): where colours are, weighted by time."""
    weights = np.linspace(0.5, 1.5, pieces.shape[1])[:, None]
    return np.stack([(_small(piece) * weights).mean(0) for piece in pieces])
