"""Which size of frames suits a picture: the resolutions near 512 x 512 that the large model was trained on."""

from mtvcraft_cli.errors import Exit, MtvcraftError

STEP_PX = 16
"""Both sides are multiples of this: the VAE makes 8 pixels one and the transformer's patches 2 of those one."""
BUCKETS_PX = (
    *((1024, 256), (992, 256), (960, 256), (928, 256), (896, 288), (864, 288), (832, 288), (800, 320), (768, 320)),
    *((736, 352), (704, 352), (672, 352), (672, 384), (640, 384), (608, 416), (576, 416), (576, 448), (544, 448)),
    *((544, 480), (512, 480), (512, 512), (480, 512), (480, 544), (448, 544), (448, 576), (416, 576), (416, 608)),
    *((384, 640), (384, 672), (352, 704), (352, 736), (320, 768), (320, 800), (288, 832), (288, 864), (288, 896)),
    *((256, 928), (256, 960), (256, 992), (256, 1024)),
)
"""Width and height, the widest first (released code)."""


def nearest_bucket(size_px: tuple[int, int]) -> tuple[int, int]:
    """Choose the bucket of the nearest shape; of two equally near ones the wider.

    Source: released code, which compares with the bucket's height / width to two decimals.

    Args:
        size_px: width and height of a picture.

    Returns:
        Width and height of about 512 x 512 pixels in all, multiples of 32.
    """
    width, height = size_px
    return min(BUCKETS_PX, key=lambda bucket: abs(float(f"{bucket[1] / bucket[0]:.2f}") - height / width))


def checked_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """Give a size back if frames can have it.

    Args:
        size_px: width and height.

    Raises:
        MtvcraftError: a side is no multiple of 16 (exit 2); the nearest size that is one is named.
    """
    if all(side > 0 and side % STEP_PX == 0 for side in size_px):
        return size_px
    width, height = (max(STEP_PX, (side + STEP_PX // 2) // STEP_PX * STEP_PX) for side in size_px)
    raise MtvcraftError(
        f"frames can't be {size_px[0]}x{size_px[1]}: this model needs multiples of {STEP_PX}",
        hint=f"use `--size {width}x{height}`, or `--size auto` for the one that suits the picture",
        exit=Exit.USAGE,
    )
