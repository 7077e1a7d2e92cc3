"""Walks over the windows of a motion of any length and gives the frames as they become final."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mtvcraft_cli.latents.painter import CogVideoXPainter, Models, Settings, Working
from mtvcraft_cli.latents.patient import Patient
from mtvcraft_cli.latents.vae import to_frames, to_video
from mtvcraft_cli.latents.wan import JOINTS
from mtvcraft_cli.latents.wanvideo.colour import match_colours
from mtvcraft_cli.latents.wanvideo.painter import WanModels, WanPainter, WanSettings
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames, MotionTokens, Picture, Video
from mtvcraft_cli.windows import Window

__all__ = ["Kept", "Models", "Painter", "Settings", "WanModels", "WanSettings", "derived_seed", "walk", "window_seed"]


@runtime_checkable
class Painter(Protocol):
    """All that the walk asks of a backbone; made of models, settings, the reference, a window and `working`."""

    def look(self, generator: torch.Generator, /) -> Tensor:
        """What the model sees of the character, whichever window it paints."""
        ...

    def denoise(
        self, character: Tensor, tokens: MotionTokens, tail: Video | None, generator: torch.Generator, /
    ) -> Iterator[Tensor]:
        """The latents of a window after each step, the last of which are the result.

        Args:
            character: from `look`; perhaps on another device by now.
            tokens: (1, M, D) the window's motion.
            tail: the last frames of the window before, from -1 to 1; None for the first window.
            generator: on the CPU, so that a seed means the same on every device.
        """
        ...

    def decode(self, latents: Tensor, /) -> Video:
        """The frames of a window, (1, 3, T, H, W) float32 on the CPU, -1..1."""
        ...


PAINTERS: dict[type, Callable[..., Painter]] = {Models: CogVideoXPainter, WanModels: WanPainter}
"""Who paints with which models; after this nobody asks which backbone it is."""


@runtime_checkable
class Kept(Protocol):
    """Where finished work outlives the run, by name: "reference", and "window-N" with "tail-N"; a dict will do.

    It must be empty for other models, inputs, settings or seeds.
    """

    def get(self, name: str, /) -> Tensor | None:
        """What was kept under the name, or None."""
        ...

    def __setitem__(self, name: str, tensor: Tensor, /) -> None:
        """Keep a tensor of the CPU: the character as the model sees it, latents, or a window's last frames."""
        ...


def walk(
    models: Models | WanModels,
    reference: Picture,
    tokens: Iterable[Tensor],
    windows: list[Window],
    settings: Settings | WanSettings,
    seed: int,
    *,
    kept: Kept | None = None,
    watch: Watch = silent,
    working: Working = nullcontext,
    make_room: Callable[[], bool] = lambda: False,
) -> Iterator[Frames]:
    """Make the frames of all windows, one window after the other; memory does not grow with their number.

    Each window starts from its own seed. The last frames of a window are encoded anew, as floats, and hold the first
    latents of the next one in place; where the two overlap, the frames are faded from one to the other.

    Args:
        models: transformer, VAE and what else the backbone has.
        reference: (H, W, 3) the character, already of the size of the frames.
        tokens: (M, D) motion tokens for each window.
        windows: from `plan_windows`, all of the same length.
        settings: how the models are run; `WanSettings` for `WanModels`.
        seed: the run's seed.
        kept: where finished windows are kept; those already there are decoded again instead of made.
        watch: is told of every denoising step.
        working: brings each model to the device while it works.
        make_room: is asked for room where memory is too small; a window is begun again where it says that it made some.

    Yields:
        Frames that won't change any more, (T, H, W, 3), as many in all as the motion has.
    """
    frames, latent_frames = windows[0].frames, windows[0].latent_frames
    noted = kept if kept is not None else _Nothing()
    painter = Patient(PAINTERS[type(models)](models, settings, reference, windows[0], working), make_room)
    if (character := noted.get("reference")) is None:
        character = noted["reference"] = painter.look(_generator(derived_seed(seed, "reference"))).cpu()

    total = len(windows) * settings.steps
    ticks = watch(range(total), "denoise", total)
    tail: Video | None = None  # the last frames of the window before
    for window, window_tokens in zip(windows, tokens, strict=True):
        if len(window_tokens) != latent_frames * JOINTS:
            raise ValueError(
                f"{latent_frames} latent frames have {JOINTS} motion tokens each, not {len(window_tokens)}"
            )
        name = f"window-{window.index}"
        if (latents := noted.get(name)) is not None:
            list(islice(ticks, settings.steps))
        else:
            generator = _generator(window_seed(seed, window.index))
            steps = painter.denoise(character, window_tokens[None], tail, generator)
            with torch.no_grad():
                ((latents, _),) = deque(zip(steps, ticks, strict=False), maxlen=1)
            latents = noted[name] = latents.cpu()
        video = painter.decode(latents)
        if settings.color_match:
            video = match_colours(video, to_video(reference[None]))
        if tail is not None:
            video[:, :, : window.carried] = _faded(tail, video[:, :, : window.carried])
        follower = windows[window.index + 1] if window.index + 1 < len(windows) else None
        open_end = follower.carried if follower else window.held
        tail = None
        if follower and (tail := noted.get(f"tail-{window.index}")) is None:
            # Kept as it is: on a card, decoding again may give other bits, and the next window builds on these.
            tail = noted[f"tail-{window.index}"] = video[:, :, frames - open_end :].clone()
        yield to_frames(video[:, :, : frames - open_end])
    list(ticks)  # lets the progress display end


def window_seed(seed: int, index: int) -> int:
    """The seed of a window's noise: the run's own for the first, so that released settings give their numbers."""
    return derived_seed(seed, f"window {index}") if index else seed


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of 63 bits that has nothing to do with `seed` or those for other purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


class _Nothing:
    """Keeps nothing."""

    def get(self, _name: str, /) -> None:
        return None

    def __setitem__(self, _name: str, _tensor: Tensor, /) -> None:
        return None


def _faded(before: Video, after: Video) -> Video:
    """From the window before to the one after, in equal steps over the frames that both have."""
    weight = torch.linspace(0, 1, before.shape[2] + 2)[1:-1, None, None]  # (T, 1, 1), neither 0 nor 1
    return torch.lerp(before, after, weight)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
