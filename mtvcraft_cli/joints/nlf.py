"""Neural Localizer Fields (NLF) as a backend: more exact than MediaPipe; weights for non-commercial research only.

The released files are TorchScript: loading one runs code from it, so only files whose hash is known are run.
"""

import importlib
import importlib.util
from collections.abc import Collection, Iterable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Batch, Estimate, Person, Scene, Smpl
from mtvcraft_cli.joints.shots import Frame, with_cuts
from mtvcraft_cli.joints.skeleton import NAMES
from mtvcraft_cli.joints.tracks import Sighting, Tracker
from mtvcraft_cli.progress import Watch, silent

BATCH: Final = 16
"""Frames handed over at a time."""
HALF_SURE_MM: Final = 100.0
"""Uncertainty at which confidence is a half."""
SMPL_KEYS: Final = ("pose", "betas", "trans")

Said = dict[str, npt.NDArray[np.float32]]
"""What NLF says of one person in one frame, or of all: key -> values."""


class NlfPose:
    """Runs a released NLF file over the frames of a clip and follows everyone in it.

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
    def see(
        self,
        batches: Iterable[Batch],
        size_px: tuple[int, int],
        rate: Fraction,
        watch: Watch = silent,
        total: int | None = None,
    ) -> Scene:
        """Find everyone in the frames of one clip; see `PoseBackend.see`.

        Confidence is 1 / (1 + (u / 100 mm)^2) of NLF's uncertainty u; files without uncertainties give the detector's
        score for every joint.
        """
        for _ in range(2):  # the first runs of a script measure and compile it
            self._run(torch.zeros((1, 3, *size_px[::-1]), dtype=torch.uint8))
        tracker, cuts = Tracker(rate), []
        frames = with_cuts(watch(batches, "pose", total))
        while some := list(islice(frames, BATCH)):
            for (_, cut), everyone in zip(some, self._run(_images([frame for frame, _ in some])), strict=True):
                if cut:
                    cuts.append(tracker.frame + 1)
                    tracker.cut()
                tracker.step(_sightings(everyone))
        if tracker.frame < 0:
            raise ValueError("a clip has at least one frame")
        people = tuple(_person(seen, tracker.frame + 1) for seen in tracker.people())
        return Scene(frames=tracker.frame + 1, people=people, cuts=tuple(cuts))

    def _run(self, images: Tensor) -> list[Said]:
        """Return for each of (B, 3, H, W) pictures what is said of its n persons, (n, ...) under each key."""
        with torch.autocast("cuda", torch.float16, enabled=self.device.type == "cuda"):
            answer = _call(self.model, images.to(self.device))
        joints = "joints3d_nonparam" if "joints3d_nonparam" in answer else "joints3d"
        names = {"joints": joints, "boxes": "boxes", "uncertainty": "joint_uncertainties"}
        names |= dict(zip(SMPL_KEYS, SMPL_KEYS, strict=True))
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


def _images(frames: list[Frame]) -> Tensor:
    """(H, W, 3) each to (B, 3, H, W)."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _sightings(everyone: Said) -> list[Sighting]:
    """Part what is said of everyone in a frame; who has NaN joints isn't there."""
    sightings = []
    for index, joints_mm in enumerate(everyone["joints"]):
        if np.isfinite(joints_mm).all():
            own = {name: values[index] for name, values in everyone.items()}
            confidence = _confidence(own)
            sightings.append(
                Sighting(
                    box_px=own["boxes"][:4].astype(np.float64),
                    points_mm=joints_mm.astype(np.float64),
                    sure=float(confidence.mean()),
                    row={**own, "confidence": confidence},
                )
            )
    return sightings


def _confidence(own: Said) -> npt.NDArray[np.float32]:
    """Return (24,), 0..1."""
    if "uncertainty" in own:
        return 1 / (1 + (own["uncertainty"] / np.float32(HALF_SURE_MM)) ** 2)
    return np.full(len(NAMES), np.clip(own["boxes"][4], 0, 1), np.float32)


def _person(seen: dict[int, Sighting], frames: int) -> Person:
    found = np.isin(np.arange(frames), list(seen))

    def rows(key: str, otherwise: float = np.nan) -> npt.NDArray[np.float32]:
        own = np.stack([sighting.row[key] for sighting in seen.values()])
        table = np.full((frames, *own.shape[1:]), otherwise, np.float32)
        table[list(seen)] = own
        return table

    joints_mm = rows("joints")
    smpl = None
    if all(key in sighting.row for sighting in seen.values() for key in SMPL_KEYS):
        trans = _metres(rows("trans"), joints_mm[:, 0], found)
        smpl = Smpl(pose=rows("pose"), betas=rows("betas"), transl=trans)
    estimate = Estimate(joints_mm=joints_mm, confidence=rows("confidence", 0.0), found=found, smpl=smpl)
    return Person(estimate=estimate, boxes_px=rows("boxes")[:, :4])


def _metres(
    trans: npt.NDArray[np.float32], pelvis_mm: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return SMPL's translation in metres: versions differ in its unit, but the pelvis lies near it, in millimetres."""
    apart = [float(np.median(np.linalg.norm(trans[found] * unit - pelvis_mm[found], axis=-1))) for unit in (1, 1000)]
    return trans * np.float32(0.001 if apart[0] < apart[1] else 1)
