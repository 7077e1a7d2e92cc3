"""BVH out and in again, and in from whoever wrote it."""

import json
import re
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.own.bvh import write_bvh
from mtvcraft_cli.joints.own.read import OwnMotion, read_own
from mtvcraft_cli.joints.skeleton import NAMES
from tests.joints.own.makers import FRONT, NAMED, bvh_text, corpus, degrees_between, their_name, world
from tests.joints.people import dancer, motion, shared

PLAIN = "view: front\npitch_deg: 0\n"
"""A camera that only turns the axes."""


def _front(folder: Path) -> Path:
    path = folder / "camera.yaml"
    path.write_text(PLAIN)
    return path


def _noise() -> np.ndarray:
    """As large as a person, and like nothing else of one."""
    return np.random.default_rng(0).normal(size=(30, 24, 3)) * 90 + (0, 0, 3000)


def _estimated(number: int) -> np.ndarray:
    with np.load(shared(f"motion/pairs_{number}.npz")) as file:
        return file["joints"]


@pytest.mark.parametrize(
    "joints",
    [
        lambda: dancer(40),
        _noise,
        lambda: _estimated(1),
        lambda: _estimated(2),
        lambda: corpus(3) * FRONT * 1000 + (0, 900, 4000),
        lambda: dancer(1),
    ],
    ids=["steady bones", "no body at all", "estimated close-up", "estimated dance", "mocap", "one frame"],
)
def test_what_we_write_comes_back_within_a_millimetre(joints, tmp_path: Path) -> None:
    joints_mm = joints().astype(np.float32)
    saved = motion(len(joints_mm), Fraction(30000, 1001), joints_mm=joints_mm)
    write_bvh(tmp_path / "out.bvh", saved)
    loaded, said = read_own(tmp_path / "out.bvh")
    assert np.linalg.norm(loaded.joints_mm - joints_mm, axis=-1).max() < 1
    assert loaded.rate == Fraction(30000, 1001)
    assert said == ()


def test_steady_bones_are_written_as_rotations_only(tmp_path: Path) -> None:
    write_bvh(tmp_path / "out.bvh", motion(20))
    assert (tmp_path / "out.bvh").read_text().count("Xposition") == 1
    write_bvh(tmp_path / "out.bvh", motion(20, joints_mm=_noise()[:20].astype(np.float32)))
    assert (tmp_path / "out.bvh").read_text().count("Xposition") == 24


@pytest.mark.parametrize("clip", [0, 9, 20, 31])
def test_a_cmu_file_gives_the_directions_of_the_corpus_within_a_degree(clip: int, tmp_path: Path) -> None:
    joints = corpus(clip)
    path = tmp_path / "cmu.bvh"
    path.write_text(bvh_text(joints, lambda joint: their_name(joint, NAMED["CMU"]), scale=100 / 5.644))
    read, _ = read_own(path, OwnMotion(camera=_front(tmp_path)))
    assert degrees_between(read.joints_mm * FRONT, joints).max() < 1
    assert read.meta["kind"] == "BVH that names joints as CMU does"


@pytest.mark.parametrize(
    ("convention", "order", "scale", "unit"),
    [
        ("CMU", "ZYX", 100 / 2.54, "inches"),
        ("Mixamo", "ZXY", 100, "centimetres"),
        ("Rokoko", "YXZ", 1, "metres"),
        ("LAFAN", "ZYX", 100, "centimetres"),
        ("SMPL", "XYZ", 1000, ""),
        ("SMPL", "XZY", 1, "metres"),
        ("SMPL", "YZX", 7, "neutral body's size"),
    ],
)
def test_names_orders_and_units_of_many_programs_are_known(
    convention: str, order: str, scale: float, unit: str, tmp_path: Path
) -> None:
    joints = world(30)
    path = tmp_path / "their.bvh"
    path.write_text(bvh_text(joints, lambda joint: their_name(joint, NAMED[convention]), order=order, scale=scale))
    read, said = read_own(path, OwnMotion(camera=_front(tmp_path)))
    assert read.meta["kind"] == f"BVH that names joints as {convention} does"
    assert degrees_between(read.joints_mm * FRONT, joints).max() < 0.1
    moved_mm = read.joints_mm[:, 0] - read.joints_mm[:1, 0]
    np.testing.assert_allclose(moved_mm * FRONT, 1000 * (joints[:, 0] - joints[:1, 0]), atol=0.5)
    assert unit in " ".join(said)
    assert read.rate == 30


def test_z_up_is_seen_and_said(tmp_path: Path) -> None:
    joints = world(30)
    path = tmp_path / "blender.bvh"
    up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    path.write_text(bvh_text(joints, lambda joint: their_name(joint, NAMED["LAFAN"]), axes=up))
    read, said = read_own(path, OwnMotion(camera=_front(tmp_path)))
    assert "took z of `blender.bvh` as pointing up, as the body stands" in said
    assert degrees_between(read.joints_mm * FRONT, joints).max() < 0.1


