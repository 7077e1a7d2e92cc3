"""What a batch holds in memory and takes per job, from the first job to the last: toy preset, nine frames each.

    python benchmarks/batch.py              # 200 jobs
    python benchmarks/batch.py --jobs 40    # fewer, to try
    python benchmarks/batch.py --kill       # killed in the middle and begun again: does a job run twice?

The batch runs as a user would run it, in a process of its own; what it held after each job is in its results file.
Exits with 1 where memory grows from job 20 to the last by more than `ALLOWED`, or a job ran twice.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose tokenize.py would stand for Python's own module

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

from tests.cli.inputs import picture, save_joints
from tests.cli.toy import toy_preset

WARM = 20
"""By this job everything is loaded, and the allocator has seen every size."""
AROUND = 20
"""Memory is the median of so many jobs: it goes up and down from one to the next with what the C library gives back."""
ALLOWED = 1.02
FRAMES = 9


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--jobs", type=int, default=200)
    wanted.add_argument("--kill", action="store_true", help="kill it half way, and begin again")
    given = wanted.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        set_up(given.jobs)
        twice = killed_and_begun_again(given.jobs) if given.kill else []
        started = time.monotonic()
        run()
        passed_s = time.monotonic() - started
        lines = [json.loads(line) for line in Path("jobs.results.jsonl").read_text().splitlines()]
    done = [line for line in lines if line["status"] == "done"]
    assert len({line["output"] for line in done}) == given.jobs, "some jobs are not done"
    if given.kill:
        twice += [line["output"] for line in done if sum(line["output"] == each["output"] for each in done) > 1]
        print(f"{given.jobs} jobs, killed half way and begun again: {len(twice)} ran twice")
        sys.exit(bool(twice))
    print(f"{given.jobs} jobs of {FRAMES} frames in {passed_s:.0f} s, all in one process\n")
    print("| after job | memory, MB | seconds of the job |\n|---|---|---|")
    for number in sorted({1, 2, 5, 10, WARM, *range(50, given.jobs, 50), given.jobs} & {*range(1, given.jobs + 1)}):
        line = done[number - 1]
        print(f"| {number} | {line['memory_bytes'] / 1e6:.1f} | {line['seconds']:.2f} |")
    first, rest = done[0]["seconds"], statistics.median(line["seconds"] for line in done[1:])
    print(f"\nfirst job {first:.2f} s, with the models loaded; then {rest:.2f} s in the middle")
    if given.jobs >= WARM + AROUND:
        held = [line["memory_bytes"] / 1e6 for line in done]
        early = statistics.median(held[WARM - AROUND // 2 : WARM + AROUND // 2])
        late = statistics.median(held[-AROUND:])
        print(
            f"memory around job {WARM} {early:.1f} MB, over the last {AROUND} {late:.1f} MB: {late / early:.3f} times"
        )
        sys.exit(late / early > ALLOWED)


def set_up(jobs: int) -> None:
    """Two pictures, two motions, a toy preset, and a table of jobs with a seed each."""
    for number in (0, 1):
        picture(Path(f"ref{number}.png"), (96, 128 + 16 * number))
        save_joints(Path(f"drive{number}.npy"), FRAMES)
    toy_preset(Path())
    rows = "".join(f"ref{n % 2}.png,drive{n // 2 % 2}.npy,{n}.mp4,{n}\n" for n in range(jobs))
    Path("jobs.csv").write_text(f"reference,drive,output,seed\n{rows}")


def command() -> list[str]:
    return [sys.executable, "-m", "mtvcraft_cli", "batch", "jobs.csv", "--preset", "toy", "--cache-dir", ".cache", "-q"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HOME": str(Path.cwd())}


def run() -> None:
    subprocess.run(command(), check=True, env=environment(), stdout=subprocess.DEVNULL)


def killed_and_begun_again(jobs: int) -> list[str]:
    """Kill the batch when half of the jobs are done; later, which of those were made anew."""
    results = Path("jobs.results.jsonl")
    process = subprocess.Popen(command(), env=environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if results.exists() and results.read_bytes().count(b"\n") >= jobs // 2:
            process.kill()
        time.sleep(0.01)
    before = {path: path.stat().st_mtime_ns for path in Path().glob("*.mp4")}
    run()
    return [path.name for path, made in before.items() if path.stat().st_mtime_ns != made]


if __name__ == "__main__":
    main()
