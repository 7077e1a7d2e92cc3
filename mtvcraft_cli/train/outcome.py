"""What a run leaves behind: weights, and a preset that `mtvcraft animate --preset RUN/preset.yaml` takes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole, writing
from mtvcraft_cli.preset import PARTS, Statistics
from mtvcraft_cli.weights.convert import write_tensors
from mtvcraft_cli.weights.manifest import manifest
from mtvcraft_cli.weights.read import read_tensors

STATISTICS: Final = "joint_statistics.json"


@dataclass(frozen=True, kw_only=False, eq=False)
class Outcome:
    """What a run's preset says beside the weights it trained.

    Args:
        preset: settings without `statistics`; its `weights` name what belongs to the base model.
        stats: what joints are normalised with.
        parts: weights trained before, files or folders by part; they are copied, so that the run's folder is whole.
        named: parts that are too large to be copied, or lie in the run's folder already: what the preset calls them.
    """

    preset: Mapping[str, Any]
    stats: Statistics
    parts: Mapping[str, Path] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)

    def write(
        self, folder: Path, changes: Mapping[str, Any] | None = None, **trained: nn.Module | Mapping[str, Tensor]
    ) -> None:
        """Write the weights of each network as `PART.safetensors`, then `preset.yaml`.

        Parts that were neither trained nor given nor named in the recipe's preset are random numbers from a seed, so
        that the preset runs all the same.

        Args:
            folder: where.
            changes: settings that training found, e.g. the VAE's scaling factor.
            trained: networks by part, or their weights.
        """
        for part, network in trained.items():
            tensors = network.state_dict() if isinstance(network, nn.Module) else network
            save_weights(folder / f"{part}.safetensors", tensors)
        for part, path in self.parts.items():
            if part not in trained:
                target = folder / f"{part}.safetensors"
                if path.suffix == ".safetensors" and path.is_file():
                    with writing(target) as draft:
                        shutil.copyfile(path, draft)
                else:
                    write_tensors(target, read_tensors(path, within="module"))
        tables = {"mean_mm": self.stats.mean_mm.tolist(), "std_mm": self.stats.std_mm.tolist()}
        write_text_whole(folder / STATISTICS, json.dumps(tables) + "\n")
        sources = dict.fromkeys(PARTS[self.preset["backbone"]], "seeded:0")
        sources |= self.preset.get("weights", {})
        sources |= {part: f"{part}.safetensors" for part in (*trained, *self.parts)}
        content = {
            **self.preset,
            **(changes or {}),
            "statistics": STATISTICS,
            "weights": sources | {part: name for part, name in self.named.items() if part not in trained},
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
        how = f"# Trained here. To use it:\n#   mtvcraft animate ref.png drive.mp4 --preset {folder / 'preset.yaml'}\n"
        write_text_whole(folder / "preset.yaml", how + text)


def pack(run: Path, target: Path, header: str = "") -> int:
    """Copy what a run left as a preset with float16 weights in a folder beside it, at half the size.

    Args:
        run: folder with `preset.yaml` and the weights it names.
        target: `NAME.yaml`; the weights and the statistics go to `NAME/`.
        header: comment lines that open the preset.

    Returns:
        Bytes of the weights.

    Raises:
        MtvcraftError: there is no such run, a part of it is not trained, or a weight is too large for float16.
    """
    try:
        content = yaml.safe_load((run / "preset.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MtvcraftError(
            f"there is no `preset.yaml` in `{run}`", hint="name the folder of a finished run", exit=Exit.USAGE
        ) from error
    folder = target.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for part, source in content["weights"].items():
        if source.startswith("seeded:"):
            raise MtvcraftError(
                f"the run `{run}` has no trained {part}", hint="train it first, and name the last stage's run"
            )
        if source in manifest():
            continue  # what belongs to the base model stays where it is
        tensors = load_file(run / source)
        if large := [name for name, tensor in tensors.items() if not tensor.half().isfinite().all()]:
            raise MtvcraftError(f"`{large[0]}` of the {part} has numbers that float16 can't hold", hint="pack float32")
        content["weights"][part] = f"{folder.name}/{part}.safetensors"
        save_weights(folder / f"{part}.safetensors", tensors, torch.float16)
    shutil.copyfile(run / content["statistics"], folder / STATISTICS)
    content["statistics"] = f"{folder.name}/{STATISTICS}"
    write_text_whole(target, header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def save_weights(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    with writing(path) as draft:
        save_file({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}, draft)
