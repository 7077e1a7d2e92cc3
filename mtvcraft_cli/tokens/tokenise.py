"""A whole clip of any length to tokens and back, a few windows at a time, so that memory doesn't grow with the clip."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from mtvcraft_cli.preset import Differential, JointAxes, Statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import CodesFile, JointsMm, MotionLatents, MotionTokens
from mtvcraft_cli.tokens.normalise import cut, denormalise, differential, lay, normalise, seen
from mtvcraft_cli.tokens.report import Report, Tally
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, as_tokens
from mtvcraft_cli.windows import Window

TokensFile: TypeAlias = CodesFile | Float32[np.ndarray, "W F 24 D"]
"""Tokens as they lie in `NAME.tokens.npy`: codes, or latents of a tokenizer without a codebook."""
OriginMm: TypeAlias = Float32[np.ndarray, "_ 24 3"]
"""Poses that were subtracted from windows, one each, or one from all; millimetres."""
BATCH = 8
"""Windows worked on at once: about 0.4 GB at full size."""


@dataclass(frozen=True, kw_only=True)
class Tokenised:
    """What a clip became."""

    tokens: TokensFile
    """(W, F, 24) codes, or (W, F, 24, D) latents."""
    origin_mm: OriginMm | None
    """What differential joints were told from; None where nothing was subtracted."""
    report: Report


def tokenise(
    joints_mm: JointsMm,
    tokenizer: MotionTokenizer,
    plan: Sequence[Window],
    stats: Statistics,
    kind: Differential,
    watch: Watch = silent,
    axes: JointAxes = "xyz",
) -> Tokenised:
    """Turn a clip into tokens, window by window, and measure what decoding them gives back.

    Args:
        joints_mm: (T, 24, 3) camera space, millimetres.
        tokenizer: on any device; its arithmetic is float32.
        plan: the windows that cover the clip, all of one length.
        stats: mean and spread over the training set.
        kind: what is subtracted from the normalised joints of a window; see `differential`.
        watch: counts windows.
        axes: what the tokenizer sees of them; see `seen`. What it doesn't see is lost on the way back, too.

    Returns:
        The tokens of all windows, and how well they stand for the clip.

    Raises:
        ValueError: a joint is not a finite number.
    """
    if not np.isfinite(joints_mm).all():
        raise ValueError("joints are not finite numbers")
    tally = Tally(tokenizer.codes)
    shape = (len(plan), plan[0].latent_frames, tokenizer.joints)
    continuous = tokenizer.codes is None
    # Made at once: small arrays kept between the large ones that come and go would leave holes in memory.
    tokens = np.empty((*shape, tokenizer.width) if continuous else shape, np.float32 if continuous else np.int32)
    origins_mm = _origins(joints_mm, plan, kind)
    first = normalise(torch.tensor(joints_mm[0], device=tokenizer.device), stats)
    for some in watch(_batches(len(plan)), "tokenize", len(plan)):
        windows = plan[some[0] : some[-1] + 1]
        with torch.inference_mode():
            windows_mm = cut(joints_mm, windows).to(tokenizer.device)
            joints = differential(normalise(windows_mm, stats), kind, first)
            latents = tokenizer.encode(seen(joints, axes))
            if continuous:
                tokens[some] = latents.cpu().numpy()
            else:
                codes = tokenizer.quantise(latents)
                rows = tokenizer.look_up(codes)
                tally.add_codes(latents, rows, codes)
                tokens[some] = codes.cpu().numpy()
                latents = rows
            decoded = seen(tokenizer.decode(latents), axes)
            decoded_mm = denormalise(decoded, stats, _of(origins_mm, some, tokenizer.device))
            for window, before, after in zip(windows, windows_mm, decoded_mm, strict=True):
                own = slice(window.carried, window.frames - window.held)
                tally.add_joints(before[own], after[own])
    return Tokenised(tokens=tokens, origin_mm=origins_mm, report=tally.report())


def detokenise(
    tokens: TokensFile,
    tokenizer: MotionTokenizer,
    plan: Sequence[Window],
    stats: Statistics,
    kind: Differential,
    origin_mm: OriginMm | None = None,
    watch: Watch = silent,
    axes: JointAxes = "xyz",
) -> JointsMm:
    """Turn tokens back into a clip; frames that two windows share fade from the earlier to the later.

    Args:
        tokens: (W, F, 24) codes or (W, F, 24, D) latents.
        tokenizer: the one that made them.
        plan: the W windows they were made of.
        stats: mean and spread over the training set.
        kind: what was subtracted.
        origin_mm: the poses that were subtracted. Without them a differential clip starts from the mean pose: its
            movement is right and its place is not; with "window", each window starts where the one before has come to.
        watch: counts windows.
        axes: what the tokenizer saw of the joints; the others stay those of the origin.

    Returns:
        (T, 24, 3) camera space, millimetres.
    """
    joints_mm = np.zeros((plan[-1].start + plan[-1].frames - plan[-1].held, tokenizer.joints, 3), np.float32)
    for some in watch(_batches(len(plan)), "decode", len(plan)):
        with torch.inference_mode():
            decoded = seen(tokenizer.decode(_latents(tokens[some], tokenizer)), axes).cpu()
            for index, joints in zip(some, decoded, strict=True):
                window = plan[index]
                if origin_mm is not None:
                    origin = torch.tensor(origin_mm[index if len(origin_mm) > 1 else 0])
                elif kind == "window" and window.carried:
                    origin = torch.tensor(joints_mm[window.start])
                else:
                    origin = None  # the mean pose
                lay(denormalise(joints, stats, origin), window, joints_mm)
    return joints_mm


def motion_tokens(tokens: TokensFile, tokenizer: MotionTokenizer, window: int) -> MotionTokens:
    """Return what the transformer attends to while it makes one window.

    Only codes are kept for a whole clip: at full size a window's tokens are 3.8 MB, an hour's 10 GB.

    Args:
        tokens: (W, F, 24) codes or (W, F, 24, D) latents.
        tokenizer: the one that made them.
        window: which, 0..W - 1.

    Returns:
        (1, F * 24, D), on the tokenizer's device.
    """
    return as_tokens(_latents(tokens[window : window + 1], tokenizer))


def _latents(tokens: TokensFile, tokenizer: MotionTokenizer) -> MotionLatents:
    given = torch.tensor(tokens, device=tokenizer.device)
    return given if tokenizer.codes is None else tokenizer.look_up(given)


def _batches(windows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of windows, a few at a time; arrays, so that a watch counts each."""
    for start in range(0, windows, BATCH):
        yield np.arange(start, min(start + BATCH, windows))


def _origins(joints_mm: JointsMm, plan: Sequence[Window], kind: Differential) -> OriginMm | None:
    if kind == "none":
        return None
    return joints_mm[[window.start for window in plan]] if kind == "window" else joints_mm[:1].copy()


def _of(
    origins_mm: OriginMm | None, some: npt.NDArray[np.int64], device: torch.device
) -> Float[Tensor, "_ 1 24 3"] | None:
    """The poses that belong to some windows, with an axis for their frames."""
    if origins_mm is None:
        return None
    return torch.tensor((origins_mm[some] if len(origins_mm) > 1 else origins_mm)[:, None], device=device)
