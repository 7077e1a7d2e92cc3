"""Plans: pure functions of a preset's numbers and of what a machine has."""

from dataclasses import replace
from pathlib import Path

import pytest

from mtvcraft_cli.device.placement import RUNNABLE, Placement, card_bytes, ram_bytes, stored_bytes
from mtvcraft_cli.device.plan import Machine, Plan, Source, Task, branches, guided_steps, make_plan, next_smaller
from mtvcraft_cli.device.rates import Rates, keep_rates, processor, read_rates
from mtvcraft_cli.device.sizes import small_transformer
from mtvcraft_cli.device.stepping import kept_keys
from mtvcraft_cli.preset import PARTS, Preset, Sampler, load_preset
from mtvcraft_cli.windows import plan_windows

GIB = 2**30
UNKNOWN = Rates("some card", {}, 2)


def task(name: str, frames: int = 49, **changes: object) -> Task:
    preset = load_preset(name)
    stored = {
        "tokenizer": 294_000_000,
        "transformer": 14_315_000_000,
        "vae": 431_000_000,
        "text_encoder": 11_362_000_000,
    }
    sources = {
        part: Source(stored_bytes=stored.get(part), missing=False, seeded=name == "mini", licence="Apache-2.0")
        for part in PARTS[preset.backbone]
    }
    return Task(preset=preset, windows=tuple(plan_windows(frames, 49, 9)), sources=sources, **changes)


def on_card(gib: float, ram_gib: float = 256) -> Machine:
    return Machine(card="some card", card_free=int(gib * GIB), ram_free=int(ram_gib * GIB))


CPU = Machine(card=None, card_free=None, ram_free=64 * GIB)


def stage(plan: Plan, name: str) -> int:
    return next(each.card for each in plan.stages if each.name == name)


def kept(plan: Plan) -> int:
    """Keys and values that a window of the small model keeps on the card."""
    return kept_keys(plan.task.preset.transformer, plan.task.latent_frames, plan.branches, 2, small=True)


def test_everything_stays_on_a_large_card_and_moves_on_a_smaller_one() -> None:
    large, small, tiny = (make_plan(task("7b"), on_card(gib), UNKNOWN) for gib in (40, 17, 2))
    assert (large.placement.offload, large.shortages) == ("none", [])
    assert (small.placement.offload, small.shortages) == ("model", [])
    assert [lack.what for lack in tiny.shortages] == ["card"]
    assert large.card_peak > small.card_peak > tiny.card_peak
    assert large.ram_peak < small.ram_peak, "networks that don't work wait in RAM"


def test_peaks_are_weights_and_what_works() -> None:
    plan = make_plan(task("7b"), on_card(80), UNKNOWN, Placement())
    weights = 2 * (plan.parameters["transformer"] + plan.parameters["vae"])
    unit = 2 * 13312 * 3072 * 2  # one tensor of both branches, in bfloat16
    assert stage(plan, "denoise") - weights - kept(plan) == pytest.approx(12 * unit, rel=0.02)
    moved = make_plan(task("7b"), on_card(80), UNKNOWN, Placement(offload="model"))
    assert stage(plan, "denoise") - stage(moved, "denoise") == 2 * plan.parameters["vae"]


def test_two_passes_halve_what_works_and_not_the_weights() -> None:
    both = make_plan(task("7b"), on_card(80), UNKNOWN)
    single = make_plan(task("7b", two_passes=True), on_card(80), UNKNOWN)
    weights = 2 * (both.parameters["transformer"] + both.parameters["vae"])
    single_step, both_step = (stage(plan, "denoise") - weights - kept(plan) for plan in (single, both))
    ratio = single_step / both_step
    assert ratio == pytest.approx(0.5, abs=0.02)
    assert single.operations == both.operations


