"""`mtvcraft cache`: what is kept, whether it is whole, and getting rid of it."""

import re
from typing import Annotated, Final, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, table
from mtvcraft_cli.errors import Exit, MtvcraftError


def cache(
    action: Annotated[Literal["list", "clear", "prune", "verify"], typer.Argument(help="What to do.")] = "list",
    stage: Annotated[
        Literal["joints", "tokens", "text", "reference", "windows", "eval", "bench"] | None,
        typer.Option(help="Only entries of this stage; `bench` are those of bench mini."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For prune: what may stay, such as 10GB; the oldest use goes."),
    ] = None,
) -> None:
    """List, check, prune or clear what finished stages have left for the next run; downloaded weights stay."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.weights.locate import size_text

    kept = open_cache()
    if (action == "prune") != (limit is not None) or (action == "prune" and stage is not None):
        raise MtvcraftError(
            "`prune` and `--limit` go together, and take all stages",
            hint="write it like `mtvcraft cache prune --limit 10GB`",
            exit=Exit.USAGE,
        )
    if limit is not None:
        freed_bytes = kept.prune(read_size(limit))
        return answer(f"freed {size_text(freed_bytes)} in `{kept.folder}`", {"freed_bytes": freed_bytes})
    if action == "clear":
        freed_bytes = kept.clear(stage)
        return answer(f"freed {size_text(freed_bytes)} in `{kept.folder}`", {"freed_bytes": freed_bytes})
    if action == "verify":
        entries = [entry for entry in kept.entries() if stage in (None, entry.stage)]
        broken = [entry for entry in kept.broken() if stage in (None, entry.stage)]
        data = {"entries": len(entries), "broken": [str(entry.folder) for entry in broken]}
        answer(f"{len(entries)} entries in `{kept.folder}`, {len(broken)} broken", data)
        if broken:
            raise MtvcraftError(
                f"{len(broken)} entries are not what was written, such as `{broken[0].folder}`",
                hint="they are never read; `mtvcraft cache clear` removes them",
                exit=Exit.INPUT,
            )
        return None
    entries = [entry for entry in kept.entries() if stage in (None, entry.stage)]
    stages = sorted({entry.stage for entry in entries})
    by_stage = {name: [entry for entry in entries if entry.stage == name] for name in stages}
    rows = [[name, str(len(own)), size_text(sum(entry.size_bytes for entry in own))] for name, own in by_stage.items()]
    say(f"cache `{kept.folder}`")
    return answer(
        table(["stage", "entries", "size"], rows) if rows else "empty",
        {
            "folder": str(kept.folder),
            "stages": {
                name: {"entries": len(own), "bytes": sum(entry.size_bytes for entry in own)}
                for name, own in by_stage.items()
            },
        },
    )


UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def read_size(text: str) -> int:
    """Bytes from `10GB`, `500 MB`, `2GiB` or a bare number.

    Raises:
        MtvcraftError: exit 2; it is no size.
    """
    said = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if said is None or (said[3] and not said[2]):
        raise MtvcraftError(f"`{text}` is no size", hint="write it like 10GB, 500MB or 0", exit=Exit.USAGE)
    unit = 1024 ** (" KMGT".index(said[2])) if said[3] else UNITS[said[2]]
    return int(float(said[1]) * unit)
