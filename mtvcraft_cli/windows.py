"""Cuts a motion of any length into the windows a model can see at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Frames `start` to `start + frames` of the motion; those past its end hold the last pose."""

    index: int
    start: int
    frames: int
    """8n + 1: the VAE keeps the first frame and packs the rest by four, in pairs."""
    carried: int
    """Leading frames that the window before has already made; 0 for the first."""
    held: int
    """Trailing frames past the end of the motion: made with the last pose held, then cut off."""

    @property
    def latent_frames(self) -> int:
        """Latent frames F of this window."""
        return (self.frames - 1) // 4 + 1


SHORTEST = 9
"""The tokenizer takes no fewer than 8 frames, and the VAE wants 8n + 1."""


def plan_windows(total: int, frames: int, overlap: int) -> list[Window]:
    """Cover `total` frames with windows, each carrying on from the last frames of the one before.

    A motion that fits into one window gets the smallest window of 8n + 1 frames that holds it (at least 9). A longer
    one gets windows of the full length the model was trained on, each starting `overlap` frames before the last ended.

    Args:
        total: frames of the motion, at least 1.
        frames: frames of a full window, 8n + 1.
        overlap: frames two windows share, 8n + 1 and less than `frames`.

    Returns:
        The windows in order.

    Raises:
        ValueError: where the numbers don't fit the above.
    """
    if total < 1:
        raise ValueError(f"a motion has at least one frame, not {total}")
    if frames < SHORTEST or frames % 8 != 1:
        raise ValueError(f"a window has 8n + 1 frames and at least {SHORTEST}, not {frames}")
    if overlap % 8 != 1 or not 0 < overlap < frames:
        raise ValueError(f"windows of {frames} frames overlap by 8n + 1 of them, not {overlap}")
    if total <= frames:
        length = max(SHORTEST, -(-(total - 1) // 8) * 8 + 1)
        return [Window(index=0, start=0, frames=length, carried=0, held=length - total)]
    step = frames - overlap
    count = -(-(total - overlap) // step)
    return [
        Window(
            index=index,
            start=index * step,
            frames=frames,
            carried=overlap if index else 0,
            held=max(0, index * step + frames - total),
        )
        for index in range(count)
    ]