def test_the_text_encoder_comes_first_and_alone_unless_its_texts_are_kept() -> None:
    plan = make_plan(task("17b"), on_card(80), UNKNOWN)
    first = plan.stages[0]
    assert (first.name, first.on_device) == ("read the prompt", ("text_encoder",))
    assert first.card == pytest.approx(2 * 5_680_910_336, rel=0.01)
    kept = make_plan(task("17b", texts=0), on_card(80), UNKNOWN)
    assert "read the prompt" not in {each.name for each in kept.stages}


def test_a_cpu_computes_in_float32_and_holds_everything() -> None:
    plan = make_plan(task("7b"), CPU, UNKNOWN)
    assert plan.placement == Placement()
    assert plan.card_peak == 0
    assert plan.ram_peak > 4 * (plan.parameters["transformer"] + plan.parameters["vae"])
    assert [lack.what for lack in make_plan(task("7b"), replace(CPU, ram_free=16 * GIB), UNKNOWN).shortages] == ["ram"]


def test_nothing_is_too_much_where_the_system_does_not_tell() -> None:
    assert make_plan(task("7b"), replace(CPU, ram_free=None), UNKNOWN).shortages == []


def test_more_windows_are_more_work_and_no_more_memory() -> None:
    one, many = (make_plan(task("7b", frames), on_card(80), UNKNOWN) for frames in (49, 409))
    assert len(many.task.windows) == 10
    assert many.work["denoise"] == 10 * one.work["denoise"]
    assert many.card_peak == one.card_peak


def test_smaller_frames_take_less() -> None:
    whole = task("7b")
    half = replace(whole, preset=replace(whole.preset, size_px=(256, 256)))
    plans = [make_plan(each, on_card(80), UNKNOWN) for each in (whole, half)]
    assert plans[0].visual_tokens == 4 * plans[1].visual_tokens == 13 * 32 * 32
    assert plans[0].card_peak > plans[1].card_peak


@pytest.mark.parametrize(
    ("motion", "text", "backbone", "passes"),
    [
        (1.0, 1.0, "cogvideox", 1),
        (3.0, 1.0, "cogvideox", 2),
        (1.0, 1.0, "wan", 1),
        (1.0, 6.0, "wan", 2),
        (3.0, 1.0, "wan", 2),
        (3.0, 3.0, "wan", 2),
        (3.0, 6.0, "wan", 3),
    ],
)
def test_what_does_not_pull_is_not_run(motion: float, text: float, backbone: str, passes: int) -> None:
    assert branches(Sampler(motion_guidance=motion, text_guidance=text), backbone) == passes


def test_branches_are_those_that_the_large_sampler_runs() -> None:
    import torch

    from mtvcraft_cli.latents.rope import Rotary
    from mtvcraft_cli.latents.wanvideo.sampler import Condition, Guidance, _branches

    one = torch.zeros(1, 1, 1)
    nowhere = Rotary(torch.zeros(1, 2), torch.zeros(1, 2))
    condition = Condition(
        image=torch.zeros(1, 20, 1, 1, 1),
        picture=one,
        text=one,
        negative=one,
        tokens=one,
        no_motion=one,
        visual=nowhere,
        motion=nowhere,
    )
    for text in (1.0, 3.0, 6.0):
        for motion in (1.0, 3.0):
            run, _ = _branches(condition, Guidance(text=text, motion=motion))
            assert branches(Sampler(text_guidance=text, motion_guidance=motion), "wan") == len(run)


def test_steps_outside_the_range_of_guidance_are_one_pass() -> None:
    sampler = Sampler(steps=10, guidance_range=(0.0, 0.5))
    assert guided_steps(sampler) == 5
    whole = task("17b")
    short = replace(
        whole, preset=replace(whole.preset, sampler=replace(whole.preset.sampler, guidance_range=(0.0, 0.5)))
    )
    assert (
        make_plan(short, on_card(80), UNKNOWN).work["denoise"]
        == 0.75 * make_plan(whole, on_card(80), UNKNOWN).work["denoise"]
    )


