"""The two checks of `mtvcraft doctor` that do something: find a drawn person, and animate at toy size."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.doctor import Finding, failure, ok, warning
from mtvcraft_cli.jobs.drive import DriveSettings, choose_estimator
from mtvcraft_cli.preset import Preset, load_preset

RATE = 25
FRAMES = 8
PICTURE_PX = (480, 640)
FAR_MM = 200.0
"""Joints of the drawn person lie 62 mm from where they are drawn, by MediaPipe; from here on something is wrong."""
TOY_PX = (32, 32)
TOY_FRAMES = 9


def pose(weights: Path | None) -> Iterator[Finding]:
    """Show the pose backend a film of a person drawn by our own renderer, whose joints are known."""
    from mtvcraft_cli.video.read import open_clip
    from mtvcraft_cli.video.write import VideoWriter

    frames, truth_mm = drawn_person()
    with tempfile.TemporaryDirectory(prefix="mtvcraft-doctor-") as name:
        film = Path(name) / "drawn.mp4"
        with VideoWriter(film, PICTURE_PX, Fraction(RATE)) as writer:
            writer.write(frames)
        try:
            estimator = choose_estimator(film, DriveSettings(weights=weights))
        except MtvcraftError as error:
            says = f"no pose backend: {error.message}; videos can't drive, joints and tokens can"
            yield warning(name="pose", says=says, mend=error.hint)
            return
        assert estimator is not None  # a video needs one
        scene = estimator.backend.see(open_clip(film).batches(), PICTURE_PX, Fraction(RATE))
    backend = f"{estimator.backend.name} {estimator.backend.version}"
    mend = 'pip install --force-reinstall "mtvcraft[mediapipe]"'
    if not scene.people:
        yield failure(name="pose", says=f"{backend} does not see a drawn person", mend=mend)
        return
    found = scene.people[0].estimate
    seen = found.found
    error_mm = _apart_mm(found.joints_mm[seen], truth_mm[seen]) if seen.any() else float("inf")
    says = f"{backend} sees a drawn person in {int(seen.sum())} of {FRAMES} frames, joints {error_mm:.0f} mm off"
    yield ok(name="pose", says=says) if error_mm < FAR_MM else failure(name="pose", says=says, mend=mend)


def drawn_person() -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) of a dancer from the front, and where the joints are, (T, 24, 3) camera space, mm."""
    from mtvcraft_cli.train.world.dance import dance
    from mtvcraft_cli.train.world.figure import person
    from mtvcraft_cli.train.world.render import Camera, film
    from mtvcraft_cli.train.world.stage import Stage

    turn = np.diag((1.0, -1.0, -1.0)).astype(np.float32)  # looks along -z, two metres away, at the height of the chest
    camera = Camera(turn, -turn @ np.asarray((0, 1000, 2300), np.float32), PICTURE_PX)
    motion_mm = dance(FRAMES, RATE, np.random.default_rng(1), 120, ("step-touch",))
    shot = film(person(), motion_mm, camera, Stage())
    return shot.frames, shot.joints_mm


def _apart_mm(found_mm: np.ndarray, truth_mm: np.ndarray) -> float:
    """Mean distance of joints with both pelvises in one place."""
    apart = (found_mm - found_mm[:, :1]) - (truth_mm - truth_mm[:, :1])
    return float(np.linalg.norm(apart, axis=-1).mean())


def toy(preset: Preset) -> Preset:
    """A preset's own stages with networks of toy size and random weights."""
    width = 32
    return replace(
        preset,
        name="doctor",
        size_px=TOY_PX,
        sampler=replace(preset.sampler, steps=1),
        tokenizer={"channels": [32, 64], "width": width, "codes": 64},
        transformer={
            **preset.transformer,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "time_embed_dim": 16,
            "unconditional_motion_shape": [24, width],
        },
        vae={**preset.vae, "block_out_channels": [8, 8, 8], "norm_num_groups": 4},
        weights=dict.fromkeys(preset.weights, "seeded:0"),
    )


def run(device: str) -> Iterator[Finding]:
    """Animate a picture by joints in a folder that is removed again: every stage, from files to a file."""
    from mtvcraft_cli.jobs.animation import AnimateJob, prepare_animation
    from mtvcraft_cli.pipeline import run_animation
    from mtvcraft_cli.progress import silent
    from mtvcraft_cli.video.picture import write_picture
    from mtvcraft_cli.video.read import probe

    preset = toy(load_preset("mini"))
    with tempfile.TemporaryDirectory(prefix="mtvcraft-doctor-") as name:
        folder = Path(name)
        shades = np.linspace(0, 255, TOY_PX[0] * TOY_PX[1] * 3).reshape(*TOY_PX[::-1], 3)
        write_picture(folder / "picture.png", shades.astype(np.uint8))
        joints_mm = np.repeat(preset.statistics.mean_mm[None], TOY_FRAMES, axis=0)
        joints_mm[:, 18:, 1] += 100 * np.sin(np.arange(TOY_FRAMES))[:, None]
        np.save(folder / "joints.npy", joints_mm)
        job = AnimateJob(
            reference=folder / "picture.png",
            drive=folder / "joints.npy",
            output=folder / "made.mp4",
            preset=preset,
            device=device,
        )
        prepared = prepare_animation(job, Cache(folder / "cache"))
        report = run_animation(prepared, silent)
        made = probe(folder / "made.mp4")
    size = f"{made.size_px[0]}x{made.size_px[1]}"
    says = f"animated {made.frames} frames of {size} in {report.seconds:.1f} s on {prepared.device}"
    if (made.frames, made.size_px) == (TOY_FRAMES, TOY_PX):
        yield ok(name="run", says=says)
    else:
        yield failure(name="run", says=f"{says}, which is not what was asked for", mend="mtvcraft doctor --debug")
