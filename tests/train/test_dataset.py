"""Data sets: what is written comes back, is cut into windows by rules, and is refused where it was tampered with."""

import io
import json
import pickle
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Scene
from mtvcraft_cli.joints.files import load_motion
from mtvcraft_cli.train.dataset.cut import CutSettings, Losses, cut
from mtvcraft_cli.train.dataset.examples import SetExamples, held_out, nearest
from mtvcraft_cli.train.dataset.index import ClipSet, load_clip_set
from mtvcraft_cli.train.dataset.journal import Journal
from mtvcraft_cli.train.dataset.spread import Spread, read_spread
from mtvcraft_cli.train.dataset.tar import BLOCK, ShardWriter, read_member
from mtvcraft_cli.train.examples import Captioned
from mtvcraft_cli.train.motion import draw_seen, read_motion
from mtvcraft_cli.train.settings import Data
from tests.joints.people import scene
from tests.train.sets import frames_of, joints_of, small_set

SIZE_PX = (24, 32)
RATE = Fraction(10)


def test_frames_and_joints_come_back(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set")
    assert [record.frames for record in made.records] == [40, 30, 20]
    for number, record in enumerate(made.records):
        np.testing.assert_array_equal(made.joints_mm(record), joints_of(number, record.frames))
        places = [7, 3, 3, record.frames - 1]
        frames = made.frames(record, places)
        expected = np.stack(frames_of(number, record.frames, SIZE_PX))[places]
        assert frames.shape == (4, 32, 24, 3)
        assert np.abs(frames.astype(int) - expected).max() <= 4


def test_a_window_has_the_caption_of_its_clip(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set")
    told = json.loads((tmp_path / "set/dataset.json").read_text())
    assert [clip.pop("caption") for clip in told["clips"]] == ["", "", ""]
    (tmp_path / "set/dataset.json").write_text(json.dumps(told))
    assert load_clip_set(tmp_path / "set").identity == made.identity, "a set of an earlier version"
    for number, clip in enumerate(told["clips"]):
        clip["caption"] = f"dancer {number}"
    (tmp_path / "set/dataset.json").write_text(json.dumps(told))
    made = load_clip_set(tmp_path / "set")
    examples = SetExamples([(made, record) for record in made.records], [SIZE_PX], Data(), neutral=False)
    assert isinstance(examples, Captioned)
    numbers = [round(float(examples(number, SIZE_PX, 5).frames[..., 1].mean()) / 40) for number in range(30)]
    assert set(numbers) == {0, 1, 2}
    assert [examples.caption(number, SIZE_PX) for number in range(30)] == [f"dancer {clip}" for clip in numbers]


def test_a_shard_is_a_plain_tar_file_and_nothing_in_it_is_pickled(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set")
    with tarfile.open(tmp_path / "set/shard-00000.tar") as shard:
        names = shard.getnames()
        assert names[:3] == ["clip-0000000.mjpeg", "clip-0000000.joints.npz", "clip-0000000.json"]
        assert len(names) == 9
        for name in names:
            content = shard.extractfile(name).read()  # type: ignore[union-attr]
            if name.endswith(".npz"):
                path = tmp_path / "one.joints.npz"
                path.write_bytes(content)
                motion, assumed = load_motion(path)
                assert not assumed
                assert motion.size_px == SIZE_PX
                assert motion.rate == 25
            with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, AttributeError, IndexError)):
                pickle.loads(content)
    assert made.records[0].begin["frames"] == BLOCK


def test_statistics_gathered_clip_by_clip_are_those_of_all_frames(tmp_path: Path) -> None:
    small_set(tmp_path / "set", (40, 31, 22))
    everything = np.concatenate([joints_of(number, length) for number, length in enumerate((40, 31, 22))])
    statistics = read_spread(tmp_path / "set").statistics
    np.testing.assert_allclose(statistics.mean_mm, everything.mean(axis=0, dtype=np.float64), atol=1e-3)
    expected = np.maximum(everything.std(axis=0, dtype=np.float64), 1)
    np.testing.assert_allclose(statistics.std_mm, expected, atol=1e-3)
    assert (Spread.of(everything[:1]).statistics.std_mm == 1).all()


def test_the_least_sure_clips_are_not_listed(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set", (20, 20, 20, 20), unsure=0.5)
    assert [record.name for record in made.records] == ["clip-0000000", "clip-0000001"]
    report = json.loads((tmp_path / "set/report.json").read_text())
    assert report["dropped"] == {"unsure": {"clips": 2, "frames": 40}}


def test_a_full_shard_is_followed_by_another(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set", limit_bytes=2**14)
    assert [record.shard for record in made.records] == [f"shard-0000{number}.tar" for number in range(3)]
    np.testing.assert_array_equal(made.joints_mm(made.records[2]), joints_of(2, 20))


def windows(made: ClipSet, settings: Data, *, count: int = 60, frames: int = 9) -> list[tuple[list[int], int, int]]:
    """Places of the frames, place of the reference, and the clip, of each window; read off the pictures."""
    examples = SetExamples([(made, record) for record in made.records], [SIZE_PX], settings, neutral=False)
    found = []
    for number in range(count):
        clip = examples(number, SIZE_PX, frames)
        assert clip.frames.shape == (frames, 32, 24, 3)
        assert clip.figure.all()
        green = round(float(clip.frames[..., 1].mean()) / 40)
        places = [round(float(frame[..., 0].mean()) / 2) for frame in (*clip.frames, clip.reference)]
        joints_mm = made.joints_mm(made.records[green])
        first = int(np.flatnonzero((joints_mm == clip.joints_mm[0]).all(axis=(1, 2)))[0])
        np.testing.assert_array_equal(clip.joints_mm[1:], joints_mm[places[:-1]])
        assert 0 <= places[0] - first <= settings.before
        found.append((places[:-1], places[-1], first))
    return found


def test_windows_show_the_frames_whose_joints_they_have(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set")
    found = windows(made, Data(strides=(1, 2), before=10, elsewhere=0.0))
    assert {places[1] - places[0] for places, _, _ in found} == {1, 2}
    assert all(reference == first for _, reference, first in found)
    assert 0.2 < np.mean([places[0] == first for places, _, first in found]) < 0.9
    elsewhere = windows(made, Data(elsewhere=1.0), count=30)
    assert any(reference != first for _, reference, first in elsewhere)


def test_a_clip_that_is_too_short_holds_its_last_frame(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set", (12,))
    for places, _, _ in windows(made, Data(strides=(1, 2), before=0), count=4, frames=17):
        assert places == [*range(12), *[11] * 5]


def test_the_same_number_is_the_same_window_and_another_is_another(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set")
    examples = SetExamples([(made, record) for record in made.records], [SIZE_PX], Data(), neutral=False)
    one, again, other = (examples(number, SIZE_PX, 9) for number in (5, 5, 6))
    np.testing.assert_array_equal(one.frames, again.frames)
    assert not np.array_equal(one.frames, other.frames)


def test_a_clip_is_shown_at_the_size_nearest_to_its_shape(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set", sizes_px=((24, 32), (48, 24), (24, 24)))
    sizes = [(32, 32), (32, 48), (64, 32)]
    assert [nearest(record.size_px, sizes) for record in made.records] == [sizes[1], sizes[2], sizes[0]]
    examples = SetExamples([(made, record) for record in made.records], sizes, Data(), neutral=False)
    for green, size in ((0, sizes[1]), (1, sizes[2]), (2, sizes[0])):
        clip = examples(0, size, 9)
        assert clip.frames.shape == (9, size[1], size[0], 3)
        assert round(float(clip.frames[..., 1].mean()) / 40) == green
    with pytest.raises(MtvcraftError, match="no clip of the data set has a shape nearest to 16 x 320"):
        SetExamples([(made, record) for record in made.records], [*sizes, (16, 320)], Data(), neutral=False)


def test_clips_of_one_video_stay_on_one_side() -> None:
    sources = [f"video {number // 3}" for number in range(60)]
    out = held_out(sources, 0.25)
    assert sum(out) == 15
    assert all(len({out[3 * video + part] for part in range(3)}) == 1 for video in range(20))
    assert held_out(["a", "a", "b"], 0.01).count(True) in (1, 2)
    assert held_out(["a", "a"], 0.5) == [False, False]
    assert held_out(["a", "b"], 0.0) == [False, False]


def test_a_tokenizer_reads_the_joints_as_the_camera_saw_them(tmp_path: Path) -> None:
    small_set(tmp_path / "set")
    motion = read_motion([str(tmp_path / "set")])
    assert motion.seen.all()
    window = draw_seen(motion, np.random.default_rng(3), 9, 1, 0)
    joints = np.concatenate([joints_of(number, length) for number, length in enumerate((40, 30, 20))])
    assert any(np.allclose(np.abs(window[1, :, 0]).sum(), np.abs(frame[:, 0]).sum()) for frame in joints)
    assert (window[..., 2] > 1000).all()


def tampered(folder: Path, change: str) -> None:
    path, index = folder / "shard-00000.tar", folder / "dataset.json"
    content = bytearray(path.read_bytes())
    told = json.loads(index.read_text())
    clip = told["clips"][0]
    if change == "a byte of a frame":
        content[clip["begin"]["frames"] + 300] ^= 255
    elif change == "a byte of the joints":
        content[clip["begin"]["joints"] + 90] ^= 255
    elif change == "a byte of a header":
        content[5] ^= 255
    elif change == "a link in a header":
        info = tarfile.TarInfo("clip-0000000.mjpeg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        content[:BLOCK] = info.tobuf(tarfile.USTAR_FORMAT)
    elif change == "cut off":
        content = content[:700]
    elif change == "an offset past the end":
        clip["begin"]["frames"] = 2**40
    elif change == "an offset elsewhere":
        clip["begin"]["frames"] = told["clips"][1]["begin"]["frames"]
    elif change == "a shard outside":
        clip["shard"] = "../other.tar"
    elif change == "another size":
        clip["size_px"] = [9000, 9000]
    elif change == "a part missing":
        del clip["begin"]["joints"]
    elif change == "frames that are none":
        clip["frames"] = -3
    path.write_bytes(content)
    index.write_text(json.dumps(told))


@pytest.mark.parametrize(
    "change",
    [
        *("a byte of a frame", "a byte of the joints", "a byte of a header", "a link in a header", "cut off"),
        *("an offset past the end", "an offset elsewhere", "a shard outside", "another size", "a part missing"),
        "frames that are none",
    ],
)
def test_a_set_that_was_tampered_with_is_refused(change: str, tmp_path: Path) -> None:
    small_set(tmp_path / "set")
    tampered(tmp_path / "set", change)

    def read() -> None:
        made = load_clip_set(tmp_path / "set")
        made.joints_mm(made.records[0])
        made.frames(made.records[0], range(3))

    with pytest.raises(MtvcraftError, match="is damaged") as caught:
        read()
    assert caught.value.exit is Exit.INPUT


def test_pickled_or_endless_joints_are_refused_even_where_the_index_vouches_for_them(tmp_path: Path) -> None:
    import hashlib

    for number, arrays in enumerate(
        ({"joints_mm": np.array([{}], object)}, {"joints_mm": np.zeros((1 << 12, 24, 3), np.float32)})
    ):
        folder = tmp_path / str(number)
        small_set(folder, (20,))
        hostile = io.BytesIO()
        np.savez_compressed(hostile, **arrays, allow_pickle=True)  # type: ignore[arg-type]
        content = hostile.getvalue()
        with ShardWriter(folder / "shard-00000.tar", (folder / "shard-00000.tar").stat().st_size) as shard:
            begin = shard.add("clip-0000000.joints.npz", content)
        told = json.loads((folder / "dataset.json").read_text())
        clip = told["clips"][0]
        clip["begin"]["joints"], clip["bytes"]["joints"] = begin, len(content)
        clip["sha256"]["joints"] = hashlib.sha256(content).hexdigest()
        (folder / "dataset.json").write_text(json.dumps(told))
        made = load_clip_set(folder)
        with pytest.raises(MtvcraftError, match=r"clip-0000000.joints.npz"):
            made.joints_mm(made.records[0])


def test_a_folder_without_an_index_is_no_finished_set(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="no finished data set") as caught:
        load_clip_set(tmp_path)
    assert caught.value.exit is Exit.USAGE


def test_a_member_that_was_cut_off_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    with ShardWriter(path) as shard:
        shard.add("one", b"1" * 700)
        kept = shard.size_bytes
        shard.add("lost", b"2" * 9000)
    with ShardWriter(path, kept) as shard:
        begin = shard.add("two", b"3" * 10)
        shard.end()
    assert read_member(path, "two", begin, 10, [(2, 3)]) == [b"333"]
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["one", "two"]
    with pytest.raises(MtvcraftError, match="is damaged"):
        ShardWriter(path, 10**6)


def pieces_of(seen: Scene, **settings: object) -> tuple[list[list[int]], dict[str, dict[str, int]]]:
    losses = Losses()
    made = list(cut(seen, RATE, CutSettings(min_frames=9, max_frames=40, **settings), losses))  # type: ignore[arg-type]
    return [[int(piece.places[0]), int(piece.places[-1]), len(piece.places)] for piece in made], losses.told()


def test_a_shot_with_one_person_is_a_clip_and_others_say_why_they_are_none() -> None:
    shots = scene((0, 40, 0, 9), (60, 100, 0, 9), (70, 100, 500, 9), (101, 106, 0, 9), frames=110, cuts=(40, 60, 100))
    pieces, lost = pieces_of(shots)
    assert pieces == [[0, 39, 40]]
    assert lost == {
        "nobody": {"clips": 1, "frames": 20},
        "several people": {"clips": 1, "frames": 40},
        "gap": {"clips": 2, "frames": 5},
        "too short": {"clips": 1, "frames": 5},
    }


def test_a_long_gap_parts_a_clip_and_a_short_one_is_filled() -> None:
    whole = scene((0, 60, 0, 9), frames=60)
    estimate = whole.people[0].estimate
    estimate.found[[20, 21, 22]], estimate.found[40:46] = False, False
    estimate.joints_mm[~estimate.found] = np.nan
    pieces, lost = pieces_of(whole, max_gap_s=Fraction(1, 2))
    assert pieces == [[0, 39, 40], [46, 59, 14]]
    assert lost == {"gap": {"clips": 1, "frames": 6}}
    first = next(cut(whole, RATE, CutSettings(min_frames=9, max_frames=40), Losses()))
    assert np.isfinite(first.estimate.joints_mm).all()
    assert not first.estimate.found[20:23].any()


def test_a_part_that_is_nothing_but_a_filled_gap_is_dropped() -> None:
    whole = scene((0, 100, 0, 9), frames=100)
    estimate = whole.people[0].estimate
    estimate.found[33:68] = False
    estimate.joints_mm[~estimate.found] = np.nan
    pieces, lost = pieces_of(whole, max_gap_s=Fraction(5))
    assert pieces == [[0, 33, 34], [67, 99, 33]]
    assert lost == {"gap": {"clips": 1, "frames": 33}}


def test_a_name_with_a_line_separator_loses_nothing_of_a_journal(tmp_path: Path) -> None:
    names = ["one", "two\u2028half", "three\x85", "four"]
    journal = Journal(tmp_path, {"kind": "motion"})
    journal.begin()
    for name in names:
        journal.add({"input": name})
    assert [entry["input"] for entry in Journal(tmp_path, {"kind": "motion"}).entries] == names


def test_long_shots_are_cut_evenly_and_fast_ones_thinned() -> None:
    pieces, lost = pieces_of(scene((0, 100, 0, 9), frames=100))
    assert pieces == [[0, 33, 34], [34, 66, 33], [67, 99, 33]]
    assert lost == {}
    thinned, _ = pieces_of(scene((0, 100, 0, 9), frames=100), rate=Fraction(4))
    assert thinned == [[0, 97, 40]]
    assert pieces_of(scene((0, 100, 0, 9), frames=100), rate=Fraction(30))[0] == pieces