@pytest.mark.parametrize("two_passes", [False, True])
def test_what_skipping_keeps_from_step_to_step_is_counted_while_denoising(two_passes: bool) -> None:
    plain, skipping = (
        make_plan(task("7b", two_passes=two_passes, skips=skips), on_card(80), UNKNOWN) for skips in (False, True)
    )
    unit = 13312 * 3072 * 2  # one tensor of one branch, in bfloat16
    assert stage(skipping, "denoise") - stage(plain, "denoise") == 3 * 2 * unit
    assert stage(skipping, "decode") == stage(plain, "decode")
    cpu = [make_plan(task("7b", two_passes=two_passes, skips=skips), CPU, UNKNOWN) for skips in (False, True)]
    ram = [next(each.ram for each in plan.stages if each.name == "denoise") for plan in cpu]
    assert ram[1] - ram[0] == 3 * 2 * 2 * unit, "in float32"


@pytest.mark.parametrize(
    ("motion", "text", "end", "two_passes", "tensors"),
    [
        (3.0, 6.0, 1.0, False, 9),
        (3.0, 6.0, 0.5, False, 12),  # the branch of unguided steps is kept beside the batch of guided ones
        (3.0, 6.0, 0.5, True, 9),
        (1.0, 1.0, 0.5, False, 3),
        (3.0, 6.0, 0.0, False, 3),
    ],
)
def test_what_skipping_keeps_goes_by_the_branches_that_are_told_apart(
    motion: float, text: float, end: float, two_passes: bool, tensors: int
) -> None:
    whole = task("17b", two_passes=two_passes)
    sampler = replace(
        whole.preset.sampler, motion_guidance=motion, text_guidance=text, guidance_range=(0.0, end), steps=10
    )
    plain = replace(whole, preset=replace(whole.preset, sampler=sampler))
    plans = [make_plan(each, on_card(80), UNKNOWN, Placement()) for each in (plain, replace(plain, skips=True))]
    added = stage(plans[1], "denoise") - stage(plans[0], "denoise")
    assert added == tensors * plans[0].visual_tokens * 5120 * 2


def test_the_fastest_placement_that_fits_is_chosen() -> None:
    chosen = {gib: make_plan(task("7b"), on_card(gib), UNKNOWN).placement.offload for gib in (40, 17, 12, 8)}
    assert chosen == {40: "none", 17: "model", 12: "group", 8: "group"}
    assert [way.offload for way in RUNNABLE] == ["none", "model", "group", "sequential", "disk"]
    narrow = make_plan(task("17b"), on_card(5), UNKNOWN)
    assert narrow.placement.offload == "sequential"
    assert (
        narrow.card_peak < 5 * GIB < make_plan(narrow.task, on_card(5), UNKNOWN, Placement(offload="group")).card_peak
    )


def test_weights_are_streamed_from_files_where_ram_is_short_too() -> None:
    drawn = replace(task("7b").sources["transformer"], stored_bytes=None, seeded=False)
    short = replace(on_card(8, ram_gib=24), scratch_free=100 * GIB)
    mapped = make_plan(task("7b"), on_card(8, ram_gib=9), UNKNOWN)
    assert mapped.placement.offload == "disk"
    assert mapped.shortages == []
    assert mapped.scratch_bytes == 2 * mapped.parameters["transformer"] + 2 * small_transformer({}).whole
    full = make_plan(task("7b"), replace(on_card(8, ram_gib=9), scratch_free=GIB), UNKNOWN, Placement(offload="disk"))
    assert [lack.what for lack in full.shortages] == ["scratch"]
    loading = replace(task("7b"), sources={**task("7b").sources, "transformer": drawn})
    plan = make_plan(loading, short, UNKNOWN, Placement(offload="disk"))
    assert plan.ram_peak > 13_000_000_000, "weights that can't be mapped are in RAM once, before they are in files"


