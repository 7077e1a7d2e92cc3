"""Position tables and rotations of the Wan family give the reference's numbers: every tensor of the golden."""

import re

import pytest
import torch

from mtvcraft_cli.latents.rope import rotate, wan_motion_table, wan_visual_table
from tests.parity.golden import ROPE_MOTION, ROPE_ROTATED, ROPE_VISUAL, assert_close, cases, golden

NAME = "rope4d_18b"
MOTION = re.compile(r"motion\.T(\d+)\.(cos|sin)")
POSITIONS = re.compile(r"wan_freqs\.(last_row\.)?(cos|sin)")


@pytest.mark.parametrize(
    "name", cases(NAME, lambda found: (name for name in found.outputs if POSITIONS.fullmatch(name)))
)
def test_visual_tables_are_those_of_the_reference(name: str) -> None:
    config, (last, half) = golden(NAME).config, POSITIONS.fullmatch(name).groups()
    rows, head_dim = config["wan_freqs_total_rows"], config["head_dim"]
    widths = list(config["dims"]["visual_real"].values())
    columns = torch.arange(head_dim).split(widths)
    # An axis alone: the golden has all three side by side, one column for each pair.
    sizes = [(rows, 1, 1), (1, rows, 1), (1, 1, rows)]
    axes = [getattr(wan_visual_table(*size, head_dim), half)[:, own] for size, own in zip(sizes, columns, strict=True)]
    table = torch.cat(axes, dim=1)
    assert torch.equal(table[:, 0::2], table[:, 1::2])
    found = table[-1, 0::2] if last else table[: config["wan_freqs_rows_stored"], 0::2]
    assert_close(found, golden(NAME).outputs[name], ROPE_VISUAL, name)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if MOTION.fullmatch(name))))
def test_motion_tables_are_those_of_the_reference(name: str) -> None:
    frames, half = MOTION.fullmatch(name).groups()
    mean_mm = golden(NAME).inputs["joint_mean"].numpy()
    table = getattr(wan_motion_table(int(frames), mean_mm, golden(NAME).config["head_dim"]), half)
    assert_close(table, golden(NAME).outputs[name], ROPE_MOTION, name)


def test_patches_are_rotated_as_in_the_reference() -> None:
    config = golden(NAME).config
    table = wan_visual_table(*config["apply"]["grid_fhw"], config["head_dim"])
    assert_close(rotate(golden(NAME).inputs["x"], table), golden(NAME).outputs["x_rotated"], ROPE_ROTATED)


def test_motion_keys_are_rotated_as_in_the_reference() -> None:
    keys, mean_mm = golden(NAME).inputs["k"].transpose(1, 2), golden(NAME).inputs["joint_mean"].numpy()
    table = wan_motion_table(keys.shape[1] // len(mean_mm), mean_mm, golden(NAME).config["head_dim"])
    assert_close(rotate(keys, table).transpose(1, 2), golden(NAME).outputs["k_rotated"], ROPE_ROTATED)


def test_no_tensor_of_the_golden_is_left_out() -> None:
    known = ("x_rotated", "k_rotated")
    left = [
        name
        for name in golden(NAME).outputs
        if not (name in known or MOTION.fullmatch(name) or POSITIONS.fullmatch(name))
    ]
    assert left == []
