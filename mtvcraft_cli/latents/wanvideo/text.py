"""Prompts to what the large model reads of them: umT5's tokenizer and encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.checkpoint import fill

TextFeatures: TypeAlias = Float[Tensor, "B L E"]
"""What the encoder makes of prompts, L tokens long; all zero past a prompt's end."""
TEXT_TOKENS = 512
"""Tokens of a prompt that the model was trained with (released code)."""
END = "</s>"
ORIGINAL = {
    "token_embedding": "shared",
    "norm": "encoder.final_layer_norm",
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
"""What modules are called in Wan's own file, and what transformers calls them."""


def build_text_encoder(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> UMT5EncoderModel:
    """Make the text encoder of a checkpoint, ready to run.

    Args:
        config: the `config.json` of the folder `text_encoder`; empty for Wan's own file, whose sizes are read from its
            tensors.
        tensors: the checkpoint, in the layout of diffusers or in that of Wan's own file.
        dtype: what to compute in; None keeps the checkpoint's.

    Raises:
        MtvcraftError: tensors are missing, left over or misshaped (exit 6).
    """
    named = from_original(tensors) if "token_embedding.weight" in tensors else dict(tensors)
    for one, other in (
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("encoder.embed_tokens.weight", "shared.weight"),
    ):
        if one in named:
            named.setdefault(other, named[one])  # two names of one table, of which files hold either or both
    cast = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in named.items()}
    with init_empty_weights():
        encoder = UMT5EncoderModel(UMT5Config.from_dict(dict(config) or _sizes(named)))
    encoder = fill(encoder, cast, "text encoder").eval()
    encoder.tie_weights()
    encoder.set_attn_implementation("eager")  # the reference's own arithmetic, to the last bit
    return encoder


def from_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `models_t5_umt5-xxl-enc-bf16.pth` to transformers' names; strange ones stay as they are."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module.startswith("blocks."):
        _, layer, inner = module.split(".", 2)
        return f"encoder.block.{layer}.{ORIGINAL.get(inner, inner)}.{kind}"
    return f"{ORIGINAL.get(module, module)}.{kind}"


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of an encoder whose file tells them by its tensors' shapes only."""
    layer = "encoder.block.0.layer"
    try:
        words, width = tensors["shared.weight"].shape
        buckets, heads = tensors[f"{layer}.0.SelfAttention.relative_attention_bias.weight"].shape
        inner = len(tensors[f"{layer}.0.SelfAttention.q.weight"])
        hidden = len(tensors[f"{layer}.1.DenseReluDense.wi_0.weight"])
    except (KeyError, ValueError) as error:
        raise MtvcraftError(
            f"the text encoder checkpoint holds no umT5 encoder: it lacks {error}",
            hint="name `models_t5_umt5-xxl-enc-bf16.pth`, or the folder `text_encoder` of a diffusers repository",
            exit=Exit.WEIGHTS,
        ) from error
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.block.")}
    return {
        "vocab_size": words,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": len(layers),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read `tokenizer.json` of a folder (`tokenizer` or `google/umt5-xxl`), and follow it to the letter.

    transformers 5 makes its T5 tokenizers anew from the words alone, and loses the file's way with Unicode and spaces.

    Raises:
        MtvcraftError: there is no such file, or it can't be read (exit 6).
    """
    file = folder / "tokenizer.json"
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END)
    except Exception as error:  # the reader of that format raises plain Exception
        raise MtvcraftError(
            f"the text tokenizer `{file}` can't be read: {str(error).splitlines()[0]}",
            hint="fetch the folder `tokenizer` (or `google/umt5-xxl`) of the base model again",
            exit=Exit.WEIGHTS,
        ) from error


def tokenise(tokenizer: PreTrainedTokenizerFast, prompt: str, length: int = TEXT_TOKENS) -> list[int]:
    """Turn a prompt into token numbers, the end mark last.

    Raises:
        MtvcraftError: it has more than `length` tokens (exit 2); nothing is cut off in silence.
    """
    tokens = tokenizer(prompt).input_ids
    if not tokens or tokens[-1] != tokenizer.eos_token_id:
        tokens = [*tokens, tokenizer.eos_token_id]
    if len(tokens) > length:
        raise MtvcraftError(
            f"the prompt `{prompt[:40]} ...` has {len(tokens)} tokens, and the model reads {length}",
            hint="shorten `--prompt` and `--negative-prompt`",
            exit=Exit.USAGE,
        )
    return tokens


@torch.no_grad()
def encode_text(encoder: UMT5EncoderModel, prompts: Sequence[Sequence[int]], length: int = TEXT_TOKENS) -> TextFeatures:
    """Encode prompts one by one, so that a prompt's features are the same whatever it is encoded with.

    Source: released code; the model attends to the zeros as well, so their number counts.

    Args:
        encoder: the text encoder.
        prompts: token numbers of each, from `tokenise`.
        length: tokens to fill up to.

    Returns:
        (B, length, E), zeros past a prompt's end, in the encoder's dtype and on its device.
    """
    found = [
        encoder(input_ids=torch.tensor([list(prompt)], device=encoder.device)).last_hidden_state[0]
        for prompt in prompts
    ]
    return torch.stack([functional.pad(features, (0, 0, 0, length - len(features))) for features in found])
