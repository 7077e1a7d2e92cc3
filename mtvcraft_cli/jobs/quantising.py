"""`mtvcraft doctor --quantize`: what each kind of quantisation costs and saves, measured on one pass of a network."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mtvcraft_cli.device import stepping
from mtvcraft_cli.device.memory import free_memory
from mtvcraft_cli.device.placement import Packing, Quantize, stored_bytes
from mtvcraft_cli.device.plan import PROGRAM_BYTES, counts_of
from mtvcraft_cli.device.sizes import latent_size
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.fit import machine_of, memory_text, sources_of
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.weights.locate import Located, locate
from mtvcraft_cli.windows import SHORTEST, Window, plan_windows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

KINDS: Final[tuple[Packing, ...]] = ("int8", "nf4", "fp8")
PATIENT: Final = 1e13
"""Operations of a pass that a CPU does in minutes; of more it is given the shortest window."""
TIME: Final = 500
PROMPT: Final = 32
"""Tokens that the text encoder reads."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One network stored in one way."""

    part: str
    kind: Quantize
    error: float | None = None
    """|difference| / |result| of a pass, from that of the network as it is; None where it does not run."""
    bytes: int | None = None
    """Of its weights."""
    seconds: float | None = None
    """For a pass."""
    why: str = ""
    """Why it does not run here."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was measured."""

    preset: str
    device: str
    size_px: tuple[int, int]
    frames: int
    random_weights: bool
    """Of the transformer."""
    rows: tuple[Measured, ...]
    remarks: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def compare(preset: Preset, folder: Path | None, device: str) -> Comparison:
    """Measure a preset's transformer, and its text encoder where that is here, on random inputs.

    Args:
        preset: whose networks; a transformer that is not here gets random weights.
        folder: of the user's own weights.
        device: as `choose_device` takes it.

    Raises:
        MtvcraftError: exit 2, there is no such device; exit 5, the transformer doesn't fit.
    """
    from mtvcraft_cli.device.place import choose_device

    chosen, parts = choose_device(device), dict(locate(preset, folder))
    transformer, remarks = parts["transformer"], list[str]()
    if transformer.path is None:
        parts["transformer"] = replace(transformer, seed=transformer.seed or 0)
        preset = replace(preset, loras=())
        remarks.append(f"the transformer of preset {preset.name} has random weights here; trained ones may differ")
    window = _window(preset, parts, chosen.type)
    width_px, height_px = preset.size_px
    remarks.append(
        f"a pass on {chosen} over {window.frames} frames of {width_px}x{height_px}, without guidance, which makes "
        "errors larger where it pulls hard"
    )
    rows = list(_transformer(preset, parts, window, chosen))
    if "text_encoder" in parts and parts["text_encoder"].path is None:
        remarks.append("the text encoder is not here and was not measured")
    elif "text_encoder" in parts:
        rows += _text_encoder(preset, parts["text_encoder"], chosen)
    return Comparison(
        preset=preset.name,
        device=str(chosen),
        size_px=preset.size_px,
        frames=window.frames,
        random_weights=transformer.path is None,
        rows=tuple(rows),
        remarks=tuple(remarks),
    )


def _window(preset: Preset, parts: Mapping[str, Located], device: str) -> Window:
    """A whole window, or the shortest where a CPU would take hours; refused where the transformer doesn't fit.

    It lies in memory as it is and, for a while, packed as well.
    """
    sources = sources_of(parts)
    wide = 2 if preset.precision == "bfloat16" and device != "cpu" else 4
    step = stepping.small_step if preset.backbone == "cogvideox" else stepping.large_step
    sizes = {**preset.transformer, **sources["transformer"].sizes}
    for frames in (preset.frames, SHORTEST):
        window = plan_windows(frames, preset.frames, preset.overlap)[0]
        planned = step(sizes, window.latent_frames, latent_size(preset.vae, preset.size_px), 1, wide)
        if device != "cpu" or planned.branch_work < PATIENT:
            break
    count = counts_of(preset, sources)["transformer"]
    works = count.bytes(wide) + stored_bytes(count, wide, "int8") + planned.peak_bytes
    if device == "cpu":
        needs = [(PROGRAM_BYTES + works, free_memory(), "RAM")]
    else:
        read = PROGRAM_BYTES + count.bytes(4 if parts["transformer"].path is None else wide)
        needs = [(read, free_memory(), "RAM"), (works, machine_of(device).card_free, "the card's memory")]
    for needed, free, what in needs:
        if free is not None and needed > free:
            raise MtvcraftError(
                f"preset {preset.name} can't be measured here: it needs {memory_text(needed)} of {what}, and "
                f"{memory_text(free)} are free",
                hint="measure a smaller one: mtvcraft doctor --quantize --preset mini",
                exit=Exit.FIT,
            )
    return window


