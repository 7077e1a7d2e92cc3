"""A finished run as a preset of half the size, to ship or to give away."""

import shutil
from pathlib import Path

import torch
import yaml

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.preset import find_preset, load_preset
from mtvcraft_cli.sidecar import check_ending, check_target
from mtvcraft_cli.train.dataset.spread import NAME as STATISTICS
from mtvcraft_cli.train.outcome import save_weights
from mtvcraft_cli.weights.locate import Located, locate
from mtvcraft_cli.weights.read import read_tensors


def packable(run: Path, target: Path, *, force: bool = False) -> dict[str, Located]:
    """Check a run before it is packed.

    Args:
        run: its folder, or its preset.
        target: `NAME.yaml`; the folder `NAME` beside it gets the weights.
        force: whether what is there already may be written over.

    Returns:
        The parts that are to be halved; what belongs to the base model stays a name.

    Raises:
        MtvcraftError: exit 2; there is no such run, it is on another backbone, a part of it isn't trained, or the
            target is taken. Exit 6; weights that it names aren't here.
    """
    preset = load_preset(str(run))
    if preset.backbone != "cogvideox":
        raise MtvcraftError(
            f"`{run}` is on {preset.backbone}, whose weights are 16 bits wide already",
            hint="use the run as it is: `--preset RUN/preset.yaml`",
            exit=Exit.USAGE,
        )
    parts = {part: found for part, found in locate(preset, None).items() if found.released is None}
    if random := [part for part, found in parts.items() if found.seed is not None]:
        raise MtvcraftError(
            f"the run `{run}` has no trained {random[0]}",
            hint="name the run of the last stage, or the parts in its preset's `weights`",
            exit=Exit.USAGE,
        )
    check_ending(target, ".yaml")
    check_target(target, force=force, made=False)
    folder = target.with_suffix("")
    if folder.exists() and not (force and folder.is_dir()):
        raise MtvcraftError(
            f"`{folder}` is already there, and would get the weights",
            hint="choose another name, or write over it with `--force`",
            exit=Exit.USAGE,
        )
    return parts


def pack(run: Path, target: Path, *, force: bool = False) -> int:
    """Copy a run as a preset with float16 weights in a folder beside it.

    Args:
        run: its folder, or its preset.
        target: `NAME.yaml`; the weights and the statistics go to `NAME/`.
        force: whether what is there already may be written over.

    Returns:
        Bytes of the weights.

    Raises:
        MtvcraftError: as for `packable`; or a weight is too large for float16. Then nothing is left behind.
    """
    parts = packable(run, target, force=force)
    content, own = find_preset(str(run))
    folder = target.with_suffix("")
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for part, found in parts.items():
            assert found.path is not None  # `packable` has seen to it
            tensors = read_tensors(found.path, within="module")
            if large := [name for name, tensor in tensors.items() if not tensor.half().isfinite().all()]:
                raise MtvcraftError(
                    f"`{large[0]}` of the {part} has numbers that float16 can't hold",
                    hint="use the run as it is: `--preset RUN/preset.yaml`",
                )
            save_weights(draft / f"{part}.safetensors", tensors, torch.float16)
            content["weights"][part] = f"{folder.name}/{part}.safetensors"
        shutil.copyfile(own.parent / content["statistics"], draft / STATISTICS)
        content["statistics"] = f"{folder.name}/{STATISTICS}"
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    write_text_whole(target, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
