"""Which files metrics look through, found before any work."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.weights.manifest import Released

COMMAND: Final = "mtvcraft download metrics"

NEEDS: Final[Mapping[str, str]] = {
    "lpips": "vgg16",
    "lpips_alex": "alexnet",
    "fid": "inception",
    "fvd": "i3d",
    "fid_vid": "resnet3d",
}
"""By metric the network, as the weights' manifest calls it; the others need none."""


def metric_files(
    metrics: Collection[str],
    folder: Path | None = None,
    supply: "Callable[[Sequence[Released], str], None] | None" = None,
) -> dict[str, Path]:
    """Find the networks that metrics need.

    Args:
        metrics: by their names; those that need no network are fine.
        folder: of the user's own, looked at before what was downloaded.
        supply: gets what is missing; None gets nothing.

    Returns:
        Files by the network's name.

    Raises:
        MtvcraftError: exit 6; one is missing.
    """
    from mtvcraft_cli.weights.fetching.patience import is_offline
    from mtvcraft_cli.weights.locate import locate_metric
    from mtvcraft_cli.weights.manifest import metric_networks

    wanted = {metric: NEEDS[metric] for metric in NEEDS if metric in metrics}
    found = {network: locate_metric(network, folder) for network in wanted.values()}
    lost = [metric_networks()[network] for network, path in found.items() if path is None]
    if lost and supply is not None and not is_offline():
        supply(lost, COMMAND)
        found = {network: locate_metric(network, folder) for network in wanted.values()}
    if missing := [metric for metric, network in wanted.items() if found[network] is None]:
        told = ", ".join(f"{metric.replace('_', '-')} ({wanted[metric]})" for metric in missing)
        raise MtvcraftError(
            f"networks are not on this machine that these metrics look through: {told}",
            hint=f"fetch them with `{COMMAND}`, or choose others: `--metrics psnr,ssim` needs none",
            exit=Exit.WEIGHTS,
        )
    return {network: path for network, path in found.items() if path is not None}
