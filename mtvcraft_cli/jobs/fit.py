"""Whether a run fits this machine: weights that are there, and memory that is free, put before `device.plan`."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from mtvcraft_cli.device.memory import free_memory, held_memory
from mtvcraft_cli.device.placement import RUNNABLE, STREAMED, Placement, Quantize, Wanted
from mtvcraft_cli.device.plan import Machine, Plan, Source, Task, branches, make_plan
from mtvcraft_cli.device.ranks import arrange
from mtvcraft_cli.device.rates import Rates, read_rates
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset, load_preset
from mtvcraft_cli.weights.locate import Located, locate
from mtvcraft_cli.windows import plan_windows

SMALLER = (7 / 8, 3 / 4, 5 / 8, 1 / 2)
"""Sizes that are tried in the place of one that doesn't fit, as shares of its sides."""
BEST_FIRST = ("18b", "17b", "17b-fast", "7b", "6b", "mini")
"""Presets of the package, those first that look best by the paper and the released code's own settings."""


def machine_of(device: str, cards: Sequence[int] = ()) -> Machine:
    """What a device has, besides what this process already holds itself.

    Args:
        device: as `choose_device` gives it.
        cards: numbers of the cards that may share the work, the device's own first.
    """
    free, held = free_memory(), held_memory()
    ram = None if free is None else free + (held or 0)
    if device.startswith("cuda"):
        import torch

        named = [torch.device("cuda", number) for number in cards] if len(cards) > 1 else [torch.device(device)]
        each = tuple(torch.cuda.mem_get_info(card)[0] + torch.cuda.memory_reserved(card) for card in named)
        machine = Machine(card=torch.cuda.get_device_name(named[0]), card_free=each[0], ram_free=ram)
        return replace(machine, cards_free=each, cards=tuple(cards)) if len(cards) > 1 else machine
    if device.startswith("mps"):
        return Machine(card="Apple GPU", card_free=ram, ram_free=ram)
    return Machine(card=None, card_free=None, ram_free=ram)


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is or would be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def placement_of(offload: Wanted, quantize: Quantize, cards: int = 0) -> Placement | None:
    """What was asked for; None leaves it to the plan, which takes no layer off any of several `cards` anyway."""
    return None if offload == "auto" or cards > 1 else Placement(offload=offload, quantize=quantize)


def rates_of(machine: Machine, cache: Path) -> Rates:
    """How fast it is."""
    return read_rates(cache, machine.card)


def sources_of(parts: Mapping[str, Located]) -> dict[str, Source]:
    """What a plan wants to know of weights."""
    return {name: _source(part) for name, part in parts.items()}


def _source(part: Located) -> Source:
    there = sum(file.stat().st_size for file in part.files) if part.path is not None else None
    return Source(
        stored_bytes=there if there is not None else part.released.bytes if part.released else None,
        missing=part.missing,
        seeded=part.seed is not None,
        licence=part.licence,
        sizes=_sizes(part),
    )


def _sizes(part: Located) -> dict[str, Any]:
    """What the `config.json` beside a network says of its sizes, in this program's words."""
    if part.part not in ("transformer", "vae", "text_encoder", "picture_encoder"):
        return {}
    told = part.config()
    if "num_heads" in told and "dim" in told:  # the released large model's own words
        shared = ("ffn_dim", "freq_dim", "num_layers", "text_dim", "text_len")
        return {
            "num_attention_heads": told["num_heads"],
            "attention_head_dim": told["dim"] // told["num_heads"],
            "in_channels": told.get("in_dim", 36),
            "out_channels": told.get("out_dim", 16),
            **{key: told[key] for key in shared if key in told},
        }
    return told


def heads_of(preset: Preset, transformer: Source) -> int:
    """Heads of each attention of a preset's transformer."""
    usual = {"cogvideox": 48, "wan": 40}[preset.backbone]
    return int({**preset.transformer, **transformer.sizes}.get("num_attention_heads", usual))