def test_what_a_skeleton_lacks_is_filled_in_and_said(tmp_path: Path) -> None:
    joints = world(30)
    lacking = {**NAMED["LAFAN"], "collar": "", "foot": "", "head": ""}
    path = tmp_path / "poor.bvh"
    text = bvh_text(joints, lambda joint: their_name(joint, lacking))
    path.write_text(text)
    with pytest.raises(MtvcraftError, match="names no `l_shoulder`"):  # arms hang on the collars
        read_own(path)
    # only what ends a limb is left out: heads, hands and toes, whose parents end nowhere
    lacking = {**NAMED["LAFAN"], "foot": "", "head": ""}
    text = bvh_text(joints, lambda joint: their_name(joint, lacking))
    text = re.sub(r"(End Site\n{\nOFFSET) .*", r"\1 0 0 0", text)
    path.write_text(text)
    read, said = read_own(path, OwnMotion(camera=_front(tmp_path)))
    assert "`poor.bvh` has no l_foot, r_foot, head, l_hand, r_hand: set as on the neutral body" in said
    angles = degrees_between(read.joints_mm * FRONT, joints)
    kept = [index - 1 for index in range(1, 24) if NAMES[index] not in ("l_foot", "r_foot", "head", "l_hand", "r_hand")]
    assert angles[:, kept].max() < 0.1
    assert angles.max() < 5  # the dancer's own ankles, wrists and neck are those of the neutral body


@pytest.mark.parametrize("spine", [1, 2, 5])
def test_a_spine_of_any_number_of_joints_is_divided(spine: int, tmp_path: Path) -> None:
    joints = world(12)
    names = {**NAMED["LAFAN"]}
    text = bvh_text(joints, lambda joint: their_name(joint, names))
    if spine < 3:  # take joints out of the chain by making them no more than their parent
        lines = text.splitlines()
        for name in ("Spine1", "Spine2")[: 3 - spine]:
            at = next(number for number, line in enumerate(lines) if line == f"JOINT {name}")
            lines[at + 2] = "OFFSET 0 0 0"
        text = "\n".join(lines)
    else:
        text = text.replace(
            "JOINT Neck",
            "JOINT Spine3\n{\nOFFSET 0 5 0\nCHANNELS 0\nJOINT Spine4\n{\nOFFSET 0 5 0\nCHANNELS 0\nJOINT Neck",
        )
        text = text.replace("}\nJOINT LeftShoulder", "}\n}\n}\nJOINT LeftShoulder")
    path = tmp_path / "spine.bvh"
    path.write_text(text)
    read, said = read_own(path, OwnMotion(camera=_front(tmp_path)))
    assert f"`spine.bvh` has {spine} joints between pelvis and neck" in " ".join(said)
    spine_mm = read.joints_mm[:, [0, 3, 6, 9, 12]]
    lengths = np.linalg.norm(np.diff(spine_mm, axis=1), axis=-1)
    np.testing.assert_allclose(
        lengths / lengths.sum(axis=1, keepdims=True), np.array([[102, 121, 45, 197]] * 12) / 465, atol=0.02
    )


def test_a_joint_map_names_what_nobody_knows(tmp_path: Path) -> None:
    joints = world(10)
    path, mapped = tmp_path / "odd.bvh", tmp_path / "map.json"
    path.write_text(bvh_text(joints, lambda joint: f"Knochen {NAMES.index(joint)}"))
    with pytest.raises(MtvcraftError, match="names no `pelvis`, `l_hip`") as caught:
        read_own(path)
    assert "--joint-map" in caught.value.hint
    assert "Knochen 0, Knochen 1" in caught.value.hint
    mapped.write_text(json.dumps({joint: f"Knochen {number}" for number, joint in enumerate(NAMES)}))
    read, _ = read_own(path, OwnMotion(camera=_front(tmp_path), joint_map=mapped))
    assert degrees_between(read.joints_mm * FRONT, joints).max() < 0.1
    assert read.meta["kind"] == "BVH that names joints by `--joint-map`"


