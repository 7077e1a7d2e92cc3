"""Under what the large model's text embeddings are kept, with the text encoder at hand or without it."""

import json
from collections.abc import Mapping
from typing import Any

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.device.placement import Quantize
from mtvcraft_cli.preset import PARTS, Preset

TEXT_PARTS = ("text_encoder", "text_tokenizer")
"""What a run can do without where all its embeddings are kept."""
LONGEST = 512
"""Tokens of a prompt, where the preset doesn't say."""


def prompts_of(preset: Preset) -> list[str]:
    """The texts that a run needs: the prompt, and the negative one where the text pulls."""
    if "text_encoder" not in PARTS[preset.backbone]:
        return []
    return [preset.prompt, *([preset.negative_prompt] if preset.sampler.text_guidance != 1 else [])]


def text_told(
    preset: Preset, prompt: str, hashes: Mapping[str, str], device: str, quantize: Quantize = "none"
) -> dict[str, Any]:
    """All that a text's embedding depends on."""
    return {
        "prompt": prompt,
        "length": preset.transformer.get("text_len", LONGEST),
        "sources": [preset.weights[part] for part in TEXT_PARTS],
        "hashes": {name: sha256 for name, sha256 in sorted(hashes.items()) if name.startswith(TEXT_PARTS)},
        "precision": preset.precision,
        "device": device.partition(":")[0],
        **({} if quantize == "none" else {"quantize": quantize}),
    }


def text_key(told: Mapping[str, Any]) -> str:
    """The name of the entry in the cache's stage "text"; it holds `text.safetensors` and, in `told.json`, `told`."""
    return key_of("text", told)


def kept_hashes(preset: Preset, device: str, cache: Cache, quantize: Quantize = "none") -> dict[str, str] | None:
    """The hashes of the encoder that made all texts of this run, kept by earlier ones; of several the latest.

    Returns:
        SHA-256 by name, as the encoder's files would give them; None where a text is not there.
    """
    wanted = {prompt: text_told(preset, prompt, {}, device, quantize) for prompt in prompts_of(preset)}
    found: dict[str, dict[str, dict[str, str]]] = {}  # by prompt, then by the hashes as text, oldest first
    for entry in cache.entries():
        if entry.stage != "text":
            continue
        if (folder := cache.find("text", entry.key)) is None:
            continue  # damaged, or removed since
        told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
        prompt = told["prompt"]
        if prompt in wanted and {**told, "hashes": {}} == wanted[prompt]:
            found.setdefault(prompt, {})[json.dumps(told["hashes"], sort_keys=True)] = told["hashes"]
    if not wanted or found.keys() != wanted.keys():
        return None
    shared = [words for words in found[preset.prompt] if all(words in made for made in found.values())]
    return found[preset.prompt][shared[-1]] if shared else None
