"""`mtvcraft eval --bench mini`, before the work."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.device.placement import Quantize
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.weights import Supply, obtain
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import check_folders, versions
from mtvcraft_cli.weights.locate import Located, locate

if TYPE_CHECKING:
    from mtvcraft_cli.train.world.motions import Motions

SMALLEST_PX = 11
"""SSIM's window has this many pixels a side."""


@dataclass(frozen=True, kw_only=True)
class MiniJob:
    """What was asked for."""

    preset: Preset
    clips: int
    """Per split."""
    frames: int | None = None
    """Of every clip; None for one window and for two, in turn."""
    motion: Path | None = None
    """Recorded motion that the model hasn't seen."""
    device: str = "auto"
    quantize: Quantize = "none"
    weights: Path | None = None

    @property
    def lengths(self) -> list[int]:
        """Frames of the clips, which take turns."""
        window = self.preset.frames
        return [window, 2 * window - self.preset.overlap] if self.frames is None else [self.frames]


@dataclass(frozen=True, kw_only=True)
class PreparedMini:
    """A job that has passed every check."""

    job: MiniJob
    parts: Mapping[str, Located]
    hashes: Mapping[str, str]
    """SHA-256 of every weight file and of the motion."""
    motions: "Motions | None"
    device: str
    cache: Cache

    def told(self) -> dict[str, Any]:
        """What is measured and how, as plain data: the same job gives the same."""
        job, preset = self.job, self.job.preset
        return {
            "preset": preset.name,
            "preset_sha256": preset.fingerprint,
            "steps": preset.sampler.steps,
            "motion_guidance": preset.sampler.motion_guidance,
            "clips_per_split": job.clips,
            "frames": job.lengths,
            "motion": job.motion and job.motion.name,
            "hashes": dict(self.hashes),
            "device": self.device,
            "quantize": job.quantize,
            "versions": versions(),
        }


@dataclass(frozen=True)
class KeptClips:
    """Finished clips in the cache, under everything that their scores depend on."""

    prepared: PreparedMini

    def get(self, name: str, /) -> Mapping[str, Any] | None:
        """What an earlier run kept, or None."""
        import json

        folder = self.prepared.cache.find("bench", self._key(name))
        return None if folder is None else dict(json.loads((folder / "score.json").read_text(encoding="utf-8")))

    def __setitem__(self, name: str, told: Mapping[str, Any], /) -> None:
        """Keep a clip's score."""
        import json

        with self.prepared.cache.make("bench", self._key(name)) as folder:
            (folder / "score.json").write_text(json.dumps(told), encoding="utf-8")

    def _key(self, name: str) -> str:
        from mtvcraft_cli.train.world.scenes import WORLD

        prepared = self.prepared
        return key_of(
            "bench",
            {
                "name": name,
                "world": WORLD,
                "preset": prepared.job.preset.fingerprint,
                "hashes": dict(prepared.hashes),
                "device": prepared.device.partition(":")[0],
                "quantize": prepared.job.quantize,
                "versions": versions(),
            },
        )


def prepare_mini(job: MiniJob, cache: Cache, supply: Supply | None = None) -> PreparedMini:
    """Check a job from the cheapest to the dearest question.

    Args:
        job: what was asked.
        cache: where scores are kept.
        supply: gets weights that are missing; None gets none.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    check_folders(weights=job.weights, trust_file=None)
    if job.motion is not None and not job.motion.is_file():
        raise MtvcraftError(f"there is no file `{job.motion}`", hint="check `--motion`", exit=Exit.USAGE)
    if job.preset.backbone != "cogvideox" or min(job.preset.size_px) < SMALLEST_PX:
        raise MtvcraftError(
            f"bench mini can't measure preset `{job.preset.name}`: its clips are drawn for small models on cogvideox",
            hint="name such a preset, or score videos of your own with `--pred DIR --gt DIR`",
            exit=Exit.USAGE,
        )
    from mtvcraft_cli.device.place import choose_device
    from mtvcraft_cli.device.quantise import check_quantize

    chosen = choose_device(job.device)
    check_quantize(job.quantize, chosen)
    device = str(chosen)
    parts = obtain(job.preset, job.weights, locate(job.preset, job.weights), supply)
    hashes = {f"{part.part}/{file.name}": cache.sha256_of(file) for part in parts.values() for file in part.files}
    motions = None
    if job.motion is not None:
        from mtvcraft_cli.train.world.motions import load_motions

        hashes["motion"] = cache.sha256_of(job.motion)
        motions = load_motions(job.motion)
    return PreparedMini(job=job, parts=parts, hashes=hashes, motions=motions, device=device, cache=cache)