def _transformer(
    preset: Preset, parts: Mapping[str, Located], window: Window, device: "torch.device"
) -> Iterator[Measured]:
    import torch

    from mtvcraft_cli.device.place import choose_dtype
    from mtvcraft_cli.runs.models import load_transformer

    transformer = load_transformer(preset, parts, device, "none", []).to(device)
    inputs = INPUTS[preset.backbone](transformer, preset, window.latent_frames)
    dtype = choose_dtype(device, preset.precision)
    ready = [
        each.to(device, dtype) if isinstance(each, torch.Tensor) and each.ndim > 1 else each.to(device)
        for each in inputs  # times and tables of positions keep their precision
    ]
    yield from measured("transformer", transformer, lambda: transformer(*ready), device)


def small_inputs(transformer: Any, preset: Preset, latent_frames: int) -> list[Any]:
    """Noise in the place of latents and tokens, with the true positions, in the order that the transformer takes."""
    import torch

    from mtvcraft_cli.latents.rope import motion_table, visual_table

    sizes, generator = transformer.config, torch.Generator().manual_seed(0)
    width, height = latent_size(preset.vae, preset.size_px)
    wide, head, patch = sizes.num_attention_heads * sizes.attention_head_dim, sizes.attention_head_dim, sizes.patch_size
    return [
        torch.randn(1, latent_frames, sizes.in_channels, height, width, generator=generator),
        torch.tensor([TIME]),
        torch.randn(1, latent_frames * stepping.JOINTS, wide, generator=generator),
        visual_table(latent_frames, height // patch, width // patch, head),
        motion_table(latent_frames, preset.statistics.mean_mm, head),
    ]


def large_inputs(transformer: Any, preset: Preset, latent_frames: int) -> list[Any]:
    """The same for the large model, which reads a text and looks at a picture besides."""
    import torch

    from mtvcraft_cli.latents.rope import wan_motion_table, wan_visual_table

    sizes, generator = transformer.config, torch.Generator().manual_seed(0)
    width, height = latent_size(preset.vae, preset.size_px)
    head, (_, rows, columns) = sizes.attention_head_dim, sizes.patch_size
    return [
        torch.randn(1, sizes.in_channels, latent_frames, height, width, generator=generator),
        torch.tensor([float(TIME)]),
        torch.randn(1, latent_frames * stepping.JOINTS, sizes.motion_token_dim, generator=generator),
        torch.randn(1, min(PROMPT, sizes.text_len), sizes.text_dim, generator=generator),
        torch.randn(1, stepping.PICTURE_TOKENS, sizes.image_dim, generator=generator),
        wan_visual_table(latent_frames, height // rows, width // columns, head),
        wan_motion_table(latent_frames, preset.statistics.mean_mm, head),
    ]


INPUTS: Final[Mapping[str, Callable[..., list[Any]]]] = {"cogvideox": small_inputs, "wan": large_inputs}


def _text_encoder(preset: Preset, part: Located, device: "torch.device") -> Iterator[Measured]:
    """The text encoder on a prompt of random words."""
    import torch

    from mtvcraft_cli.device.place import choose_dtype
    from mtvcraft_cli.latents.wanvideo.text import build_text_encoder, encode_text
    from mtvcraft_cli.weights.read import read_tensors

    assert part.path is not None
    config, dtype = {**preset.text_encoder, **part.config()}, choose_dtype(device, preset.precision)
    encoder = build_text_encoder(config, read_tensors(part.path), dtype).to(device)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(encoder.config.vocab_size, (PROMPT,), generator=generator).tolist()
    yield from measured("text_encoder", encoder, lambda: encode_text(encoder, [prompt], PROMPT), device)


def measured(part: str, model: "nn.Module", run: Callable[[], "Tensor"], device: "torch.device") -> Iterator[Measured]:
    """A network as it is and in every kind.

    Args:
        part: its name.
        model: on its device; as it was when all is done.
        run: one pass of it.
        device: where it is.
    """
    from mtvcraft_cli.device.quantise import check_quantize, quantised, stored_bytes_of

    wanted, seconds = _timed(run)
    yield Measured(part=part, kind="none", error=0.0, bytes=stored_bytes_of(model), seconds=seconds)
    for kind in KINDS:
        try:
            check_quantize(kind, device)
        except MtvcraftError as refused:
            yield Measured(part=part, kind=kind, why=f"{refused.message}; {refused.hint}")
            continue
        with quantised(model, kind) as packed:
            found, seconds = _timed(run)
        error = float((found - wanted).norm() / wanted.norm())
        yield Measured(part=part, kind=kind, error=error, bytes=packed.after_bytes, seconds=seconds)


def _timed(run: Callable[[], "Tensor"]) -> tuple["Tensor", float]:
    """What a pass gives, float32 on the CPU, and how long the quicker of two took."""
    import torch

    took = []
    for _ in range(2):
        started = time.perf_counter()
        with torch.no_grad():
            result = run().float().cpu()  # waits for a card
        took.append(time.perf_counter() - started)
    return result, min(took)