def task_of(
    preset: Preset,
    folder: Path | None,
    frames: int,
    *,
    two_passes: bool = False,
    whole: bool = False,
    skips: bool = False,
    pose_frames: int = 0,
) -> Task:
    """A run of a preset over so many of the model's frames, with the weights that are there."""
    return Task(
        preset=preset,
        windows=tuple(plan_windows(frames, preset.frames, preset.overlap)),
        sources=sources_of(locate(preset, folder)),
        two_passes=two_passes,
        whole=whole,
        skips=skips,
        pose_frames=pose_frames,
        texts=1 + (preset.sampler.text_guidance != 1),
    )


def shared_out(task: Task, machine: Machine, rates: Rates, ranks: int) -> Task:
    """The same run by so many processes.

    Raises:
        MtvcraftError: exit 2; it can't be cut evenly among them.
    """
    if ranks == 1:
        return task
    groups, sharing = arrange(
        ranks,
        branches(task.preset.sampler, task.preset.backbone),
        heads_of(task.preset, task.sources["transformer"]),
        make_plan(task, machine, rates).visual_tokens,
    )
    return replace(task, ranks=(groups, sharing), two_passes=task.two_passes and groups == 1)


def check_fit(plan: Plan, folder: Path | None, cache: Path) -> None:
    """Refuse a run that doesn't fit, and name the nearest one that does.

    Args:
        plan: of the run.
        folder: of the user's own weights.
        cache: the program's cache.

    Raises:
        MtvcraftError: exit 5.
    """
    if not plan.shortages:
        return
    near = nearest(plan, folder, cache)
    raise MtvcraftError(
        f"preset {plan.task.preset.name} does not fit: {shortage_text(plan)}",
        hint=f"the nearest that fits: {near[0]}"
        if near
        else "use a machine with more of it; even `--preset mini` doesn't fit",
        exit=Exit.FIT,
    )


def nearest(plan: Plan, folder: Path | None, cache: Path) -> tuple[str, Plan] | None:
    """The nearest setting that fits in the place of one that doesn't.

    Returns:
        The options that ask for it, and its plan; None where nothing fits.
    """
    machine, rates, ranks = plan.machine, rates_of(plan.machine, cache), prod(plan.task.ranks)
    for words, other, placement in _variations(plan, folder):
        try:
            task = shared_out(other, machine, rates, ranks)
        except MtvcraftError:  # another preset or size, which these processes would be refused for
            continue
        found = make_plan(task, machine, rates, placement, plan.placement.quantize)
        if not found.shortages:
            fetched = f" ({fetch_text(found)})" if any(source.missing for source in task.sources.values()) else ""
            return words + fetched, found
    return None


