"""A preset in the small bench: its real stages at toy size, on joints in memory."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.eval.mini import METRICS
from mtvcraft_cli.eval.model import PresetModel, load_model, measure_mini
from mtvcraft_cli.jobs.mini import MiniJob, PreparedMini, prepare_mini
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.train.world.scenes import scene
from tests.cli.toy import toy_preset

SIZE_PX = (32, 32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedMini:
    folder = tmp_path_factory.mktemp("bench")
    preset = load_preset(str(toy_preset(folder, frames=17, trained_on="gpu")))
    return prepare_mini(MiniJob(preset=preset, clips=2, device="cpu"), Cache(folder / "cache"))


@pytest.fixture(scope="module")
def model(prepared) -> PresetModel:
    return load_model(prepared)


def test_clips_take_turns_between_one_window_and_two(prepared):
    assert prepared.job.lengths == [17, 25]
    assert MiniJob(preset=prepared.job.preset, clips=2, frames=30).lengths == [30]


@pytest.mark.parametrize("frames", [5, 17, 25])
def test_a_clip_of_any_length_comes_back_as_long_and_as_large(model, frames):
    own = scene(0, "human", SIZE_PX, frames)
    made = model(own.reference, own.joints_mm, own.rate, frames)
    assert made.shape == own.frames.shape
    assert made.dtype == np.uint8
    assert np.array_equal(made, model(own.reference, own.joints_mm, own.rate, frames))


def test_another_motion_and_none_at_all_change_the_frames(model):
    own, other = scene(0, "human", SIZE_PX, 17), scene(1, "human", SIZE_PX, 17)
    made = [model(own.reference, joints, own.rate, 17) for joints in (own.joints_mm, other.joints_mm, None)]
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_no_motion_depends_on_the_no_motion_tokens_alone(model):
    own = scene(0, "human", SIZE_PX, 9)
    before = model(own.reference, None, own.rate, 9)
    token = model.models.transformer.unconditional_motion_token
    kept = token.detach().clone()
    with torch.no_grad():
        token += 1
    changed = model(own.reference, None, own.rate, 9)
    with torch.no_grad():
        token.copy_(kept)
    assert not np.array_equal(before, changed)
    assert np.array_equal(before, model(own.reference, None, own.rate, 9))


def test_a_preset_with_a_rate_of_its_own_still_gives_the_drivers_frames(prepared, tmp_path):
    slow = load_preset(str(toy_preset(tmp_path, frames=17, rate=10)))
    own = scene(0, "human", SIZE_PX, 12)
    made = load_model(prepare_mini(MiniJob(preset=slow, clips=2, device="cpu"), prepared.cache))(
        own.reference, own.joints_mm, Fraction(30), 12
    )
    assert len(made) == 12
    assert np.array_equal(made[0], made[1])  # the model's frames are held


def test_a_run_goes_on_where_another_stopped_and_says_the_same(prepared):
    class Stop(Exception):
        pass

    def stopping(items, stage, total=None):
        for index, item in enumerate(items):
            if index == 2:
                raise Stop
            yield item

    with pytest.raises(Stop):
        measure_mini(prepared, stopping)
    assert len([entry for entry in prepared.cache.entries() if entry.stage == "bench"]) == 2
    report = measure_mini(prepared, silent)
    assert [clip.frames for clip in report.clips] == [16, 24] * 3
    assert report.as_json() == measure_mini(prepared, silent).as_json()
    assert report.trained_on == "gpu"
    assert set(report.totals) == set(METRICS)
