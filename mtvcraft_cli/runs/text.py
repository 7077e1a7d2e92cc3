"""What a model reads of the texts of a run, kept from run to run."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.device.offload import lent
from mtvcraft_cli.device.place import choose_dtype
from mtvcraft_cli.device.quantise import built
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.text import prompts_of, text_key, text_told
from mtvcraft_cli.latents.wanvideo.text import build_text_encoder, encode_text
from mtvcraft_cli.latents.wanvideo.text import load_tokenizer as load_text_tokenizer
from mtvcraft_cli.latents.wanvideo.text import tokenise as tokenise_text
from mtvcraft_cli.weights.read import read_tensors


def find_text(prepared: PreparedAnimation, more: Sequence[str] = ()) -> list[Tensor]:
    """What the model reads of the texts of a run, (1, L, E) each: the prompt, then perhaps the negative one.

    The text encoder is only loaded where one of them is not kept, and is gone afterwards; while it is there it reads
    `more` prompts, and they are kept.
    """
    preset, cache, parts, device = prepared.job.preset, prepared.cache, prepared.parts, torch.device(prepared.device)
    quantize = prepared.job.quantize
    own = prompts_of(preset)
    later = [each for each in more if each not in own and "text_encoder" in parts]
    wanted = [text_told(preset, prompt, prepared.hashes, prepared.device, quantize) for prompt in (*own, *later)]
    new = [told for told in wanted if cache.find("text", text_key(told)) is None]
    texts = _tokenised(prepared, new, own) if new else {}
    if new := [told for told in new if told["prompt"] in texts]:
        weights = parts["text_encoder"]
        assert weights.path is not None
        dtype = choose_dtype(device, preset.precision)
        config = {**preset.text_encoder, **weights.config()}
        encoder, _ = built(build_text_encoder, config, read_tensors(weights.path), dtype, quantize)
        with lent(encoder.encoder, device, prepared.plan.placement.offload):  # but for its blocks it has nothing
            read = [texts[told["prompt"]] for told in new]
            made = [encode_text(encoder, [text], len(text))[0].cpu() for text in read]  # (L, E), unfilled
        del encoder
        for told, features in zip(new, made, strict=True):
            with cache.make("text", text_key(told)) as folder:
                save_file({"text": features.contiguous()}, folder / "text.safetensors")
                (folder / "told.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    found = []
    for told in wanted[: len(own)]:
        kept = cache.find("text", text_key(told))
        assert kept is not None
        features = load_file(kept / "text.safetensors")["text"]
        found.append(functional.pad(features, (0, 0, 0, told["length"] - len(features)))[None])
    return found


def _tokenised(
    prepared: PreparedAnimation, texts: Sequence[Mapping[str, Any]], own: Sequence[str]
) -> dict[str, list[int]]:
    """The token numbers of each prompt; one of another job that is too long is left out, for that job to tell."""
    words = prepared.parts["text_tokenizer"].path
    assert words is not None
    tokenizer, found = load_text_tokenizer(words), dict[str, list[int]]()
    for told in texts:
        with nullcontext() if told["prompt"] in own else suppress(MtvcraftError):
            found[told["prompt"]] = tokenise_text(tokenizer, told["prompt"], told["length"])
    return found
