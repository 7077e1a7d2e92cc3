"""What a run leaves behind: weights, and a preset that `mtvcraft animate --preset RUN/preset.yaml` takes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from mtvcraft_cli.files import write_text_whole, writing
from mtvcraft_cli.preset import PARTS, Statistics
from mtvcraft_cli.train.dataset.spread import NAME as STATISTICS
from mtvcraft_cli.weights.convert import write_tensors
from mtvcraft_cli.weights.read import read_tensors


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


def save_weights(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    with writing(path) as draft:
        save_file({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}, draft)
