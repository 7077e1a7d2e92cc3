"""Pictures to RGB: every kind of file, colour and depth comes out the same way up and in the same colours."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.kind import Kind, kind_of

LIMIT_PIXELS = 100_000_000
WHITE = (255, 255, 255)
Fitted: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
"""A `Picture` whose size is not that of the one it was made from; RGB, 0..255."""


def read_picture(path: Path, background: tuple[int, int, int] = WHITE) -> Picture:
    """Read a picture of any kind that Pillow knows, or the first frame of a video.

    EXIF orientation is applied, a colour profile is turned into sRGB, what is transparent shows `background`.

    Args:
        path: the file; its kind is told by its content.
        background: RGB, 0..255.

    Returns:
        (H, W, 3) RGB, 0..255.

    Raises:
        MtvcraftError: missing (exit 2); no picture, a damaged one, or one over 100 megapixels (exit 4).
    """
    kind = kind_of(path)
    if kind is Kind.VIDEO:
        return _first_frame(path, background)
    if kind not in (Kind.PICTURE, Kind.ANIMATION, Kind.OTHER):
        raise MtvcraftError(
            f"`{path}` is {kind.value}, not a picture", hint="name a picture (png, jpg, webp ...) or a video"
        )
    with opened(path) as image:
        check_size(path, image.width, image.height)
        picture = to_rgb(image, background)
    return np.array(picture)


def fit_picture(
    picture: Picture,
    size_px: tuple[int, int],
    fit: Literal["crop", "pad"] = "crop",
    background: tuple[int, int, int] = WHITE,
) -> Fitted:
    """Bring a picture to a size without ever stretching it.

    Args:
        picture: (H, W, 3) RGB, 0..255.
        size_px: width, height wanted.
        fit: "crop" scales until both sides reach the size and keeps the middle; "pad" scales until both sides fit in
            and fills the rest.
        background: RGB of that rest, 0..255.

    Returns:
        (height, width, 3) RGB, 0..255.
    """
    width, height = size_px
    old_height, old_width = picture.shape[:2]
    across, down = Fraction(width, old_width), Fraction(height, old_height)
    scale = max(across, down) if fit == "crop" else min(across, down)
    scaled = (max(1, round(old_width * scale)), max(1, round(old_height * scale)))  # halves go to even
    image = Image.fromarray(picture)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    if fit == "crop":
        return np.array(image.crop((left, top, left + width, top + height)))
    canvas = Image.new("RGB", size_px, background)
    canvas.paste(image, (-left, -top))
    return np.array(canvas)


def crop_box(picture_px: tuple[int, int], size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return what `fit_picture` keeps of a picture that it crops: left, top, right and bottom in the picture's pixels.

    Args:
        picture_px: width, height of the picture.
        size_px: width, height that it is brought to.
    """
    scale = max(Fraction(size_px[0], picture_px[0]), Fraction(size_px[1], picture_px[1]))
    kept = [min(old, round(new / scale)) for old, new in zip(picture_px, size_px, strict=True)]
    left, top = ((old - own) // 2 for old, own in zip(picture_px, kept, strict=True))
    return left, top, left + kept[0], top + kept[1]


def write_picture(path: Path, picture: Fitted) -> None:
    """Write a picture as PNG, whole or not at all."""
    with writing(path) as draft:
        Image.fromarray(picture).save(draft, format="PNG")


def frames_of(path: Path) -> int:
    """Count the frames of a picture, two standing for all further ones; 1 where Pillow can't tell."""
    try:
        with opened(path) as image:
            return 2 if getattr(image, "is_animated", False) else 1
    except MtvcraftError:
        return 1  # whoever reads it will say what is wrong with it


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open with Pillow; what it can't read, here or while the block decodes, becomes an error for the user."""
    with reading(path), Image.open(path) as image:
        yield image


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Pillow raises in the block into an error for the user."""
    if _is_heic(path):
        _learn_heic(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size is checked here, and odd metadata is none of the user's business
        try:
            yield
        except Image.DecompressionBombError as error:
            raise _too_large(path) from error
        except UnidentifiedImageError as error:
            raise MtvcraftError(
                f"`{path}` is not a picture that can be read", hint="turn it into png, jpg or webp first"
            ) from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise MtvcraftError(
                f"`{path}` is a damaged picture ({error})", hint="open it in a picture editor and save it again"
            ) from error


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    return head[4:8] == b"ftyp" and bool(re.search(rb"hei[cxms]", head[8:]))


def _learn_heic(path: Path) -> None:
    """Teach Pillow the form of phones' pictures, by a package of its own."""
    if find_spec("pillow_heif") is None:
        raise MtvcraftError(
            f"`{path}` is a HEIC picture, for which a package is missing",
            hint="install it with `pip install pillow-heif`, or turn the picture into jpg first",
        )
    import pillow_heif

    pillow_heif.register_heif_opener()


def check_size(path: Path, width_px: int, height_px: int) -> None:
    """Refuse a picture over 100 megapixels (exit 4)."""
    if width_px * height_px > LIMIT_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> MtvcraftError:
    return MtvcraftError(
        f"`{path}` has more than {LIMIT_PIXELS // 10**6} megapixels", hint="scale it down in a picture editor first"
    )


def _first_frame(path: Path, background: tuple[int, int, int]) -> Picture:
    from mtvcraft_cli.video.read import open_clip

    clip = open_clip(path, background=background)
    check_size(path, clip.info.width_px, clip.info.height_px)
    return clip.frame(0)


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Turn any of Pillow's modes into RGB, seen on a background."""
    profile = image.info.get("icc_profile")
    image = _eight_bits(ImageOps.exif_transpose(image))
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if profile:
        image = _to_srgb(image, profile)
    if image.mode != "RGBA":
        return image.convert("RGB")
    seen = Image.new("RGBA", image.size, (*background, 255))
    seen.alpha_composite(image)
    return seen.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey pictures of 16 bits, 32 bits or floats to 0..255; all others are so already."""
    if not image.mode.startswith(("I", "F")):
        return image
    values: np.ndarray[Any, Any] = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        white = 1.0 if values.max(initial=0) <= 1 else 255.0
    else:
        white = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) <= 65535 else 2.0**32 - 1
    return Image.fromarray(np.rint(np.nan_to_num(values / white).clip(0, 1) * 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Turn the colours of a profile into sRGB; a profile that makes no sense for the picture changes nothing."""
    try:
        theirs = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(theirs):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        seen = ImageCms.profileToProfile(image, theirs, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if seen is None else seen
