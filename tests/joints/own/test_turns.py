"""Rotations to vectors and back, at the angles where formulas break."""

import numpy as np

from mtvcraft_cli.joints.turns import axis_angles, matrices


def test_vectors_become_rotations_and_come_back_at_every_angle() -> None:
    draw = np.random.default_rng(0)
    axes = draw.normal(size=(400, 3))
    axes[:6] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for angle in (0.0, 1e-6, 1e-3, 1.0, 2.5, np.pi - 1e-3, np.pi):
        turns = matrices(axes * angle)
        np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.tile(np.eye(3), (400, 1, 1)), atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)
        np.testing.assert_allclose(np.trace(turns, axis1=1, axis2=2), 1 + 2 * np.cos(angle), atol=1e-5)
        np.testing.assert_allclose((turns @ axes[..., None])[..., 0], axes, atol=1e-6)  # the axis stays
        np.testing.assert_allclose(matrices(axis_angles(turns)), turns, atol=1e-5)
        if 1e-6 < angle < np.pi:
            np.testing.assert_allclose(axis_angles(turns), axes * angle, atol=1e-3)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    np.testing.assert_allclose(matrices(np.array([0, 0, np.pi / 2])) @ (1, 0, 0), (0, 1, 0), atol=1e-6)
