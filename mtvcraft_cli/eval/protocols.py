"""The three ways of this field to measure, as data; `docs/evaluation.md` says where each comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Metric = Literal["psnr", "ssim", "lpips", "fid", "fvd", "fid_vid", "flicker", "motion_follow"]
TABLE: Final[tuple[Metric, ...]] = ("psnr", "ssim", "lpips", "fid", "fvd", "fid_vid")
"""What papers print, in their order."""
MORE: Final[tuple[Metric, ...]] = ("flicker", "motion_follow")
"""What only we offer, and only where it is asked for."""
TITLES: Final[Mapping[str, str]] = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "fid": "FID",
    "fvd": "FVD",
    "fid_vid": "FID-VID",
    "flicker": "flicker",
    "motion_follow": "motion-follow",
    "lpips_alex": "LPIPS-Alex",
}
DIGITS: Final[Mapping[str, int]] = {"ssim": 3, "lpips": 3, "lpips_alex": 3, "flicker": 3, "motion_follow": 3}
"""After the point; 2 for all others."""


@dataclass(frozen=True)
class Best:
    """Which values of a metric are the better ones."""

    arrow: str
    """For the head of a column."""
    words: str
    key: Callable[[float], float]
    """More of it is better."""


MORE_IS_BETTER: Final = Best("↑", "more is better", lambda value: value)
LESS_IS_BETTER: Final = Best("↓", "less is better", lambda value: -value)
LIKE_THE_TRUTH: Final = Best("→0", "nearer to 0 is better", lambda value: -abs(value))
"""The truth's own is 0: less may be blur."""


def best_of(metric: str) -> Best:
    """Which values of a metric are the better ones."""
    return {"psnr": MORE_IS_BETTER, "ssim": MORE_IS_BETTER, "flicker": LIKE_THE_TRUTH}.get(metric, LESS_IS_BETTER)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to measure."""

    name: str
    summary: str
    """A line for `--explain`."""
    choice: Literal["all", "humanvid24"]
    """Which frames of a clip count."""
    size: Literal["truth", "square256", "result"]
    """What is brought to whose size: the result to the truth's by bicubic, both to squares, or the truth to the
    result's by bilinear."""
    ssim: str
    """The window, by its name in `eval.ssim`."""
    more_ssim: Sequence[str] = ()
    """Others for the JSON."""
    fid_px: int | None = None
    """The side that frames are stretched to in front of the Inception network; None for as they are."""
    fvd: Literal["disjoint", "sliding", "prefixes"]
    """Which pieces of a clip I3D sees."""
    fid_vid: Literal["mean", "sliding"] | None
    """Whether a clip's pieces are one point or one each; None where the protocol has no such thing."""
    average: Literal["clips", "frames"]
    """Whether each clip counts alike, or each frame."""

    def told(self) -> dict[str, Any]:
        """Every setting as plain data."""
        return {
            **asdict(self),
            "psnr": "20 log10(255 / sqrt(mse)) per frame over height, width and colours; 100 where equal",
            "lpips": "VGG16 v0.1, inputs in 0..1",
            "fid": "Inception of 2015, 2048 values, a row per frame",
            "fvd_network": "I3D on Kinetics-400, 400 logits",
            "fid_vid_network": "3D ResNet-50 on Kinetics, 2048 values",
            "frechet": "covariances divided by n - 1, clips pooled",
        }


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="mtvcraft",
            summary="all frames at the ground truth's size; FVD on pieces of 16 frames one after the other",
            choice="all",
            size="truth",
            ssim="rgb_gauss11",
            more_ssim=("rgb7",),
            fvd="disjoint",
            fid_vid="mean",
            average="clips",
        ),
        Protocol(
            name="disco",
            summary="largest centred squares at 256 x 256; every window of 16 frames; grey SSIM",
            choice="all",
            size="square256",
            ssim="gray7",
            fvd="sliding",
            fid_vid="sliding",
            average="frames",
        ),
        Protocol(
            name="humanvid",
            summary="24 frames of a clip at the result's size; FVD is a distance of two vectors per clip and prefix",
            choice="humanvid24",
            size="result",
            ssim="rgb_gauss11_zeropad",
            fid_px=768,
            fvd="prefixes",
            fid_vid=None,
            average="frames",
        ),
    )
}
