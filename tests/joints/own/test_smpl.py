"""Rotations of SMPL's family, with and without a body file; and the body of nobody in particular."""

import pickle
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.files import Motion, resample
from mtvcraft_cli.joints.neutral import neutral_joints, on_neutral_body
from mtvcraft_cli.joints.own.body import load_body
from mtvcraft_cli.joints.own.read import OwnMotion, read_own
from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM
from mtvcraft_cli.joints.turns import axis_angles, forward, matrices, turns_of_pose
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.tokens.tokenise import tokenise
from mtvcraft_cli.windows import plan_windows
from tests.joints.own.makers import FRONT, body_arrays, degrees_between, moved, rotations, save_body
from tests.tiny import tiny_tokenizer

UP_Z = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""From y up to z up."""
BETAS = np.linspace(-1.5, 1.5, 10)


def _walk(frames: int = 30) -> np.ndarray:
    return np.stack([np.linspace(0, 0.8, frames), np.full(frames, 0.9), np.linspace(0, 0.4, frames)], axis=1)


def _turned(pose: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The same motion in other axes: only the root's rotation changes."""
    changed = pose.copy()
    changed[:, :3] = axis_angles(turn @ matrices(pose[:, :3]))
    return changed


def _plain(folder: Path) -> Path:
    path = folder / "camera.yaml"
    path.write_text("view: front\npitch_deg: 0\n")
    return path


def _amass(pose: np.ndarray, width: int, rate_key: str) -> dict[str, Any]:
    hands = np.zeros((len(pose), width - 66))
    return {
        "poses": np.concatenate([_turned(pose, UP_Z)[:, :66], hands], axis=1).astype(np.float64),
        "trans": _walk(len(pose)) @ UP_Z.T,
        "betas": np.linspace(-1.5, 1.5, 16),
        "gender": np.array("female"),
        "dmpls": np.zeros((len(pose), 8)),
        rate_key: np.array(120.0),
    }


def _smplx(pose: np.ndarray) -> dict[str, Any]:
    return {
        "global_orient": pose[:, :3],
        "body_pose": pose[:, 3:66],
        "transl": _walk(len(pose)),
        "betas": BETAS[None],
        "left_hand_pose": np.zeros((len(pose), 45)),
        "fps": 120,
    }


def _matrices(pose: np.ndarray) -> dict[str, Any]:
    turns = matrices(pose.reshape(-1, 24, 3))
    return {"global_orient": turns[:, :1], "body_pose": turns[:, 1:], "transl": _walk(len(pose)), "fps": 120}


def _aist(pose: np.ndarray) -> dict[str, Any]:
    return {
        "smpl_poses": pose.astype(np.float64),
        "smpl_trans": _walk(len(pose)) * 93,
        "smpl_scaling": np.array([93.0]),
        "fps": 120,
    }


KINDS: dict[str, tuple[Any, str, int]] = {
    "AMASS, SMPL-H": (lambda pose: _amass(pose, 156, "mocap_framerate"), "AMASS", 22),
    "AMASS, SMPL-X": (lambda pose: _amass(pose, 165, "mocap_frame_rate"), "AMASS", 22),
    "SMPL": (
        lambda pose: {"poses": pose, "trans": _walk(len(pose)), "betas": BETAS, "fps": 120},
        "SMPL parameters",
        24,
    ),
    "SMPL-X": (_smplx, "SMPL-X parameters", 22),
    "matrices": (_matrices, "SMPL parameters", 24),
    "AIST++": (_aist, "SMPL parameters", 24),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".npz", ".pkl"])
def test_each_kind_of_parameters_moves_the_neutral_skeleton(kind: str, ending: str, tmp_path: Path) -> None:
    pose = rotations()
    make, named, joints = KINDS[kind]
    path = tmp_path / f"theirs{ending}"
    if ending == ".npz":
        np.savez(path, **make(pose))
    else:
        path.write_bytes(pickle.dumps(make(pose)))
    read, said = read_own(path, OwnMotion(camera=_plain(tmp_path)))
    wanted = moved(pose, _walk())
    assert degrees_between(read.joints_mm * FRONT, wanted)[:, : joints - 1].max() < 0.05
    steps_mm = (read.joints_mm[:, 0] - read.joints_mm[0, 0]) * FRONT
    np.testing.assert_allclose(steps_mm, 1000 * (_walk() - _walk()[0]), atol=0.05)
    assert (read.rate, read.meta["kind"]) == (120, named)
    assert f"`theirs{ending}` holds rotations: they move the neutral skeleton, since no `--body-model` is given" in said
    assert ("took z of" in " ".join(said)) is False  # AMASS says so itself


