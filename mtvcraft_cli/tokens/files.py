"""Motion tokens as files: `NAME.tokens.npy` with what there is to know about them in `NAME.tokens.json` beside it."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.preset import Differential, Preset
from mtvcraft_cli.tokens.tokenise import OriginMm, TokensFile
from mtvcraft_cli.tokens.tokenizer import CODES, WIDTH
from mtvcraft_cli.windows import Window, plan_windows

FORMAT = 1
"""Raised when a program that knows the format before can't read the new one."""
ASSUMED_RATE = Fraction(30)
KEYS = (
    *("preset", "tokenizer_sha256", "tokens_sha256", "frames", "overlap", "total_frames", "fps_num", "fps_den"),
    *("size_px", "differential", "round_trip_mm", "quantisation_loss", "meta", "origin_mm"),
)
"""What a description must say; `fps` is there for the reader's eye."""


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """A clip's motion tokens and what they were made from."""

    tokens: TokensFile
    """(W, F, 24) codes, or (W, F, 24, D) latents of a tokenizer without a codebook."""
    preset: str
    """Name of the preset they were made for."""
    tokenizer_sha256: str | None
    """Hash of the tokenizer's weights; None where unknown."""
    frames: int
    """Frames of a window, 8n + 1."""
    overlap: int
    """Frames two windows share."""
    total_frames: int
    """Frames of the clip; the last window may reach past it, with its last pose held."""
    rate: Fraction
    """Frames per second."""
    differential: Differential
    """What was subtracted from the normalised joints."""
    origin_mm: OriginMm | None = None
    """The poses that were subtracted, so that decoded joints stand where the driver stood."""
    size_px: tuple[int, int] | None = None
    """Width and height of the driver's frames; None where unknown."""
    round_trip_mm: float | None = None
    """Mean distance of decoded joints from the driver's; None where unknown."""
    quantisation_loss: float | None = None
    """Mean squared difference between latents and codes; None where unknown."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Source, command, versions: whatever the maker wants to be remembered."""

    @property
    def plan(self) -> list[Window]:
        """The windows that the tokens were made of."""
        if len(self.tokens) == 1:
            return [Window(index=0, start=0, frames=self.frames, carried=0, held=self.frames - self.total_frames)]
        return plan_windows(self.total_frames, self.frames, self.overlap)


def save_tokens(path: Path, file: TokenFile) -> None:
    """Write `path` and the `.json` beside it; an interrupted run leaves neither half-written.

    Args:
        path: `NAME.tokens.npy`.
        file: what to write.
    """
    origin = None if file.origin_mm is None else np.round(file.origin_mm.astype(np.float64), 2).tolist()
    with ExitStack() as both:
        # The last to be opened is the first to be renamed: where the tokens are, their description is.
        array = both.enter_context(writing(path))
        with array.open("wb") as out:
            np.save(out, file.tokens, allow_pickle=False)
        content = {
            "format": FORMAT,
            "preset": file.preset,
            "tokenizer_sha256": file.tokenizer_sha256,
            "tokens_sha256": _sha256(array),
            "frames": file.frames,
            "overlap": file.overlap,
            "total_frames": file.total_frames,
            "fps": float(file.rate),
            "fps_num": file.rate.numerator,
            "fps_den": file.rate.denominator,
            "size_px": file.size_px,
            "differential": file.differential,
            "round_trip_mm": file.round_trip_mm,
            "quantisation_loss": file.quantisation_loss,
            "meta": dict(file.meta),
            "origin_mm": origin,
        }
        description = both.enter_context(writing(_beside(path)))
        lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
        description.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load_tokens(path: Path, preset: Preset, tokenizer_sha256: str | None = None) -> tuple[TokenFile, list[str]]:
    """Read motion tokens and check that they can be used with a preset.

    Args:
        path: `NAME.tokens.npy`, with or without its `.json` beside it.
        preset: the one that they are wanted for.
        tokenizer_sha256: hash of the preset's tokenizer, where it is known.

    Returns:
        The tokens, and a sentence for each thing that had to be assumed; none where the `.json` is there.

    Raises:
        MtvcraftError: not an array of tokens, tokens of another preset or tokenizer, codes outside the codebook, NaN,
            or a `.json` that is broken or belongs to other tokens.
    """
    array = _read_array(path)
    description = _beside(path)
    if not description.is_file():
        return _assume(_checked(array, path, preset), path, preset)
    content = _read_description(description)
    if content["tokens_sha256"] != _sha256(path):
        raise _broken(description, "it was written for other tokens")
    known = content["tokenizer_sha256"] is not None and tokenizer_sha256 is not None
    if content["preset"] != preset.name or (known and content["tokenizer_sha256"] != tokenizer_sha256):
        made = f"preset `{content['preset']}`" if content["preset"] != preset.name else "another tokenizer"
        raise MtvcraftError(
            f"`{path}` was made for {made}, not for `{preset.name}` as it is now",
            hint=f"tokenize the joints again with `--preset {preset.name}`",
        )
    return _described(_checked(array, path, preset), content, description), []


