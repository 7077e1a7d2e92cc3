"""`mtvcraft pose` and `mtvcraft tokenize`, before the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from mtvcraft_cli.cache import Cache, sha256_of
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.drive import (
    Drive,
    DriveSettings,
    Estimator,
    Framing,
    check_drive,
    choose_estimator,
    description_of,
    files_of,
    hash_of,
    holds_tokens,
    look_at_drive,
    tokenizer_identity,
)
from mtvcraft_cli.jobs.weights import Supply, obtain
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import (
    check_ending,
    check_folders,
    check_target,
    fingerprint,
    is_ours,
    made_already,
    sidecar_path,
)
from mtvcraft_cli.weights.locate import Located, locate


@dataclass(frozen=True, kw_only=True)
class PoseJob:
    """What `mtvcraft pose` was asked to do."""

    drive: Path
    output: Path
    overlay: Path | None = None
    view: Path | None = None
    rate: Fraction | None = None
    """Frames a second of the result; None keeps the driver's."""
    settings: DriveSettings = field(default_factory=DriveSettings)
    force: bool = False
    command: str = ""
    """The words that were typed, for the file's own record."""

    @property
    def targets(self) -> list[Path]:
        """The files that it writes."""
        return [path for path in (self.output, self.overlay, self.view) if path is not None]


@dataclass(frozen=True, kw_only=True)
class PreparedPose:
    """A pose job that has passed every check."""

    job: PoseJob
    drive: Drive
    estimator: Estimator | None
    cache: Cache
    fingerprint: str
    made_targets: frozenset[Path]
    """Those that are there already, made from the same input and settings."""

    @property
    def made(self) -> bool:
        """Whether there is nothing left to do."""
        return self.made_targets == set(self.job.targets)

    def to_make(self, target: Path | None) -> bool:
        """Whether a target is asked for and not there yet."""
        return target is not None and (self.job.force or target not in self.made_targets)

    def told(self) -> dict[str, Any]:
        """What would be done, as plain data."""
        return {"outputs": [str(path) for path in self.job.targets], "made_already": self.made, **self.drive.told()}


def prepare_pose(job: PoseJob, cache: Cache) -> PreparedPose:
    """Check a pose job from the cheapest to the dearest question.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_drive(job.drive, job.settings)
    check_folders(weights=job.settings.weights, trust_file=job.settings.trust_file)
    check_ending(job.output, ".npz", ".npy", ".bvh")
    if job.overlay is not None:
        check_ending(job.overlay, ".mp4")
    if job.view is not None:
        check_ending(job.view, ".html")
    for target in job.targets:
        others = [path for path in job.targets if path != target]
        beside = sidecar_path(target)
        ours = bool(meta_of(target)) or is_ours(beside)
        for written in (target, beside):
            check_target(
                written, [*files_of(job.drive), *job.settings.files.values(), *others], force=job.force, made=ours
            )
    estimator = choose_estimator(job.drive, job.settings)
    wanted = fingerprint(
        {
            "drive": hash_of(job.drive, cache),
            "files": {name: cache.sha256_of(path) for name, path in job.settings.files.items()},
            "by": estimator and estimator.told(),
            "fps": job.rate and str(job.rate),
            **job.settings.told(),
        }
    )
    made = frozenset(target for target in job.targets if made_joints(target, wanted))
    for target in job.targets:
        check_target(target, force=job.force, made=target in made)
    drive = look_at_drive(job.drive, job.settings, cache)
    if drive.kind == "joints" and job.overlay is not None:
        raise MtvcraftError(
            f"`{job.drive}` holds joints, and an overlay needs the video", hint="name the video instead of the joints"
        )
    return PreparedPose(job=job, drive=drive, estimator=estimator, cache=cache, fingerprint=wanted, made_targets=made)


@dataclass(frozen=True, kw_only=True)
class PreparedList:
    """A look at who is in a video that has passed every check."""

    drive: Drive
    sheet: Path
    settings: DriveSettings
    estimator: Estimator
    cache: Cache
    fingerprint: str
    made: bool
    """Whether the sheet is there already, made from the same input and settings."""


def prepare_list(video: Path, sheet: Path, settings: DriveSettings, cache: Cache, *, force: bool) -> PreparedList:
    """Check a look at who is in a video.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_drive(video, settings)
    check_folders(weights=settings.weights, trust_file=settings.trust_file)
    check_ending(sheet, ".png")
    beside = sidecar_path(sheet)
    for written in (sheet, beside):
        check_target(written, files_of(video), force=force, made=is_ours(beside))
    estimator = choose_estimator(video, settings)
    if estimator is None:
        raise MtvcraftError(f"`{video}` holds one motion, and no pictures of people", hint="name a video")
    wanted = fingerprint({"list": hash_of(video, cache), "by": estimator.told(), **settings.told()})
    made = made_already(sheet, wanted)
    check_target(sheet, force=force, made=made)
    return PreparedList(
        drive=look_at_drive(video, settings, cache),
        sheet=sheet,
        settings=settings,
        estimator=estimator,
        cache=cache,
        fingerprint=wanted,
        made=made and not force,
    )


