"""How many clips a second each metric scores, and in how much memory, beside scikit-image and torchmetrics.

    python benchmarks/metrics.py                    # 60 clips of 16 frames, 128 x 128: some 20 minutes on two cores
    python benchmarks/metrics.py --clips 4 --only psnr ssim

Each metric and each library runs in a process of its own, on the same clips, made from seeds and not counted. "same" is
how far the library's number is from ours. Memory is the process's largest, with Python, torch and the network in it;
"clip 20" and "last" are that after so many clips, before the final distance: equal where nothing piles up. The networks
have made-up weights, which take as long as real ones; torchmetrics' FID is given our network, since its own needs
torch-fidelity, so only gathering and the final distance are its own. Libraries that are not installed are left out and
named. On a busy machine look at the CPU seconds: they count what the process itself was given.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # its tokenize.py would stand for Python's own module of that name
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]  # also in the processes it starts

import argparse
import importlib.util
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Clip = np.ndarray
HALFWAY = 20
METRICS = ("psnr", "ssim", "ssim grey", "lpips", "fid", "fvd", "fid-vid")
HEADER = (*("metric", "by", "clips/s", "CPU s a clip", "end s", "MiB at clip 20", "MiB last", "MiB peak", "same"),)


class Scorer(Protocol):
    def add(self, made: Clip, true: Clip) -> None: ...
    def end(self) -> float: ...


class Mean:
    """Of a number per frame."""

    def __init__(self, measure: Callable[[Clip, Clip], Any]) -> None:
        self.measure, self.found = measure, []

    def add(self, made: Clip, true: Clip) -> None:
        self.found.append(float(np.mean(np.asarray(self.measure(made, true)))))

    def end(self) -> float:
        return float(np.mean(self.found))


class Apart:
    """The Frechet distance of features."""

    def __init__(self, features: Callable[[Clip], np.ndarray]) -> None:
        from mtvcraft_cli.eval.frechet import Moments

        self.features, self.sides = features, (Moments("made"), Moments("true"))

    def add(self, made: Clip, true: Clip) -> None:
        for side, frames in zip(self.sides, (made, true), strict=True):
            side.add(self.features(frames))

    def end(self) -> float:
        from mtvcraft_cli.eval.frechet import distance

        return distance(*self.sides)


def network(name: str) -> Any:
    """The real one with weights from a seed."""
    import torch

    from mtvcraft_cli.eval.networks.read import KINDS, fill

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in KINDS[name].build().state_dict().items()}
    torch.manual_seed(0)
    ones = ("weight", "running_var")
    return fill(
        name,
        {
            key: torch.randn(shape) * (2 / shape[1:].numel()) ** 0.5
            if len(shape) > 1
            else torch.full(shape, float(key.endswith(ones)))
            for key, shape in shapes.items()
            if not key.endswith("num_batches_tracked")
        },
    )


def ours(metric: str) -> Scorer:
    from mtvcraft_cli.eval.pieces import disjoint, filled

    if metric == "psnr":
        from mtvcraft_cli.eval.psnr import psnr

        return Mean(psnr)
    if metric in ("ssim", "ssim grey"):
        from mtvcraft_cli.eval.ssim import ssim

        return Mean(lambda made, true: ssim(made, true, "gray7" if metric == "ssim grey" else "rgb_gauss11"))
    if metric == "lpips":
        from mtvcraft_cli.eval.lpips import Lpips
        from mtvcraft_cli.eval.networks.read import read_heads

        return Mean(Lpips(network("vgg16"), read_heads("vgg16")))
    if metric == "fid":
        from mtvcraft_cli.eval.fid import inception_features

        inception = network("inception")
        return Apart(lambda frames: inception_features(inception, frames))
    if metric == "fvd":
        from mtvcraft_cli.eval.fvd import i3d_logits

        i3d = network("i3d")
        return Apart(lambda frames: i3d_logits(i3d, frames, disjoint(range(len(frames)))))
    from mtvcraft_cli.eval.fid_vid import resnet_features

    resnet = network("resnet3d")
    return Apart(lambda frames: resnet_features(resnet, frames, filled(len(frames))).mean(0, keepdims=True))


def scikit_image(metric: str) -> Scorer | None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if metric == "psnr":
        return Mean(
            lambda made, true: [
                peak_signal_noise_ratio(each, other, data_range=255) for each, other in zip(true, made, strict=True)
            ]
        )
    if metric == "ssim":
        way = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
        return Mean(
            lambda made, true: [
                structural_similarity(each, other, data_range=255, **way)
                for each, other in zip(true, made, strict=True)
            ]
        )
    if metric == "ssim grey":
        return Mean(
            lambda made, true: [
                structural_similarity(grey(each), grey(other), data_range=255)
                for each, other in zip(true, made, strict=True)
            ]
        )
    return None


def grey(frame: Clip) -> Clip:
    """As video has it; scikit-image's own weights are other ones."""
    return np.rint(frame @ np.asarray((0.299, 0.587, 0.114)))


