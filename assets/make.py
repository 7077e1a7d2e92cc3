"""Makes the clip and the pictures of this folder anew: `python assets/make.py [FOLDER]`.

Everything is drawn and played by the program's own small world; nothing is filmed or recorded.
"""

import subprocess
import sys
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg
import numpy as np
from PIL import Image

from mtvcraft_cli.train.world.characters import CHARACTERS
from mtvcraft_cli.train.world.dance import CONTROLS, dance, walk
from mtvcraft_cli.train.world.figure import Look, person
from mtvcraft_cli.train.world.render import Camera, Shot, dressed_motion, film
from mtvcraft_cli.train.world.stage import Stage

RATE = 25
LENGTH_S = 5
BEATS_PER_MINUTE = 120
CLIP_PX = (480, 640)
PICTURE_PX = (512, 512)
SAMPLE_RATE = 44100

STAGES = {
    "robot": Stage(
        floor=Look((0.80, 0.72, 0.58)), wall=Look((0.86, 0.79, 0.66)), wall_mm=1600, skirting=None, light=(-0.5, 1, 0.8)
    ),
    "owl": Stage(
        floor=Look((0.42, 0.50, 0.27), (0.30, 0.38, 0.19), "grain", 90),
        wall=Look((0.36, 0.50, 0.40), (0.62, 0.72, 0.52), "grain", 520),
        wall_mm=2200,
        skirting=None,
    ),
    "puppet": Stage(
        floor=Look((0.45, 0.32, 0.26), (0.35, 0.24, 0.19), "planks", 110),
        wall=Look((0.35, 0.50, 0.62), (0.31, 0.45, 0.57), "checks", 240),
        wall_mm=700,
    ),
    "astronaut": Stage(
        floor=Look((0.52, 0.51, 0.50), (0.38, 0.37, 0.37), "grain", 260),
        wall=Look((0.05, 0.06, 0.13), (0.95, 0.95, 0.90), "stars", 190),
        wall_mm=4000,
        skirting=None,
        light=(-0.9, 0.8, 0.7),
        ambient=0.42,
        key=0.85,
    ),
}


def camera(size_px: tuple[int, int], away_mm: float, height_mm: float, pitch_deg: float) -> Camera:
    """Look along -z from `height_mm` above the floor, tilted down by `pitch_deg`."""
    cosine, sine = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    tilt = np.asarray(((1, 0, 0), (0, cosine, -sine), (0, sine, cosine)))
    rotation = (tilt @ np.diag((1.0, -1.0, -1.0))).astype(np.float32)
    return Camera(rotation, -rotation @ np.asarray((0, height_mm, away_mm), np.float32), size_px)


MOTION = dance(RATE * LENGTH_S, RATE, np.random.default_rng(1), BEATS_PER_MINUTE, ("step-touch", "turn", "reach-up"))
CLIP_CAMERA = camera(CLIP_PX, 2080, 1100, 3)


def dancer(frames: slice = slice(None)) -> Shot:
    """Film the demo's dancer."""
    return film(person(), MOTION[frames], CLIP_CAMERA, Stage(), oversample=2)


def dancer_joints() -> np.ndarray:
    """Return where the dancer's joints truly are: (T, 24, 3) mm in camera space."""
    return CLIP_CAMERA.sees(dressed_motion(person(), MOTION)[1])


def portrait(name: str) -> np.ndarray:
    """Film one frame of a character that stands at ease; (H, W, 3) RGB."""
    stance = walk({control: np.full(1, rest) for control, rest in CONTROLS.items()})
    return film(CHARACTERS[name](), stance, camera(PICTURE_PX, 1950, 1000, 6), STAGES[name], 3).frames[0]


def music() -> np.ndarray:
    """Play a drum on the beat, a bass and a plucked tune: (samples, 2), -1..1."""
    rng = np.random.default_rng(7)
    beat_s = 60 / BEATS_PER_MINUTE
    song = np.zeros((LENGTH_S * SAMPLE_RATE, 2))

    def play(start_s: float, sound: np.ndarray, loud: float, side: float = 0.0) -> None:
        start = round(start_s * SAMPLE_RATE)
        end = min(len(song), start + len(sound))
        song[start:end] += loud * sound[: end - start, None] * (1 - side, 1 + side)

    def time(length_s: float) -> np.ndarray:
        return np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE

    def note(half_tones: int, length_s: float, overtones: tuple[float, ...]) -> np.ndarray:
        t = time(length_s)
        tones = (part * np.sin(2 * np.pi * 220 * 2 ** (half_tones / 12) * k * t) for k, part in enumerate(overtones, 1))
        return sum(tones, 0 * t) * np.exp(-5 * t / length_s) * np.minimum(1, t * 400)

    kick = np.sin(2 * np.pi * (45 * time(0.25) - 4.5 * np.exp(-22 * time(0.25)))) * np.exp(-12 * time(0.25))
    hat = np.diff(rng.normal(0, 1, len(time(0.05)) + 1)) * np.exp(-90 * time(0.05))
    clap = rng.normal(0, 1, len(time(0.14))) * np.exp(-28 * time(0.14))
    tune = (12, 15, 19, 22, 19, 15, 17, 19, 10, 14, 17, 22, 17, 14, 12, 10, 12, 15, 19, 24)
    for beat in range(round(LENGTH_S / beat_s)):
        root = (0, 0, 0, 0, -2, -2, -2, -2, 0, 0)[beat % 10]
        play(beat * beat_s, kick, 0.55)
        play((beat + 0.5) * beat_s, hat, 0.10, 0.3)
        if beat % 2:
            play(beat * beat_s, clap, 0.13, -0.2)
        play(beat * beat_s, note(root - 12, 0.45, (1, 0.4, 0.2)), 0.22)
        for half in range(2):
            play((beat + half / 2) * beat_s, note(tune[2 * beat + half], 0.5, (1, 0.3, 0.25, 0.1)), 0.12, 0.25)
    fade = np.minimum(1, (len(song) - np.arange(len(song))) / (0.3 * SAMPLE_RATE))
    return np.tanh(song * fade[:, None])


def write_clip(path: Path, frames: np.ndarray, sound: np.ndarray) -> None:
    """Write H.264 and AAC, the same bytes each time."""
    with TemporaryDirectory() as folder:
        heard = Path(folder) / "music.wav"
        with wave.open(str(heard), "wb") as file:
            file.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes((sound * 32000).astype("<i2").tobytes())
        height, width = frames.shape[1:3]
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        given = [*("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{RATE}", "-i", "-")]
        given += ["-i", str(heard)]
        picture = [*("-c:v", "libx264", "-preset", "slow", "-crf", "21", "-pix_fmt", "yuv420p", "-threads", "1")]
        picture += ["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-color_primaries", "bt709"]
        picture += ["-color_trc", "bt709", "-color_range", "tv"]
        rest = ["-c:a", "aac", "-b:a", "96k", "-fflags", "+bitexact", "-flags", "+bitexact", "-movflags", "+faststart"]
        command = [ffmpeg, "-loglevel", "error", "-y", *given, *picture, *rest, str(path)]
        subprocess.run(command, input=frames.tobytes(), check=True)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in CHARACTERS:
        Image.fromarray(portrait(name)).save(folder / f"{name}.png", optimize=True)
    write_clip(folder / "drive.mp4", dancer().frames, music())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
