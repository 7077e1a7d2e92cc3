"""`mtvcraft pose` and `mtvcraft tokenize`, before the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtvcraft_cli.cache import Cache, sha256_of
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.drive import (
    Drive,
    Estimator,
    PoseSettings,
    choose_estimator,
    holds_tokens,
    look_at_drive,
    tokenizer_identity,
)
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import (
    check_ending,
    check_folders,
    check_input,
    check_target,
    fingerprint,
    is_ours,
    made_already,
    sidecar_path,
)
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
    estimator: Estimator | None
    cache: Cache
    fingerprint: str
    joints_made: bool
    """Whether the joints are there already, made from the same input and settings."""
    overlay_made: bool
    """The same of the overlay."""

    @property
    def made(self) -> bool:
        """Whether there is nothing left to do."""
        return self.joints_made and (self.job.overlay is None or self.overlay_made)

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
    check_folders(weights=job.settings.weights, trust_file=job.settings.trust_file)
    check_ending(job.output, ".npz")
    check_target(job.output, [job.video], force=job.force, made=bool(meta_of(job.output)))
    if job.overlay is not None:
        check_ending(job.overlay, ".mp4")
        beside = sidecar_path(job.overlay)
        check_target(job.overlay, [job.video, job.output], force=job.force, made=is_ours(beside))
        check_target(beside, [job.video, job.output], force=job.force, made=is_ours(beside))
    estimator = choose_estimator(job.video, job.settings)
    wanted = fingerprint(
        {"video": cache.sha256_of(job.video), "by": estimator and estimator.told(), **job.settings.told()}
    )
    joints_made = meta_of(job.output).get("fingerprint") == wanted
    check_target(job.output, force=job.force, made=joints_made)
    overlay_made = job.overlay is not None and made_already(job.overlay, wanted)
    if job.overlay is not None:
        check_target(job.overlay, force=job.force, made=overlay_made)
    drive = look_at_drive(job.video)
    if drive.kind == "joints" and job.overlay is not None:
        raise MtvcraftError(
            f"`{job.video}` holds joints, and an overlay needs the video", hint="name the video instead of the joints"
        )
    return PreparedPose(
        job=job,
        drive=drive,
        estimator=estimator,
        cache=cache,
        fingerprint=wanted,
        joints_made=joints_made,
        overlay_made=overlay_made,
    )


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
    estimator: Estimator | None
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
    check_input(job.drive, "joints, video or tokens")
    check_folders(weights=job.weights, trust_file=job.pose.trust_file)
    check_ending(job.output, ".npz" if job.decode else ".npy")
    if not job.decode and holds_tokens(job.drive):
        raise MtvcraftError(f"`{job.drive}` holds tokens already", hint="turn them into joints with `--decode`")
    inputs = [job.drive, job.drive.with_suffix(".json")]
    check_target(job.output, inputs, force=job.force, made=bool(meta_of(job.output)))
    if not job.decode:
        beside = job.output.with_suffix(".json")
        check_target(beside, inputs, force=job.force, made=is_ours(beside))
    from mtvcraft_cli.device.place import choose_device

    device = str(choose_device(job.device))
    part = locate(job.preset, job.weights)["tokenizer"]
    require(job.preset, {"tokenizer": part})
    estimator = choose_estimator(job.drive, job.pose)
    hashes = {f"tokenizer/{file.name}": cache.sha256_of(file) for file in part.files}
    identity = tokenizer_identity(part, hashes)
    wanted = fingerprint(
        {
            "drive": [cache.sha256_of(path) for path in inputs if path.is_file()],
            "by": estimator and estimator.told(),
            "preset": job.preset.fingerprint,
            "tokenizer": identity,
            "device": device.partition(":")[0],
            "decode": job.decode,
            **job.pose.told(),
        }
    )
    made = meta_of(job.output).get("fingerprint") == wanted
    check_target(job.output, force=job.force, made=made)
    drive = look_at_drive(job.drive, job.preset, identity)
    if job.decode and drive.kind != "tokens":
        raise MtvcraftError(
            f"`{job.drive}` holds no motion tokens", hint="`--decode` takes what `mtvcraft tokenize` wrote"
        )
    return PreparedTokens(
        job=job,
        drive=drive,
        estimator=estimator,
        part=part,
        identity=identity,
        device=device,
        cache=cache,
        fingerprint=wanted,
        made=made,
    )


def meta_of(path: Path) -> Mapping[str, Any]:
    """What a whole file of joints or tokens says of its making; nothing where it is damaged, silent or not there."""
    import json
    import zipfile

    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            return dict(json.loads(str(dict(loaded)["meta"][()])))  # reading every field checks that it is whole
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return dict(described["meta"]) if described["tokens_sha256"] == sha256_of(path) else {}
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, TypeError):
        return {}