def _variations(plan: Plan, folder: Path | None) -> Iterator[tuple[str, Task, Placement | None]]:
    """Settings around a plan's, the nearest first; all else is as it was asked for."""
    task, preset = plan.task, plan.task.preset
    if plan.machine.card and not plan.machine.cards and task.ranks == (1, 1):
        ways = [way.offload for way in RUNNABLE if not (task.whole and way.offload in STREAMED)]
        own = ways.index(plan.placement.offload)
        for way in (*ways[own + 1 :], *ways[:own]):
            yield f"`--offload {way}`", task, replace(plan.placement, offload=way)
    halves = [task]
    if not task.two_passes and branches(preset.sampler, preset.backbone) > 1:
        halves.append(replace(task, two_passes=True))
        yield "`--two-passes`", halves[-1], plan.asked
    for share in SMALLER:
        width, height = (max(16, int(side * share) // 16 * 16) for side in preset.size_px)
        for half in halves:
            passes = " --two-passes" if half.two_passes and not task.two_passes else ""
            smaller = replace(half, preset=replace(preset, size_px=(width, height), auto_size=False))
            yield f"`--size {width}x{height}{passes}`", smaller, plan.asked
    frames = task.windows[-1].start + task.windows[-1].frames - task.windows[-1].held
    for name in BEST_FIRST[(BEST_FIRST.index(preset.name) + 1 if preset.name in BEST_FIRST else 0) :]:
        named = task_of(load_preset(name), folder, frames, pose_frames=task.pose_frames)
        other = replace(named, two_passes=task.two_passes, whole=task.whole, skips=task.skips)
        published = all(not source.missing or source.stored_bytes for source in other.sources.values())
        if published or name == "mini":
            yield f"`--preset {name}`", other, plan.asked


def shortage_text(plan: Plan) -> str:
    """What there is too little of."""
    words = {
        "card": "of the card's memory",
        "further card": "of a further card's memory",
        "ram": "of RAM",
        "disk": "of disk for the weights",
        "scratch": "of the cache's disk to stream weights from",
    }
    return " and ".join(
        f"it needs {memory_text(lack.needed)} {words[lack.what]}, and {memory_text(lack.free)} are free"
        for lack in plan.shortages
    )


def memory_text(size_bytes: int) -> str:
    """17.3 GiB, as memory is sold."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 / 10 else f"{size_bytes / 2**20:.0f} MiB"


def fetch_text(plan: Plan) -> str:
    """What of the weights is yet to be fetched."""
    if not any(source.missing for source in plan.task.sources.values()):
        return "all here"
    unknown = f", and {', '.join(plan.unknown)} of unknown size" if plan.unknown else ""
    return f"{plan.download_bytes / 1e9:.1f} GB to fetch{unknown}"


def time_text(plan: Plan) -> str:
    """About how long a run takes, and how that is known."""
    seconds = plan.expected_s
    about = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    known = {
        "measured": "by earlier runs",
        "another preset": "by runs of other presets",
        "guess": "a guess: nothing like it has run here yet",
    }
    return f"about {about} ({known[plan.time_source]})"


def place_text(plan: Plan) -> str:
    """Where the work is done, and how."""
    streamed = {
        "group": "the transformer block by block",
        "sequential": "the transformer layer by layer",
        "disk": "the transformer block by block from files",
    }
    offload, cards, quantize = plan.placement.offload, plan.placement.cards, plan.placement.quantize
    if plan.machine.card is None:
        place = "cpu" + (f", {streamed[offload]}" if offload in streamed else "")
    elif cards:
        place = f"{plan.machine.card}, the transformer's layers over cards {', '.join(map(str, cards))}"
    else:
        ways = {"none": "everything on the card", "model": "one network at a time on the card", **streamed}
        place = f"{plan.machine.card}, {ways[offload]}"
    place += "" if quantize == "none" else f", matrices in {quantize}"
    groups, sharing = plan.task.ranks
    split = [f"{groups} branches of guidance apart"] * (groups > 1) + [f"patches cut in {sharing}"] * (sharing > 1)
    return f"{place} in {groups * sharing} processes, {' and '.join(split)}" if split else place


def peak_text(plan: Plan) -> str:
    """The most memory."""
    card = f"{memory_text(plan.card_peak)} of the card and " if plan.machine.card else ""
    if plan.further_cards:
        each = ", ".join(memory_text(peak) for peak in (plan.card_peak, *plan.further_cards))
        card = f"{each} of the cards and "
    return f"at most {card}{memory_text(plan.ram_peak)} of RAM"


def best_fitting(
    folder: Path | None,
    machine: Machine,
    cache: Path,
    quantize: Quantize = "none",
    *,
    offload: Wanted = "auto",
    two_passes: bool = False,
    whole: bool = False,
    skips: bool = False,
    ranks: int = 1,
) -> Preset | None:
    """The best preset of the package whose weights are there and that fits, `mini` aside; None where there is none.

    Args:
        folder: of the user's own weights.
        machine: what there is.
        cache: the program's cache.
        quantize: how matrices would be stored.
        offload: what would stay on the card.
        two_passes: whether the branches of guidance would run one after the other.
        whole: whether the transformer would have to be whole in memory.
        skips: whether blocks might be skipped.
        ranks: processes that would work together.
    """
    rates, placement = rates_of(machine, cache), placement_of(offload, quantize, len(machine.cards))
    for name in BEST_FIRST[:-1]:
        preset = load_preset(name)
        if any(part.missing for part in locate(preset, folder).values()):
            continue
        alone = task_of(preset, folder, preset.frames, two_passes=two_passes, whole=whole, skips=skips)
        try:
            task = shared_out(alone, machine, rates, ranks)
        except MtvcraftError:  # another one may be cut evenly
            continue
        if not make_plan(task, machine, rates, placement, quantize).shortages:
            return preset
    return None
