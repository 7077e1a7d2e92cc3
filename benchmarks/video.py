"""How fast 1080p is read by decord and by ffmpeg, and how much memory ten minutes of it take.

    python benchmarks/video.py                  # both: some minutes
    python benchmarks/video.py --minutes 1      # a shorter film for the memory
    python benchmarks/video.py --only speed

The films are made with the bundled ffmpeg: moving patterns with grain, H.264. The two readers give the same frames and
take turns, so that a busy machine slows both. Memory is that of a process which reads the film and keeps nothing, and
of the ffmpeg that it runs; the short film goes through decord, the long one through ffmpeg, as `open_clip` chooses.
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from mtvcraft_cli.video.ffmpeg import run_ffmpeg
from mtvcraft_cli.video.read import Clip, open_clip

SIZE = "1920x1080"
RATE = 25
SHORT_FRAMES = 80  # more would not go through decord: see DECORD_BYTES
LOOP_S = 10
SHARES = (0.1, 0.5, 1.0)


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--minutes", type=float, default=10)
    wanted.add_argument("--rounds", type=int, default=5)
    wanted.add_argument("--only", choices=["speed", "memory"])
    wanted.add_argument("--read", type=Path, help="read one film and print its memory as JSON")
    given = wanted.parse_args()
    if given.read:
        print(json.dumps(memory_of(given.read)))
        return
    with TemporaryDirectory() as folder:
        if given.only != "memory":
            show_speed(make_film(Path(folder) / "short.mp4", SHORT_FRAMES / RATE), given.rounds)
        if given.only != "speed":
            show_memory(Path(folder), given.minutes)


def make_film(path: Path, length_s: float) -> Path:
    pattern = f"testsrc2=s={SIZE}:r={RATE}:d={length_s},noise=alls=6:allf=t"
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p", "-colorspace", "bt709")
    ran = run_ffmpeg("-v", "error", "-f", "lavfi", "-i", pattern, *coded, "-g", "50", str(path))
    assert ran.code == 0, ran.said
    return path


def show_speed(path: Path, rounds: int) -> None:
    clip = open_clip(path)
    assert clip.info.reader == "decord"
    ways = {
        "decord": lambda: open_clip(path),
        "ffmpeg": lambda: Clip(clip.info, clip._order, clip._source),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, opened in ways.items():
            one = opened()
            begun_s = time.perf_counter()
            assert sum(len(batch) for batch in one.batches()) == SHORT_FRAMES
            seconds[way].append(time.perf_counter() - begun_s)
    print(f"{SHORT_FRAMES} frames of {SIZE}, H.264, median of {rounds} rounds\n")
    print("| reader | frames/s |")
    print("|---|---|")
    rates = {way: SHORT_FRAMES / statistics.median(times_s) for way, times_s in seconds.items()}
    for way, rate in rates.items():
        print(f"| {way} | {rate:.0f} |")
    print(f"\nffmpeg reads {rates['ffmpeg'] / rates['decord']:.2f} times as fast as decord\n", flush=True)


def show_memory(folder: Path, minutes: float) -> None:
    once, film = make_film(folder / "once.mp4", LOOP_S), folder / "long.mp4"
    loops = max(0, round(minutes * 60 / LOOP_S) - 1)
    ran = run_ffmpeg("-v", "error", "-stream_loop", str(loops), "-i", str(once), "-c", "copy", str(film))
    assert ran.code == 0, ran.said
    command = [sys.executable, __file__, "--read", str(film)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{found['frames']} frames of {SIZE}, by {found['reader']}, at {found['rate']:.0f} frames/s\n")
    print("| read | MB above the start | MB of ffmpeg |")
    print("|---|---|---|")
    for share, own, child in zip(SHARES, found["own_mb"], found["ffmpeg_mb"], strict=True):
        print(f"| {share:.0%} | {own:.0f} | {child:.0f} |")
    print(f"\npeak above the start: {found['peak_mb']:.0f} MB", flush=True)


def memory_of(path: Path) -> dict[str, object]:
    """Read a film; tell the memory at each of SHARES, and the highest (Linux)."""
    start_mb = resident_mb("self")
    clip = open_clip(path)
    marks = [round(share * clip.info.frames) for share in SHARES]
    own_mb: list[float] = []
    ffmpeg_mb: list[float] = []
    seen, peak_mb, begun_s = 0, 0.0, time.perf_counter()
    for batch in clip.batches():
        seen += len(batch)
        peak_mb = max(peak_mb, resident_mb("self") - start_mb)
        if seen >= marks[len(own_mb)]:
            own_mb.append(resident_mb("self") - start_mb)
            children = Path("/proc/thread-self/children").read_text().split()
            ffmpeg_mb.append(sum(resident_mb(child) for child in children))
    rate = seen / (time.perf_counter() - begun_s)
    return {
        "frames": seen,
        "reader": clip.info.reader,
        "rate": rate,
        "own_mb": own_mb,
        "ffmpeg_mb": ffmpeg_mb,
        "peak_mb": peak_mb,
    }


def resident_mb(process: str) -> float:
    """Memory that a process holds now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
