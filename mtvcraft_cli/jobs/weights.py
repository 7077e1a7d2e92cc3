"""Which weights a command needs and lacks, and how they come: `mtvcraft download`, and the others that call it."""

import difflib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset, load_preset, preset_names
from mtvcraft_cli.progress import Meter, Watch
from mtvcraft_cli.weights.fetching import plan
from mtvcraft_cli.weights.fetching.adopt import adopt, find
from mtvcraft_cli.weights.fetching.patience import is_offline
from mtvcraft_cli.weights.fetching.pieces import Settings
from mtvcraft_cli.weights.fetching.run import existing, fetch_all
from mtvcraft_cli.weights.locate import Located, command_for, find_released, locate, require, size_text
from mtvcraft_cli.weights.lock import weights_folder
from mtvcraft_cli.weights.manifest import Released, manifest, metric_networks


@dataclass(frozen=True, kw_only=True)
class DownloadJob:
    """What `mtvcraft download` was asked to do."""

    names: tuple[str, ...] = ()
    everything: bool = False
    for_preset: str | None = None
    from_folder: Path | None = None
    weights: Path | None = None
    """A folder of the user's, in which some of it may be."""
    accept_license: bool = False
    convert: bool = False
    dry_run: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True)
class PreparedDownload:
    """A download that has passed every check that needs no network."""

    job: DownloadJob
    wanted: Sequence[Released]
    items: Sequence[plan.Item]
    adopted: frozenset[str]
    """Names of what `from_folder` has."""
    free_bytes: int

    @property
    def missing(self) -> list[Released]:
        """What has to be fetched."""
        return [
            each for each in self.wanted if each.name not in self.adopted and not plan.is_here(each, self.job.weights)
        ]

    @property
    def to_fetch(self) -> list[plan.Item]:
        """Its files."""
        names = {each.name for each in self.missing}
        return [item for item in self.items if item.released.name in names and not item.present]

    def told(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "files": [item.told() for item in self.items],
            "total_bytes": plan.total_bytes(self.items),
            "free_bytes": self.free_bytes,
        }

    def again(self) -> "PreparedDownload":
        """The same with what is here now."""
        return replace(self, items=_list(self.job, self.wanted))


@runtime_checkable
class Supply(Protocol):
    """Gets weights that are missing, or doesn't: it may ask the user, and raises where they don't come."""

    def __call__(self, missing: Sequence[Released], command: str) -> None:
        """Fetch them.

        Args:
            missing: what is needed.
            command: that fetches them, for the user to run.

        Raises:
            MtvcraftError: exit 6 or 5; they are not here.
        """
        ...


def prepare_download(job: DownloadJob) -> PreparedDownload:
    """Check a download, and list its files.

    Raises:
        MtvcraftError: exit 2; an unknown name, or none. Exit 6; something isn't published, or its licence is not
            accepted. Exit 5; the disk is too small.
    """
    wanted = choose(job)
    if job.from_folder is not None and not job.from_folder.is_dir():
        raise MtvcraftError(
            f"there is no folder `{job.from_folder}`", hint="name the folder that has the files", exit=Exit.USAGE
        )
    adopted: set[str] = set()
    if job.from_folder is not None:
        adopted = {each.name for each in wanted if find(each, job.from_folder, whole_folder=each.name in job.names)}
    lost = [each for each in wanted if not (each.name in adopted or each.sources or plan.is_here(each, job.weights))]
    if lost:
        raise _unpublished(next((each for each in lost if each.name in job.names), lost[0]), job.from_folder)
    hub = all(source.kind == "hub" for each in wanted for source in each.sources[:1])
    folder = plan.target_folder(wanted[0].sources[0]) if hub and wanted and wanted[0].sources else weights_folder()
    prepared = PreparedDownload(
        job=job,
        wanted=wanted,
        items=_list(job, wanted),
        adopted=frozenset(adopted),
        free_bytes=shutil.disk_usage(existing(folder)).free,
    )
    if not job.dry_run:
        for each in wanted:
            check_licence(each, accepted=job.accept_license or plan.is_here(each, job.weights))
        check_room(prepared.to_fetch, prepared.free_bytes, folder)
    return prepared


def run_download(prepared: PreparedDownload, meter: Meter, watch: Watch) -> list[str]:
    """Adopt, fetch and convert what is not here yet.

    Returns:
        Where each thing is now, in the order in which they were asked for.

    Raises:
        MtvcraftError: exit 6; something can't be had; what came is kept. Exit 5; the disk is full.
    """
    job = prepared.job
    if job.from_folder is not None:
        for each in prepared.wanted:
            adopt(each, job.from_folder, whole_folder=each.name in job.names)
    if missing := _not_here(prepared):
        fetch_all(missing, job.settings, meter)
    if lost := _not_here(prepared):
        raise MtvcraftError(
            f"{', '.join(each.name for each in lost)} came, and is not whole",
            hint="its authors may have changed what they publish; take files that you have with `--from DIR`",
            exit=Exit.WEIGHTS,
        )
    if job.convert:
        from mtvcraft_cli.weights.convert import convert

        for each in prepared.wanted:
            place = find_released(each, job.weights) if each.name in manifest() else None
            if place is not None and place.suffix != ".torchscript":
                convert(place, watch)
    places = [plan.place_of(each, job.weights) for each in prepared.wanted]
    return [str(place) for place in places if place is not None]


