import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video import picture as picture_room
from mtvcraft_cli.video.picture import fit_picture, read_picture
from tests import clips

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = np.kron(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8), np.ones((16, 16, 1), np.uint8))


def corners_of(picture: np.ndarray) -> list[list[int]]:
    """The colours in the four quarters, row after row."""
    height, width = picture.shape[:2]
    return [
        picture[row, column].tolist()
        for row in (height // 4, height * 3 // 4)
        for column in (width // 4, width * 3 // 4)
    ]


@pytest.mark.parametrize("file", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.jpg", "a.avif", "a.ppm"])
def test_every_kind_of_picture_gives_the_same_colours(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 98, "subsampling": 0}, "a.avif": {"quality": 95}}
    Image.fromarray(QUARTERS).save(path, **options.get(file, {}))
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    np.testing.assert_allclose(corners_of(picture), [RED, GREEN, BLUE, WHITE], atol=6)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda picture: picture),
        (2, np.fliplr),
        (3, lambda picture: np.rot90(picture, 2)),
        (4, np.flipud),
        (5, lambda picture: picture.swapaxes(0, 1)),
        (6, np.rot90),
        (8, lambda picture: np.rot90(picture, 3)),
    ],
)
def test_a_camera_held_aslant_is_put_upright(
    orientation: int, undo: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo(QUARTERS[:, :24]))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), QUARTERS[:, :24])


def half_transparent() -> Image.Image:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[:, :16], alpha[16:, 16:] = 0, 51
    return Image.fromarray(np.concatenate([QUARTERS, alpha], axis=-1))


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 30)])
def test_what_is_transparent_shows_the_background(background: tuple[int, int, int], tmp_path: Path) -> None:
    half_transparent().save(tmp_path / "a.png")
    seen = corners_of(read_picture(tmp_path / "a.png", background))
    mixed = [round(0.2 * 255 + 0.8 * below) for below in background]
    np.testing.assert_allclose(seen, [background, GREEN, background, mixed], atol=1)


def test_a_palette_with_a_transparent_colour_shows_the_background(tmp_path: Path) -> None:
    image = Image.fromarray((QUARTERS[..., 0] > 0).astype(np.uint8), "L").convert("P")
    image.putpalette([*GREEN, *RED] + [0] * 762)
    image.save(tmp_path / "a.png", transparency=0)
    seen = corners_of(read_picture(tmp_path / "a.png", BLUE))
    assert seen == [list(RED), list(BLUE), list(BLUE), list(RED)]


