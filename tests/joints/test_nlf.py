"""NLF's interface, spoken to scripts that speak it back: no released weights are needed."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints import backend
from mtvcraft_cli.joints.backend import Estimate, PoseBackend, Scene, choose_backend
from mtvcraft_cli.joints.nlf import NlfPose
from mtvcraft_cli.joints.skeleton import neutral_pose

RATE = Fraction(30)
SIZE_PX = (32, 16)


class Answers(nn.Module):
    """Sees as many people as the red of the first pixel says; green and blue along the first row say where and how big.

    Person k stands at x = 10 mm times green and z = 3000 mm, in a box of blue x blue pixels.
    """

    def __init__(self, trans_unit: float, with_uncertainty: bool) -> None:
        super().__init__()
        self.trans_unit = trans_unit
        self.with_uncertainty = with_uncertainty
        self.register_buffer("rest", torch.from_numpy(neutral_pose()) * torch.tensor([1.0, -1.0, -1.0]))

    def forward(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def detect_smpl_batched(self, images: Tensor, model_name: str = "smpl") -> dict[str, list[Tensor]]:
        assert images.dtype == torch.uint8
        names = ["boxes", "pose", "betas", "trans", "joints3d", "joints3d_nonparam"]
        if self.with_uncertainty:
            names.append("joint_uncertainties")
        answer: dict[str, list[Tensor]] = {}
        for name in names:
            answer[name] = []
        for image in images:
            people = int(image[0, 0, 0])
            place = torch.zeros(people, 3)
            place[:, 0] = image[1, 0, :people] * 10.0
            place[:, 2] = 3000.0
            blue = image[2, 0, :people].float()
            zero = torch.zeros_like(blue)
            answer["boxes"].append(torch.stack([zero, zero, blue, blue, zero + 0.8], dim=1))
            answer["pose"].append(torch.ones(people, 72) * 0.1)
            answer["betas"].append(torch.zeros(people, 10))
            answer["trans"].append((place + 100.0) / self.trans_unit)
            joints = self.rest[None] + place[:, None]
            answer["joints3d"].append(joints + 7.0)
            answer["joints3d_nonparam"].append(joints)
            if self.with_uncertainty:
                answer["joint_uncertainties"].append(torch.ones(people, 24) * 50.0)
        return answer


class NeedsTorchvision(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def detect_smpl_batched(self, images: Tensor) -> dict[str, list[Tensor]]:
        if images.dim() == 4:
            raise RuntimeError("Could not find any similar ops to torchvision::nms.")
        return {"boxes": [images]}


def _saved(path: Path, module: nn.Module) -> Path:
    torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("nlf")
    kept: dict[tuple[float, bool], Path] = {}

    def make(trans_unit: float = 1000.0, with_uncertainty: bool = True) -> Path:
        key = (trans_unit, with_uncertainty)
        if key not in kept:
            kept[key] = _saved(folder / f"nlf_{len(kept)}.torchscript", Answers(*key))
        return kept[key]

    return make


def _frames(*people: list[tuple[int, int]]) -> np.ndarray:
    """Frames with people of (place, size) each."""
    frames = np.zeros((len(people), SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
    for frame, persons in zip(frames, people, strict=True):
        frame[0, 0, 0] = len(persons)
        for index, (place, size) in enumerate(persons):
            frame[0, index, 1:] = place, size
    return frames


def _only(scene: Scene) -> Estimate:
    assert len(scene.people) == 1
    return scene.people[0].estimate


def test_one_person_is_found_in_every_frame(made: Callable[..., Path]) -> None:
    pose = NlfPose(made(), trust_file=True, device="cpu")
    assert isinstance(pose, PoseBackend)
    clip = _frames(*[[(place, 50)] for place in range(40)])
    seen = _only(pose.see([clip[:33], clip[33:]], SIZE_PX, RATE))
    np.testing.assert_allclose(seen.joints_mm[:, 0], [(10 * place, 0, 3000) for place in range(40)], atol=1e-3)
    np.testing.assert_allclose(seen.joints_mm[0] - seen.joints_mm[0, 0], neutral_pose() * (1, -1, -1), atol=1e-3)
    np.testing.assert_allclose(seen.confidence, 0.8)
    assert seen.found.all()


def test_everyone_is_followed_whatever_order_they_are_told_in(made: Callable[..., Path]) -> None:
    clip = _frames(
        [],
        [(200, 20), (50, 40), (120, 30)],
        [(52, 35), (200, 90)],
        [],
        [(200, 90), (55, 30), (121, 30)],
    )
    scene = NlfPose(made(), trust_file=True, device="cpu").see([clip], SIZE_PX, RATE)
    found = [person.estimate.found.tolist() for person in scene.people]
    assert scene.frames == 5
    by_place = sorted(scene.people, key=lambda person: float(np.nanmean(person.estimate.joints_mm[:, 0, 0])))
    found = [person.estimate.found.tolist() for person in by_place]
    assert found == [
        [False, True, True, False, True],
        [False, True, False, False, True],
        [False, True, True, False, True],
    ]
    seen = by_place[0].estimate
    np.testing.assert_allclose(seen.joints_mm[[1, 2, 4], 0, 0], [500, 520, 550], atol=1e-3)
    assert np.isnan(seen.joints_mm[[0, 3]]).all()
    assert (seen.confidence[[0, 3]] == 0).all()
    assert by_place[0].boxes_px[[1, 2, 4], 2].tolist() == [40, 35, 30]
    assert seen.smpl is not None
    assert np.isnan(seen.smpl.pose[0]).all()


def test_two_people_who_walk_through_each_other_keep_their_identity(made: Callable[..., Path]) -> None:
    walks = [(20 + 4 * frame, 220 - 4 * frame) for frame in range(51)]
    told = [
        [(right, 30), (left, 30)] if frame % 3 else [(left, 30), (right, 30)]
        for frame, (left, right) in enumerate(walks)
    ]
    for hidden in range(23, 28):  # the second one can't be seen while both are at one place
        told[hidden] = [(walks[hidden][0], 30)]
    scene = NlfPose(made(), trust_file=True, device="cpu").see([_frames(*told)], SIZE_PX, RATE)
    places = sorted(
        (person.estimate.joints_mm[:, 0, 0].tolist() for person in scene.people), key=lambda places: places[0]
    )
    np.testing.assert_allclose(places[0], [10 * left for left, _ in walks], atol=1e-3)
    expected = [np.nan if frame in range(23, 28) else 10.0 * right for frame, (_, right) in enumerate(walks)]
    np.testing.assert_allclose(places[1], expected, atol=1e-3)


def test_a_clip_without_anybody_is_a_normal_result(made: Callable[..., Path]) -> None:
    scene = NlfPose(made(), trust_file=True, device="cpu").see([_frames([], [])], SIZE_PX, RATE)
    assert (scene.frames, scene.people) == (2, ())


@pytest.mark.parametrize("trans_unit", [1.0, 1000.0])
def test_the_translation_is_in_metres_whatever_the_version_gives(made: Callable[..., Path], trans_unit: float) -> None:
    pose = NlfPose(made(trans_unit=trans_unit), trust_file=True, device="cpu")
    smpl = _only(pose.see([_frames([(30, 9)], [], [(31, 9)])], SIZE_PX, RATE)).smpl
    assert smpl is not None
    np.testing.assert_allclose(smpl.transl[[0, 2]], [(0.4, 0.1, 3.1), (0.41, 0.1, 3.1)], rtol=1e-5)
    np.testing.assert_allclose(smpl.pose[0], 0.1, rtol=1e-6)
    assert smpl.betas.shape == (3, 10)


def test_without_uncertainties_the_score_is_the_confidence(made: Callable[..., Path]) -> None:
    pose = NlfPose(made(with_uncertainty=False), trust_file=True, device="cpu")
    seen = _only(pose.see([_frames([(30, 9)])], SIZE_PX, RATE))
    np.testing.assert_allclose(seen.confidence, 0.8, rtol=1e-6)


def test_an_unknown_file_is_not_run(made: Callable[..., Path]) -> None:
    with pytest.raises(MtvcraftError, match="not a file of NLF's that is known here") as caught:
        NlfPose(made(), known={"0" * 64})
    assert f"--trust-file {made()}" in caught.value.hint
    assert caught.value.exit is Exit.WEIGHTS


def test_a_known_file_is_run_and_named_in_the_version(made: Callable[..., Path]) -> None:
    sha256 = sha256_of(made())
    assert NlfPose(made(), known={sha256}, device="cpu").version == f"{made().stem} {sha256[:12]}"


def test_missing_torchvision_is_said_with_the_line_to_install_it(tmp_path: Path) -> None:
    pose = NlfPose(_saved(tmp_path / "nlf.torchscript", NeedsTorchvision()), trust_file=True, device="cpu")
    with pytest.raises(MtvcraftError, match="needs torchvision") as caught:
        pose.see([_frames([])], SIZE_PX, RATE)
    assert caught.value.hint == "pip install --upgrade torchvision"
    assert caught.value.exit is Exit.WEIGHTS


def test_a_file_that_is_not_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nlf.torchscript"
    path.write_bytes(b"not a model")
    with pytest.raises(MtvcraftError, match="can't be loaded as TorchScript") as caught:
        NlfPose(path, trust_file=True)
    assert caught.value.exit is Exit.WEIGHTS


def test_another_torchscript_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="no `detect_smpl_batched`"):
        NlfPose(_saved(tmp_path / "linear.torchscript", nn.Linear(2, 2)), trust_file=True)


def test_auto_takes_nlf_only_with_a_card_and_a_trusted_file(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {}
    for card in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda card=card: card)
        for trust_file in (False, True):
            chosen[card, trust_file] = backend._suits(made(), set(), trust_file)
    assert [key for key, suits in chosen.items() if suits] == [(True, True)]


def test_nlf_without_its_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    for file in (None, tmp_path / "nothing.torchscript"):
        with pytest.raises(MtvcraftError) as caught:
            choose_backend("nlf", file=file)
        assert "--trust-file" in caught.value.hint
        assert caught.value.exit is Exit.WEIGHTS


def test_nlf_is_chosen_by_name(made: Callable[..., Path]) -> None:
    assert choose_backend("nlf", file=made(), trust_file=True, device="cpu").name == "nlf"
