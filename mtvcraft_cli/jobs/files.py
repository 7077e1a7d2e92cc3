"""`mtvcraft pose` and `mtvcraft tokenize`, before the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.drive import Drive, PoseSettings, choose_estimator, look_at_drive, tokenizer_identity
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import check_input, check_target, fingerprint
from mtvcraft_cli.weights.locate import Located, locate, require


@dataclass(frozen=True, kw_only=True)
class PoseJob:
    """What `mtvcraft pose` was asked to do."""

    video: Path
    output: Path
    overlay: Path | None = None
    settings: PoseSettings = field(default_factory=PoseSettings)
    force: bool = False
    command: str = ""
    """The words that were typed, for the file's own record."""


@dataclass(frozen=True, kw_only=True)
class PreparedPose:
    """A pose job that has passed every check."""

    job: PoseJob
    drive: Drive
    cache: Cache
    fingerprint: str
    made: bool

    @property
    def targets(self) -> list[Path]:
        """The files that it writes."""
        return [path for path in (self.job.output, self.job.overlay) if path is not None]

    def told(self) -> dict[str, Any]:
        """What would be done, as plain data."""
        return {"outputs": [str(path) for path in self.targets], "made_already": self.made, **self.drive.told()}


def prepare_pose(job: PoseJob, cache: Cache) -> PreparedPose:
    """Check a pose job from the cheapest to the dearest question.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_input(job.video, "video")
    check_target(job.output, force=True, made=False)
    wanted = fingerprint({"video": cache.sha256_of(job.video), **job.settings.told()})
    made = job.overlay is None and _says(job.output, wanted)
    check_target(job.output, force=job.force, made=made)
    if job.overlay is not None:
        check_target(job.overlay, force=job.force, made=False)
    drive = look_at_drive(job.video)
    if drive.kind == "joints" and job.overlay is not None:
        raise MtvcraftError(
            f"`{job.video}` holds joints, and an overlay needs the video", hint="name the video instead of the joints"
        )
    if drive.kind == "video" and not made:
        choose_estimator(job.settings)
    return PreparedPose(job=job, drive=drive, cache=cache, fingerprint=wanted, made=made)


@dataclass(frozen=True, kw_only=True)
class TokenizeJob:
    """What `mtvcraft tokenize` was asked to do."""

    drive: Path
    output: Path
    decode: bool
    preset: Preset
    pose: PoseSettings = field(default_factory=PoseSettings)
    device: str = "auto"
    weights: Path | None = None
    force: bool = False
    command: str = ""
    """The words that were typed, for the file's own record."""


@dataclass(frozen=True, kw_only=True)
class PreparedTokens:
    """A tokenize job that has passed every check."""

    job: TokenizeJob
    drive: Drive
    part: Located
    identity: str
    """What tells this tokenizer from another."""
    device: str
    cache: Cache
    fingerprint: str
    made: bool

    def told(self) -> dict[str, Any]:
        """What would be done, as plain data."""
        return {
            "output": str(self.job.output),
            "made_already": self.made,
            "preset": self.job.preset.name,
            **self.drive.told(),
        }


def prepare_tokenizing(job: TokenizeJob, cache: Cache) -> PreparedTokens:
    """Check a tokenize job from the cheapest to the dearest question.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_input(job.drive, "driver")
    check_target(job.output, force=True, made=False)
    part = locate(job.preset, job.weights)["tokenizer"]
    hashes = {f"tokenizer/{file.name}": cache.sha256_of(file) for file in part.files}
    identity = tokenizer_identity(part, hashes)
    wanted = fingerprint(
        {
            "drive": cache.sha256_of(job.drive),
            "preset": job.preset.fingerprint,
            "tokenizer": identity,
            "decode": job.decode,
            **job.pose.told(),
        }
    )
    made = _says(job.output, wanted)
    check_target(job.output, force=job.force, made=made)
    require(job.preset, {"tokenizer": part})
    from mtvcraft_cli.device.place import choose_device

    device = str(choose_device(job.device))
    drive = look_at_drive(job.drive, job.preset, identity)
    if job.decode != (drive.kind == "tokens"):
        raise MtvcraftError(
            f"`{job.drive}` holds {'no ' if job.decode else ''}motion tokens",
            hint="`--decode` takes tokens and gives joints; without it, joints or a video give tokens",
        )
    if drive.kind == "video" and not made:
        choose_estimator(job.pose)
    return PreparedTokens(
        job=job,
        drive=drive,
        part=part,
        identity=identity,
        device=device,
        cache=cache,
        fingerprint=wanted,
        made=made,
    )


def _says(output: Path, wanted: str) -> bool:
    """Whether a file of joints or tokens is there and says that it was made from the same inputs and settings."""
    return output.is_file() and meta_of(output).get("fingerprint") == wanted


def meta_of(path: Path) -> Mapping[str, Any]:
    """What a file of joints or tokens says of its making; nothing where it says nothing or can't be read."""
    import json
    import zipfile

    import numpy as np

    try:
        if path.name.endswith(".npz"):
            return dict(json.loads(str(np.load(path, allow_pickle=False)["meta"][()])))
        return dict(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["meta"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError):
        return {}
