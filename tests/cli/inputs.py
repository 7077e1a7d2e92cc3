"""Small inputs that need no pose estimator."""

from pathlib import Path

import numpy as np
from PIL import Image

from mtvcraft_cli.preset import load_preset
from tests.clips import H264, ffmpeg


def picture(path: Path, size_px: tuple[int, int] = (96, 128)) -> Path:
    """A picture with something to see in it."""
    width_px, height_px = size_px
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    pixels = np.stack(
        [columns * 255 // width_px, rows * 255 // height_px, (rows // 16 + columns // 16) % 2 * 255], axis=-1
    )
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def swaying_joints(frames: int) -> np.ndarray:
    """The mean pose, its arms swaying: (T, 24, 3) float32 millimetres."""
    mean_mm = load_preset("7b").statistics.mean_mm
    joints_mm = np.repeat(mean_mm[None], frames, axis=0)
    sway_mm = 150 * np.sin(np.arange(frames) / 6)
    joints_mm[:, 18:, 1] += sway_mm[:, None]
    return joints_mm.astype(np.float32)


def save_joints(path: Path, frames: int = 20) -> Path:
    """A `.npy` file of joints in millimetres."""
    np.save(path, swaying_joints(frames))
    return path


def shortened(clip: Path, path: Path, frames: int) -> Path:
    """The first frames of a clip, with its sound."""
    ffmpeg("-i", clip, "-frames:v", str(frames), *H264, path)
    return path


def mostly_nobody(clip: Path, path: Path, with_person: int, frames: int) -> Path:
    """The first frames of a clip, then grey."""
    grey = f"drawbox=enable='gte(n,{with_person})':c=gray:t=fill"
    ffmpeg("-i", clip, "-an", "-frames:v", str(frames), "-vf", grey, *H264, path)
    return path