@dataclass(frozen=True, kw_only=True)
class TokenizeJob:
    """What `mtvcraft tokenize` was asked to do."""

    drive: Path
    output: Path
    decode: bool
    preset: Preset
    rate: Fraction | None = None
    """Frames a second at which the motion becomes tokens, where the preset has no rate; None takes the driver's."""
    driver: DriveSettings = field(default_factory=DriveSettings)
    motion: Framing = field(default_factory=Framing)
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


def prepare_tokenizing(job: TokenizeJob, cache: Cache, supply: Supply | None = None) -> PreparedTokens:
    """Check a tokenize job from the cheapest to the dearest question.

    Args:
        job: what was asked.
        cache: knows what earlier runs have left.
        supply: gets a tokenizer that is missing; None gets none.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_drive(job.drive, job.driver)
    check_folders(weights=job.weights, trust_file=job.driver.trust_file)
    check_ending(job.output, ".npz" if job.decode else ".npy")
    if not job.decode and holds_tokens(job.drive):
        raise MtvcraftError(f"`{job.drive}` holds tokens already", hint="turn them into joints with `--decode`")
    inputs = [*files_of(job.drive), *job.driver.files.values(), *description_of(job.drive)]
    check_target(job.output, inputs, force=job.force, made=bool(meta_of(job.output)))
    if not job.decode:
        beside = job.output.with_suffix(".json")
        check_target(beside, inputs, force=job.force, made=is_ours(beside))
    from mtvcraft_cli.device.place import choose_device

    device = str(choose_device(job.device))
    part = locate(job.preset, job.weights)["tokenizer"]
    part = obtain(job.preset, job.weights, {"tokenizer": part}, supply)["tokenizer"]
    estimator = choose_estimator(job.drive, job.driver)
    hashes = {f"tokenizer/{file.name}": cache.sha256_of(file) for file in part.files}
    identity = tokenizer_identity(part, hashes)
    wanted = fingerprint(
        {
            "drive": [hash_of(job.drive, cache), *(cache.sha256_of(path) for path in description_of(job.drive))],
            "files": {name: cache.sha256_of(path) for name, path in job.driver.files.items()},
            "by": estimator and estimator.told(),
            "preset": job.preset.fingerprint,
            "tokenizer": identity,
            "device": device.partition(":")[0],
            "decode": job.decode,
            "fps": job.rate and str(job.rate),
            **job.driver.told(),
            **job.motion.told(),
        }
    )
    made = meta_of(job.output).get("fingerprint") == wanted
    check_target(job.output, force=job.force, made=made)
    drive = look_at_drive(job.drive, job.driver, cache, job.preset, identity)
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


def made_joints(path: Path, wanted: str) -> bool:
    """Whether a target of `mtvcraft pose` is whole and was made from the same input and settings."""
    return meta_of(path).get("fingerprint") == wanted or made_already(path, wanted)


def meta_of(path: Path) -> Mapping[str, Any]:
    """What a whole file of joints or tokens says of its making; nothing where it is damaged, silent or not there."""
    import json
    import zipfile
    import zlib

    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            return dict(json.loads(str(dict(loaded)["meta"][()])))  # reading every field checks that it is whole
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return dict(described["meta"]) if described["tokens_sha256"] == sha256_of(path) else {}
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, TypeError):
        return {}