@pytest.mark.parametrize("file", ["a.png", "a.webp", "a.avif", "a.tiff", "a.webm"])
def test_alpha_of_every_kind_shows_the_background(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if file == "a.webm":
        alpha = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-lossless", "1")
        pixels = np.asarray(half_transparent()).tobytes()
        clips.ffmpeg("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "32x32", "-i", "-", *alpha, path, feed=pixels)
    else:
        half_transparent().save(path, **({"lossless": True} if file == "a.webp" else {}), quality=98)
    seen = corners_of(read_picture(path, (10, 200, 30)))
    np.testing.assert_allclose(seen, [(10, 200, 30), GREEN, (10, 200, 30), (59, 211, 75)], atol=5)


@pytest.mark.parametrize("file", ["a.png", "a.tiff"])
@pytest.mark.parametrize("form", ["rgb48", "rgba64"])
def test_sixteen_bits_of_colour_lose_less_than_a_step(form: str, file: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256)[None].repeat(4, axis=0)
    planes = [ramp, ramp[:, ::-1], ramp / 2] + [np.full_like(ramp, 65535)] * (form == "rgba64")
    pixels = np.stack(planes, axis=-1).astype("<u2")
    raw = ("-f", "rawvideo", "-pix_fmt", f"{form}le", "-s", "256x4", "-i", "-")
    order = "be" if file == "a.png" else "le"
    clips.ffmpeg(*raw, "-frames:v", "1", "-pix_fmt", form + order, tmp_path / file, feed=pixels.tobytes())
    np.testing.assert_allclose(read_picture(tmp_path / file), pixels[..., :3] / 257, atol=1)


@pytest.mark.parametrize("file", ["a.png", "a.tiff"])
def test_sixteen_bits_are_scaled_not_cut_off(file: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, axis=0)
    Image.fromarray(grey).save(tmp_path / file)
    np.testing.assert_array_equal(read_picture(tmp_path / file)[3], np.arange(256)[:, None].repeat(3, axis=1))


def test_floats_are_scaled_too(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(8, axis=0)).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tiff")[3, :, 1], np.arange(256))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "CMYK", "P", "YCbCr"])
def test_other_colour_models_come_out_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.png" if mode in ("L", "LA", "1", "P") else "a.tiff")
    Image.fromarray(QUARTERS).convert(mode).save(path)
    seen = corners_of(read_picture(path))
    wanted = [RED, GREEN, BLUE, WHITE] if mode in ("CMYK", "P", "YCbCr") else None
    if wanted:
        np.testing.assert_allclose(seen, wanted, atol=3)
    else:
        assert seen[3] == [255, 255, 255]
        assert all(red == green == blue for red, green, blue in seen)


def test_a_jpeg_of_printing_colours_comes_out_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    np.testing.assert_allclose(corners_of(read_picture(tmp_path / "a.jpg")), [RED, GREEN, BLUE, WHITE], atol=6)


def test_a_phones_heic_is_read_where_the_package_is_there(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif, which makes the picture, is not installed")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.repeat(np.repeat(QUARTERS, 4, axis=0), 4, axis=1)[:, :96]
    image = heif.from_pillow(Image.fromarray(np.ascontiguousarray(np.rot90(upright))))
    image.info["exif"] = exif.tobytes()
    image.save(tmp_path / "a.jpg", quality=95)  # phones and messengers name them so
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.shape == upright.shape
    seen = picture[[32, 32, 96, 96], [32, 80, 32, 80]]
    np.testing.assert_allclose(seen, [RED, GREEN, BLUE, WHITE], atol=12)


def test_a_heic_without_the_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    monkeypatch.setattr(picture_room, "find_spec", lambda name: None)
    with pytest.raises(MtvcraftError, match="is a HEIC picture") as caught:
        read_picture(tmp_path / "a.heic")
    assert caught.value.exit is Exit.INPUT
    assert "pip install pillow-heif" in caught.value.hint


def profile_with_red_and_green_swapped() -> bytes:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_a_colour_profile_is_turned_into_srgb(tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).save(tmp_path / "a.png", icc_profile=profile_with_red_and_green_swapped())
    np.testing.assert_allclose(corners_of(read_picture(tmp_path / "a.png")), [GREEN, RED, BLUE, WHITE], atol=2)


@pytest.mark.parametrize("profile", [b"no profile at all", profile_with_red_and_green_swapped()])
def test_a_profile_that_makes_no_sense_changes_nothing(profile: bytes, tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).convert("L").save(tmp_path / "a.png", icc_profile=profile)
    assert corners_of(read_picture(tmp_path / "a.png"))[3] == [255, 255, 255]


def test_transparency_survives_a_profile(tmp_path: Path) -> None:
    half_transparent().save(tmp_path / "a.png", icc_profile=profile_with_red_and_green_swapped())
    seen = corners_of(read_picture(tmp_path / "a.png", BLUE))
    np.testing.assert_allclose(seen[:3], [BLUE, RED, BLUE], atol=2)


def header_of_a_png(path: Path, width: int, height: int) -> Path:
    """A picture that claims a size and holds none of it."""
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [(20000, 20000), (12000, 10000), (1, 100_000_001)])
def test_over_100_megapixels_are_refused_from_the_header(size: tuple[int, int], tmp_path: Path) -> None:
    path = header_of_a_png(tmp_path / "huge.png", *size)
    before_s = time.monotonic()
    with (
        warnings.catch_warnings(record=True) as heard,
        pytest.raises(MtvcraftError, match="more than 100 mega") as caught,
    ):
        read_picture(path)
    assert not heard
    assert time.monotonic() - before_s < 1
    assert caught.value.exit is Exit.INPUT
    assert "scale it down" in caught.value.hint


def cut_png(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    path.write_bytes(buffer.getvalue()[:5000])
    return path


BAD: dict[str, tuple[str, Callable[[Path], object], Exit, str]] = {
    "missing": ("no.png", lambda path: None, Exit.USAGE, "there is no"),
    "folder": ("a.png", Path.mkdir, Exit.INPUT, "is a folder of pictures, not a picture"),
    "empty": ("a.png", clips.make_empty, Exit.INPUT, "is empty"),
    "text": ("a.png", clips.make_text, Exit.INPUT, "is text, not a picture"),
    "sound": ("a.mp3", clips.make_sound_only, Exit.INPUT, "is sound without pictures, not a picture"),
    "array": ("a.npy", lambda path: np.save(path, np.zeros(3)), Exit.INPUT, "is a NumPy array, not a picture"),
    "noise": ("a.png", lambda path: path.write_bytes(b"\x00\x01\x02" * 999), Exit.INPUT, "is not a picture that can"),
    "cut": ("a.png", cut_png, Exit.INPUT, "is a damaged picture"),
    "cut video": ("a.mp4", clips.make_without_index, Exit.INPUT, "its index, which comes last, is missing"),
}


@pytest.mark.parametrize(("file", "make", "exit", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_picture_is_refused_with_a_way_out(
    file: str, make: Callable[[Path], object], exit: Exit, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / file)
    with pytest.raises(MtvcraftError, match=words) as caught:
        read_picture(tmp_path / file)
    assert caught.value.exit is exit
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "options"), [("a.mp4", clips.H264), ("a.gif", ("-f", "gif")), ("a.png", ("-f", "apng"))]
)
def test_the_first_frame_stands_for_what_moves(file: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = clips.make_clip(tmp_path / file, options, rate="10", frames=5)
    picture = read_picture(path)
    assert clips.number_of(picture) == 0
    np.testing.assert_allclose(clips.bars_of(picture), clips.BARS, atol=40)


SIZES = [(604, 1080, 512, 915, 0, 201), (1024, 1024, 512, 512, 0, 0), (1080, 1920, 512, 910, 0, 199)]


@pytest.mark.parametrize(("width", "height", "wide", "high", "left", "top"), [*SIZES, (1920, 1080, 910, 512, 199, 0)])
def test_a_crop_keeps_the_middle_of_the_scaled_picture(
    width: int, height: int, wide: int, high: int, left: int, top: int
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scaled = Image.fromarray(picture).resize((wide, high), Image.Resampling.LANCZOS)
    wanted = np.asarray(scaled)[top : top + 512, left : left + 512]
    np.testing.assert_array_equal(fit_picture(picture, (512, 512)), wanted)


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    np.testing.assert_array_equal(fit_picture(QUARTERS, (32, 32)), QUARTERS)


def test_padding_shows_the_whole_picture_on_the_background() -> None:
    picture = fit_picture(QUARTERS, (64, 32), fit="pad", background=(1, 2, 3))
    np.testing.assert_array_equal(picture[:, 16:48], QUARTERS)
    assert (picture[:, :16] == (1, 2, 3)).all()
    assert (picture[:, 48:] == (1, 2, 3)).all()


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_nothing_is_ever_stretched(fit: str) -> None:
    rows, columns = np.mgrid[0:300, 0:200]
    disc = ((rows - 150) ** 2 + (columns - 100) ** 2 < 60**2).astype(np.uint8)[..., None].repeat(3, axis=-1) * 255
    seen = fit_picture(disc, (256, 128), fit, background=(0, 0, 0))[..., 0] > 127  # type: ignore[arg-type]
    assert abs(seen.any(axis=0).sum() - seen.any(axis=1).sum()) <= 1 or fit == "crop"
    across, down = seen[64].sum(), seen[:, 128].sum()
    assert across == pytest.approx(120 * (256 / 200 if fit == "crop" else 128 / 300), abs=1.5)
    assert down == pytest.approx(min(128, across), abs=1.5)
