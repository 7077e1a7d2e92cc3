"""Clips made from seeds: the same bits again, characters held out, and the rules of what is true."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.psnr import psnr
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, NEUTRAL_OFFSETS_MM, PARENTS, project
from mtvcraft_cli.train.world import scenes
from mtvcraft_cli.train.world.creatures import HUES, KINDS, character
from mtvcraft_cli.train.world.dance import MOVES, dance
from mtvcraft_cli.train.world.figure import Figure, Look, Part
from mtvcraft_cli.train.world.motions import Motions, draw_motion, load_motions
from mtvcraft_cli.train.world.render import Camera, Style, cast, film
from mtvcraft_cli.train.world.scenes import SPLITS, follow, scene
from mtvcraft_cli.train.world.stage import Stage

SIZE_PX = (64, 64)
COUNT = 7
LIMBS = [4, 5, 7, 8, 18, 19]


@pytest.fixture(scope="module")
def clips() -> dict[str, list[scenes.Scene]]:
    return {split: [scene(seed, split, SIZE_PX, 9) for seed in range(COUNT)] for split in SPLITS}


def bones(joints_mm: np.ndarray) -> np.ndarray:
    return joints_mm[..., 1:, :] - joints_mm[..., PARENTS[1:], :]


def same(one: scenes.Scene, other: scenes.Scene) -> bool:
    names = ("frames", "masks", "joints_mm", "own_joints_mm", "empty")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_seed_gives_the_same_bits_in_any_order(clips):
    for seed, split in ((5, "mismatched"), (2, "train"), (5, "human"), (3, "train")):
        assert same(scene(seed, split, SIZE_PX, 9), clips[split][seed])


def test_no_two_seeds_and_no_two_splits_give_the_same_clip(clips):
    firsts = {clip.reference.tobytes() for made in clips.values() for clip in made}
    assert len(firsts) == COUNT * len(SPLITS)


def test_a_clip_has_the_shapes_that_were_asked_for():
    clip = scene(1, "train", (96, 64), 3)
    assert clip.frames.shape == (3, 64, 96, 3)
    assert clip.masks.shape == (3, 64, 96)
    assert clip.joints_mm.shape == clip.own_joints_mm.shape == (3, 24, 3)
    assert clip.empty.shape == clip.reference.shape == (64, 96, 3)


def test_the_figure_fills_much_of_the_frame_and_stays_inside(clips):
    for split in SPLITS:
        tall = [np.ptp(np.nonzero(clip.masks[0].any(1))[0]) / SIZE_PX[1] for clip in clips[split]]
        assert 0.5 < np.mean(tall) < 0.95
        shown = [((spot := project(clip.own_joints_mm, SIZE_PX)) > 0) & (spot < SIZE_PX) for clip in clips[split]]
        assert np.mean(shown) > 0.97


def test_the_figure_is_seen_and_the_rest_is_the_empty_place_but_for_shadows(clips):
    for clip in (clip for split in SPLITS for clip in clips[split]):
        off = np.abs(clip.frames.astype(int) - clip.empty).max(-1)
        beside = clip.masks.copy()  # edges are soft, one pixel to each side
        for axis in (1, 2):
            for step in (-1, 1):
                beside |= np.roll(beside, step, axis)
        assert np.mean(off[clip.masks] > 20) > 0.8, clip.kind
        assert off[~beside].max() <= 0.17 * 255, clip.kind


def test_small_pictures_are_large_ones_shrunk():
    small, large = (scene(3, "human", (side, side), 3) for side in (64, 128))
    shrunk = large.frames.reshape(3, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(small.frames - shrunk).max() <= 1


def test_repeating_the_reference_is_no_good_answer():
    windows = [scene(seed, "train", SIZE_PX, 25) for seed in range(24)]
    still = [psnr(np.repeat(clip.frames[:1], 24, 0), clip.frames[1:]).mean() for clip in windows]
    assert np.median(still) < 24


def test_every_joint_of_a_limb_lies_on_the_figure(clips):
    inside = []
    for clip in (clip for split in SPLITS for clip in clips[split]):
        spot = project(clip.own_joints_mm[:, LIMBS], SIZE_PX).astype(int)
        frame, at = np.nonzero(((spot >= 0) & (spot < SIZE_PX)).all(-1))
        inside.append(clip.masks[frame, spot[frame, at, 1], spot[frame, at, 0]].mean())
    assert np.mean(inside) > 0.95


def test_a_matched_driver_stands_where_the_character_does_and_a_mismatched_one_elsewhere(clips):
    def apart_px(clip: scenes.Scene) -> float:
        pelvis = project(clip.joints_mm[0, :1], SIZE_PX) - project(clip.own_joints_mm[0, :1], SIZE_PX)
        return float(np.linalg.norm(pelvis))

    assert max(apart_px(clip) for split in ("human", "non-human") for clip in clips[split]) < 5
    assert np.mean([apart_px(clip) for clip in clips["mismatched"]]) > 5


def test_a_third_of_what_is_trained_on_is_mismatched(monkeypatch):
    simple = Figure(NEUTRAL_OFFSETS_MM, (Part(0, (0, -700, 0), (0, 700, 0), (100, 100), Look((1, 0, 0))),))
    monkeypatch.setattr(scenes, "character", lambda rng, kind, hue: simple)
    matched = [scene(seed, "train", (16, 16), 9).matched for seed in range(30)]
    assert 0.5 < np.mean(matched) < 0.85


def test_a_mismatched_character_begins_in_another_pose_than_its_driver(clips):
    def turned_deg(clip: scenes.Scene) -> float:
        """How far limbs point elsewhere, on average."""
        own, driven = (bones(joints[0])[np.asarray(LIMBS) - 1] for joints in (clip.own_joints_mm, clip.joints_mm))
        cosine = (own * driven).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(driven, axis=-1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())

    assert max(turned_deg(clip) for split in ("human", "non-human") for clip in clips[split]) < 4
    assert np.median([turned_deg(clip) for clip in clips["mismatched"]]) > 10


def test_who_starts_in_the_motions_own_pose_does_the_motion_itself():
    motion = dance(40, 15.0, np.random.default_rng(3))
    assert np.abs(follow(motion[0], motion) - motion).max() < 0.5


def test_who_starts_in_another_pose_changes_each_bone_as_the_motion_does():
    motion = dance(40, 15.0, np.random.default_rng(3), moves=["arm-wave"])
    pose = dance(1, 15.0, np.random.default_rng(4), moves=["march"])[0] + np.float32([700, 0, -300])
    led = follow(pose, motion)
    assert np.abs(led[0] - pose).max() < 0.5
    assert np.abs(np.linalg.norm(bones(led), axis=-1) - NEUTRAL_LENGTHS_MM[1:]).max() < 0.5
    wanted = bones(pose) + bones(motion) - bones(motion)[0]
    cosine = (wanted * bones(led)).sum(-1) / np.linalg.norm(wanted, axis=-1) / NEUTRAL_LENGTHS_MM[1:]
    assert cosine.min() > 0.999
    moved = (led[:, 0] - led[0, 0])[:, (0, 2)]
    assert np.allclose(moved, (motion[:, 0] - motion[0, 0])[:, (0, 2)], atol=0.5)
    assert np.allclose(led[..., 1].min(1) - pose[:, 1].min(), motion[..., 1].min(1) - motion[0, :, 1].min(), atol=0.5)


def test_what_is_held_out_is_never_trained_on(monkeypatch):
    seen: dict[str, set[tuple[str, int]]] = {split: set() for split in SPLITS}
    figure = character(np.random.default_rng(0), "egg", 0)

    def note(rng, kind, hue):
        seen[split].add((kind, hue))
        return figure

    monkeypatch.setattr(scenes, "character", note)
    for split in SPLITS:
        for seed in range(150):
            scenes._drawn_character(np.random.default_rng(seed), split)
    assert not seen["train"] & (seen["human"] | seen["non-human"] | seen["mismatched"])
    assert {kind for kind, _ in seen["human"]} == {"person", "doll"}
    assert {kind for kind, _ in seen["non-human"]} == set(KINDS) - {"doll"}
    assert {kind for kind, _ in seen["train"]} == {"person", *KINDS}


@pytest.mark.parametrize("kind", ["person", *KINDS])
def test_every_kind_can_be_filmed_in_all_its_sizes(kind):
    motion = dance(2, 10.0, np.random.default_rng(0))
    turned = np.broadcast_to(np.eye(3, dtype=np.float32), (1, 24, 3, 3))
    for seed in range(12):
        figure = character(np.random.default_rng(seed), kind, seed % HUES)
        joints = (motion[:1] * np.float32([1, -1, -1]) + np.float32([0, 900, 2600])).astype(np.float32)
        hits = cast(figure.parts, turned, joints, (32, 32), 30.0)
        assert (hits.part > 0).mean() > 0.02


def test_a_drawing_is_flat_and_has_a_line_around_it():
    motion, ink = dance(1, 10.0, np.random.default_rng(0)), (0.0, 0.0, 0.0)
    front = Camera(np.diag(np.float32([1, -1, -1])), np.float32([0, 800, 2000]), (96, 96))
    figure, sheet = character(np.random.default_rng(1), "rabbit", 2), Stage(sheet=(1.0, 1.0, 1.0))
    flat, cel, lined, lit = (
        film(figure, motion, front, sheet, style=style)
        for style in (Style("flat"), Style("cel"), Style("flat", outline=ink), Style())
    )
    colours = [len(np.unique(shot.frames[shot.masks], axis=0)) for shot in (flat, cel, lit)]
    looks = len({look.colour for look in (part.look for part in figure.parts)})
    assert colours[0] <= looks < colours[1] <= 2 * looks < colours[2]
    drawn = (lined.frames[0] == 0).all(-1)
    mask = lined.masks[0]
    inner = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    assert drawn[mask & ~inner].all()
    assert (lined.frames[0][~mask] == 255).all()


def test_recorded_motion_is_read_and_cut_into_windows(tmp_path):
    path = tmp_path / "motion.npz"
    count = np.arange(50, dtype=np.float32)
    joints = np.broadcast_to(count[:, None, None], (50, 24, 3)) / 1000
    np.savez(path, joints=joints, clip_start=[0, 20], clip_length=[20, 30], fps=np.float32(30))
    motions = load_motions(path)
    assert motions.rate == Fraction(30)
    drawn = [motions.window(np.random.default_rng(seed), 5, 3)[:, 0, 0] for seed in range(60)]
    assert all(np.allclose(np.diff(window), 3) for window in drawn)
    assert all((window[0] < 20) == (window[-1] < 20) for window in drawn)  # never across two clips
    assert {0.0, 49.0} & {float(window[at]) for window in drawn for at in (0, -1)}
    short = motions.window(np.random.default_rng(0), 40, 1)[:, 0, 0]
    assert short[-1] == short[-2]


def test_recorded_motion_and_dances_are_mixed():
    still = Motions(np.zeros((60, 24, 3), np.float32), np.array([0]), np.array([60]), Fraction(24))
    drawn = [draw_motion(np.random.default_rng(seed), 4, still) for seed in range(80)]
    recorded = [not joints.any() for joints, _ in drawn]
    assert 0.6 < np.mean(recorded) < 0.9
    fewer = [draw_motion(np.random.default_rng(seed), 4, replace(still, share=0.2))[0] for seed in range(80)]
    assert 0.05 < np.mean([not joints.any() for joints in fewer]) < 0.35
    assert {rate for (_, rate), yes in zip(drawn, recorded, strict=True) if yes} == {Fraction(24, n) for n in (1, 2, 3)}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"joints": np.zeros((9, 23, 3)), "clip_start": [0], "clip_length": [9], "fps": 30},
        {"joints": np.zeros((9, 24, 3)), "clip_start": [0], "clip_length": [10], "fps": 30},
        {"joints": np.zeros((9, 24, 3)), "clip_start": [0], "clip_length": [9]},
        {"joints": np.zeros((9, 24, 3)), "clip_start": [0], "clip_length": [9], "fps": 0},
        {"joints": np.full((9, 24, 3), np.nan), "clip_start": [0], "clip_length": [9], "fps": 30},
        {"joints": np.full((9, 24, 3), "a"), "clip_start": [0], "clip_length": [9], "fps": 30},
        {"joints": np.zeros((9, 24, 3)), "clip_start": [0], "clip_length": [9], "fps": [30, 24]},
    ],
)
def test_a_file_that_holds_no_motion_is_refused_with_what_it_should_hold(tmp_path, content):
    path = tmp_path / "motion.npz"
    np.savez(path, **content)
    with pytest.raises(MtvcraftError, match=re.escape("motion.npz")) as refusal:
        load_motions(path)
    assert "clip_start" in refusal.value.hint


def test_a_missing_file_of_motion_is_refused(tmp_path):
    with pytest.raises(MtvcraftError, match="there is no motion set"):
        load_motions(tmp_path / "none.npz")


@pytest.mark.parametrize("move", MOVES)
def test_every_move_moves_the_body_and_stands_on_the_floor(move):
    joints = dance(60, 15.0, np.random.default_rng(1), moves=[move])
    assert np.ptp(joints, axis=0).max() > 150
    assert 0 < joints[..., 1].min() < 40
    lowest = joints[:, (10, 11), 1].min(1)
    assert np.median(lowest) < 120  # on the floor most of the time, also who jumps
