"""Position tables and rotations give the reference's numbers: every tensor of the golden."""

import re

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.latents.rope import Rotary, motion_table, rotate, visual_table
from tests.parity.golden import (
    ROPE_COLUMN_SUMS,
    ROPE_MOTION,
    ROPE_ROTATED,
    ROPE_VISUAL,
    assert_close,
    cases,
    golden,
)

NAME = "rope4d_6b"
MOTION = re.compile(r"motion\.T(\d+)\.(cos|sin)")
VISUAL = re.compile(r"visual\.T(\d+)\.(\d+)x(\d+)\.(cos|sin)(_rows|_colsum|_sq_colsum)?")
OF_ROWS = re.compile(r"visual\..*\.rows")  # which rows of a big table are stored


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if VISUAL.fullmatch(name))))
def test_visual_tables_are_those_of_the_reference(name: str) -> None:
    frames, rows, columns, half, part = VISUAL.fullmatch(name).groups()
    table = getattr(visual_table(int(frames), int(rows), int(columns), golden(NAME).config["head_dim"]), half)
    if part == "_rows":
        stored = golden(NAME).outputs[name.removesuffix(f"{half}_rows") + "rows"]
        table = table[stored.long()]
    elif part == "_colsum":
        table = table.double().sum(dim=0)
    elif part == "_sq_colsum":
        table = table.double().square().sum(dim=0)
    limit = ROPE_COLUMN_SUMS if part and part.endswith("colsum") else ROPE_VISUAL
    assert_close(table, golden(NAME).outputs[name], limit, name)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if MOTION.fullmatch(name))))
def test_motion_tables_are_those_of_the_reference(name: str) -> None:
    frames, half = MOTION.fullmatch(name).groups()
    mean_mm = golden(NAME).inputs["joint_mean"].numpy()
    table = getattr(motion_table(int(frames), mean_mm, golden(NAME).config["head_dim"]), half)
    assert_close(table, golden(NAME).outputs[name], ROPE_MOTION, name)


@pytest.mark.parametrize(
    "name", cases(NAME, lambda found: (name for name in found.outputs if name.endswith("_rotated")))
)
def test_queries_and_keys_are_rotated_as_in_the_reference(name: str) -> None:
    sizes = golden(NAME).config["apply"]
    head_dim = golden(NAME).config["head_dim"]
    if name == "q_rotated":
        table = visual_table(sizes["latent_frames"], *sizes["grid"], head_dim)
    else:
        table = motion_table(sizes["latent_frames"], golden(NAME).inputs["joint_mean"].numpy(), head_dim)
    assert_close(
        rotated(golden(NAME).inputs[name.removesuffix("_rotated")], table), golden(NAME).outputs[name], ROPE_ROTATED
    )


def test_no_tensor_of_the_golden_is_left_out() -> None:
    known = ("q_rotated", "k_rotated")
    left = [
        name
        for name in golden(NAME).outputs
        if not (name in known or MOTION.fullmatch(name) or VISUAL.fullmatch(name) or OF_ROWS.fullmatch(name))
    ]
    assert left == []


def test_tables_do_not_depend_on_the_default_dtype() -> None:
    mean_mm = golden(NAME).inputs["joint_mean"].numpy()
    before = [visual_table(3, 4, 6, 64), motion_table(3, mean_mm, 64)]
    torch.set_default_dtype(torch.bfloat16)
    try:
        after = [visual_table(3, 4, 6, 64), motion_table(3, mean_mm, 64)]
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(before, after, strict=True):
        assert one.cos.dtype == other.cos.dtype == torch.float32
        assert torch.equal(one.cos, other.cos)
        assert torch.equal(one.sin, other.sin)


def rotated(heads: Tensor, table: Rotary) -> Tensor:
    """As `rotate`, for the goldens' order (batch, heads, tokens, columns)."""
    return rotate(heads.transpose(1, 2), table).transpose(1, 2)
