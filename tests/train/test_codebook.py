"""Codes that follow the latents they are given, and what becomes of idle ones."""

import pytest
import torch

from mtvcraft_cli.tokens.tokenizer import Quantiser
from mtvcraft_cli.train.codebook import MovingCodebook, SeededDraws


def walked(reseed: str, steps: int, every: int = 20) -> tuple[Quantiser, MovingCodebook, list[float]]:
    """Codes that start far from all latents but one, and the share in use after each step."""
    quantiser = Quantiser(32, 4)
    quantiser.codebook.copy_(torch.full((32, 4), 50.0) + torch.arange(32)[:, None])
    quantiser.codebook[0] = 0
    moving = MovingCodebook(32, 4, reseed=reseed, every=every)  # type: ignore[arg-type]
    used = []
    for step in range(steps):
        rows = torch.from_numpy(SeededDraws(7, step).rng.standard_normal((200, 4), dtype="float32"))
        moving.start(quantiser.codebook, rows, SeededDraws(0))
        index = quantiser(rows)
        used.append(len(index.unique()) / 32)
        moving.update(quantiser.codebook, rows, index, SeededDraws(1, step), None)
    return quantiser, moving, used


def test_idle_codes_move_among_the_latents_after_twenty_steps() -> None:
    _, _, used = walked("unused", 45)
    assert used[:20] == [1 / 32] * 20
    assert used[21] > 0.5
    assert used[-1] > 0.9


def test_a_moved_code_stays_where_it_was_put() -> None:
    # The reference's rule puts it back a step later, as its old sum and count are kept.
    quantiser, moving, _ = walked("unused", 21)
    assert (quantiser.codebook.abs() < 6).all()
    assert torch.allclose(quantiser.codebook, moving.code_sum / moving.code_count[:, None])
    assert (moving.code_count > 0.9).all()


def test_use_is_looked_at_anew_in_each_period() -> None:
    _, moving, _ = walked("unused", 20)
    assert int(moving.age) == 0
    assert not moving.usage.any()


@pytest.mark.parametrize("reseed", ["never", "released"])
def test_other_rules_leave_idle_codes_where_they_are(reseed: str) -> None:
    _, _, used = walked(reseed, 45)
    assert used[-1] == 1 / 32


def test_codes_start_as_latents_even_where_there_are_too_few() -> None:
    quantiser, moving = Quantiser(32, 4), MovingCodebook(32, 4)
    rows = torch.eye(4)
    moving.start(quantiser.codebook, rows, SeededDraws(0))
    nearest = (quantiser.codebook[:, None] - rows).norm(dim=-1).min(dim=1).values
    assert (nearest < 0.1).all()
    assert len(quantiser.codebook.unique(dim=0)) == 32


def test_codes_come_to_the_mean_of_their_latents() -> None:
    quantiser, moving = Quantiser(2, 1), MovingCodebook(2, 1)
    quantiser.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    rows = torch.tensor([[-3.0], [-2.0], [4.0]])
    moving.start(quantiser.codebook, rows, SeededDraws(0))
    for step in range(1500):
        perplexity = moving.update(quantiser.codebook, rows, quantiser(rows), SeededDraws(step), None)
    assert quantiser.codebook.flatten().tolist() == pytest.approx([-2.5, 4.0], abs=1e-3)
    assert perplexity == pytest.approx((1.5**2 * 3) ** (1 / 3), rel=1e-4)  # of thirds, two and one
