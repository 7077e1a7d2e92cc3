"""A toy tokenizer, statistics, a preset for it, and a person who walks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mtvcraft_cli.preset import Preset, Sampler, Statistics
from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer

SIZES = {"channels": (32, 64), "width": 16, "codes": 40}


def make_tokenizer(codes: int | None = SIZES["codes"]) -> MotionTokenizer:
    torch.manual_seed(3)
    tokenizer = MotionTokenizer(**{**SIZES, "codes": codes}).eval()
    if codes is not None:
        tokenizer.vq.codebook.normal_(std=0.3)
    return tokenizer


def walk(frames: int) -> JointsMm:
    """A smooth clip that moves away from the camera; the same start for every length."""
    rng = np.random.default_rng(5)
    pose = rng.normal(0, 300, (24, 3)) + np.array([0, 100, 1800])
    swing, phase = rng.normal(0, 80, (24, 3)), rng.uniform(0, 6, (24, 3))
    time = np.arange(frames)[:, None, None]
    return (pose + swing * np.sin(time / 6 + phase) + time * np.array([1.0, 0.0, 3.0])).astype(np.float32)


@pytest.fixture
def tokenizer() -> MotionTokenizer:
    return make_tokenizer()


@pytest.fixture
def stats() -> Statistics:
    rng = np.random.default_rng(4)
    mean, std = rng.normal(0, 300, (24, 3)) + np.array([0, 100, 1800]), rng.uniform(150, 600, (24, 3))
    return Statistics(mean_mm=mean.astype(np.float32), std_mm=std.astype(np.float32))


@pytest.fixture
def preset(stats: Statistics) -> Preset:
    return Preset(
        name="toy",
        folder=Path(),
        summary="for tests",
        backbone="cogvideox",
        frames=25,
        overlap=9,
        size_px=(64, 64),
        statistics=stats,
        sampler=Sampler(),
        tokenizer=SIZES,
        transformer={},
        vae={},
        scheduler={},
        weights={},
    )
