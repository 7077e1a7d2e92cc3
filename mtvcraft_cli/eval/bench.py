"""A bench by its name: which clips it has, where they come from, and what others published on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.protocols import PROTOCOLS, TABLE

FOLDER: Final = Path(__file__).with_name("benches")
BENCHES: Final = ("tiktok", "tiktok-335", "fashion")
Rows = Literal["none", "key", "all"]


@dataclass(frozen=True)
class Row:
    """What somebody published of a system."""

    model: str
    values: Mapping[str, float | None]
    """By the metrics in `TABLE`; None where nothing was published."""
    mark: str = ""
    ablation: bool = False


@dataclass(frozen=True, kw_only=True)
class Published:
    """The rows that belong to one protocol."""

    source: str
    note: str
    psnr_scale: Literal["corrected", "wrapped"]
    marks: Mapping[str, str]
    rows: Sequence[Row]
    key: Sequence[str]

    def shown(self, rows: Rows) -> list[Row]:
        """The rows that are asked for."""
        if rows == "all":
            return list(self.rows)
        return [row for row in self.rows if rows == "key" and row.model in self.key and not row.ablation]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Clips that many score on."""

    name: str
    title: str
    about: str
    clips: Sequence[str]
    """Their ids; none where a list beside the clips names them."""
    count: int
    also: Sequence[str]
    """Ids that an archive of the same clips uses instead."""
    list_file: str | None
    rate: int | None
    """Frames a second of clips that are folders of pictures."""
    humanvid_px: tuple[int, int]
    """Width and height of results in the protocol `humanvid`."""
    licence: str
    links: Mapping[str, str]
    published: Mapping[str, Published] = field(default_factory=dict)
    """By protocol."""

    def wanted(self, found: Sequence[str], truth: Path) -> tuple[list[str], list[str]]:
        """Tell which clips of a ground truth are the bench's.

        Args:
            found: ids there are.
            truth: the folder, in which the bench's list may lie.

        Returns:
            The ids to score, and those that are missing.

        Raises:
            MtvcraftError: nothing says which of too many are the bench's.
        """
        names = list(self.clips)
        listed = truth / self.list_file if self.list_file and truth.is_dir() else None
        if listed is not None and listed.is_file():
            lines = listed.read_text(encoding="utf-8").split()
            names = [line.rsplit("/", 1)[-1].rpartition(".")[0] or line for line in lines]
        elif not names:
            if len(found) > self.count:
                raise MtvcraftError(
                    f"`{truth}` holds {len(found)} clips, and bench {self.name} has {self.count}",
                    hint=f"put `{self.list_file}` beside them, which says which they are",
                )
            return sorted(found), []
        elif set(found) <= set(self.also):
            names = list(self.also)
        return sorted(set(names) & set(found)), sorted(set(names) - set(found))


def load_bench(name: str) -> Bench:
    """Read a bench that comes in the package."""
    told: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    clips = told["clips"]
    return Bench(
        name=name,
        title=told["title"],
        about=told["about"],
        clips=[] if isinstance(clips, int) else [str(clip) for clip in clips],
        count=clips if isinstance(clips, int) else len(clips),
        also=told["also"],
        list_file=told.get("list"),
        rate=told["rate"],
        humanvid_px=tuple(told["humanvid_px"]),
        licence=told["licence"],
        links=told["links"],
        published={protocol: _published(rows) for protocol, rows in told["rows"].items()},
    )


def _published(told: Mapping[str, Any]) -> Published:
    rows = [_row(row) for row in told["systems"]]
    rows += [_row(row, ablation=True) for row in told.get("ablations", [])]
    return Published(
        source=told["source"],
        note=told["note"],
        psnr_scale=told["psnr_scale"],
        marks=told["marks"],
        rows=rows,
        key=told["key"],
    )


def _row(row: Sequence[Any], *, ablation: bool = False) -> Row:
    model, values, mark = row[0], row[1 : 1 + len(TABLE)], "".join(row[1 + len(TABLE) :])
    return Row(model, dict(zip(TABLE, values, strict=True)), mark, ablation)


LAYOUT: Final = """\
Layout of --gt and --pred: for each clip a folder `ID/` (or `ID/images/`) of png or jpg frames whose names end in a
number, or a video `ID.mp4` (.webm, .mkv, .gif). Clips are paired by id, frames by order. Where both are there, the
frames are scored. --gt also takes DisCo's TSV file and a zip file of such folders.
Frames beat videos: a lossy video loses quality before it is measured; `animate --frames-dir` keeps ours losslessly."""


def explain(bench: Bench | None) -> str:
    """Say what a bench consists of, where it comes from, and how it is measured."""
    lines = []
    if bench is not None:
        lines += [f"{bench.title} (`--bench {bench.name}`)", "", bench.about, ""]
        named = ", ".join(bench.clips) or f"{bench.count} of them, named by `{bench.list_file}`"
        lines += [f"clips: {named}"]
        lines += [f"{what}: {link}" for what, link in bench.links.items()]
        lines += [f"licence: {bench.licence}", ""]
    lines += [LAYOUT, "", "Protocols:"]
    lines += [f"  {protocol.name:9} {protocol.summary}" for protocol in PROTOCOLS.values()]
    if bench is not None:
        for name, published in bench.published.items():
            lines += ["", f"Published under `{name}`: {published.source}.", published.note]
            lines += [f"  {mark} {what}" for mark, what in published.marks.items()]
    lines += [
        "",
        "No single protocol is behind the published numbers: they differ in test clips, size, frames, colour and in",
        "what FVD is. A number of one protocol says nothing beside one of another. docs/evaluation.md tells it all.",
    ]
    return "\n".join(lines)