def _not_here(prepared: PreparedDownload) -> list[Released]:
    return [each for each in prepared.wanted if not plan.is_here(each, prepared.job.weights)]


def _list(job: DownloadJob, wanted: Sequence[Released]) -> list[plan.Item]:
    first = job.settings.packages_first
    return [item for each in wanted for item in plan.list_files(each, job.weights, packages_first=first)]


def choose(job: DownloadJob) -> list[Released]:
    """What the names on the command line stand for, each once.

    Raises:
        MtvcraftError: exit 2; an unknown name (the nearest is suggested), or none.
    """
    names = list(job.names)
    if job.everything:
        names += [name for name, each in {**manifest(), **metric_networks()}.items() if each.sources]
    if not names and job.for_preset is None:
        raise MtvcraftError(
            "nothing is named to download",
            hint=f"name one of {', '.join(known_names())}, or `--all`, or `--for PRESET`",
            exit=Exit.USAGE,
        )
    chosen = [each for name in names for each in _of_name(name, job)]
    if job.for_preset is not None:
        chosen += _of_preset(load_preset(job.for_preset), job.weights)
    return list({each.name: each for each in chosen}.values())


def known_names() -> list[str]:
    """Everything that can be named, presets first."""
    return list(dict.fromkeys([*preset_names(), "metrics", *manifest(), *metric_networks()]))


def _of_name(name: str, job: DownloadJob) -> list[Released]:
    if job.everything and name in manifest():  # the parts themselves, not the presets of the same names
        return [manifest()[name]]
    if name == "metrics":
        return [each for each in metric_networks().values() if not each.optional]
    if name in preset_names():
        return _of_preset(load_preset(name), job.weights)
    if known := {**manifest(), **metric_networks()}.get(name):
        return [known]
    near = difflib.get_close_matches(name, known_names(), n=1, cutoff=0.4)
    meant = f"did you mean `{near[0]}`? " if near else ""
    raise MtvcraftError(
        f"there is nothing called `{name}` to download",
        hint=f"{meant}there are {', '.join(known_names())}",
        exit=Exit.USAGE,
    )


def _of_preset(preset: Preset, folder: Path | None) -> list[Released]:
    parts = locate(preset, folder).values()
    return [part.released for part in parts if part.released is not None]


def _unpublished(released: Released, folder: Path | None) -> MtvcraftError:
    if released.own:
        return MtvcraftError(f"`{released.name}` may not be passed on", hint=released.own, exit=Exit.WEIGHTS)
    if folder is not None:
        return MtvcraftError(
            f"`{folder}` doesn't hold {released.name}, which is not published",
            hint=f"it is looked for as `{folder / released.path}`",
            exit=Exit.WEIGHTS,
        )
    return MtvcraftError(
        f"the weights of `{released.name}` are not published",
        hint="not published; use 7b or 17b, or `--from DIR`",
        exit=Exit.WEIGHTS,
    )


def check_licence(released: Released, *, accepted: bool) -> None:
    """Refuse what limits its use until that is accepted.

    Raises:
        MtvcraftError: exit 6.
    """
    if released.limited and not accepted:
        raise MtvcraftError(
            f"{released.name} has a licence that limits use: {released.limited}",
            hint=f"if you accept that: `mtvcraft download {released.name} --accept-license`",
            exit=Exit.WEIGHTS,
        )


def check_room(items: Sequence[plan.Item], free_bytes: int, folder: Path) -> None:
    """Refuse what the disk has no room for, before anything is asked of the network.

    Raises:
        MtvcraftError: exit 5.
    """
    needed_bytes = plan.total_bytes(items)
    if needed_bytes > free_bytes:
        raise MtvcraftError(
            f"about {size_text(needed_bytes)} are to be fetched, and `{folder}` has {size_text(free_bytes)} free",
            hint="free some space, or name another disk with HF_HOME or `--cache-dir`",
            exit=Exit.FIT,
        )


def size_of(items: Sequence[plan.Item]) -> str:
    """How much files take, in words; what is only known about is said so."""
    known_bytes = plan.total_bytes(items)
    unknown = sum(1 for item in items if item.bytes is None and not item.path.endswith(".json"))
    if unknown and not known_bytes:
        return size_text(None)
    about = "about " if any(item.estimated for item in items) else ""
    return f"{about}{size_text(known_bytes)}" + (" and more, of unknown size" if unknown else "")


def obtain(
    preset: Preset,
    folder: Path | None,
    parts: Mapping[str, Located],
    supply: Supply | None,
    leave_out: Collection[str] = (),
) -> dict[str, Located]:
    """Get a preset's missing parts, where somebody supplies them.

    Args:
        preset: whose parts they are.
        folder: of the user's own.
        parts: as `locate` found them.
        supply: gets them; None gets nothing.
        leave_out: parts that the run can do without.

    Returns:
        The parts, all of them here.

    Raises:
        MtvcraftError: exit 6; some are still missing.
    """
    missing = [part for part in parts.values() if part.missing]
    released = [part.released for part in missing if part.released is not None]
    if released and supply is not None and all(each.sources for each in released) and not is_offline():
        supply(released, command_for(preset, missing))
        parts = {part: found for part, found in locate(preset, folder, leave_out).items() if part in parts}
    require(preset, parts)
    return dict(parts)