def torchmetrics(metric: str) -> Scorer | None:
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    from torchmetrics.image.fid import FrechetInceptionDistance

    def shown(frames: Clip) -> torch.Tensor:
        return torch.from_numpy(frames).movedim(-1, 1)

    if metric == "psnr":
        way: dict[str, Any] = {"data_range": 255.0, "reduction": "none", "dim": (1, 2, 3)}
        return Mean(lambda made, true: peak_signal_noise_ratio(shown(made).double(), shown(true).double(), **way))
    if metric == "ssim":
        way = {"data_range": 255.0, "reduction": "none", "sigma": 1.5, "kernel_size": 11}
        return Mean(
            lambda made, true: structural_similarity_index_measure(shown(made).double(), shown(true).double(), **way)
        )
    if metric != "fid":
        return None

    from mtvcraft_cli.eval.fid import inception_features

    class Ours(torch.nn.Module):
        num_features = 2048

        def __init__(self) -> None:
            super().__init__()
            self.inner = network("inception")

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(inception_features(self.inner, frames.movedim(1, -1).numpy()))

    class Fid:
        def __init__(self) -> None:
            self.metric = FrechetInceptionDistance(feature=Ours())

        def add(self, made: Clip, true: Clip) -> None:
            self.metric.update(shown(true), real=True)
            self.metric.update(shown(made), real=False)

        def end(self) -> float:
            return float(self.metric.compute())

    return Fid()


BY: dict[str, tuple[str | None, Callable[[str], Scorer | None]]] = {
    "ours": (None, ours),
    "scikit-image": ("skimage", scikit_image),
    "torchmetrics": ("torchmetrics", torchmetrics),
}


def clip(seed: int, frames: int, side: int) -> tuple[Clip, Clip]:
    """Blurred noise that drifts, and the same with grain."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(0, 255, (side // 8 + 2, side // 8 + 2, 3))
    wide = np.repeat(np.repeat(coarse, 8, 0), 8, 1)
    true = np.stack([np.roll(wide, at, 1)[:side, :side] for at in range(frames)])
    made = np.clip(true + draw.normal(0, 12, true.shape), 0, 255)
    return made.astype(np.uint8), true.astype(np.uint8)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(metric: str, by: str, clips: int, frames: int, side: int, threads: int, answer: Any) -> None:
    """In a process of its own: what one library makes of all clips."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of libraries about one another
    scorer = BY[by][1](metric)
    if scorer is None:
        answer.send(None)
        return
    seconds = cpu_seconds = 0.0
    halfway = 0.0
    for seed in range(clips):
        made, true = clip(seed, frames, side)
        start, cpu_start = time.perf_counter(), time.process_time()
        scorer.add(made, true)
        seconds, cpu_seconds = seconds + time.perf_counter() - start, cpu_seconds + time.process_time() - cpu_start
        if seed + 1 == min(HALFWAY, clips):
            halfway = peak_mib()
    last, start = peak_mib(), time.perf_counter()
    value = scorer.end()
    answer.send((clips / seconds, cpu_seconds / clips, time.perf_counter() - start, halfway, last, peak_mib(), value))


def apart(*arguments: Any) -> Any:
    """`measure` in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(*arguments, there))
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=METRICS, default=METRICS)
    options = parser.parse_args()
    missing = [by for by, (module, _) in BY.items() if module and importlib.util.find_spec(module) is None]
    rows = [HEADER]
    for metric in options.only:
        truth = None
        for by in BY:
            if by in missing:
                continue
            found = apart(metric, by, options.clips, options.frames, options.size, options.threads)
            if found is None:
                continue
            rate, cpu, end, halfway, last, peak, value = found
            truth = value if truth is None else truth
            numbers = (f"{rate:.3g}", f"{cpu:.3f}", f"{end:.1f}", f"{halfway:.0f}", f"{last:.0f}", f"{peak:.0f}")
            rows.append((metric, by, *numbers, f"{abs(value - truth) / max(abs(truth), 1e-12):.0e}"))
            print(f"{metric}, {by}: {rate:.3g} clips a second", file=sys.stderr, flush=True)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(
        f"{options.clips} clips of {options.frames} frames, {options.size} x {options.size}, {options.threads} threads"
    )
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for by in missing:
        print(f"{by}: not installed")
    print("torchmetrics' LPIPS can't run without torchvision, and nobody else here has FVD or FID-VID")


if __name__ == "__main__":
    main()
