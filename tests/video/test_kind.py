import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video.kind import Kind, kind_of
from tests import clips
from tests.clips import make_clip


def save(form: str, frames: int = 1) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        colours = [Image.new("RGB", (16, 16), (60 * number, 0, 0)) for number in range(frames)]
        more = {"save_all": True, "append_images": colours[1:]} if frames > 1 else {}
        with path.open("w+b") as file:
            colours[0].save(file, form, **more)

    return make


def film(*options: str) -> Callable[[Path], object]:
    return lambda path: make_clip(path, options, frames=3)


def sound(*options: str) -> Callable[[Path], object]:
    return lambda path: clips.ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", *options, path)


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, joints_mm=np.zeros(3))


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")


H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
MADE: dict[str, tuple[Callable[[Path], object], Kind]] = {
    "mp4": (film(*H264, "-f", "mp4"), Kind.VIDEO),
    "mov": (film(*H264, "-f", "mov"), Kind.VIDEO),
    "mkv": (film(*H264, "-f", "matroska"), Kind.VIDEO),
    "webm": (film("-c:v", "libvpx", "-f", "webm"), Kind.VIDEO),
    "avi": (film("-c:v", "mpeg4", "-f", "avi"), Kind.VIDEO),
    "ts": (film(*H264, "-f", "mpegts"), Kind.VIDEO),
    "m2ts": (film(*H264, "-mpegts_m2ts_mode", "1", "-f", "mpegts"), Kind.VIDEO),
    "mpeg": (film("-c:v", "mpeg2video", "-f", "vob"), Kind.VIDEO),
    "flv": (film("-c:v", "flv1", "-f", "flv"), Kind.VIDEO),
    "wmv": (film("-c:v", "wmv2", "-f", "asf"), Kind.VIDEO),
    "bare h264": (film(*H264, "-f", "h264"), Kind.VIDEO),
    "y4m": (film("-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe"), Kind.VIDEO),
    "gif of several": (save("GIF", 3), Kind.ANIMATION),
    "gif of one": (save("GIF"), Kind.PICTURE),
    "webp of several": (save("WEBP", 3), Kind.ANIMATION),
    "webp of one": (save("WEBP"), Kind.PICTURE),
    "png of several": (save("PNG", 3), Kind.ANIMATION),
    "png": (save("PNG"), Kind.PICTURE),
    "avif": (save("AVIF"), Kind.PICTURE),
    "avif of several": (save("AVIF", 3), Kind.ANIMATION),
    "jpg": (save("JPEG"), Kind.PICTURE),
    "bmp": (save("BMP"), Kind.PICTURE),
    "tiff": (save("TIFF"), Kind.PICTURE),
    "tiff of several": (save("TIFF", 3), Kind.PICTURE),
    "m4a": (sound("-f", "ipod"), Kind.SOUND),
    "mp3": (sound("-f", "mp3"), Kind.SOUND),
    "mp3 without a tag": (sound("-f", "mp3", "-id3v2_version", "0", "-write_xing", "0"), Kind.SOUND),
    "aac": (sound("-f", "adts"), Kind.SOUND),
    "wav": (sound("-f", "wav"), Kind.SOUND),
    "flac": (sound("-f", "flac"), Kind.SOUND),
    "ogg": (sound("-c:a", "libopus", "-f", "ogg"), Kind.SOUND),
    "npy": (array, Kind.NUMPY_ARRAY),
    "npz": (archive, Kind.NUMPY_ARCHIVE),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"pose": np.zeros(3)})), Kind.PICKLE),
    "pickle of protocol 2": (lambda path: path.write_bytes(pickle.dumps([1], protocol=2)), Kind.PICKLE),
    "torch": (lambda path: torch.save({"pose": torch.zeros(3)}, path), Kind.PICKLE),
    "old torch": (
        lambda path: torch.save({"pose": torch.zeros(3)}, path, _use_new_zipfile_serialization=False),
        Kind.PICKLE,
    ),
    "bvh": (lambda path: path.write_text("HIERARCHY\nROOT Hips\n{\n"), Kind.BVH),
    "bvh of windows": (
        lambda path: path.write_text("\ufeff\r\nHierarchy\r\nROOT Hips\r\n", encoding="utf-8"),
        Kind.BVH,
    ),
    "another zip": (other_zip, Kind.OTHER),
    "text": (clips.make_text, Kind.TEXT),
    "short text": (lambda path: path.write_text("a"), Kind.TEXT),
    "text that isn't english": (lambda path: path.write_text("жизнь " * 1000, encoding="utf-8"), Kind.TEXT),
    "noise": (lambda path: path.write_bytes(b"\x01\x00\x80" * 2000), Kind.OTHER),
}


def damaged_zip(path: Path) -> None:
    other_zip(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02")] = 0  # what the end of the archive points at
    path.write_bytes(content)


MADE["damaged zip"] = (damaged_zip, Kind.OTHER)


@pytest.mark.parametrize(("make", "kind"), MADE.values(), ids=MADE.keys())
@pytest.mark.parametrize("name", ["file", "file.txt"])
def test_a_file_is_known_by_its_content(make: Callable[[Path], object], kind: Kind, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path)
    assert kind_of(path) is kind


def test_a_file_that_is_missing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="there is no") as caught:
        kind_of(tmp_path / "missing.mp4")
    assert caught.value.exit is Exit.USAGE


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="is empty") as caught:
        kind_of(clips.make_empty(tmp_path / "a.mp4"))
    assert caught.value.exit is Exit.INPUT


def test_folders_and_patterns_are_frames(tmp_path: Path) -> None:
    assert kind_of(tmp_path) is Kind.FOLDER
    assert kind_of(tmp_path / "*.png") is Kind.FOLDER
    real = tmp_path / "take [2].png"
    save("PNG")(real)
    assert kind_of(real) is Kind.PICTURE
