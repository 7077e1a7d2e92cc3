"""Which files metrics look through, found before any work."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from mtvcraft_cli.errors import Exit, MtvcraftError

NEEDS: Final[Mapping[str, str]] = {
    "lpips": "vgg16",
    "lpips_alex": "alexnet",
    "fid": "inception",
    "fvd": "i3d",
    "fid_vid": "resnet3d",
}
"""By metric the network, as the weights' manifest calls it; the others need none."""


def metric_files(metrics: Collection[str], folder: Path | None = None) -> dict[str, Path]:
    """Find the networks that metrics need.

    Args:
        metrics: by their names; those that need no network are fine.
        folder: of the user's own, looked at before what was downloaded.

    Returns:
        Files by the network's name.

    Raises:
        MtvcraftError: exit 6; one is missing.
    """
    from mtvcraft_cli.weights.locate import locate_metric

    wanted = {metric: NEEDS[metric] for metric in NEEDS if metric in metrics}
    found = {network: locate_metric(network, folder) for network in wanted.values()}
    if missing := [metric for metric, network in wanted.items() if found[network] is None]:
        told = ", ".join(f"{metric.replace('_', '-')} ({wanted[metric]})" for metric in missing)
        raise MtvcraftError(
            f"networks are not on this machine that these metrics look through: {told}",
            hint="fetch them with `mtvcraft download metrics`, or choose others: `--metrics psnr,ssim` needs none",
            exit=Exit.WEIGHTS,
        )
    return {network: path for network, path in found.items() if path is not None}
