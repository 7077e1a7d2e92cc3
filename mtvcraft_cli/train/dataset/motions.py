"""Files of motion -> a motion set: clips in one world, at one rate, in numbered files."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole, writing
from mtvcraft_cli.joints.files import resample
from mtvcraft_cli.joints.own.read import OwnMotion, read_world
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.train.dataset.cut import Losses
from mtvcraft_cli.train.dataset.journal import Journal
from mtvcraft_cli.train.dataset.videos import Prepared
from mtvcraft_cli.train.motion import Clip
from mtvcraft_cli.train.world.place import about as turned_about

SOLE_MM: Final = 20.0
"""How far the ball of the foot is above the floor when somebody stands."""
LOW: Final = 5
"""Percentile of the lower foot's height that is taken for standing."""
FEET: Final = (10, 11)


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """How files of motion become a set."""

    own: OwnMotion = field(default_factory=OwnMotion)
    """What the files don't say."""
    rate: Fraction = Fraction(30)
    """Frames a second of all clips."""
    min_frames: int = 33
    """Fewer are no clip."""
    file_frames: int = 2**17
    """A file that has more is closed."""

    def told(self) -> dict[str, Any]:
        """What each clip depends on."""
        return {
            "kind": "motion",
            "clip-fps": str(self.rate),
            "min-frames": self.min_frames,
            "joint-map": self.own.joint_map and hashlib.sha256(self.own.joint_map.read_bytes()).hexdigest(),
            "body-model": self.own.body_model and hashlib.sha256(self.own.body_model.read_bytes()).hexdigest(),
        }


def prepare_motions(
    inputs: Sequence[tuple[str, Path]], folder: Path, settings: MotionSettings, cache: Cache, watch: Watch
) -> Prepared:
    """Make a motion set, or go on with it after the last file that is whole.

    Args:
        inputs: names and paths, in the order in which they go into the set.
        folder: of the set: `motion-00000.npz` and so on, which `Motion.files` of a recipe takes.
        settings: how.
        cache: knows the hashes of large files.
        watch: counts the inputs.

    Raises:
        MtvcraftError: the folder was begun with other settings, or no clip is left.
    """
    told = settings.told()
    journal = Journal(folder, told)
    journal.begin()
    number = 1 + max((int(entry["file"]) for entry in journal.entries), default=-1)
    for left in folder.glob("motion-*.npz"):
        if int(left.stem.partition("-")[2]) >= number:
            left.unlink()  # written, but cut off before it was noted
    unreadable: dict[str, str] = {}
    clips: list[Clip] = []
    waiting: list[dict[str, Any]] = []
    seen = journal.done
    for name, path in watch(inputs, "motion", len(inputs)):
        if (sha256 := cache.sha256_of(path)) in seen:
            continue
        try:
            joints_mm = in_our_world(path, settings)
        except MtvcraftError as error:
            if error.exit is not Exit.INPUT:
                raise
            unreadable[name] = error.message
            continue
        seen.add(sha256)
        losses = Losses()
        if len(joints_mm) < settings.min_frames:
            losses.add("too short", len(joints_mm))
        else:
            clips.append(joints_mm)
        kept = len(joints_mm) if not losses.clips else 0
        entry = {"input": name, "sha256": sha256, "frames": len(joints_mm), "kept": kept}
        waiting.append({**entry, "dropped": losses.told()})
        if sum(map(len, clips)) >= settings.file_frames:
            _close(folder, number, clips, waiting, settings, journal)
            number, clips, waiting = number + 1, [], []
    _close(folder, number, clips, waiting, settings, journal)
    return _finish(folder, journal, settings, unreadable)


def in_our_world(path: Path, settings: MotionSettings) -> JointsMm:
    """Read a motion: y up, the floor at 0, the pelvis over the origin and the person facing +z at the start; mm.

    Raises:
        MtvcraftError: it is no motion, or a whole set of them.
    """
    if _is_set(path):
        raise MtvcraftError(f"`{path}` is a motion set already", hint="give it to `mtvcraft train tokenizer --data`")
    from mtvcraft_cli.runs.motion import sure_motion  # brings in torch, so only when there is work

    world = read_world(path, settings.own)
    motion = sure_motion(world.joints_mm, world.rate, (1, 1))
    frames = int((len(motion) - 1) * settings.rate / world.rate) + 1
    joints = resample(motion, settings.rate, frames).joints_mm.astype(np.float64)
    across = joints[0, 1] - joints[0, 2] + joints[0, 16] - joints[0, 17]
    heading = np.degrees(np.arctan2(-across[2], across[0]))
    joints = (joints - joints[0, 0] * (1, 0, 1)) @ turned_about(1, -heading).T
    joints[..., 1] -= np.percentile(joints[:, FEET, 1].min(axis=1), LOW) - SOLE_MM
    return joints.astype(np.float32)


def _is_set(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"clip_start", "clip_length"} <= set(arrays)
    except (OSError, ValueError, EOFError, BadZipFile, TypeError, AttributeError):
        return False


def _close(
    folder: Path,
    number: int,
    clips: Sequence[Clip],
    waiting: Sequence[dict[str, Any]],
    settings: MotionSettings,
    journal: Journal,
) -> None:
    """Write one file of the set whole, then note the inputs that are in it."""
    if clips:
        length = np.array([len(clip) for clip in clips], np.int64)
        kept = [entry for entry in waiting if entry["kept"]]
        with writing(folder / f"motion-{number:05d}.npz") as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                joints=np.concatenate(clips) / np.float32(1000),
                clip_start=np.cumsum(length) - length,
                clip_length=length,
                clip_name=np.array([entry["input"] for entry in kept]),
                clip_source_sha256=np.array([entry["sha256"] for entry in kept]),
                fps=np.float32(settings.rate),
            )
    if waiting:
        journal.add({"file": number, "inputs": list(waiting)})


def _finish(folder: Path, journal: Journal, settings: MotionSettings, unreadable: dict[str, str]) -> Prepared:
    losses = Losses()
    entries = [one for entry in journal.entries for one in entry["inputs"]]
    for entry in entries:
        losses.take(entry["dropped"])
    kept = [entry["kept"] for entry in entries if entry["kept"]]
    prepared = Prepared(
        clips=len(kept),
        frames=sum(kept),
        seconds=float(sum(kept) / settings.rate),
        inputs=len(entries) + len(unreadable),
        dropped=losses.told(),
        unreadable=unreadable,
        about=settings.told(),
    )
    write_text_whole(folder / "report.json", json.dumps(prepared.told(), indent=2, ensure_ascii=False) + "\n")
    if not kept:
        raise MtvcraftError(
            f"no clip is left of {prepared.inputs} files of motion",
            hint=f"`{folder / 'report.json'}` says why; `--min-frames` decides what is too short",
        )
    return prepared
