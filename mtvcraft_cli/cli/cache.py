"""`mtvcraft cache`: what is kept, whether it is whole, and getting rid of it."""

from typing import Annotated, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, table
from mtvcraft_cli.errors import Exit, MtvcraftError


def cache(
    action: Annotated[Literal["list", "clear", "verify"], typer.Argument(help="What to do.")] = "list",
    stage: Annotated[
        Literal["joints", "tokens", "reference", "windows"] | None, typer.Option(help="Only entries of this stage.")
    ] = None,
) -> None:
    """List, check or clear what finished stages have left for the next run."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.weights.locate import size_text

    kept = open_cache()
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
