"""Where the networks lie that a transformer is trained with, and the one that it starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtvcraft_cli.cache import Cache, default_folder
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.train.shards import fingerprint
from mtvcraft_cli.weights.locate import Located, find_released
from mtvcraft_cli.weights.manifest import manifest


def locate_parts(preset: Mapping[str, Any], given: Mapping[str, Path]) -> dict[str, Located]:
    """Find the networks around a transformer: those that were given, and the others where the recipe's preset says.

    Args:
        preset: of the recipe; its `weights` may name files, or lines of the weights manifest.
        given: files or folders by part.

    Raises:
        MtvcraftError: exit 6; a name is neither in the manifest nor a file.
    """
    own = {
        part: Located(part=part, source=str(path.resolve()), path=path)
        for part, path in given.items()
        if part != "transformer"
    }
    named = preset.get("weights", {})
    return {part: locate(part, source) for part, source in named.items() if part not in (*own, "transformer")} | own


def locate(part: str, source: str) -> Located:
    """Find a checkpoint by its path, or by its name in the weights manifest.

    Raises:
        MtvcraftError: exit 6; it is neither.
    """
    if (released := manifest().get(source)) is not None:
        return Located(part=part, source=source, path=find_released(released, None), released=released)
    path = Path(source).expanduser()
    if not path.exists():
        raise MtvcraftError(
            f"there is no {part} at `{path}`",
            hint=f"name a file or folder, or one of {', '.join(manifest())}",
            exit=Exit.WEIGHTS,
        )
    return Located(part=part, source=str(path.resolve()), path=path)


def needed(parts: Mapping[str, Located], part: str) -> Path:
    """The file or folder of a part.

    Raises:
        MtvcraftError: exit 6; it is not there.
    """
    found = parts.get(part)
    if found is not None and found.path is not None:
        return found.path
    hint = f"name its file or folder, as the part `{part}` or in the recipe's `preset.weights`"
    if part == "tokenizer":
        hint = "train one with `mtvcraft train tokenizer`, or name the folder of its run"
    if found is not None and found.released is not None and found.released.sources:
        hint = f"fetch it: `mtvcraft download {found.released.name}`; or name its file"
    raise MtvcraftError(f"the transformer can't be trained without a {part}", hint=hint, exit=Exit.WEIGHTS)


def trained_before(part: str, base: str | None, *, decoder_only: bool) -> Path | None:
    """The file of a network that is trained further; None where a new one is.

    Args:
        part: "tokenizer" or "vae".
        base: folder of a run, or a file.
        decoder_only: whether its encoder stays as it is.

    Raises:
        MtvcraftError: exit 2; there is no encoder to keep. Exit 6; the file isn't there.
    """
    if base is None:
        if decoder_only:
            raise MtvcraftError(
                f"`{part}.decoder_only` keeps an encoder that isn't trained",
                hint=f"name a trained {part} as `{part}.base`",
                exit=Exit.USAGE,
            )
        return None
    path = Path(base).expanduser()
    file = path / f"{part}.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise MtvcraftError(
            f"there is no {part} at `{file}`",
            hint=f"name the folder of its run, or its file, as `{part}.base`",
            exit=Exit.WEIGHTS,
        )
    return file


def told_scale(vae: Path) -> float | None:
    """The scaling factor that training found for a VAE: in its run's preset, or that of a packed run; None without one.

    Args:
        vae: its file, or the folder that it is in.
    """
    folder = (vae if vae.is_dir() else vae.parent).resolve()
    for preset in (folder / "preset.yaml", folder.with_name(f"{folder.name}.yaml")):
        content = yaml.safe_load(preset.read_text(encoding="utf-8")) if preset.is_file() else None
        if isinstance(content, dict) and "scaling_factor" in content.get("vae", {}):
            return float(content["vae"]["scaling_factor"])
    return None


def content_of(*parts: Located) -> str:
    """A hash over the files of parts."""
    cache = Cache(default_folder())
    return fingerprint({}, [[file.name, cache.sha256_of(file)] for part in parts for file in part.files])
