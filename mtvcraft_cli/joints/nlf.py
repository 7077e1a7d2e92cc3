"""Neural Localizer Fields (NLF) as a backend: more exact than MediaPipe; weights for non-commercial research only.

The released files are TorchScript: loading one runs code from it, so only files whose hash is known are run.
"""

import importlib
import importlib.util
from collections.abc import Collection, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Batch, Estimate, Smpl
from mtvcraft_cli.joints.skeleton import NAMES
from mtvcraft_cli.progress import Watch, silent

BATCH: Final = 16
"""Frames handed over at a time."""
HALF_SURE_MM: Final = 100.0
"""Uncertainty at which confidence is a half."""
SMPL_KEYS: Final = {"pose": 72, "betas": 10, "trans": 3}

Person = dict[str, npt.NDArray[np.float32]]
"""What NLF says of one person in one frame: key -> values."""


class NlfPose:
    """Runs a released NLF file over the frames of a clip and follows one person.

    Args:
        file: the TorchScript file.
        known: SHA-256 of the files that may be run.
        trust_file: run `file` whatever its hash.
        device: "cuda" or "cpu"; by default the card if there is one.

    Raises:
        MtvcraftError: (`Exit.WEIGHTS`) the file isn't trusted, isn't NLF's, or needs torchvision and that is missing.
    """

    name = "nlf"

    def __init__(
        self, file: Path, known: Collection[str] = (), *, trust_file: bool = False, device: str | None = None
    ) -> None:
        sha256 = sha256_of(file)
        if not trust_file and sha256 not in known:
            raise MtvcraftError(
                f"`{file.name}` is not a file of NLF's that is known here (SHA-256 {sha256[:12]}...), "
                "and loading it would run code from it",
                hint=f"if you trust where it comes from: `--trust-file {file}`",
                exit=Exit.WEIGHTS,
            )
        self.version = f"{file.stem} {sha256[:12]}"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = _load(file, self.device)

    @torch.inference_mode()
    def estimate(
        self,
        batches: Iterable[Batch],
        size_px: tuple[int, int],
        rate: Fraction,  # noqa: ARG002 - frames are seen one by one
        watch: Watch = silent,
        total: int | None = None,
    ) -> Estimate:
        """Find one person in the frames of one clip; see `PoseBackend.estimate`.

        The person is the one whose box is largest where somebody is first seen, then the one nearest to where that
        person was last. Confidence is 1 / (1 + (u / 100 mm)^2) of NLF's uncertainty u; files without uncertainties
        give the detector's score for every joint.
        """
        for _ in range(2):  # the first runs of a script measure and compile it
            self._run(torch.zeros((1, 3, *size_px[::-1]), dtype=torch.uint8))
        people: list[Person | None] = []
        last: npt.NDArray[np.float32] | None = None
        for batch in watch(batches, "pose", total):
            for start in range(0, len(batch), BATCH):
                frames = torch.from_numpy(np.ascontiguousarray(batch[start : start + BATCH])).permute(0, 3, 1, 2)
                for seen in self._run(frames):
                    person = _choose(seen, last)
                    last = last if person is None else person["joints"]
                    people.append(person)
        return _collect(people)

    def _run(self, images: Tensor) -> list[Person]:
        """Return for each of (B, 3, H, W) pictures what is said of its n persons, (n, ...) under each key."""
        with torch.autocast("cuda", torch.float16, enabled=self.device.type == "cuda"):
            answer = _call(self.model, images.to(self.device))
        joints = "joints3d_nonparam" if "joints3d_nonparam" in answer else "joints3d"
        names = {"joints": joints, "boxes": "boxes", "uncertainty": "joint_uncertainties"}
        names |= {key: key for key in SMPL_KEYS}
        return [
            {name: answer[key][index].float().cpu().numpy() for name, key in names.items() if key in answer}
            for index in range(len(images))
        ]


def _load(file: Path, device: torch.device) -> Any:
    try:
        if importlib.util.find_spec("torchvision") is not None:
            importlib.import_module("torchvision")  # registers the operators that the detector calls
        model = torch.jit.load(str(file), map_location=device).eval()
    except (RuntimeError, torch.jit.Error) as error:
        _explain(error)
        raise MtvcraftError(
            f"`{file.name}` can't be loaded as TorchScript: {str(error).strip().splitlines()[0]}",
            hint="fetch the file anew; NLF 0.3.2 needs a recent torch",
            exit=Exit.WEIGHTS,
        ) from error
    if not hasattr(model, "detect_smpl_batched"):
        raise MtvcraftError(
            f"`{file.name}` is a TorchScript file but not NLF's: it has no `detect_smpl_batched`",
            hint="take `nlf_l_multi_0.3.2.torchscript` of the NLF release",
            exit=Exit.WEIGHTS,
        )
    return model


def _call(model: Any, images: Tensor) -> dict[str, list[Tensor]]:
    try:
        return model.detect_smpl_batched(images)
    except (RuntimeError, torch.jit.Error) as error:
        _explain(error)
        raise


def _explain(error: Exception) -> None:
    """Raise what to do where the detector's operators are missing; else do nothing."""
    if "torchvision::" in str(error):
        raise MtvcraftError(
            "NLF's person detector needs torchvision, which is missing or made for another torch",
            hint="pip install --upgrade torchvision",
            exit=Exit.WEIGHTS,
        ) from error


def _choose(seen: Person, last: npt.NDArray[np.float32] | None) -> Person | None:
    """Return the one person to follow, or None where nobody is seen."""
    joints = seen["joints"]
    finite = np.flatnonzero(np.isfinite(joints).all(axis=(1, 2)))
    if not len(finite):
        return None
    if last is None:
        boxes = seen["boxes"][finite]  # x, y, width, height, score
        best = finite[np.argmax(boxes[:, 2] * boxes[:, 3])]
    else:
        best = finite[np.argmin(np.linalg.norm(joints[finite] - last, axis=-1).mean(axis=1))]
    return {name: values[best] for name, values in seen.items()}


def _collect(people: list[Person | None]) -> Estimate:
    found = np.array([person is not None for person in people], bool)

    def rows(key: str, *shape: int) -> npt.NDArray[np.float32]:
        table = np.full((len(people), *shape), np.nan, np.float32)
        if found.any():
            table[found] = np.stack([person[key] for person in people if person is not None])
        return table

    first = next((person for person in people if person is not None), {})
    joints_mm = rows("joints", len(NAMES), 3)
    confidence = np.zeros((len(people), len(NAMES)), np.float32)
    if "uncertainty" in first:
        confidence[found] = 1 / (1 + (rows("uncertainty", len(NAMES))[found] / HALF_SURE_MM) ** 2)
    elif first:
        confidence[found] = np.clip(rows("boxes", 5)[found, 4:], 0, 1)
    smpl = None
    if all(key in first for key in SMPL_KEYS):
        pose, betas, trans = (rows(key, width) for key, width in SMPL_KEYS.items())
        smpl = Smpl(pose=pose, betas=betas, transl=_metres(trans, joints_mm[:, 0], found))
    return Estimate(joints_mm=joints_mm, confidence=confidence, found=found, smpl=smpl)


def _metres(
    trans: npt.NDArray[np.float32], pelvis_mm: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return SMPL's translation in metres: versions differ in its unit, but the pelvis lies near it, in millimetres."""
    apart = [float(np.median(np.linalg.norm(trans[found] * unit - pelvis_mm[found], axis=-1))) for unit in (1, 1000)]
    return trans * np.float32(0.001 if apart[0] < apart[1] else 1)
