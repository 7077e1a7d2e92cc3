"""What a transformer is asked beside its task, and which patches it sees."""

import numpy as np
import torch
from einops import rearrange
from torch import nn

from mtvcraft_cli.latents.cogvideox import JOINTS, CogVideoXMotionTransformer
from mtvcraft_cli.train.dit import DitObjective
from mtvcraft_cli.train.examples import WorldExamples
from mtvcraft_cli.train.pointing import CELLS, Pointing, ends, silhouette
from mtvcraft_cli.train.sparse import Sparse


def small() -> CogVideoXMotionTransformer:
    torch.manual_seed(0)
    return CogVideoXMotionTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        num_layers=3,
        motion_every=2,
        unconditional_motion_shape=(24, 32),
        time_embed_dim=16,
    )


def batch(clips: int, frames: int, side: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(clips, frames, 4, side, side, generator=draw),
        "reference": torch.randn(clips, 4, side, side, generator=draw),
        "tokens": torch.randn(clips, frames * JOINTS, 32, generator=draw),
        "figure": torch.rand(clips, frames, side, side, generator=draw) > 0.7,
        "noise": torch.randn(clips, frames, 4, side, side, generator=draw),
        "time": torch.randint(0, 1000, (clips,), generator=draw),
        "dropped": torch.tensor([False, True, False][:clips]),
        "places": torch.arange(frames),
        "joints": torch.rand(clips, frames, 2, JOINTS, 2, generator=draw),
        "masks": torch.rand(clips, frames, CELLS * side, CELLS * side, generator=draw),
        "chance": torch.rand(clips, frames, (side // 2) ** 2, generator=draw),
    }


def objective(kept_patches: int) -> DitObjective:
    mean_mm = np.random.default_rng(0).normal(0, 300, (24, 3)).astype(np.float32)
    made = DitObjective(small(), torch.linspace(0.999, 0, 1000), mean_mm, 2.0, 0.1, kept_patches)
    torch.manual_seed(3)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.1)
    return made


def test_all_patches_in_any_order_are_the_whole_picture() -> None:
    given = batch(3, 2, 8)
    whole, sparse = objective(0)(**given), objective(16)(**given)
    assert whole.keys() == sparse.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], sparse[name], rtol=1e-5, atol=1e-6)


def test_patches_with_the_figure_go_first_and_nothing_else_is_seen() -> None:
    given, transformer = batch(2, 2, 8), small()
    sparse = Sparse(transformer)
    given["figure"][:] = False
    given["figure"][0, 0, 3, 5] = given["figure"][1, 1, 0, 0] = True
    kept = sparse.kept = sparse.choose(given["figure"], 3, given["chance"])
    assert kept.shape == (2, 6)
    assert 4 * 1 + 2 in kept[0, :3]
    assert 16 + 0 in kept[1, 3:]
    assert (kept[:, :3] < 16).all()
    assert (kept[:, 3:] >= 16).all()
    seen = sparse.seen(given["figure"])
    assert seen.sum().item() == 2 * 2 * 3 * 4
    assert seen[0, 0, 3, 5] == seen[1, 1, 0, 0] == 1

    picture = torch.randn(2, 2, 8, 8, 8)
    tables = DitObjective(transformer, torch.ones(1000), np.zeros((24, 3), np.float32), 0.0).tables(given["latents"])
    with torch.no_grad():
        first = transformer(picture, given["time"], given["tokens"], *tables)
        picture += (1 - seen)[:, :, None]
        other = transformer(picture, given["time"], given["tokens"], *tables)
        sparse.kept = None
        whole = transformer(picture, given["time"], given["tokens"], *tables)
    assert torch.equal(first, other), "what is left out is not seen"
    assert (first * (1 - seen)[:, :, None]).abs().max() == 0
    assert whole.abs().amin((2, 3, 4)).shape == (2, 2)
    assert (whole * (1 - seen)[:, :, None]).abs().max() > 0


def test_pointers_that_are_right_miss_nothing_and_others_by_how_far_they_are_off() -> None:
    given = batch(3, 2, 8)
    pointing = Pointing(small())
    joints = given["joints"] * 4  # in patches
    away = torch.empty(3, 2, 4, 4, 2, JOINTS, 2)
    for row in range(4):
        for column in range(4):
            away[:, :, row, column] = joints - torch.tensor([column + 0.5, row + 0.5])
    far = away.mean(4).abs().amax(-1)
    cells = rearrange(given["masks"], "b f (y p) (x q) -> b f y x (p q)", p=4, q=4)
    told = torch.cat([torch.where(far < 0.5, 20.0, -20.0), away.flatten(4), torch.logit(cells, eps=1e-6)], dim=-1)
    pointing.norm, pointing.read = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    pointing.states = told.flatten(1, 3)
    right = pointing(given["joints"], given["masks"], ~given["dropped"])
    assert right["joint_error"].item() < 1e-6
    told[..., JOINTS : 5 * JOINTS] += 0.25
    pointing.states = told.flatten(1, 3)
    off = pointing(given["joints"], given["masks"], ~given["dropped"])
    assert abs(off["joint_error"].item() - 0.25) < 1e-5
    assert abs((off["pointing"] - right["pointing"]).item() - 0.25 * 2 / 3) < 1e-5, "the clip without motion counts"


def test_the_world_tells_where_its_characters_are() -> None:
    clip = WorldExamples()(3, (64, 64), 9)
    assert clip.truth is not None
    mask, joints = clip.truth.masks, clip.truth.joints
    inside = [
        mask[frame, int(y * 64), int(x * 64)]
        for frame in range(9)
        for x, y in joints[frame]
        if 0 <= x < 1 and 0 <= y < 1
    ]
    assert np.mean(inside) > 0.8, "most joints are inside the figure"
    at = ends(torch.from_numpy(joints), 3)
    assert torch.equal(at[0, 0], at[0, 1])
    np.testing.assert_array_equal(at[1:].numpy(), joints[[[1, 4], [5, 8]]])
    shape = silhouette(torch.from_numpy(mask), 3, 16, 16)
    assert shape.shape == (3, 32, 32)
    assert abs(shape[2].mean().item() - mask[5:].mean()) < 1e-6
