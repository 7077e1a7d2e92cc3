import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.tokens.files import TokenFile, load_tokens, save_tokens
from mtvcraft_cli.windows import plan_windows
from tests.tokens.conftest import SIZES


def token_file(total: int = 60, **more: object) -> TokenFile:
    plan = plan_windows(total, 25, 9)
    rng = np.random.default_rng(total)
    fields = {
        "tokens": rng.integers(0, 40, (len(plan), plan[0].latent_frames, 24)).astype(np.int32),
        "preset": "toy",
        "tokenizer_sha256": "1234",
        "frames": plan[0].frames,
        "overlap": 9,
        "total_frames": total,
        "rate": Fraction(30000, 1001),
        "differential": "none",
        "size_px": (1080, 604),
        "round_trip_mm": 52.5,
        "quantisation_loss": 0.05,
        "meta": {"source": "Tänzer.mp4", "command": ["mtvcraft", "tokenize"]},
    }
    return TokenFile(**{**fields, **more})


def assert_same(found: TokenFile, wanted: TokenFile) -> None:
    assert np.array_equal(found.tokens, wanted.tokens)
    assert found.tokens.dtype == wanted.tokens.dtype
    assert replace(found, tokens=wanted.tokens, origin_mm=None) == replace(wanted, origin_mm=None)


def refusal(path: Path, preset: Preset, sha256: str | None = None) -> MtvcraftError:
    with pytest.raises(MtvcraftError) as refused:
        load_tokens(path, preset, sha256)
    assert refused.value.exit == Exit.INPUT
    assert path.stem.partition(".")[0] in refused.value.message
    return refused.value


@pytest.mark.parametrize("total", [1, 9, 25, 26, 60])
def test_what_is_saved_is_loaded_with_nothing_assumed(tmp_path: Path, preset: Preset, total: int) -> None:
    path = tmp_path / "walk.tokens.npy"
    save_tokens(path, token_file(total))
    found, assumed = load_tokens(path, preset, "1234")
    assert_same(found, token_file(total))
    assert found.plan == plan_windows(total, 25, 9)
    assert assumed == []
    assert {file.name for file in tmp_path.iterdir()} == {"walk.tokens.npy", "walk.tokens.json"}


def test_the_description_can_be_read_by_others(tmp_path: Path) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    content = json.loads((tmp_path / "walk.tokens.json").read_text(encoding="utf-8"))
    assert content["fps"] == pytest.approx(29.97003)
    assert (content["fps_num"], content["fps_den"]) == (30000, 1001)
    assert (content["frames"], content["overlap"], content["total_frames"]) == (25, 9, 60)
    assert content["size_px"] == [1080, 604]
    assert content["meta"]["source"] == "Tänzer.mp4"


@pytest.mark.parametrize("count", [1, 4])
def test_origins_are_kept_to_a_hundredth_of_a_millimetre(tmp_path: Path, preset: Preset, count: int) -> None:
    origin_mm = np.random.default_rng(0).normal(0, 900, (count, 24, 3)).astype(np.float32)
    save_tokens(tmp_path / "walk.tokens.npy", token_file(origin_mm=origin_mm, differential="reference"))
    found, _ = load_tokens(tmp_path / "walk.tokens.npy", preset)
    assert found.origin_mm.dtype == np.float32
    assert np.abs(found.origin_mm - origin_mm).max() < 0.0051


def test_latents_of_a_tokenizer_without_a_codebook_are_kept_whole(tmp_path: Path, preset: Preset) -> None:
    latents = np.random.default_rng(0).normal(size=(4, 7, 24, 16)).astype(np.float32)
    continuous = replace(preset, tokenizer={**SIZES, "codes": None})
    save_tokens(tmp_path / "walk.tokens.npy", token_file(tokens=latents))
    found, _ = load_tokens(tmp_path / "walk.tokens.npy", continuous)
    assert_same(found, token_file(tokens=latents))
    assert "toy" in refusal(tmp_path / "walk.tokens.npy", preset).message
    latents[2, 3, 4, 5] = np.nan
    save_tokens(tmp_path / "walk.tokens.npy", token_file(tokens=latents))
    assert "window 2 holds NaN" in refusal(tmp_path / "walk.tokens.npy", continuous).message


def test_an_interrupted_save_leaves_the_old_pair(tmp_path: Path, preset: Preset) -> None:
    path = tmp_path / "walk.tokens.npy"
    save_tokens(path, token_file(60))
    with pytest.raises(TypeError):  # dies in the description, after the tokens were written
        save_tokens(path, token_file(26, meta={"source": object()}))
    assert_same(load_tokens(path, preset)[0], token_file(60))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("windows", "total"), [(1, 25), (3, 57)])
def test_tokens_alone_are_accepted_and_every_guess_is_told(
    tmp_path: Path, preset: Preset, windows: int, total: int
) -> None:
    np.save(tmp_path / "walk.npy", np.zeros((windows, 7, 24), np.int64))
    found, assumed = load_tokens(tmp_path / "walk.npy", preset)
    assert (found.total_frames, found.rate, found.frames) == (total, 30, 25)
    assert found.tokens.dtype == np.int32
    assert len(found.plan) == windows
    said = "; ".join(assumed)
    for guess in ("`walk.json` is missing", "preset `toy`", f"{total} frames", "30 frames per second"):
        assert guess in said
    assert ("overlap by 9 frames" in said) == (windows > 1)


