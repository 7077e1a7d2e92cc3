"""A folder or archive -> the clips in it; two of them -> pairs of clips."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.archives import frames_tsv, tsv_clips, zip_clips
from mtvcraft_cli.eval.sources import VIDEOS, FrameFolder, Source, VideoFile, is_picture

NAMED = 6
"""So many ids are named one by one."""


@dataclass(frozen=True)
class Clips:
    """What was found in a folder or archive."""

    sources: Mapping[str, Source]
    broken: Mapping[str, MtvcraftError] = field(default_factory=dict)
    """Clips that can't be used, and why."""
    remarks: Sequence[str] = ()


def find_clips(path: Path) -> Clips:
    """Find clips by their ids.

    Args:
        path: a folder with `ID/` or `ID/images/` of frames, or videos `ID.mp4`; DisCo's TSV file or a folder with it;
            or a zip file of folders of frames.

    Raises:
        MtvcraftError: it isn't there (exit 2), or there is no clip in it (exit 4).
    """
    if not path.exists():
        raise MtvcraftError(f"there is no folder `{path}`", hint="check the path", exit=Exit.USAGE)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix not in (".zip", ".tsv"):
            raise MtvcraftError(
                f"`{path}` is a file, and neither a `.tsv` nor a `.zip`",
                hint="name the folder that holds the clips; `mtvcraft eval --explain` shows the layout",
            )
        clips: Clips = Clips(zip_clips(path) if suffix == ".zip" else tsv_clips(path))
    elif (tsv := frames_tsv(path)) is not None:
        clips = Clips(tsv_clips(tsv))
    else:
        clips = _of_folder(path)
    if not clips.sources and not clips.broken:
        raise MtvcraftError(
            f"there is no clip in `{path}`",
            hint="it holds a folder of numbered png or jpg frames, or a video, for each clip: `ID/0001.png`, `ID.mp4`",
        )
    return clips


def _of_folder(path: Path) -> Clips:
    sources: dict[str, Source] = {}
    broken: dict[str, MtvcraftError] = {}
    both = []
    for item in sorted(path.iterdir()):
        if item.name.startswith("."):
            continue
        if item.is_dir():
            folder = next((each for each in (item, item / "images") if _has_frames(each)), None)
            if folder is None:
                continue
            try:
                sources[item.name] = FrameFolder.of(item.name, folder)
            except MtvcraftError as error:
                broken[item.name] = error
    videos = [item for item in sorted(path.iterdir()) if item.is_file() and item.suffix.lower() in VIDEOS]
    for video in (video for video in videos if not video.name.startswith(".")):
        if isinstance(sources.get(video.stem), FrameFolder) or video.stem in broken:
            both.append(video.stem)
        elif video.stem in sources:
            broken[video.stem] = MtvcraftError(
                f"clip `{video.stem}` is in `{path}` as two videos", hint="keep one of them"
            )
        else:
            sources[video.stem] = VideoFile(video.stem, video)
    remarks = [f"frames were scored, and not the videos beside them: {some(both)}"] if both else []
    return Clips({id: source for id, source in sources.items() if id not in broken}, broken, remarks)


def _has_frames(folder: Path) -> bool:
    return folder.is_dir() and any(is_picture(file.name) for file in folder.iterdir())


def check_pairing(
    truth: Sequence[str], made: Sequence[str], name: str, *, allow_missing: bool
) -> tuple[list[str], list[str]]:
    """Pair clips by id.

    Args:
        truth: ids of the ground truth.
        made: ids of a system's results.
        name: of the system.
        allow_missing: whether ids that are only on one side are left out.

    Returns:
        The ids that both have, and a warning for what was left out.

    Raises:
        MtvcraftError: exit 4; an id is only on one side, or none is on both.
    """
    both = sorted(set(truth) & set(made))
    only_truth, only_made = sorted(set(truth) - set(made)), sorted(set(made) - set(truth))
    if not both:
        raise MtvcraftError(
            f"no clip of `{name}` pairs with the ground truth: {some(only_made)} against {some(only_truth)}",
            hint="name the results as the ground truth is named; `mtvcraft eval --explain` shows the layout",
        )
    lists = [
        f"only in {where}: {some(ids)}"
        for where, ids in (("the ground truth", only_truth), (f"`{name}`", only_made))
        if ids
    ]
    if lists and not allow_missing:
        raise MtvcraftError(
            f"{len(only_truth) + len(only_made)} clips have no partner; {'; '.join(lists)}",
            hint="add or rename them, or score the rest with `--allow-missing`",
        )
    return both, [f"{name}: left out, {line}" for line in lists]


def crop_box_of(folder: Path, id: str) -> tuple[int, int, int, int] | None:
    """What our own run cropped the ground truth to, by the sidecar of its output; None where nothing says so.

    Returns:
        Left, top, right and bottom, in pixels of the ground truth.
    """
    for name in (f"{id}.mp4.json", f"{id}.json", f"{id}/{id}.json"):
        try:
            told = json.loads((folder / name).read_text(encoding="utf-8"))["crop_px"]
            left, top, right, bottom = (int(side) for side in told)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return left, top, right, bottom
    return None


def some(ids: Sequence[str]) -> str:
    """Name a few, count the rest; `nothing` where there are none."""
    if not ids:
        return "nothing"
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(f"`{each}`" for each in ids[:NAMED]) + more
