"""Windows of the large model joined to a video of any length, at toy size."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtvcraft_cli.latents.vae import to_frames, to_video
from mtvcraft_cli.latents.walk import WanModels, WanSettings, walk
from mtvcraft_cli.latents.wanvideo.picture import encode_picture
from mtvcraft_cli.latents.wanvideo.sampler import Guidance, make_scheduler
from mtvcraft_cli.latents.wanvideo.vae import decode, encode_video
from mtvcraft_cli.windows import Window, plan_windows
from tests.latents.test_walk import alive_bytes
from tests.tiny import joint_mean_mm, picture
from tests.tiny_wan import TOKEN, WAN_TRANSFORMER, tiny_wan_transformer
from tests.tiny_wan_parts import tiny_picture_encoder, tiny_wan_vae

SIZE = {"width": 16, "height": 32}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def models() -> WanModels:
    return WanModels(
        transformer=tiny_wan_transformer(),
        vae=tiny_wan_vae(),
        picture_encoder=tiny_picture_encoder(),
        no_motion=random(13 * 24, TOKEN, seed=8),
    )


def settings(**changes: Any) -> WanSettings:
    given: dict[str, Any] = {
        "scheduler": make_scheduler("euler", {}),
        "steps": 2,
        "guidance": Guidance(text=6.0),
        "joint_mean_mm": joint_mean_mm(),
        "text": random(1, 5, WAN_TRANSFORMER["text_dim"], seed=2),
        "negative": random(1, 5, WAN_TRANSFORMER["text_dim"], seed=3),
    }
    return WanSettings(**(given | changes))


def tokens_for(windows: list[Window], seed: int = 1) -> Tensor:
    return random(len(windows), windows[0].latent_frames * 24, TOKEN, seed=seed)


def made(models: WanModels, total: int, *, frames: int = 49, seed: int = 5, **changes: Any) -> np.ndarray:
    windows = plan_windows(total, frames, 9)
    tokens = changes.pop("tokens", tokens_for(windows))
    given = changes.pop("settings", settings())
    reference = changes.pop("reference", picture(**SIZE))
    return np.concatenate(list(walk(models, reference, tokens, windows, given, seed, **changes)))


@pytest.mark.parametrize("total", [1, 20, 130, 290])
def test_there_are_as_many_frames_as_the_motion_has(models: WanModels, total: int) -> None:
    frames = made(models, total, settings=settings(steps=1))
    assert frames.shape == (total, 32, 16, 3)
    assert frames.dtype == np.uint8


def test_everything_that_is_asked_for_changes_the_video(models: WanModels) -> None:
    video = made(models, 25, frames=17)
    windows = plan_windows(25, 17, 9)
    others = {
        "tokens": made(models, 25, frames=17, tokens=tokens_for(windows, seed=2)),
        "reference": made(models, 25, frames=17, reference=255 - picture(**SIZE)),
        "seed": made(models, 25, frames=17, seed=6),
    }
    for what, change in {
        "text": {"text": random(1, 5, WAN_TRANSFORMER["text_dim"], seed=9)},
        "negative": {"negative": random(1, 5, WAN_TRANSFORMER["text_dim"], seed=9)},
        "no text guidance": {"guidance": Guidance()},
        "motion guidance": {"guidance": Guidance(text=6.0, motion=3.0)},
        "range": {"guidance": Guidance(text=6.0, end=0.5)},
        "colours": {"color_match": True},
        "scheduler": {"scheduler": make_scheduler("unipc", {}), "steps": 3},
    }.items():
        others[what] = made(models, 25, frames=17, settings=settings(**change))
    for what, other in others.items():
        assert np.abs(video.astype(float) - other).mean() > 0.2, what
    assert np.array_equal(made(models, 25, frames=17), video)
    halves = made(models, 25, frames=17, settings=settings(two_passes=True)).astype(float)
    assert np.abs(video - halves).max() <= 2


@pytest.mark.parametrize(
    "change", [{}, {"scheduler": make_scheduler("unipc", {}), "clip_from": "previous", "color_match": True}]
)
def test_a_run_stopped_in_its_third_window_goes_on_to_the_same_frames(
    models: WanModels, change: dict[str, Any]
) -> None:
    whole = made(models, 41, frames=17, settings=settings(**change))
    assert np.array_equal(made(models, 41, frames=17, settings=settings(**change), kept={}), whole)
    kept: dict[str, Tensor] = {}
    windows = plan_windows(41, 17, 9)
    assert len(windows) == 4

    def stops(items: Iterable[Any], stage: str, total: int | None = None) -> Iterator[Any]:
        for count, item in enumerate(items):
            if count == 2 * 2 + 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        made(models, 41, frames=17, settings=settings(**change), kept=kept, watch=stops)
    assert kept.keys() == {"reference", "window-0", "tail-0", "window-1", "tail-1"}
    ran: list[int] = []
    hook = models.transformer.register_forward_hook(lambda *_: ran.append(1))
    resumed = made(models, 41, frames=17, settings=settings(**change), kept=kept)
    hook.remove()
    assert np.array_equal(resumed, whole)
    assert len(ran) == 2 * 2


def test_a_window_starts_where_the_one_before_ended(models: WanModels) -> None:
    kept: dict[str, Tensor] = {}
    video = made(models, 25, frames=17, kept=kept)
    first, second = (decode(models.vae, kept[f"window-{index}"]) for index in (0, 1))
    assert torch.equal(kept["tail-0"], first[:, :, -9:])
    assert torch.equal(kept["window-1"][:, :, :3], encode_video(models.vae, kept["tail-0"]))
    assert np.array_equal(video[:8], to_frames(first)[:8])
    assert np.array_equal(video[17:], to_frames(second)[9:])
    for frame in range(9):
        weight = (frame + 1) / 10
        blend = (1 - weight) * to_frames(first)[8 + frame].astype(float) + weight * to_frames(second)[frame]
        assert np.abs(video[8 + frame] - blend).max() <= 1.01, frame


@pytest.mark.parametrize("clip_from", ["reference", "previous"])
def test_clip_sees_the_reference_or_the_last_frame_of_the_window_before(models: WanModels, clip_from: str) -> None:
    seen: list[Tensor] = []
    hook = models.transformer.register_forward_hook(lambda _module, given, _made: seen.append(given[4]))
    kept: dict[str, Tensor] = {}
    made(models, 25, frames=17, settings=settings(clip_from=clip_from, two_passes=True), kept=kept)
    hook.remove()
    reference = encode_picture(models.picture_encoder, to_video(picture(**SIZE)[None]))
    assert torch.equal(kept["reference"], reference)
    assert len(seen) == 2 * 2 * 2  # windows, steps, branches
    assert all(torch.equal(features, reference) for features in seen[:4])
    later = encode_picture(models.picture_encoder, kept["tail-0"][:, :, -1:]) if clip_from == "previous" else reference
    assert all(torch.equal(features, later) for features in seen[4:])
    assert torch.equal(later, reference) == (clip_from == "reference")


def test_matched_colours_are_those_of_the_reference_and_go_on_in_the_next_window(models: WanModels) -> None:
    character = np.clip(picture(**SIZE).astype(int) // 2 + (90, 20, 0), 0, 255).astype(np.uint8)
    kept: dict[str, Tensor] = {}
    plain = made(models, 25, frames=17, reference=character)
    video = made(models, 25, frames=17, reference=character, settings=settings(color_match=True), kept=kept)
    wanted = character.reshape(-1, 3).mean(0)
    found, unmatched = (frames.reshape(-1, 3).mean(0) for frames in (video, plain))
    assert np.abs(found - wanted).max() < 4
    assert np.abs(unmatched - wanted).max() > 20
    raw = decode(models.vae, kept["window-0"])[:, :, -9:]
    assert not torch.allclose(kept["tail-0"], raw, atol=0.05)
    assert torch.equal(kept["window-1"][:, :, :3], encode_video(models.vae, kept["tail-0"]))


def test_no_more_memory_is_taken_by_290_frames_than_by_130(models: WanModels) -> None:
    def most_bytes(total: int) -> int:
        taken: list[int] = []

        def weighing(items: Iterable[Any], stage: str, total: int | None = None) -> Iterator[Any]:
            for item in items:
                taken.append(alive_bytes())
                yield item

        windows = plan_windows(total, 49, 9)
        tokens = (torch.zeros(13 * 24, TOKEN) for _ in windows)
        given = settings(steps=1, guidance=Guidance())
        assert len(list(walk(models, picture(**SIZE), tokens, windows, given, 5, watch=weighing))) == len(windows)
        return max(taken)

    short, long = most_bytes(130), most_bytes(290)
    assert abs(long - short) <= 0.1 * short
    assert long - short < 50_000  # the frames of one window alone are six times that


def test_progress_counts_every_step_of_every_window_and_models_come_when_they_work(models: WanModels) -> None:
    told: list[tuple[str, int | None, int]] = []
    at_work: list[str] = []

    def watch(items: Iterable[Any], stage: str, total: int | None = None) -> Iterator[Any]:
        count = 0
        for item in items:
            yield item
            count += 1
        told.append((stage, total, count))

    @contextmanager
    def working(module: nn.Module) -> Iterator[nn.Module]:
        at_work.append(type(module).__name__)
        yield module

    made(models, 25, frames=17, watch=watch, working=working)
    assert told == [("denoise", 4, 4)]
    vae, transformer = "AutoencoderKLWan", "WanMotionTransformer"
    assert at_work == ["CLIPVisionModel", *[vae, transformer, vae] * 2]


def test_the_transformers_own_no_motion_tokens_go_before_those_of_the_small_model(models: WanModels) -> None:
    guided = settings(guidance=Guidance(motion=3.0))
    assert models.resamples(5)
    assert not models.resamples(13)
    own = WanModels(
        transformer=tiny_wan_transformer(unconditional_motion_shape=(24, TOKEN)),
        vae=models.vae,
        picture_encoder=models.picture_encoder,
        no_motion=models.no_motion,
    )
    assert own.learned is own.transformer.unconditional_motion_token
    assert not own.resamples(5)
    assert made(own, 9, settings=guided).shape == (9, 32, 16, 3)


def test_guidance_by_motion_without_no_motion_tokens_is_a_fault(models: WanModels) -> None:
    bare = WanModels(transformer=models.transformer, vae=models.vae, picture_encoder=models.picture_encoder)
    with pytest.raises(ValueError, match="no-motion tokens"):
        made(bare, 9, settings=settings(guidance=Guidance(motion=3.0)))
