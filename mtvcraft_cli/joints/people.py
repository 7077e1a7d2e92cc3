"""The people of a scene: the list of them, the choice of one, and a file that keeps them all."""

import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.joints.backend import Estimate, Person, Scene, Smpl

RULES: Final = ("largest", "left", "right")
_LINKED: Final = "took the only person before and after for the same one"
_APART: Final = "who is seen after may have another number"
_SMPL: Final = ("pose", "betas", "transl")


@dataclass(frozen=True)
class PersonRow:
    """One line of `mtvcraft pose --list`."""

    number: int
    """What `--person` takes."""
    start_s: Fraction
    end_s: Fraction
    """The end of the last frame the person was seen in."""
    seen: float
    """Share of all frames, 0..1."""
    height: float
    """Mean height of the box in heights of the picture, 0..1."""
    confidence: float
    """Mean over joints and frames, 0..1."""

    def sentence(self) -> str:
        """Say it in one line."""
        return (
            f"person {self.number}: {float(self.start_s):.2f} to {float(self.end_s):.2f} s, "
            f"seen in {self.seen:.0%} of frames, {self.height:.0%} of the picture's height, "
            f"confidence {self.confidence:.2f}"
        )


def people_rows(scene: Scene, size_px: tuple[int, int], rate: Fraction) -> list[PersonRow]:
    """List everyone in a scene, number 1 first.

    Args:
        scene: with all frames of the clip.
        size_px: width and height of the frames.
        rate: frames a second.
    """
    rows = []
    for number, person in enumerate(scene.people, start=1):
        seen = np.flatnonzero(person.estimate.found)
        rows.append(
            PersonRow(
                number=number,
                start_s=int(seen[0]) / rate,
                end_s=(int(seen[-1]) + 1) / rate,
                seen=len(seen) / scene.frames,
                height=float(person.boxes_px[seen, 3].mean() / size_px[1]),
                confidence=float(person.estimate.confidence[seen].mean()),
            )
        )
    return rows


def check_rule(rule: str) -> None:
    """Check a word for `--person` before any work is done.

    Raises:
        MtvcraftError: (`Exit.USAGE`) it is neither a rule nor a number from 1 on.
    """
    if rule not in RULES and not (rule.isascii() and rule.isdigit() and int(rule) > 0):
        raise MtvcraftError(
            f"`--person {rule}` is neither {', '.join(RULES)} nor a number from 1 on",
            hint="`mtvcraft pose VIDEO --list` shows the people of a clip and their numbers",
            exit=Exit.USAGE,
        )


def choose_person(scene: Scene, rule: str, rate: Fraction, name: str = "video") -> tuple[int, Person]:
    """Choose the person whose motion is taken.

    Args:
        scene: everyone who was seen.
        rule: "largest": whose boxes cover most, added up over time; "left" and "right": whose mean place in the
            picture is farthest there; or a number from `people_rows`.
        rate: frames a second, for messages.
        name: what the user calls the clip, for messages.

    Returns:
        The number and the person.

    Raises:
        MtvcraftError: (`Exit.USAGE`) no such rule; (`Exit.INPUT`) nobody was seen, or nobody of that number.
    """
    check_rule(rule)
    if not scene.people:
        raise MtvcraftError(
            f"no person in any of the {scene.frames} frames of `{name}`",
            hint="take a clip in which a person is well in view, or give joints of your own",
        )
    if rule not in RULES:
        number = int(rule)
        if number > len(scene.people):
            raise MtvcraftError(
                f"there is no person {number} in `{name}`, only {_spans(scene, rate)}",
                hint=f"give `--person` a number up to {len(scene.people)}; `mtvcraft pose VIDEO --list` shows them",
            )
        return number, scene.people[number - 1]
    boxes = [person.boxes_px[person.estimate.found].astype(np.float64) for person in scene.people]
    middles = [float((box[:, 0] + box[:, 2] / 2).mean()) for box in boxes]
    scores = {
        "largest": [float(box[:, 2:].prod(axis=1).sum()) for box in boxes],
        "left": [-middle for middle in middles],
        "right": middles,
    }[rule]
    index = int(np.argmax(scores))
    return index + 1, scene.people[index]


def describe_choice(scene: Scene, rule: str, number: int, rate: Fraction) -> list[str]:
    """Say whose motion was taken and what happened at cuts, where there is anything to say."""
    lines = []
    if len(scene.people) > 1:
        why = f" ({rule})" if rule in RULES else ""
        lines.append(f"{len(scene.people)} people: took person {number}{why}; choose with `--person`")
    if scene.cuts:
        at = ", ".join(f"{float(cut / rate):.2f}" for cut in scene.cuts[:5])
        more = f" and {len(scene.cuts) - 5} more" if len(scene.cuts) > 5 else ""
        shots = np.split(scene.people[number - 1].estimate.found, scene.cuts)
        linked = sum(shot.any() for shot in shots) > 1
        lines.append(
            f"{'a shot cut' if len(scene.cuts) == 1 else 'shot cuts'} at {at} s{more}: "
            + (_LINKED if linked else _APART)
        )
    return lines


def _spans(scene: Scene, rate: Fraction) -> str:
    spans = []
    for number, person in enumerate(scene.people, start=1):
        seen = np.flatnonzero(person.estimate.found)
        spans.append(f"{number} ({float(int(seen[0]) / rate):.2f} to {float((int(seen[-1]) + 1) / rate):.2f} s)")
    return ", ".join(spans)


def save_scene(path: Path, scene: Scene) -> None:
    """Write a scene as `.npz` without pickled objects."""
    fields: dict[str, npt.NDArray[Any]] = {
        "frames": np.array(scene.frames),
        "cuts": np.array(scene.cuts, np.int64),
        "people": np.array(len(scene.people)),
    }
    for index, person in enumerate(scene.people):
        estimate = person.estimate
        fields |= {
            f"{index}.joints_mm": estimate.joints_mm,
            f"{index}.confidence": estimate.confidence,
            f"{index}.found": estimate.found,
            f"{index}.boxes_px": person.boxes_px,
        }
        if estimate.smpl is not None:
            fields |= {f"{index}.smpl_{name}": getattr(estimate.smpl, name) for name in _SMPL}
    with writing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **fields)  # type: ignore[arg-type]


def load_scene(path: Path) -> Scene:
    """Read what `save_scene` wrote.

    Raises:
        MtvcraftError: (`Exit.INPUT`) it is no such file, or cut off.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            people = []
            for index in range(int(file["people"])):
                smpl = None
                if f"{index}.smpl_pose" in file:
                    smpl = Smpl(**{name: file[f"{index}.smpl_{name}"] for name in _SMPL})
                names = ("joints_mm", "confidence", "found")
                estimate = Estimate(**{name: file[f"{index}.{name}"] for name in names}, smpl=smpl)
                people.append(Person(estimate=estimate, boxes_px=file[f"{index}.boxes_px"]))
            return Scene(frames=int(file["frames"]), people=tuple(people), cuts=tuple(file["cuts"].tolist()))
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, OSError) as error:
        raise MtvcraftError(
            f"`{path.name}` holds no people, or is cut off", hint="run `mtvcraft pose VIDEO` anew"
        ) from error
