"""What of a transformer is trained, and what of it is kept."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.train.settings import DitTraining, Lora

MOTION: Final = frozenset(
    {
        "attn0",
        "motion_attn",
        "norm4",
        "unconditional_motion_token",
        "motion_position_joint",
        "motion_position_frame",
    }
)
"""Parts of the names of what a base model has not, and an MV-DiT has."""


def choose_trained(transformer: nn.Module, settings: DitTraining) -> None:
    """Leave those weights open that are trained, in float32; the others are frozen as they are.

    Raises:
        MtvcraftError: exit 2; there is no base whose weights could stay as they are, or a LoRA's target is no layer.
    """
    if settings.trains != "all" and settings.base is None:
        raise MtvcraftError(
            f"`dit.trains: {settings.trains}` leaves all other weights as they are, and there is no base",
            hint="name one with `dit.base`, or set `dit.trains: all`",
            exit=Exit.USAGE,
        )
    TRAINED[settings.trains](transformer, settings.lora)
    for part in transformer.modules():
        if isinstance(part, nn.RMSNorm):
            part.forward = partial(_normed, part)  # type: ignore[method-assign]
    for weight in transformer.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _normed(norm: nn.RMSNorm, values: Tensor) -> Tensor:
    """Norm in the dtype of the gains: autocast hands low values to float32 ones, for which torch has no fast way."""
    exact = values.to(values.dtype if norm.weight is None else norm.weight.dtype)
    return functional.rms_norm(exact, norm.normalized_shape, norm.weight, norm.eps).to(values.dtype)


def _all(_transformer: nn.Module, _lora: Lora) -> None:
    pass


def _motion(transformer: nn.Module, _lora: Lora) -> None:
    for name, weight in transformer.named_parameters():
        weight.requires_grad_(not MOTION.isdisjoint(name.split(".")))


def _lora(transformer: Any, lora: Lora) -> None:
    from peft import LoraConfig

    layers = [name for name, part in transformer.named_modules() if isinstance(part, (nn.Linear, nn.Conv3d))]
    for target in lora.targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise MtvcraftError(
                f"`dit.lora.targets` has `{target}`, and no layer is called so",
                hint="layers are called as in diffusers: to_q, to_k, to_v, to_out.0, add_k_proj, ffn.net.2, ...",
                exit=Exit.USAGE,
            )
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets)))


TRAINED: Final[Mapping[str, Callable[[Any, Lora], None]]] = {"all": _all, "motion": _motion, "lora": _lora}


def frozen_dtype(settings: DitTraining) -> torch.dtype:
    """What a base is kept in: as it is run where it is frozen, else the float32 that is trained."""
    low = settings.trains != "all" and settings.loop.precision == "bfloat16"
    return torch.bfloat16 if low else torch.float32


def leave_out_frozen(objective: nn.Module) -> None:
    """Keep what is frozen out of checkpoints: it comes from the base, and may be twenty times as large as the rest."""
    frozen = {name for name, weight in objective.named_parameters() if not weight.requires_grad}
    if not frozen:
        return

    def drop(_module: nn.Module, state: dict[str, Any], prefix: str, _told: object) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def excuse(_module: nn.Module, found: Any) -> None:
        found.missing_keys[:] = [name for name in found.missing_keys if name.removeprefix("module.") not in frozen]

    objective.register_state_dict_post_hook(drop)
    objective.register_load_state_dict_post_hook(excuse)


def save_lora(path: Path, transformer: nn.Module, lora: Lora, whole: Mapping[str, Tensor] | None = None) -> None:
    """Write a LoRA as diffusers does, so that `--lora` and other programs read its alpha as well.

    Args:
        path: where.
        transformer: with the adapter.
        lora: its size.
        whole: all weights by name, where the transformer's own are cut into pieces.
    """
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(transformer, state_dict=None if whole is None else dict(whole))
    tensors = {f"transformer.{name}": tensor.detach().cpu().float().contiguous() for name, tensor in found.items()}
    told = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.targets)}
    kept = json.dumps({f"transformer.{key}": value for key, value in told.items()})
    with writing(path) as draft:
        save_file(tensors, draft, metadata={"format": "pt", "lora_adapter_metadata": kept})
