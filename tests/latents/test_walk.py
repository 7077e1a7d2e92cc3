"""Windows joined to a video of any length, at toy size."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtvcraft_cli.latents.sampler import make_scheduler
from mtvcraft_cli.latents.vae import decode, encode_video, to_frames
from mtvcraft_cli.latents.walk import Models, Settings, walk, window_seed
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.runs.models import settings_of
from mtvcraft_cli.windows import Window, plan_windows
from tests.tiny import SCHEDULER, WIDTH, joint_mean_mm, picture, tiny_transformer, tiny_vae

SIZE = {"width": 16, "height": 32}


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(transformer=tiny_transformer(), vae=tiny_vae())


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {
        "scheduler": make_scheduler("dpm", SCHEDULER),
        "steps": 2,
        "guidance": 3.0,
        "joint_mean_mm": joint_mean_mm(),
        "sample_reference": True,
        "scale_reference": False,
    }
    return Settings(**(given | changes))


def tokens_for(windows: list[Window], seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(windows), windows[0].latent_frames * 24, WIDTH, generator=generator)


def made(models: Models, total: int, *, frames: int = 49, seed: int = 5, **changes: Any) -> np.ndarray:
    windows = plan_windows(total, frames, 9)
    tokens = changes.pop("tokens", tokens_for(windows))
    given = changes.pop("settings", settings())
    reference = changes.pop("reference", picture(**SIZE))
    return np.concatenate(list(walk(models, reference, tokens, windows, given, seed, **changes)))


@pytest.mark.parametrize("total", [1, 3, 9, 20, 49, 50, 89, 130])
def test_there_are_as_many_frames_as_the_motion_has(models: Models, total: int) -> None:
    frames = made(models, total)
    assert frames.shape == (total, 32, 16, 3)
    assert frames.dtype == np.uint8


def test_the_character_the_motion_and_the_seed_all_change_the_video(models: Models) -> None:
    video = made(models, 17, frames=17)
    windows = plan_windows(17, 17, 9)
    others = {
        "tokens": made(models, 17, frames=17, tokens=tokens_for(windows, seed=2)),
        "reference": made(models, 17, frames=17, reference=255 - picture(**SIZE)),
        "seed": made(models, 17, frames=17, seed=6),
    }
    for what, other in others.items():
        assert np.abs(video.astype(float) - other).mean() > 1, what
    assert np.array_equal(made(models, 17, frames=17), video)


def test_a_run_that_died_after_its_first_window_goes_on_to_the_same_frames(models: Models) -> None:
    whole = made(models, 41, frames=17)
    kept: dict[str, Tensor] = {}
    windows = plan_windows(41, 17, 9)
    frames = walk(models, picture(**SIZE), tokens_for(windows), windows, settings(), 5, kept=kept)
    next(frames)
    frames.close()
    assert kept.keys() == {"reference", "window-0", "tail-0"}
    ran: list[int] = []
    hook = models.transformer.register_forward_hook(lambda *_: ran.append(1))
    resumed = made(models, 41, frames=17, kept=kept)
    hook.remove()
    assert np.array_equal(resumed, whole)
    assert len(ran) == 2 * (len(windows) - 1)


def test_unchanged_places_are_the_picture_in_every_window(models: Models) -> None:
    all_of_it = made(models, 25, frames=17, settings=settings(reference_kept=1e6))
    assert np.array_equal(all_of_it, np.repeat(picture(**SIZE)[None], 25, 0))
    assert (
        settings_of(load_preset("mini"), torch.device("cpu")).reference_kept == load_preset("mini").reference_kept > 0
    )


def test_a_window_starts_where_the_one_before_ended(models: Models) -> None:
    kept: dict[str, Tensor] = {}
    video = made(models, 25, frames=17, kept=kept)
    first, second = (to_frames(decode(models.vae, kept[f"window-{index}"])) for index in (0, 1))
    assert np.array_equal(video[:8], first[:8])
    assert np.array_equal(video[17:], second[9:])
    for frame in range(9):
        weight = (frame + 1) / 10
        blend = (1 - weight) * first[8 + frame].astype(float) + weight * second[frame]
        assert np.abs(video[8 + frame] - blend).max() <= 1.01, frame


def test_carried_frames_hold_the_first_latents_of_the_next_window(models: Models) -> None:
    kept: dict[str, Tensor] = {}
    made(models, 25, frames=17, kept=kept)
    tail = decode(models.vae, kept["window-0"]).clamp(-1, 1)[:, :, -9:]
    assert torch.equal(kept["window-1"][:, :3], encode_video(models.vae, tail))


def alive_bytes() -> int:
    """What all tensors of this process take."""
    gc.collect()
    storages = (thing.untyped_storage() for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_memory_does_not_grow_with_the_length(models: Models) -> None:
    def after_each_window(kept: dict[str, Tensor] | None) -> list[int]:
        windows = plan_windows(17 + 8 * 5, 17, 9)
        tokens = (torch.zeros(5 * 24, WIDTH) for _ in windows)
        frames = walk(models, picture(**SIZE), tokens, windows, settings(steps=1), 5, kept=kept)
        return [alive_bytes() for _ in frames]

    flat = after_each_window(None)
    assert len(flat) == 6
    assert max(flat[2:-1]) == flat[1]
    growing = after_each_window({})  # what is kept in memory is the caller's choice, and shows that growth is seen
    assert growing[-2] > growing[1]


def test_frames_come_before_the_walk_has_ended(models: Models) -> None:
    windows = plan_windows(10_000, 17, 9)
    tokens = (torch.zeros(5 * 24, WIDTH) for _ in windows)
    frames = walk(models, picture(**SIZE), tokens, windows, settings(), 5)
    assert len(next(frames)) == 8
    frames.close()


def test_progress_counts_every_step_of_every_window(models: Models) -> None:
    told: list[tuple[str, int | None, int]] = []

    def watch(items: Iterable[Any], stage: str, total: int | None = None) -> Iterator[Any]:
        count = 0
        for item in items:
            yield item
            count += 1
        told.append((stage, total, count))

    kept: dict[str, Tensor] = {}
    made(models, 25, frames=17, watch=watch, kept=kept)
    made(models, 25, frames=17, watch=watch, kept=kept)
    assert told == [("denoise", 4, 4)] * 2


def test_each_model_is_brought_to_the_device_while_it_works(models: Models) -> None:
    at_work: list[str] = []

    @contextmanager
    def working(module: nn.Module) -> Iterator[nn.Module]:
        at_work.append("vae" if module is models.vae else "transformer")
        yield module

    made(models, 25, frames=17, working=working)
    assert at_work == ["vae", "transformer", "vae", "vae", "transformer", "vae"]


def test_only_the_first_window_has_the_seed_of_the_run() -> None:
    assert window_seed(6666, 0) == 6666
    seeds = {window_seed(seed, index) for seed in (1, 2) for index in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_tokens_of_windows_of_another_length_are_a_fault(models: Models) -> None:
    with pytest.raises(ValueError, match="5 latent frames have 24 motion tokens each, not 72"):
        made(models, 25, frames=17, tokens=torch.zeros(2, 72, WIDTH))


def test_a_missing_window_of_tokens_is_a_fault(models: Models) -> None:
    with pytest.raises(ValueError, match="shorter"):
        made(models, 25, frames=17, tokens=tokens_for(plan_windows(25, 17, 9))[:1])