@pytest.mark.parametrize(
    ("mapped", "message", "hint"),
    [
        ("l_hipp: Hips", "names `l_hipp`, no joint of SMPL", "did you mean `l_hip`?"),
        ("l_hand: LeftHandd", "names `LeftHandd` for l_hand, which `a.bvh` doesn't have", "did you mean `LeftHand`?"),
        ("l_hand: LeftHand\nl_wrist: LeftHand", "gives `LeftHand` to two joints", "one of its own"),
        ("- a", "maps no names", "name: value"),
        ("a: [", "can't be read", "YAML"),
    ],
)
def test_a_wrong_joint_map_is_refused(mapped: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    path.write_text(bvh_text(world(2), lambda joint: their_name(joint, NAMED["LAFAN"])))
    (tmp_path / "map.yaml").write_text(mapped)
    with pytest.raises(MtvcraftError, match=message) as caught:
        read_own(path, OwnMotion(joint_map=tmp_path / "map.yaml"))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("0.0333333", Fraction(30)),
        ("0.033333", Fraction(30)),
        ("0.033", Fraction(30)),
        ("0.00833333", Fraction(120)),
        ("0.008333", Fraction(120)),
        ("0.0166667", Fraction(60)),
        ("0.04", Fraction(25)),
        ("0.0333667", Fraction(30000, 1001)),
        ("0.0417083", Fraction(24000, 1001)),
        ("4.1666667e-02", Fraction(24)),
        ("0.08", Fraction(25, 2)),
    ],
)
def test_the_frame_time_becomes_the_rate_it_was_rounded_from(written: str, rate: Fraction, tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    path.write_text(bvh_text(world(2), lambda joint: their_name(joint, NAMED["LAFAN"]), rate=written))
    assert read_own(path)[0].rate == rate


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("MOTION", "", "line"),
        ("Frame Time: 0.0333333", "", "no `Frame Time`"),
        ("Frame Time: 0.0333333", "Frame Time: 0", "a frame time of 0 s"),
        ("CHANNELS 3", "CHANNELS 4", "CHANNELS 4"),
        ("Zrotation", "Wrotation", "CHANNELS 6"),
        ("OFFSET 0.0", "OFFSET x", "OFFSET x"),
        ("OFFSET 0.0", "OFFSET 1e999", "OFFSET 1e999"),
        ("JOINT Spine\n", "JUMP Spine\n", "JUMP Spine"),
        ("JOINT LeftUpLeg\n{", "JOINT LeftUpLeg\n{\n" + "JOINT a\n{\n" * 1100, "more than 1000 joints"),
        (" 0.", " x0.", "x0."),
        (" 0.", " 7 7 0.", "numbers for"),
    ],
)
def test_a_broken_file_is_refused_in_words(before: str, after: str, message: str, tmp_path: Path) -> None:
    text = bvh_text(world(3), lambda joint: their_name(joint, NAMED["LAFAN"]))
    head, motion_word, tail = text.partition("Frame Time: 0.0333333")
    changed = (
        head + motion_word + tail.replace(before, after, 1) if before.startswith(" ") else text.replace(before, after)
    )
    assert changed != text
    path = tmp_path / "broken.bvh"
    path.write_text(changed)
    with pytest.raises(MtvcraftError, match=r"broken\.bvh") as caught:
        read_own(path)
    assert message in caught.value.message
    assert caught.value.exit is Exit.INPUT


def test_a_frame_of_nan_is_named(tmp_path: Path) -> None:
    lines = bvh_text(world(6), lambda joint: their_name(joint, NAMED["LAFAN"])).splitlines()
    for frame in (2, 3):
        lines[frame - 6] = " ".join(["nan", *lines[frame - 6].split()[1:]])
    (tmp_path / "a.bvh").write_text("\n".join(lines))
    with pytest.raises(MtvcraftError, match="NaN or infinite values in frames 2 to 3"):
        read_own(tmp_path / "a.bvh")


def test_ten_thousand_frames_take_less_than_two_seconds(tmp_path: Path) -> None:
    joints_mm = np.tile(dancer(500), (20, 1, 1)).astype(np.float32)
    write_bvh(tmp_path / "long.bvh", motion(10_000, joints_mm=joints_mm))
    started = time.process_time()
    loaded, _ = read_own(tmp_path / "long.bvh")
    assert time.process_time() - started < 2
    assert len(loaded) == 10_000


def test_written_bones_have_their_rates_and_places_in_any_file(tmp_path: Path) -> None:
    """What we write is a plain BVH: another reader, with no idea of our root's name, sees a body with y up."""
    write_bvh(tmp_path / "out.bvh", motion(20))
    text = (tmp_path / "out.bvh").read_text().replace("pelvis_in_camera_space", "Hips")
    (tmp_path / "plain.bvh").write_text(text)
    read, said = read_own(tmp_path / "plain.bvh", OwnMotion(camera=_front(tmp_path)))
    assert degrees_between(read.joints_mm, motion(20).joints_mm).max() < 0.1
    assert read.rate == 30
    assert "centimetres" in " ".join(said)


def test_our_own_file_in_another_unit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scaled.bvh"
    small_mm = (dancer(4) / 100).astype(np.float32)
    write_bvh(
        path, motion(4, Fraction(30), joints_mm=small_mm)
    )  # as a program leaves it that takes centimetres for metres
    with pytest.raises(MtvcraftError, match="no longer of a person's size"):
        read_own(path)