def test_streamed_weights_take_time_to_come() -> None:
    plans = {way: make_plan(task("7b"), on_card(80), UNKNOWN, Placement(offload=way)) for way in ("model", "group")}
    assert "move" not in plans["model"].work
    whole = small_transformer(load_preset("7b").transformer).bytes(2)
    assert plans["group"].work["move"] == 50 * whole
    assert plans["group"].expected_s > plans["model"].expected_s
    passes = make_plan(task("7b", two_passes=True), on_card(80), UNKNOWN, Placement(offload="group"))
    assert passes.work["move"] == 100 * whole


def test_a_step_down_takes_less_of_the_card_and_no_more_ram_than_there_is() -> None:
    plan = make_plan(task("7b"), on_card(80), UNKNOWN)
    way, steps = plan.placement, []
    while (way := next_smaller(plan, way)) is not None:
        steps.append(way.offload)
    assert steps == ["model", "group", "sequential"]
    short = replace(plan, machine=on_card(80, ram_gib=20))
    assert next_smaller(short, Placement(offload="model")) == Placement(offload="sequential"), "pinned, it is too much"
    assert next_smaller(make_plan(task("7b", ranks=(2, 1)), on_card(80), UNKNOWN), Placement()) is None
    whole = make_plan(task("7b", whole=True), on_card(12), UNKNOWN)
    assert whole.placement.offload == "model", "what skips or compiles blocks wants them all there"
    assert whole.shortages
    assert next_smaller(whole, Placement()) == Placement(offload="model")
    assert next_smaller(whole, Placement(offload="model")) is None


def several(*gib: float) -> Machine:
    free = tuple(int(each * GIB) for each in gib)
    return replace(on_card(gib[0]), card_free=free[0], cards_free=free, cards=tuple(range(len(gib))))


def test_layers_are_split_only_where_one_card_is_too_small() -> None:
    assert make_plan(task("7b"), several(40, 40), UNKNOWN).placement == Placement()
    plan = make_plan(task("7b"), several(12, 12), UNKNOWN)
    assert plan.placement == Placement(cards=(0, 1))
    assert plan.shortages == []
    assert sum(plan.shares) == pytest.approx(2 * plan.parameters["transformer"], rel=0.001)
    assert max(plan.card_peak, *plan.further_cards) < 12 * GIB
    uneven = make_plan(task("7b"), several(14, 8), UNKNOWN)
    assert uneven.shares[0] > uneven.shares[1]
    assert [lack.what for lack in make_plan(task("17b"), several(12, 12), UNKNOWN).shortages] != []


def test_processes_share_the_work_and_the_memory_of_a_step() -> None:
    alone = make_plan(task("7b"), on_card(80), UNKNOWN)
    weights = 2 * (alone.parameters["transformer"] + alone.parameters["vae"])
    for ranks in ((2, 1), (1, 2), (2, 2)):
        plan = make_plan(task("7b", ranks=ranks), on_card(80), UNKNOWN)
        count = ranks[0] * ranks[1]
        assert plan.work["denoise"] == alone.work["denoise"] // count
        step = stage(alone, "denoise") - weights - kept(alone)
        assert stage(plan, "denoise") - weights == pytest.approx(step / count, rel=0.02), "and none of them keeps keys"


def test_other_placements_have_their_formulas() -> None:
    count = small_transformer(load_preset("7b").transformer)
    whole = count.bytes(2)
    on, off = (
        {way: function(count, 2, Placement(offload=way)) for way in ("none", "model", "group", "sequential", "disk")}
        for function in (card_bytes, ram_bytes)
    )
    assert on["none"] == on["model"] == whole
    assert whole > on["group"] == on["disk"] > 2 * 2 * count.block > on["sequential"] == 2 * 2 * count.leaf
    assert off["none"] == 0
    assert off["model"] == off["sequential"] == whole
    assert off["group"] == whole + 2 * (count.pinned - count.blocks) > 1.7 * whole
    assert off["disk"] == on["disk"]
    assert stored_bytes(count, 2, "int8") == whole - count.linear
    assert stored_bytes(count, 2, "nf4") == pytest.approx(whole - count.linear * (2 - 0.5625), rel=1e-9)


