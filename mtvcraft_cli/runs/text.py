"""What a model reads of the texts of a run, kept from run to run."""

import json
from collections.abc import Sequence

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.device.offload import lent
from mtvcraft_cli.device.place import choose_dtype
from mtvcraft_cli.device.quantise import built
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
    if new:
        words, weights = parts["text_tokenizer"].path, parts["text_encoder"]
        assert words is not None
        assert weights.path is not None
        tokenizer = load_text_tokenizer(words)
        prompts = [tokenise_text(tokenizer, told["prompt"], told["length"]) for told in new]
        dtype = choose_dtype(device, preset.precision)
        config = {**preset.text_encoder, **weights.config()}
        encoder, _ = built(build_text_encoder, config, read_tensors(weights.path), dtype, quantize)
        with lent(encoder.encoder, device, prepared.plan.placement.offload):  # but for its blocks it has nothing
            made = [encode_text(encoder, [prompt], len(prompt))[0].cpu() for prompt in prompts]  # (L, E), unfilled
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
