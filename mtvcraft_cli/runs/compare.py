"""Reference, driver, skeletons and result side by side."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from typing import Final

import torch

from mtvcraft_cli.device.place import working
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.joints.files import Motion, resample
from mtvcraft_cli.joints.overlay import draw_alone
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.runs.motion import MotionInTokens, sure_motion
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.sidecar import versions, write_sidecar
from mtvcraft_cli.tokens.tokenise import detokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.video.panels import Panels, paced
from mtvcraft_cli.video.picture import fit_picture
from mtvcraft_cli.video.read import open_clip, read_ahead
from mtvcraft_cli.video.write import VideoWriter

COMPARED_PX: Final = 384
"""Height of the panels of `--compare`."""


def write_comparison(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokens: MotionInTokens,
    tokenizer: MotionTokenizer,
    watch: Watch,
) -> None:
    """Write reference, driver, skeleton, skeleton after tokens and result side by side, from the finished result."""
    job, preset, timing, drive = prepared.job, prepared.job.preset, prepared.timing, prepared.drive
    result = open_clip(job.output)
    given = motion or drive.motion
    size_px = given.size_px if given else (drive.tokens and drive.tokens.size_px) or preset.size_px
    with working(tokenizer, torch.device(prepared.device), "model"):
        after_mm = detokenise(
            tokens.tokens,
            tokenizer,
            prepared.windows,
            preset.statistics,
            preset.differential,
            tokens.origin_mm,
            axes=preset.joint_axes,
        )
    after = sure_motion(after_mm, timing.model_rate, size_px)
    after = replace(after, fov_deg=given.fov_deg) if given else after
    streams: dict[str, tuple[tuple[int, int], Iterator[Picture]]] = {}
    picture = fit_picture(prepared.picture, preset.size_px, job.fit, job.background)
    streams["reference"] = preset.size_px, repeat(picture, timing.frames)
    if drive.clip is not None:
        clip = open_clip(job.drive, **job.driver.seen)
        frames = paced(read_ahead(clip.batches()), drive.rate, timing.rate, timing.frames)
        streams["driver"] = clip.info.size_px, frames
    cell_px = max(1, round(COMPARED_PX * size_px[0] / size_px[1])), COMPARED_PX
    for caption, shown in (("skeleton", motion), ("after tokens", after)):
        if shown is not None:
            streams[caption] = cell_px, draw_alone(resample(shown, timing.rate, timing.frames), cell_px)
    streams["result"] = result.info.size_px, (frame for batch in read_ahead(result.batches()) for frame in batch)
    panels = Panels(list(streams), [size for size, _ in streams.values()], COMPARED_PX)
    assert job.compare is not None
    rows = zip(*(frames for _, frames in streams.values()), strict=True)
    with VideoWriter(job.compare, panels.size_px, timing.rate, sound=prepared.sound) as writer:
        for row in watch(rows, "compare", timing.frames):
            writer.write(panels.compose([frame[None] for frame in row]))
    made = {"settings": job.told(), "fingerprint": prepared.fingerprint, "command": job.command}
    write_sidecar(job.compare, {**made, "versions": versions()})