def test_weights_that_can_be_mapped_take_no_ram_of_their_own() -> None:
    mapped = task("17b")
    float32 = replace(
        mapped,
        sources={**mapped.sources, "transformer": replace(mapped.sources["transformer"], stored_bytes=70_000_000_000)},
    )
    plans = [make_plan(each, on_card(80), UNKNOWN, Placement()) for each in (mapped, float32)]
    assert plans[1].ram_peak - plans[0].ram_peak > 20 * GIB


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_what_loras_are_merged_into_is_mapped_no_longer(quantize: str) -> None:
    plain, merged = task("17b"), task("17b-fast")
    way = Placement(offload="disk", quantize=quantize)
    plans = [make_plan(each, on_card(80), UNKNOWN, way) for each in (plain, merged)]
    assert plans[1].ram_peak - plans[0].ram_peak > 20 * GIB


def test_downloads_and_licences_are_told() -> None:
    whole = task("7b")
    lacking = {
        "transformer": replace(whole.sources["transformer"], missing=True, licence="A"),
        "vae": replace(whole.sources["vae"], missing=True, stored_bytes=None, licence="B"),
    }
    plan = make_plan(
        replace(whole, sources={**whole.sources, **lacking}), replace(on_card(80), disk_free=10**9), UNKNOWN
    )
    assert plan.download_bytes == 14_315_000_000
    assert plan.unknown == ["vae"]
    assert plan.licences == ["A", "Apache-2.0", "B"]
    assert [lack.what for lack in plan.shortages] == ["disk"]


def test_speed_is_a_guess_then_measured(tmp_path: Path) -> None:
    name = load_preset("mini").name
    before = make_plan(task("mini"), CPU, read_rates(tmp_path, None))
    assert before.time_source == "guess"
    keep_rates(tmp_path, None, name, {"denoise": 1e9, "code": 2e9, "load": 1e6})
    rates = read_rates(tmp_path, None)
    assert rates.device == processor()
    measured = make_plan(task("mini"), CPU, rates)
    assert measured.time_source == "measured"
    assert measured.seconds["code"] == measured.work["code"] / 2e9
    assert make_plan(task("7b"), CPU, rates).time_source == "another preset"
    keep_rates(tmp_path, None, name, {"denoise": 3e9})
    assert read_rates(tmp_path, None).of("denoise", name).per_s == 3e9
    assert read_rates(tmp_path, None).of("code", name).per_s == 2e9
    assert read_rates(tmp_path, "another device").of("denoise", name).source == "guess"


def test_damaged_rates_are_as_good_as_none(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"cpu": 3}', '{"cpu": {"denoise": {"mini": "fast"}}}'):
        (tmp_path / "rates.json").write_text(text)
        assert read_rates(tmp_path, "cpu").of("denoise", "mini").source == "guess"


def test_a_better_card_is_guessed_to_be_faster() -> None:
    slow, fast = (Rates(name, {}, 2).of("denoise", "7b").per_s for name in ("Tesla T4", "NVIDIA H100 80GB HBM3"))
    assert fast > 10 * slow


@pytest.mark.parametrize("name", ["mini", "6b", "7b", "17b", "17b-fast", "18b"])
@pytest.mark.parametrize("machine", [CPU, on_card(24)])
def test_every_preset_of_the_package_can_be_planned(name: str, machine: Machine) -> None:
    plan = make_plan(task(name), machine, UNKNOWN)
    assert plan.expected_s > 0
    assert plan.told()["fits"] is (not plan.shortages)
    assert isinstance(plan.task.preset, Preset)
