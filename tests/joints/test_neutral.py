"""Whose body it was doesn't matter, how it was held does."""

import numpy as np

from mtvcraft_cli.joints.neutral import on_neutral_body
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, chain, neutral_pose


def _poses() -> np.ndarray:
    bones = np.random.default_rng(0).normal(size=(5, 24, 3))
    return bones / np.linalg.norm(bones, axis=-1, keepdims=True)


def test_a_tall_and_a_short_person_in_one_pose_become_the_same() -> None:
    directions, root_mm = _poses(), np.float32([[[30, 100, 2000]]])
    people = [
        (root_mm + chain(directions * (NEUTRAL_LENGTHS_MM * scale)[:, None])).astype(np.float32)
        for scale in (np.full(24, 1.2), np.linspace(0.7, 1.1, 24))
    ]
    tall, short = (on_neutral_body(joints_mm) for joints_mm in people)
    assert np.abs(people[0] - people[1]).max() > 50
    np.testing.assert_allclose(tall, short, atol=0.01)
    np.testing.assert_allclose(tall[:, 0], people[0][:, 0])


def test_bones_get_the_neutral_lengths_and_a_neutral_body_stays_as_it_is() -> None:
    made = on_neutral_body((chain(_poses() * 300) + np.float32([0, 0, 2000])).astype(np.float32))
    lengths_mm = np.linalg.norm(made[:, 1:] - made[:, list(PARENTS[1:])], axis=-1)
    np.testing.assert_allclose(lengths_mm, np.broadcast_to(NEUTRAL_LENGTHS_MM[1:], lengths_mm.shape), atol=0.01)
    neutral = (neutral_pose()[None] + np.float32([0, 0, 2000])).astype(np.float32)
    np.testing.assert_allclose(on_neutral_body(neutral), neutral, atol=0.01)