def test_the_parameters_are_turned_into_the_camera_too(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    np.savez(path, **_amass(rotations(), 156, "mocap_framerate"))
    read, _ = read_own(path)
    assert read.smpl_pose is not None
    again = forward(turns_of_pose(read.smpl_pose), read.joints_mm[:, 0], NEUTRAL_OFFSETS_MM)
    np.testing.assert_allclose(again, read.joints_mm, atol=0.05)
    origin_mm = read.joints_mm[:, 0] - 1000 * read.smpl_transl
    np.testing.assert_allclose(origin_mm, np.tile(origin_mm[:1], (30, 1)), atol=0.01)
    np.testing.assert_allclose(
        read.smpl_betas, np.tile(BETAS[None], (30, 1))[:, :10] * 0 + np.linspace(-1.5, 1.5, 16)[:10]
    )


def test_an_array_of_rotations_is_told_from_one_of_joints(tmp_path: Path) -> None:
    pose = rotations()
    joints = moved(pose, _walk()) / 1000
    for name, content in [("flat", pose), ("deep", pose.reshape(-1, 24, 3))]:
        np.save(tmp_path / f"{name}.npy", content)
        assert read_own(tmp_path / f"{name}.npy")[0].meta["kind"] == "SMPL parameters"
    for name, content in [("flat", joints.reshape(-1, 72)), ("deep", joints), ("short", joints[:1])]:
        np.save(tmp_path / f"{name}.npy", content)
        assert read_own(tmp_path / f"{name}.npy")[0].meta["kind"] == "joints"


def test_parameters_of_an_estimator_stay_in_its_camera(tmp_path: Path) -> None:
    pose = _turned(rotations(), np.diag(FRONT))
    place = np.tile([[0.1, 0.4, 3.0]], (30, 1))
    np.savez(tmp_path / "seen.npz", poses=pose, transl=place, fps=25)
    read, _ = read_own(tmp_path / "seen.npz")
    np.testing.assert_allclose(read.smpl_pose, pose, atol=1e-6)
    np.testing.assert_allclose(read.smpl_transl, place, atol=1e-6)
    np.testing.assert_allclose(read.joints_mm, moved(pose, read.joints_mm[:, 0] / 1000), atol=0.01)


def test_results_that_torch_saved_are_read_by_the_name_of_the_part(tmp_path: Path) -> None:
    pose = torch.from_numpy(rotations())
    world = {"body_pose": pose[:, 3:66], "global_orient": pose[:, :3], "transl": torch.from_numpy(_walk())}
    seen = {**world, "transl": world["transl"] + torch.tensor([0.0, 0, 3])}
    path = tmp_path / "results.pt"
    torch.save({"smpl_params_global": world, "smpl_params_incam": seen, "K_fullimg": torch.eye(3)}, path)
    with pytest.raises(MtvcraftError, match="holds 2 clips") as caught:
        read_own(path)
    assert caught.value.hint == "choose one with `--clip`: 1 `smpl_params_global`, 2 `smpl_params_incam`"
    read, _ = read_own(path, OwnMotion(clip="smpl_params_global", camera=_plain(tmp_path)))
    assert degrees_between(read.joints_mm * FRONT, moved(rotations(), _walk()))[:, :21].max() < 0.05
    torch.save({"poses": Path("a")}, path)
    with pytest.raises(MtvcraftError, match=r"asks for `pathlib\.\w*Path`|can't be read"):
        read_own(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": np.full((3, 72), np.nan)}, "NaN or infinite rotations in frames 0 to 2"),
        ({"poses": np.full((3, 72), 500.0)}, "rotations of up to 500 radians"),
        ({"trans": np.zeros((5, 3))}, r"30 frames of rotations and translations of \(5, 3\)"),
        ({"trans": np.zeros((30, 2))}, r"translations of \(30, 2\)"),
        ({"trans": np.zeros((3, 30))}, r"translations of \(3, 30\)"),
        ({"trans": np.full((30, 3), np.inf)}, "NaN or infinite translations"),
        ({"betas": np.full(10, np.nan)}, "NaN or infinite betas"),
        ({"fps": np.nan}, "a frame rate of nan"),
    ],
)
def test_broken_parameters_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"poses": rotations(), "trans": _walk(), "betas": BETAS, **changes})
    with pytest.raises(MtvcraftError, match=message):
        read_own(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bodies")
    return [save_body(folder / f"{seed}.npz", seed) for seed in (0, 1)]


def test_the_joints_are_those_of_smplx(bodies: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    body, pose = load_body(bodies[0]), rotations(4)
    assert capsys.readouterr().out == ""  # smplx's own warning is swallowed
    betas = np.linspace(-1, 1, 10).astype(np.float32)
    place = torch.from_numpy(_walk(4).astype(np.float32))
    with torch.no_grad():
        whole = body.model(
            betas=torch.from_numpy(np.tile(betas, (4, 1))),
            global_orient=torch.from_numpy(pose[:, :3]),
            body_pose=torch.from_numpy(pose[:, 3:]),
            transl=place,
        )
    theirs_mm = 1000 * whole.joints[:, :24].numpy()
    bones_mm = body.bones_mm(betas)
    ours_mm = forward(turns_of_pose(pose), 1000 * place.numpy() + bones_mm[0], bones_mm)
    np.testing.assert_allclose(ours_mm, theirs_mm, atol=0.01)
    moved_mm = body.pelvis_moved_mm(betas[None])[0]
    np.testing.assert_allclose(moved_mm, body.rest_mm(betas)[0] - body.rest_mm()[0], atol=0.01)


class _Named:
    """Pickles under another name, with a state, as objects of packages that aren't here."""


def _package(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> type:
    """A class that pickles as `module.name` does."""
    made = type(name, (_Named,), {"__module__": module})
    for part in (module.partition(".")[0], module):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    setattr(sys.modules[module], name, made)
    return made


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_body_file_with_chumpy_and_scipy_in_it_is_read_without_them(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    kind = _package(monkeypatch, "chumpy.ch", "Ch")
    arrays: dict[str, Any] = {**body_arrays()}
    wanted = dict(arrays)
    for name in ("shapedirs", "v_template"):
        held = kind()
        held.__dict__.update(x=arrays[name], _dirty_vars=set(), _depends_on_deps=None)
        arrays[name] = held
    arrays["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({**arrays, "bs_type": "lrotmin"}, protocol))
    monkeypatch.undo()
    assert "chumpy" not in sys.modules
    plain = tmp_path / "plain.npz"
    np.savez(plain, **wanted)
    np.testing.assert_allclose(load_body(path).rest_mm(), load_body(plain).rest_mm(), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"J_regressor": np.ones((55, 6890))}, r"a `J_regressor` of \(55, 6890\) instead of 24 x 6890"),
        ({"weights": None}, "no array `weights`"),
        ({"v_template": np.full((6890, 3), np.nan)}, "a `v_template` that isn't all finite"),
        ({"kintree_table": np.zeros((2, 24), int)}, "hang together in another way"),
    ],
)
def test_what_is_no_body_of_smpl_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {key: value for key, value in {**body_arrays(), **changes}.items() if value is not None}
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(arrays))
    with pytest.raises(MtvcraftError, match=message) as caught:
        load_body(path)
    assert caught.value.exit is Exit.INPUT


def test_a_body_file_that_wants_to_act_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch hit'\ntR.")
    with pytest.raises(MtvcraftError, match=r"is broken|`os\.system`"):
        load_body(path)
    path.write_bytes(b"\x80\x02cos\nsystem\n(X\x01\x00\x00\x00atR.")
    with pytest.raises(MtvcraftError, match=r"`os\.system`") as caught:
        load_body(path)
    assert caught.value.exit is Exit.INPUT
    with pytest.raises(MtvcraftError, match="there is no body file"):
        load_body(tmp_path / "nothing.pkl")


def _of_body(path: Path, betas: np.ndarray, folder: Path) -> Motion:
    """A motion in camera space of a body with these betas."""
    file = folder / "seen.npz"
    pose = _turned(rotations(), np.diag(FRONT))
    np.savez(file, poses=pose, transl=np.tile([[0.1, 0.4, 3.0]], (30, 1)), betas=betas, fps=25)
    return read_own(file, OwnMotion(body_model=path))[0]


def test_another_body_with_the_same_rotations_gives_the_same_tokens(bodies: list[Path], tmp_path: Path) -> None:
    body = load_body(bodies[0])
    thin, wide = (_of_body(bodies[0], betas, tmp_path) for betas in (np.zeros(10), BETAS))
    assert np.abs(thin.joints_mm - wide.joints_mm).max() > 10
    plans = plan_windows(17, 17, 1)
    stats = Statistics(mean_mm=np.zeros((24, 3), np.float32), std_mm=np.full((24, 3), 500, np.float32))
    tokens, plain = [], []
    for person in (thin, wide):
        slow = resample(person, Fraction(15), 17)
        joints_mm = neutral_joints(slow, body)
        assert np.abs(joints_mm[:, 1:] - joints_mm[:, :1] - (neutral_joints(slow)[:, 1:] - joints_mm[:, :1])).max() > 1
        tokens.append(tokenise(joints_mm, tiny_tokenizer(), plans, stats, "none").tokens)
        plain.append(tokenise(slow.joints_mm, tiny_tokenizer(), plans, stats, "none").tokens)
    np.testing.assert_array_equal(*tokens)
    assert (plain[0] != plain[1]).any()


def test_without_a_body_the_directions_go_on_neutral_bones(bodies: list[Path], tmp_path: Path) -> None:
    person = _of_body(bodies[1], BETAS, tmp_path)
    np.testing.assert_array_equal(neutral_joints(person), on_neutral_body(person.joints_mm))
    no_rotations = replace(person, smpl_pose=None)
    np.testing.assert_array_equal(neutral_joints(no_rotations, load_body(bodies[1])), on_neutral_body(person.joints_mm))
    other = replace(person, joints_mm=person.joints_mm + np.float32([100, 0, 0]))
    np.testing.assert_allclose(
        neutral_joints(other, load_body(bodies[1]))[:, 0] - neutral_joints(person, load_body(bodies[1]))[:, 0],
        np.tile([100, 0, 0], (30, 1)),
        atol=0.01,
    )