def test_tokens_alone_take_the_rate_of_the_preset(tmp_path: Path, preset: Preset) -> None:
    np.save(tmp_path / "walk.npy", np.zeros((1, 7, 24), np.int32))
    found, assumed = load_tokens(tmp_path / "walk.npy", replace(preset, rate=Fraction(24)))
    assert found.rate == 24
    assert "24 frames per second" in "; ".join(assumed)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((1, 7, 24), 40), "code 40, and the codebook has 0 to 39"),
        (np.full((1, 7, 24), -1), "code -1"),
        (np.zeros((1, 7, 24), np.float32), "float32"),
        (np.zeros((1, 7, 24), bool), "bool"),
        (np.zeros((1, 7, 22), int), "22"),
        (np.zeros((7, 24), int), "(7, 24)"),
        (np.zeros((0, 7, 24), int), "0 windows"),
        (np.zeros((1, 6, 24), int), "6 latent frames"),
        (np.zeros((1, 1, 24), int), "1 latent frames"),
        (np.zeros((1, 9, 24), int), "9 latent frames"),
        (np.zeros((2, 5, 24), int), "windows of 17 frames"),
        (np.array("words"), "<U5"),
    ],
)
def test_an_array_that_is_no_tokens_is_refused(tmp_path: Path, preset: Preset, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "walk.npy", array)
    assert said in refusal(tmp_path / "walk.npy", preset).message


def test_a_file_that_is_no_array_is_refused(tmp_path: Path, preset: Preset) -> None:
    path = tmp_path / "walk.npy"
    np.save(path, np.array([object()]), allow_pickle=True)
    pickled = path.read_bytes()
    np.save(path, np.zeros((1, 7, 24), np.int32))
    whole = path.read_bytes()
    with path.open("wb") as archive:
        np.savez(archive, a=np.zeros(3))
    for content in (pickled, b"", b"words", whole[:50], whole[:-40], path.read_bytes()):
        path.write_bytes(content)
        refusal(path, preset)


def test_tokens_of_another_preset_are_refused_with_a_way_out(tmp_path: Path, preset: Preset) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file(preset="mini"))
    refused = refusal(tmp_path / "walk.tokens.npy", preset)
    assert "`mini`" in refused.message
    assert "--preset toy" in refused.hint


def test_tokens_of_another_preset_are_told_apart_before_their_codes_are_looked_at(
    tmp_path: Path, preset: Preset
) -> None:
    codes = np.full((1, 13, 24), 8191, np.int32)
    save_tokens(tmp_path / "walk.tokens.npy", token_file(preset="7b", tokens=codes, frames=49, total_frames=49))
    assert "`7b`" in refusal(tmp_path / "walk.tokens.npy", preset).message


def test_a_missing_file_is_a_matter_of_usage(tmp_path: Path, preset: Preset) -> None:
    with pytest.raises(MtvcraftError) as refused:
        load_tokens(tmp_path / "walk.tokens.npy", preset)
    assert refused.value.exit == Exit.USAGE


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path, preset: Preset) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    assert "another tokenizer" in refusal(tmp_path / "walk.tokens.npy", preset, "5678").message


def test_a_description_of_other_tokens_is_refused(tmp_path: Path, preset: Preset) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    np.save(tmp_path / "walk.tokens.npy", np.zeros((4, 7, 24), np.int32))
    assert "other tokens" in refusal(tmp_path / "walk.tokens.npy", preset).message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("total_frames", 26),
        ("total_frames", 0),
        ("frames", 49),
        ("overlap", 25),
        ("overlap", "many"),
        ("fps_den", 0),
        ("fps_num", 0),
        ("fps_num", None),
        ("size_px", [3]),
        ("differential", "sideways"),
        ("origin_mm", [[1, 2, 3]]),
        ("origin_mm", np.zeros((3, 24, 3)).tolist()),
        ("meta", 3),
        ("format", "one"),
        ("round_trip_mm", "little"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, preset: Preset, key: str, value: object) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    description = tmp_path / "walk.tokens.json"
    description.write_text(json.dumps({**json.loads(description.read_text("utf-8")), key: value}))
    assert "walk.tokens.json" in refusal(tmp_path / "walk.tokens.npy", preset).message


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1', "\xff"])
def test_a_description_that_is_none_is_refused(tmp_path: Path, preset: Preset, content: str) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    (tmp_path / "walk.tokens.json").write_text(content, encoding="latin-1")
    assert "walk.tokens.json" in refusal(tmp_path / "walk.tokens.npy", preset).message


def test_a_newer_format_is_refused_with_a_way_out(tmp_path: Path, preset: Preset) -> None:
    save_tokens(tmp_path / "walk.tokens.npy", token_file())
    description = tmp_path / "walk.tokens.json"
    description.write_text(json.dumps({"format": 2}))
    assert "update" in refusal(tmp_path / "walk.tokens.npy", preset).hint
