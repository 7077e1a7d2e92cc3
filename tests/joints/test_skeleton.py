"""The skeleton agrees with itself, and with the corpus where that is at hand."""

import numpy as np

from mtvcraft_cli.joints.skeleton import (
    NAMES,
    NEUTRAL_LENGTHS_MM,
    NEUTRAL_OFFSETS_MM,
    PAIRS,
    PARENTS,
    PARTS,
    focal_px,
    mirror_order,
    neutral_pose,
    project,
)
from tests.joints.people import shared


def test_parents_come_before_their_children() -> None:
    assert all(parent < joint for joint, parent in enumerate(PARENTS))


def test_pairs_are_named_alike_and_mirroring_twice_changes_nothing() -> None:
    assert all(NAMES[left][2:] == NAMES[right][2:] and NAMES[left] != NAMES[right] for left, right in PAIRS)
    order = mirror_order()
    assert [order[joint] for joint in order] == list(range(24))
    assert sum(joint != other for joint, other in enumerate(order)) == 18


def test_every_joint_is_in_one_part_of_the_body() -> None:
    assert sorted(joint for joints in PARTS.values() for joint in joints) == list(range(24))


def test_the_neutral_body_is_symmetric_and_as_tall_as_a_person() -> None:
    pose = neutral_pose()
    np.testing.assert_allclose(pose[list(mirror_order())] * (-1, 1, 1), pose)
    assert 1200 < np.ptp(pose[:, 1]) < 1500  # from the balls of the feet to the base of the skull
    np.testing.assert_allclose(NEUTRAL_LENGTHS_MM[[4, 7, 18, 20]], [361, 394, 235, 223])


def test_the_neutral_body_is_the_corpus_body() -> None:
    corpus = np.load(shared("motion/cmu_test.npz"))
    assert tuple(corpus["parents"]) == PARENTS
    np.testing.assert_allclose(NEUTRAL_OFFSETS_MM, corpus["neutral_offsets"] * 1000, atol=0.51)


def test_the_camera_sees_55_degrees_along_the_longer_side() -> None:
    size_px = (1080, 1920)
    depth = 2000.0
    edge = depth * np.tan(np.radians(27.5))
    np.testing.assert_allclose(project(np.array([0, edge, depth]), size_px), [540, 1920])
    assert abs(focal_px((1024, 1024)) - 983.54285) < 1e-4


def test_a_point_behind_the_camera_is_nowhere_in_the_picture() -> None:
    assert np.isnan(project(np.array([[0.0, 0.0, -5.0], [1.0, 1.0, 0.0]]), (64, 64))).all()
