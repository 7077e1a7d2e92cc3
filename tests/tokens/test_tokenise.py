from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch

from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.tokens import tokenise as room
from mtvcraft_cli.tokens.report import Report
from mtvcraft_cli.tokens.tokenise import detokenise, motion_tokens, tokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.windows import plan_windows
from tests.tokens.conftest import make_tokenizer, walk

KINDS = ("none", "window", "reference")
MOVED_MM = np.array([250.0, -40.0, 700.0], np.float32)


@pytest.mark.parametrize("frames", [1, 5, 9, 25, 26, 90])
def test_a_clip_of_any_length_becomes_codes_and_a_clip_again(
    tokenizer: MotionTokenizer, stats: Statistics, frames: int
) -> None:
    plan = plan_windows(frames, 25, 9)
    made = tokenise(walk(frames), tokenizer, plan, stats, "none")
    assert made.tokens.dtype == np.int32
    assert made.tokens.shape == (len(plan), plan[0].latent_frames, 24)
    assert detokenise(made.tokens, tokenizer, plan, stats, "none").shape == (frames, 24, 3)


def test_batches_of_windows_change_nothing(
    tokenizer: MotionTokenizer, stats: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_windows(150, 25, 9)
    whole = tokenise(walk(150), tokenizer, plan, stats, "window")
    monkeypatch.setattr(room, "BATCH", 2)
    pieces = tokenise(walk(150), tokenizer, plan, stats, "window")
    assert np.array_equal(whole.tokens, pieces.tokens)
    assert np.allclose(whole.report.error_mm, pieces.report.error_mm, rtol=1e-4)
    assert whole.report.codes_used == pieces.report.codes_used


@pytest.mark.parametrize("kind", ["window", "reference"])
def test_where_the_driver_stands_does_not_change_differential_codes(
    tokenizer: MotionTokenizer, stats: Statistics, kind: str
) -> None:
    plan = plan_windows(60, 25, 9)
    here = tokenise(walk(60), tokenizer, plan, stats, kind)
    there = tokenise(walk(60) + MOVED_MM, tokenizer, plan, stats, kind)
    assert np.array_equal(here.tokens, there.tokens)
    assert np.array_equal(there.origin_mm, here.origin_mm + MOVED_MM)
    absolute = [tokenise(joints, tokenizer, plan, stats, "none").tokens for joints in (walk(60), walk(60) + MOVED_MM)]
    assert not np.array_equal(*absolute)


@pytest.mark.parametrize("kind", ["window", "reference"])
def test_with_their_origin_decoded_joints_stand_where_the_driver_stood(
    tokenizer: MotionTokenizer, stats: Statistics, kind: str
) -> None:
    plan = plan_windows(60, 25, 9)
    decoded = []
    for joints_mm in (walk(60), walk(60) + MOVED_MM):
        made = tokenise(joints_mm, tokenizer, plan, stats, kind)
        decoded.append(detokenise(made.tokens, tokenizer, plan, stats, kind, made.origin_mm))
    assert np.allclose(decoded[1] - decoded[0], MOVED_MM, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [12, 25, 60])
def test_the_report_measures_what_decoding_gives(stats: Statistics, kind: str, frames: int) -> None:
    # With one window nothing is faded, so the clip's error is the report's; with more it is near.
    tokenizer = make_tokenizer()
    plan = plan_windows(frames, 25, 9)
    made = tokenise(walk(frames), tokenizer, plan, stats, kind)
    decoded_mm = detokenise(made.tokens, tokenizer, plan, stats, kind, made.origin_mm)
    error_mm = np.linalg.norm(decoded_mm - walk(frames), axis=-1).mean(axis=0)
    assert np.allclose(made.report.error_mm, error_mm, rtol=1e-3 if len(plan) == 1 else 0.3)
    assert made.report.codes_used == len(np.unique(made.tokens))
    assert made.report.share == made.report.codes_used / 40


def test_a_frame_that_windows_share_is_measured_in_the_earlier_one_only(
    tokenizer: MotionTokenizer, stats: Statistics
) -> None:
    plan = plan_windows(60, 25, 9)
    made = tokenise(walk(60), tokenizer, plan, stats, "none")
    alone = plan_windows(25, 25, 9)
    windows_mm = [detokenise(made.tokens[[index]], tokenizer, alone, stats, "none") for index in range(len(plan))]
    own_mm = np.concatenate([mm[w.carried : w.frames - w.held] for mm, w in zip(windows_mm, plan, strict=True)])
    error_mm = np.linalg.norm(own_mm - walk(60), axis=-1).mean(axis=0)
    assert np.allclose(made.report.error_mm, error_mm, rtol=1e-4)


def test_the_loss_is_the_mean_squared_difference_of_latents_and_rows(
    tokenizer: MotionTokenizer, stats: Statistics
) -> None:
    plan = plan_windows(60, 25, 9)
    made = tokenise(walk(60), tokenizer, plan, stats, "none")
    latents = tokenise(walk(60), _continuous_twin(tokenizer), plan, stats, "none").tokens
    rows = tokenizer.vq.codebook.numpy()[made.tokens]
    assert made.report.loss == pytest.approx(np.square(latents - rows).mean(), rel=1e-5)


def _continuous_twin(tokenizer: MotionTokenizer) -> MotionTokenizer:
    twin = make_tokenizer(codes=None)
    twin.load_state_dict({key: value for key, value in tokenizer.state_dict().items() if key != "vq.codebook"})
    return twin


def test_without_origins_a_differential_clip_moves_the_same_and_starts_from_the_mean_pose(
    tokenizer: MotionTokenizer, stats: Statistics
) -> None:
    plan = plan_windows(25, 25, 9)
    made = tokenise(walk(25), tokenizer, plan, stats, "window")
    placed = detokenise(made.tokens, tokenizer, plan, stats, "window", made.origin_mm)
    unplaced = detokenise(made.tokens, tokenizer, plan, stats, "window")
    assert np.allclose(np.diff(placed, axis=0), np.diff(unplaced, axis=0), atol=0.01)
    offset = made.origin_mm[0] - stats.mean_mm
    assert np.allclose(placed - unplaced, offset, atol=0.01)


def test_without_origins_a_window_starts_where_the_one_before_has_come_to(stats: Statistics) -> None:
    tokenizer = make_tokenizer(codes=None)
    still = _always(tokenizer, 1.0)  # decodes every frame as one spread from the origin
    plan = plan_windows(41, 25, 9)
    joints_mm = detokenise(np.zeros((2, 7, 24, 16), np.float32), still, plan, stats, "window")
    steps = (joints_mm - stats.mean_mm) / stats.std_mm
    assert np.allclose(steps[:16], 1, atol=1e-4)
    assert np.allclose(steps[25:], 2, atol=1e-4)


def _always(tokenizer: MotionTokenizer, value: float) -> MotionTokenizer:
    torch.nn.init.zeros_(tokenizer.decoder.conv_out.weight)
    torch.nn.init.constant_(tokenizer.decoder.conv_out.bias, value)
    return tokenizer


def test_a_tokenizer_without_a_codebook_keeps_latents(stats: Statistics) -> None:
    tokenizer = make_tokenizer(codes=None)
    plan = plan_windows(60, 25, 9)
    made = tokenise(walk(60), tokenizer, plan, stats, "none")
    assert made.tokens.dtype == np.float32
    assert made.tokens.shape == (len(plan), 7, 24, 16)
    assert (made.report.loss, made.report.codes_used, made.report.share) == (0.0, None, None)
    assert torch.equal(motion_tokens(made.tokens, tokenizer, 1), torch.tensor(made.tokens[1]).reshape(1, 168, 16))


def test_a_windows_tokens_are_the_rows_of_its_codes(tokenizer: MotionTokenizer, stats: Statistics) -> None:
    made = tokenise(walk(60), tokenizer, plan_windows(60, 25, 9), stats, "none")
    tokens = motion_tokens(made.tokens, tokenizer, 2)
    assert tokens.shape == (1, 7 * 24, 16)
    assert torch.equal(tokens[0, 3 * 24 + 4], tokenizer.vq.codebook[made.tokens[2, 3, 4]])


def test_the_watch_counts_windows(tokenizer: MotionTokenizer, stats: Statistics) -> None:
    seen = []

    def watch(items: Iterable[np.ndarray], stage: str, total: int | None = None) -> Iterator[np.ndarray]:
        for item in items:
            seen.append((stage, len(item), total))
            yield item

    plan = plan_windows(200, 25, 9)
    made = tokenise(walk(200), tokenizer, plan, stats, "none", watch)
    detokenise(made.tokens, tokenizer, plan, stats, "none", watch=watch)
    for stage in ("tokenize", "decode"):
        counts = [(count, total) for name, count, total in seen if name == stage]
        assert sum(count for count, _ in counts) == len(plan) > room.BATCH
        assert {total for _, total in counts} == {len(plan)}


def test_joints_that_are_no_numbers_are_refused(tokenizer: MotionTokenizer, stats: Statistics) -> None:
    joints_mm = walk(20)
    joints_mm[7, 3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        tokenise(joints_mm, tokenizer, plan_windows(20, 25, 9), stats, "none")


def test_a_motion_the_tokenizer_knows_gives_no_warning() -> None:
    assert Report(error_mm=(60.0,) * 24, loss=0.05, codes_used=30, codes=40).warnings() == []


def test_a_motion_the_tokenizer_does_not_know_is_warned_of_with_its_numbers() -> None:
    by_loss, by_error = Report(error_mm=(130.0,) * 24, loss=0.41, codes_used=30, codes=40).warnings()
    assert "0.41" in by_loss
    assert "130 mm" in by_error


def test_the_error_of_a_part_is_the_mean_of_its_joints() -> None:
    report = Report(error_mm=tuple(map(float, range(24))), loss=0.0, codes_used=None, codes=None)
    assert report.by_part({"head": (15,), "hands": (20, 21, 22, 23)}) == {"head": 15, "hands": 21.5}
    assert report.mean_mm == 11.5
