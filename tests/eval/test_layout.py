"""Clips wherever they lie: folders, videos, and the archives of others."""

import base64
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.layout import crop_box_of, find_clips
from mtvcraft_cli.eval.protocols import PROTOCOLS
from mtvcraft_cli.eval.sources import FrameFolder, Made, VideoFile
from mtvcraft_cli.jobs.evaluation import EvalJob, System, prepare_eval
from tests.clips import H264, ffmpeg
from tests.eval.clips import clip, save_frames


def whole(source) -> np.ndarray:
    return np.stack(list(source.frames()))


def png(frame: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG")
    return out.getvalue()


def test_a_folder_may_hold_frames_frames_in_images_and_videos(tmp_path):
    frames = clip(0, 5)
    save_frames(tmp_path / "plain", frames)
    save_frames(tmp_path / "inside" / "images", frames, first=0, ending="jpg")
    ffmpeg("-i", tmp_path / "plain" / "%04d.png", *H264, tmp_path / "film.mp4")
    save_frames(tmp_path / ".hidden", frames)
    (tmp_path / "notes.txt").write_text("about them")
    found = find_clips(tmp_path)
    assert sorted(found.sources) == ["film", "inside", "plain"]
    assert [len(found.sources[name].frame_numbers()) for name in ("film", "inside", "plain")] == [5, 5, 5]
    np.testing.assert_array_equal(whole(found.sources["plain"]), frames)
    assert found.sources["film"].kind == "video"
    assert list(found.sources["inside"].frame_numbers()) == [0, 1, 2, 3, 4]


def test_frames_are_in_the_order_of_their_numbers_and_beat_a_video_of_the_same_id(tmp_path):
    frames = clip(0, 3)
    for number, frame in zip((100, 9, 10), frames, strict=True):
        save_frames(tmp_path / "one", frame[None], first=number)
    (tmp_path / "one" / "0009.png").rename(tmp_path / "one" / "frame9.png")
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=32x40:rate=10:duration=1", *H264, tmp_path / "one.mp4")
    found = find_clips(tmp_path)
    [source] = found.sources.values()
    assert isinstance(source, FrameFolder)
    assert source.frame_numbers() == [9, 10, 100]
    np.testing.assert_array_equal(whole(source), frames[[1, 2, 0]])
    assert "frames were scored" in found.remarks[0]


def test_every_frame_of_a_gif_counts_once_however_long_it_is_shown(tmp_path):
    frames = [Image.fromarray(frame).convert("P") for frame in clip(0, 4)]
    frames[0].save(tmp_path / "one.gif", save_all=True, append_images=frames[1:], duration=[40, 300, 100, 40])
    source = find_clips(tmp_path).sources["one"]
    assert len(source.frame_numbers()) == 4
    shown = np.stack([np.asarray(frame.convert("RGB")) for frame in frames]).astype(int)
    assert np.abs(whole(source) - shown).max() <= 2


def test_a_video_of_uneven_rate_gives_each_frame_once(tmp_path):
    save_frames(tmp_path / "frames", clip(0, 8))
    uneven = ("-vf", "setpts='if(lt(N,4),N,N*3)/30/TB'", "-fps_mode", "vfr")
    ffmpeg("-framerate", "30", "-i", tmp_path / "frames" / "%04d.png", *uneven, *H264, tmp_path / "one.mp4")
    source = VideoFile("one", tmp_path / "one.mp4")
    assert len(source.frame_numbers()) == len(whole(source)) == 8


def test_a_rotated_video_is_seen_upright(tmp_path):
    save_frames(tmp_path / "frames", clip(0, 3, (48, 32)))
    ffmpeg("-i", tmp_path / "frames" / "%04d.png", *H264, tmp_path / "flat.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4")
    flat, turned = (VideoFile(name, tmp_path / f"{name}.mp4") for name in ("flat", "turned"))
    assert (flat.frame_size_px(), turned.frame_size_px()) == ((48, 32), (32, 48))
    assert whole(turned).shape == (3, 48, 32, 3)
    assert np.abs(np.rot90(whole(flat), 1, (1, 2)).astype(int) - whole(turned)).mean() < 3


def tsv(path: Path, frames: dict[str, np.ndarray]) -> None:
    lines = [f"{key}\tsome words\t{base64.b64encode(png(frame)).decode()}\n" for key, frame in frames.items()]
    path.write_text("".join(lines))


def test_discos_tsv_is_read_by_its_keys(tmp_path):
    one, two = clip(0, 3), clip(1, 2)
    frames = {f"TiktokDance_00337_000{number}.png": one[number - 1] for number in (2, 1, 3)}
    frames |= {f"TiktokDance_203_006_1x1_0034{number}.jpg": two[number - 8] for number in (8, 9)}
    tsv(tmp_path / "new10val_TiktokDance.tsv", frames)
    tsv(tmp_path / "new10val_TiktokDance-poses.tsv", {"TiktokDance_00337_0001.png": two[0]})
    for place in (tmp_path, tmp_path / "new10val_TiktokDance.tsv"):
        sources = find_clips(place).sources
        assert sorted(sources) == ["00337", "203_006_1x1"]
        assert list(sources["203_006_1x1"].frame_numbers()) == [348, 349]
        assert sources["00337"].frame_size_px() == (32, 40)
        np.testing.assert_array_equal(whole(sources["00337"]), one)
        np.testing.assert_array_equal(np.stack(list(sources["00337"].frames([2]))), one[2:])
    before = sources["00337"].sha256()
    tsv(tmp_path / "new10val_TiktokDance.tsv", {**frames, "TiktokDance_00337_0001.png": two[0]})
    assert find_clips(tmp_path).sources["00337"].sha256() != before


def test_a_tsv_of_something_else_or_with_a_damaged_picture_is_refused_by_name(tmp_path):
    (tmp_path / "captions.tsv").write_text("a person\tdances\n")
    with pytest.raises(MtvcraftError, match=r"line 1 of .*captions.tsv"):
        find_clips(tmp_path)
    (tmp_path / "captions.tsv").write_text("TiktokDance_00337_0001.png\t" + base64.b64encode(b"nothing").decode())
    with pytest.raises(MtvcraftError, match=r"TiktokDance_00337_0001\.png"):
        list(find_clips(tmp_path).sources["00337"].frames())


def test_a_zip_of_folders_is_read_as_it_is(tmp_path):
    frames = clip(0, 3)
    with zipfile.ZipFile(tmp_path / "tiktok_test_set.zip", "w") as archive:
        for number, frame in enumerate(frames):
            archive.writestr(f"tiktok_test_set/000/images/{number:04d}.png", png(frame))
            archive.writestr(f"tiktok_test_set/001/{number:04d}.png", png(frame[::-1]))
        archive.writestr("__MACOSX/000/0001.png", b"rubbish")
    sources = find_clips(tmp_path / "tiktok_test_set.zip").sources
    assert sorted(sources) == ["000", "001"]
    np.testing.assert_array_equal(whole(sources["000"]), frames)
    np.testing.assert_array_equal(whole(sources["001"]), frames[:, ::-1])
    whole_file = (tmp_path / "tiktok_test_set.zip").read_bytes()
    spoilt = bytearray(whole_file)
    spoilt[200] ^= 255  # within the first picture
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    with pytest.raises(MtvcraftError, match=r"000/images/0000\.png.*spoilt\.zip"):
        find_clips(tmp_path / "spoilt.zip").sources["000"].sha256()
    (tmp_path / "half.zip").write_bytes((tmp_path / "tiktok_test_set.zip").read_bytes()[:500])
    with pytest.raises(MtvcraftError, match=r"half\.zip"):
        find_clips(tmp_path / "half.zip")


def test_a_place_without_clips_is_refused(tmp_path):
    with pytest.raises(MtvcraftError, match="there is no clip") as empty:
        find_clips(tmp_path)
    with pytest.raises(MtvcraftError, match="there is no folder") as missing:
        find_clips(tmp_path / "nowhere")
    assert (empty.value.exit, missing.value.exit) == (Exit.INPUT, Exit.USAGE)


def test_baselines_are_made_of_the_truth_alone(tmp_path):
    truth = FrameFolder.of("one", save_frames(tmp_path / "one", clip(0, 4)))
    frames = whole(truth)
    made = {kind: whole(Made(truth, kind)) for kind in ("still", "ground-truth", "shift1")}
    np.testing.assert_array_equal(made["ground-truth"], frames)
    np.testing.assert_array_equal(made["still"], frames[[0, 0, 0, 0]])
    np.testing.assert_array_equal(made["shift1"], frames[[0, 0, 1, 2]])
    np.testing.assert_array_equal(np.stack(list(Made(truth, "shift1").frames([0, 3]))), frames[[0, 2]])
    assert len({Made(truth, kind).sha256() for kind in made}) == 3


def test_the_crop_of_our_own_run_is_in_the_sidecar_beside_the_result(tmp_path):
    assert crop_box_of(tmp_path, "one") is None
    (tmp_path / "one.mp4.json").write_text('{"crop_px": [0, 8, 32, 40]}')
    assert crop_box_of(tmp_path, "one") == (0, 8, 32, 40)
    (tmp_path / "one.mp4.json").write_text('{"crop_px": null}')
    assert crop_box_of(tmp_path, "one") is None


def test_a_damaged_video_fails_its_clip_alone(tmp_path):
    for side in ("truth", "made"):
        save_frames(tmp_path / side / "one", clip(0, 4))
    ffmpeg("-i", tmp_path / "made" / "one" / "%04d.png", *H264, tmp_path / "truth" / "two.mp4")
    (tmp_path / "made" / "two.mp4").write_bytes((tmp_path / "truth" / "two.mp4").read_bytes()[:700])
    job = EvalJob(
        truth=tmp_path / "truth",
        systems=[System("ours", tmp_path / "made")],
        protocol=PROTOCOLS["mtvcraft"],
        metrics=["psnr"],
        device="cpu",
    )
    prepared = prepare_eval(job, Cache(tmp_path / "cache"))
    assert [pair.truth.source.id for pair in prepared.systems[0].pairs] == ["one"]
    assert "two.mp4" in prepared.systems[0].failed["two"]