def _read_description(description: Path) -> dict[str, Any]:
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        version = int(content["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(description, f"{type(error).__name__}: {error}") from error
    if version > FORMAT:
        raise MtvcraftError(
            f"`{description}` was written by a newer mtvcraft", hint="update with `pip install -U mtvcraft`"
        )
    if missing := [key for key in KEYS if key not in content]:
        raise _broken(description, f"it lacks `{missing[0]}`")
    return content


def _described(tokens: TokensFile, content: Mapping[str, Any], description: Path) -> TokenFile:
    origin, size = content["origin_mm"], content["size_px"]
    try:
        file = TokenFile(
            tokens=tokens,
            preset=content["preset"],
            tokenizer_sha256=content["tokenizer_sha256"],
            frames=int(content["frames"]),
            overlap=int(content["overlap"]),
            total_frames=int(content["total_frames"]),
            rate=Fraction(int(content["fps_num"]), int(content["fps_den"])),
            differential=content["differential"],
            origin_mm=None if origin is None else np.array(origin, np.float32).reshape(-1, 24, 3),
            size_px=None if size is None else (int(size[0]), int(size[1])),
            round_trip_mm=_number(content["round_trip_mm"]),
            quantisation_loss=_number(content["quantisation_loss"]),
            meta=dict(content["meta"]),
        )
        fits = (
            4 * tokens.shape[1] - 3 == file.frames
            and file.total_frames >= 1
            and len(file.plan) == len(tokens)
            and 0 <= file.plan[-1].held < file.frames
            and file.rate > 0
            and file.differential in get_args(Differential)
            and (file.origin_mm is None or len(file.origin_mm) in (1, len(tokens)))
        )
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise _broken(description, f"{type(error).__name__}: {error}") from error
    if not fits:
        told = f"{file.total_frames} frames in windows of {file.frames}, {file.overlap} shared, {file.differential}"
        raise _broken(description, f"{told} don't fit {len(tokens)} windows of {tokens.shape[1]} latent frames")
    return file


def _assume(tokens: TokensFile, path: Path, preset: Preset) -> tuple[TokenFile, list[str]]:
    windows, latent_frames = tokens.shape[:2]
    frames = 4 * latent_frames - 3
    if windows > 1 and frames != preset.frames:
        raise MtvcraftError(
            f"`{path}` has windows of {frames} frames, and preset `{preset.name}` has {preset.frames}",
            hint=f"tokenize the joints again with `--preset {preset.name}`",
        )
    total = frames + (windows - 1) * (frames - preset.overlap)
    rate = preset.rate or ASSUMED_RATE
    file = TokenFile(
        tokens=tokens,
        preset=preset.name,
        tokenizer_sha256=None,
        frames=frames,
        overlap=preset.overlap,
        total_frames=total,
        rate=rate,
        differential=preset.differential,
    )
    assumed = [
        f"`{_beside(path).name}` is missing: the tokens are taken to be those of preset `{preset.name}`",
        f"the motion is taken to be {total} frames long, with no pose held at its end",
        f"the motion is taken to have {float(rate):g} frames per second",
    ]
    if windows > 1:
        assumed.append(f"windows are taken to overlap by {preset.overlap} frames")
    return file, assumed


def _read_array(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise MtvcraftError(f"there is no file `{path}`", hint="check the path", exit=Exit.USAGE)
    try:
        # Mapped: hours of latents without a codebook are larger than memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _no_tokens(path, str(error).splitlines()[0]) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise _no_tokens(path, "it is an archive of several arrays")
    return array


def _checked(array: npt.NDArray[Any], path: Path, preset: Preset) -> TokensFile:
    codes, width = preset.tokenizer.get("codes", CODES), preset.tokenizer.get("width", WIDTH)
    kind, shape = (np.integer, ("W", "F", 24)) if codes is not None else (np.floating, ("W", "F", 24, width))
    wanted = " x ".join(map(str, shape))
    if not np.issubdtype(array.dtype, kind) or array.ndim != len(shape) or array.shape[2:] != shape[2:]:
        made = "codes" if codes is not None else "latents"
        raise _no_tokens(path, f"{array.dtype} of {array.shape} are no {made} of {wanted} for preset `{preset.name}`")
    windows, latent_frames = array.shape[:2]
    if windows < 1 or latent_frames < 3 or latent_frames % 2 == 0 or 4 * latent_frames - 3 > preset.frames:
        most = (preset.frames + 3) // 4
        raise _no_tokens(
            path,
            f"it has {windows} windows of {latent_frames} latent frames; a window has an odd number from 3 to {most}",
        )
    for index, window in enumerate(array):
        if codes is None:
            if not np.isfinite(window).all():
                raise _no_tokens(path, f"window {index} holds NaN or infinity")
        elif window.min() < 0 or window.max() >= codes:
            outside = int(window.min() if window.min() < 0 else window.max())
            raise _no_tokens(path, f"window {index} holds code {outside}, and the codebook has 0 to {codes - 1}")
    return array.astype(np.int32 if codes is not None else np.float32, copy=False)


def _no_tokens(path: Path, why: str) -> MtvcraftError:
    return MtvcraftError(
        f"`{path}` can't be used as motion tokens: {why}", hint="make them with `mtvcraft tokenize` for the same preset"
    )


def _broken(description: Path, why: str) -> MtvcraftError:
    return MtvcraftError(
        f"`{description}` does not describe the tokens beside it: {why}",
        hint="tokenize the joints again, or move the file away to use the tokens without it",
    )


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
