"""`mtvcraft train prepare`, before the work: what the inputs are, and whether the folder can take them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.drive import Estimator, choose_estimator, holds_motion
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.sidecar import check_folders, check_input
from mtvcraft_cli.train.dataset.journal import NAME as JOURNAL
from mtvcraft_cli.train.dataset.journal import Journal
from mtvcraft_cli.train.dataset.motions import MotionSettings, prepare_motions
from mtvcraft_cli.train.dataset.videos import CAPTION, Prepared, VideoSettings, caption_beside, prepare_videos
from mtvcraft_cli.video.kind import Kind, kind_of

Sort = Literal["videos", "motion"]
OURS: Final = ("dataset.json", "shard-*.tar", "motion-*.npz", "joint_statistics.json", "report.json", JOURNAL)
"""What a data set is made of; nothing else in its folder is ever removed. The index goes first and the journal last:
cut off between, it is no finished set, and still one that can be begun anew."""


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """What `mtvcraft train prepare` was asked to do."""

    inputs: Sequence[Path]
    output: Path
    videos: VideoSettings = field(default_factory=VideoSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job that has passed every check."""

    job: PrepareJob
    sort: Sort
    inputs: list[tuple[str, Path]]
    """Names and paths, in order."""
    passed_over: int
    """Files in the folders that are neither videos, nor their captions, nor motion."""
    estimator: Estimator | None
    """Who finds people; None for motion."""
    settings: dict[str, Any]
    """What the clips depend on besides the inputs."""
    done: int
    """Inputs of the folder that earlier runs finished."""

    def told(self) -> dict[str, Any]:
        """What would be done, as plain data."""
        return {
            "output": str(self.job.output),
            "kind": self.sort,
            "inputs": [str(path) for _, path in self.inputs],
            "passed_over": self.passed_over,
            "done": self.done,
            "settings": self.settings,
        }


def prepare_job(job: PrepareJob) -> PreparedJob:
    """Check a job from the cheapest to the dearest question.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    for path in job.inputs:
        if not path.exists():
            raise MtvcraftError(
                f"there is no `{path}`", hint="name videos, files of motion, or folders", exit=Exit.USAGE
            )
    check_settings(job)
    for what, own in (("joint map", job.motion.own.joint_map), ("body model", job.motion.own.body_model)):
        if own is not None:
            check_input(own, what)
    check_folders(weights=job.videos.drive.weights, trust_file=job.videos.drive.trust_file)
    check_folder(job.output)
    found: dict[Sort, list[tuple[str, Path]]] = {"videos": [], "motion": []}
    left: list[Path] = []
    for name, path in walked(job.inputs, job.output):
        if (seen := sort_of(path)) is None:
            left.append(path)
        else:
            found[seen].append((name, path))
    captions = {path.with_suffix(CAPTION) for _, path in found["videos"] if path.suffix != CAPTION}
    found["videos"] = [(name, path) for name, path in found["videos"] if path not in captions]  # some words look so
    if found["videos"] and found["motion"]:
        raise MtvcraftError(
            f"`{found['videos'][0][1]}` is a video and `{found['motion'][0][1]}` holds motion",
            hint="make a data set of each: the tokenizer takes both with `--data SET --data SET`",
            exit=Exit.USAGE,
        )
    sort: Sort = "videos" if found["videos"] else "motion"
    if not found[sort]:
        raise MtvcraftError(
            f"no video and no motion in {', '.join(f'`{path}`' for path in job.inputs)}",
            hint="name videos, BVH, AMASS or joints, or folders of them",
        )
    for _, path in found["videos"]:
        caption_beside(path)
    estimator = choose_estimator(found[sort][0][1], job.videos.drive) if sort == "videos" else None
    settings = job.motion.told() if estimator is None else job.videos.told(estimator)
    return PreparedJob(
        job=job,
        sort=sort,
        inputs=found[sort],
        passed_over=len([path for path in left if path not in captions]),
        estimator=estimator,
        settings=settings,
        done=0 if job.force else len(Journal(job.output, settings).done),
    )


def run_job(prepared: PreparedJob, cache: Cache, watch: Watch) -> Prepared:
    """Make the data set; what became of the inputs."""
    job = prepared.job
    job.output.mkdir(exist_ok=True)
    if job.force:
        for pattern in OURS:
            for path in job.output.glob(pattern):
                path.unlink()
    if prepared.estimator is None:
        return prepare_motions(prepared.inputs, job.output, job.motion, cache, watch)
    return prepare_videos(prepared.inputs, job.output, job.videos, prepared.estimator, cache, watch)


def walked(inputs: Sequence[Path], output: Path) -> Iterator[tuple[str, Path]]:
    """Every file, folders walked through in the order of their names; hidden ones and the output are left out."""
    own = output.resolve()
    for path in inputs:
        if not path.is_dir():
            yield path.name, path
            continue
        for inner in sorted(path.rglob("*")):
            inside = inner.relative_to(path)
            hidden = any(part.startswith(".") for part in inside.parts)
            if inner.is_file() and not hidden and own not in inner.resolve().parents:
                yield inside.as_posix(), inner


def sort_of(path: Path) -> Sort | None:
    """What a file is good for, told by its content; an empty one that is called like a video is one, and reported."""
    try:
        if holds_motion(path):
            return "motion"
        kind = kind_of(path)
    except MtvcraftError:
        return "videos" if path.suffix.lower() in (".mp4", ".mov", ".mkv", ".webm", ".avi") else None
    return "videos" if kind in (Kind.VIDEO, Kind.ANIMATION) else None


def check_folder(output: Path) -> None:
    """Refuse a folder that can't be made or holds something else.

    Raises:
        MtvcraftError: exit 2.
    """
    if not output.parent.is_dir():
        raise MtvcraftError(
            f"there is no folder `{output.parent}`", hint=f"make it first: mkdir -p {output.parent}", exit=Exit.USAGE
        )
    if output.exists() and not output.is_dir():
        raise MtvcraftError(f"`{output}` is a file", hint="name a folder for the data set", exit=Exit.USAGE)
    if output.is_dir() and list(output.glob("[!.]*")) and not (output / JOURNAL).is_file():
        raise MtvcraftError(
            f"`{output}` is already there and no data set", hint="name a new folder for the data set", exit=Exit.USAGE
        )


def check_settings(job: PrepareJob) -> None:
    """Refuse settings that contradict each other.

    Raises:
        MtvcraftError: exit 2.
    """
    cut = job.videos.cut
    if cut.max_frames < 2 * cut.min_frames:
        raise MtvcraftError(
            f"clips of at most {cut.max_frames} frames can't be cut evenly into some of at least {cut.min_frames}",
            hint="make `--max-frames` at least twice `--min-frames`",
            exit=Exit.USAGE,
        )
