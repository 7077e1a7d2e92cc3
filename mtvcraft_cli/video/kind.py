"""Tells what a file is by its first bytes; a file's ending may be wrong."""

import zipfile
from codecs import getincrementaldecoder
from enum import Enum
from pathlib import Path

from mtvcraft_cli.errors import Exit, MtvcraftError

HEAD_BYTES = 4096
PATTERN_SIGNS = frozenset("*?[")


class Kind(Enum):
    """What a file holds."""

    VIDEO = "a video"
    ANIMATION = "a moving picture"
    """GIF, WebP, PNG or AVIF with several frames: a video for whom a video is wanted, a picture for whom a picture."""
    PICTURE = "a picture"
    SOUND = "sound without pictures"
    NUMPY_ARRAY = "a NumPy array"
    NUMPY_ARCHIVE = "a NumPy archive"
    PICKLE = "a Python pickle"
    """Of protocol 2 or later, or what `torch.save` writes: never loaded as it is, since loading one runs its code."""
    BVH = "a BVH motion"
    FOLDER = "a folder of pictures"
    """A folder, or a pattern such as `frames/*.png`."""
    TEXT = "text"
    OTHER = "nothing known"


# What files start with; longer and rarer marks that need a closer look come below.
MARKS: dict[bytes, Kind] = {
    b"\xff\xd8\xff": Kind.PICTURE,  # JPEG
    b"BM": Kind.PICTURE,  # BMP
    b"II*\x00": Kind.PICTURE,  # TIFF
    b"MM\x00*": Kind.PICTURE,
    b"II+\x00": Kind.PICTURE,  # BigTIFF
    b"8BPS": Kind.PICTURE,  # Photoshop
    b"qoif": Kind.PICTURE,
    b"\x00\x00\x01\x00": Kind.PICTURE,  # icon
    b"\xff\x0a": Kind.PICTURE,  # JPEG XL
    b"\x00\x00\x00\x0cjP  ": Kind.PICTURE,  # JPEG 2000
    b"\x00\x00\x00\x0cJXL ": Kind.PICTURE,
    b"\x1a\x45\xdf\xa3": Kind.VIDEO,  # Matroska, WebM
    b"FLV\x01": Kind.VIDEO,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Kind.VIDEO,  # WMV
    b"\x00\x00\x01\xba": Kind.VIDEO,  # MPEG program stream
    b"\x00\x00\x01\xb3": Kind.VIDEO,  # MPEG video
    b"\x00\x00\x00\x01\x67": Kind.VIDEO,  # bare H.264
    b"\x00\x00\x00\x01\x40": Kind.VIDEO,  # bare HEVC
    b"YUV4MPEG2 ": Kind.VIDEO,
    b"DKIF": Kind.VIDEO,  # IVF
    b"\x06\x0e\x2b\x34": Kind.VIDEO,  # MXF
    b"ID3": Kind.SOUND,
    b"fLaC": Kind.SOUND,
    b"#!AMR": Kind.SOUND,
    b"\x93NUMPY": Kind.NUMPY_ARRAY,
}
FIRST_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""What QuickTime files without `ftyp` begin with."""
PICTURE_BRANDS = (b"avif", b"mif1", b"heic", b"heix", b"heim", b"heis", b"miaf")
SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ")


def kind_of(path: Path) -> Kind:
    """Tell what a file holds, from its first bytes.

    Raises:
        MtvcraftError: no such file (exit 2); an empty or an unreadable file (exit 4).
    """
    if path.is_dir() or is_pattern(path):
        return Kind.FOLDER
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise MtvcraftError(f"there is no `{path}`", hint="check the name and the folder", exit=Exit.USAGE) from error
    except OSError as error:
        raise MtvcraftError(f"`{path}` can't be read: {error.strerror}", hint="check who may read it") from error
    if not head:
        raise MtvcraftError(f"`{path}` is empty", hint="copy or download it again")
    return _kind_of_head(head, path)


def is_pattern(path: Path) -> bool:
    """Whether a path is no file but a pattern for many, such as `frames/*.png`."""
    return bool(PATTERN_SIGNS & set(str(path))) and not path.exists()


def _kind_of_head(head: bytes, path: Path) -> Kind:
    if head.startswith((b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n")):
        return _moving(path)
    if head[:4] == b"RIFF":
        webp = _moving(path) if head[8:12] == b"WEBP" else Kind.OTHER
        return {b"AVI ": Kind.VIDEO, b"WAVE": Kind.SOUND}.get(head[8:12], webp)
    if head[4:8] == b"ftyp":
        return _kind_of_brand(head[8:12])
    if head[4:8] in FIRST_BOXES:
        return Kind.VIDEO
    if head[:4] == b"OggS":
        return Kind.VIDEO if b"theora" in head else Kind.SOUND
    if head[:2] == b"PK" and zipfile.is_zipfile(path):
        return _kind_of_zip(path)
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= 5:
        return Kind.PICKLE
    if _is_transport_stream(head):
        return Kind.VIDEO
    for mark, kind in MARKS.items():
        if head.startswith(mark):
            return kind
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0:  # the sync word of MP3 and AAC frames
        return Kind.SOUND
    if not _is_text(head):
        return Kind.OTHER
    return Kind.BVH if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].upper() == b"HIERARCHY" else Kind.TEXT


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return Kind.OTHER  # its end is whole, and what that points at is not
    if any(name.endswith(".npy") for name in names):
        return Kind.NUMPY_ARCHIVE
    return Kind.PICKLE if any(name.endswith("/data.pkl") for name in names) else Kind.OTHER


def _kind_of_brand(brand: bytes) -> Kind:
    """Tell by the `ftyp` brand what an ISO base media file holds."""
    if brand in PICTURE_BRANDS:
        return Kind.PICTURE
    if brand == b"avis":
        return Kind.ANIMATION
    return Kind.SOUND if brand in SOUND_BRANDS else Kind.VIDEO


def _moving(path: Path) -> Kind:
    """Whether a GIF, WebP or PNG has several frames."""
    from mtvcraft_cli.video.picture import frames_of

    return Kind.ANIMATION if frames_of(path) > 1 else Kind.PICTURE


def _is_transport_stream(head: bytes) -> bool:
    """Each packet of 188 bytes starts with 0x47; on Blu-ray discs four bytes of time stand before it."""
    return any(len(head) > 3 * step and set(head[first::step][:4]) == {0x47} for first, step in ((0, 188), (4, 192)))


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True
