"""What a run would take, before anything is loaded: where every part lives, memory, work and time.

Pure functions of a preset's numbers and of what a machine has: nothing is imported, opened or measured here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final, Literal

from mtvcraft_cli.device import sizes, stepping
from mtvcraft_cli.device.placement import (
    RUNNABLE,
    STREAMED,
    Placement,
    Quantize,
    card_bytes,
    is_roomy,
    ram_bytes,
    smaller,
    stored_bytes,
    unpacking_bytes,
)
from mtvcraft_cli.device.rates import Kind, Rates
from mtvcraft_cli.device.sizes import Count, Sizes
from mtvcraft_cli.device.split import shares_of
from mtvcraft_cli.device.vae_large import large_decode, large_encode
from mtvcraft_cli.device.vae_small import small_decode, small_encode
from mtvcraft_cli.preset import Preset, Sampler
from mtvcraft_cli.windows import SHORTEST, Window

PROGRAM_BYTES: Final = 530_000_000
"""What Python and the libraries take of RAM themselves; measured, docs/performance.md says how."""
POSE_BYTES: Final = 210_000_000
"""What MediaPipe adds; measured likewise."""
GAPS_BYTES: Final = 50_000_000
"""What glibc leaves between tensors under 32 MiB on a CPU; measured, and different from run to run."""
CONTEXT_BYTES: Final = 600 * 2**20
"""What CUDA itself takes of a card: an assumption, since none was at hand."""
SLACK: Final = 1.05
"""A card's allocator leaves gaps: an assumption, too."""
PROMPT: Final = 128
"""Tokens of a long prompt, whose encoding is planned for."""
COUNTS: Final[dict[str, dict[str, Callable[[Sizes], Count]]]] = {
    "cogvideox": {"transformer": sizes.small_transformer, "vae": sizes.small_vae},
    "wan": {
        "transformer": sizes.large_transformer,
        "vae": sizes.large_vae,
        "text_encoder": sizes.text_encoder,
        "picture_encoder": sizes.picture_encoder,
    },
}
"""By backbone how the numbers of each network are counted; the tokenizer is in both."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a part come from."""

    stored_bytes: int | None
    """Size of the files, here or where they are fetched from; None where it isn't known."""
    missing: bool
    """Whether they are yet to be fetched."""
    seeded: bool
    """Whether they are drawn from a seed."""
    licence: str
    sizes: Sizes = field(default_factory=dict)
    """What a `config.json` beside them says; goes before the preset."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be made, and with what."""

    preset: Preset
    windows: tuple[Window, ...]
    sources: Mapping[str, Source]
    two_passes: bool = False
    pose_frames: int = 0
    """Frames of a video in which a person is to be found; 0 where the joints are known."""
    texts: int = 2
    """Texts that are not kept from an earlier run, at most; those of a preset without words count for nothing."""
    whole: bool = False
    """Whether the transformer has to be whole in memory, so that its weights may not be streamed."""
    skips: bool = False
    """Whether blocks may be skipped, for which what they added is kept from step to step."""
    ranks: tuple[int, int] = (1, 1)
    """Processes that work together: over how many groups of them the branches of guidance are spread, and how many
    share the patches in each."""

    @property
    def latent_frames(self) -> int:
        """Latent frames F of a window."""
        return self.windows[0].latent_frames


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to work with, in bytes."""

    card: str | None
    """The graphics card's name; None for work on the CPU."""
    card_free: int | None
    ram_free: int | None
    """None where the system doesn't tell; then nothing is said to be too much."""
    disk_free: int | None = None
    """Where weights would be fetched to."""
    scratch_free: int | None = None
    """In the cache, from where weights would be streamed."""
    cards_free: tuple[int, ...] = ()
    """Of each card, the first included, where several were named."""
    cards: tuple[int, ...] = ()
    """Their numbers."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run: who is on the device, and the most memory that it takes."""

    name: str
    on_device: tuple[str, ...]
    """Parts whose weights lie where the work is done."""
    card: int
    """Bytes of the card; 0 on a CPU."""
    ram: int
    """Bytes of RAM, without pages of files that the system can take back."""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """What there is too little of."""

    what: Literal["card", "further card", "ram", "disk", "scratch"]
    needed: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would take."""

    task: Task
    machine: Machine
    placement: Placement
    stages: tuple[Stage, ...]
    parameters: Mapping[str, int]
    """Numbers of each network that is loaded."""
    visual_tokens: int
    """Of one window."""
    motion_tokens: int
    """Of one window."""
    branches: int
    """Forwards of the transformer in a guided step."""
    work: Mapping[Kind, float]
    """Floating-point operations by kind, and frames or bytes where a rate counts those."""
    seconds: Mapping[Kind, float]
    time_source: Literal["measured", "another preset", "guess"]
    """How the speed of what takes most of the time is known."""
    asked: Placement | None = None
    """The placement that was asked for; None where the plan has chosen."""
    shares: tuple[int, ...] = ()
    """Bytes of the transformer's weights on each card, where it is split over several."""
    further_cards: tuple[int, ...] = ()
    """The most bytes at once of each card behind the first."""
    scratch_bytes: int = 0
    """What is written to files to be streamed from there."""

    @property
    def card_peak(self) -> int:
        """The most bytes of the card at once, without what CUDA takes itself."""
        return max(stage.card for stage in self.stages)

    @property
    def ram_peak(self) -> int:
        """The most bytes of RAM at once."""
        return max(stage.ram for stage in self.stages)

    @property
    def operations(self) -> float:
        """Floating-point operations in all."""
        return sum(self.work.get(kind, 0) for kind in ("denoise", "code", "encode"))

    @property
    def expected_s(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    @property
    def download_bytes(self) -> int:
        """What has to be fetched, as far as its size is known."""
        return sum(source.stored_bytes or 0 for source in self.task.sources.values() if source.missing)

    @property
    def unknown(self) -> list[str]:
        """Parts that have to be fetched and whose size isn't known."""
        return [part for part, source in self.task.sources.items() if source.missing and source.stored_bytes is None]

    @property
    def licences(self) -> list[str]:
        """Of all weights."""
        return sorted({source.licence for source in self.task.sources.values()})

    @property
    def shortages(self) -> list[Shortage]:
        """What there is too little of; none where the run fits."""
        machine = self.machine
        further = zip(self.further_cards, machine.cards_free[1:], strict=False)
        needs: list[tuple[Literal["card", "further card", "ram", "disk", "scratch"], int, int | None]] = [
            ("card", int(self.card_peak * SLACK), machine.card_free),
            *(("further card", int(peak * SLACK), free) for peak, free in further),
            ("ram", self.ram_peak, machine.ram_free),
            ("disk", self.download_bytes, machine.disk_free),
            ("scratch", self.scratch_bytes, machine.scratch_free),
        ]
        return [
            Shortage(what=what, needed=needed, free=free)
            for what, needed, free in needs
            if free is not None and needed > free
        ]

    def told(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "preset": self.task.preset.name,
            "size_px": list(self.task.preset.size_px),
            "windows": len(self.task.windows),
            "window_frames": self.task.windows[0].frames,
            "visual_tokens": self.visual_tokens,
            "motion_tokens": self.motion_tokens,
            "steps": self.task.preset.sampler.steps,
            "branches": self.branches,
            "two_passes": self.task.two_passes,
            "device": self.machine.card or "cpu",
            "offload": self.placement.offload,
            "quantize": self.placement.quantize,
            "cards": list(self.placement.cards),
            "ranks": list(self.task.ranks),
            "stages": [
                {"stage": stage.name, "on_device": stage.on_device, "card_bytes": stage.card, "ram_bytes": stage.ram}
                for stage in self.stages
            ],
            "parameters": dict(self.parameters),
            "card_peak_bytes": self.card_peak if self.machine.card else None,
            "further_cards_peak_bytes": list(self.further_cards),
            "ram_peak_bytes": self.ram_peak,
            "operations": self.operations,
            "expected_s": round(self.expected_s, 1),
            "expected_s_by_kind": {kind: round(seconds, 1) for kind, seconds in self.seconds.items()},
            "time_source": self.time_source,
            "download_bytes": self.download_bytes,
            "downloads_of_unknown_size": self.unknown,
            "licences": self.licences,
            "fits": not self.shortages,
            "shortages": [{"what": lack.what, "needed": lack.needed, "free": lack.free} for lack in self.shortages],
        }


def make_plan(
    task: Task, machine: Machine, rates: Rates, placement: Placement | None = None, quantize: Quantize = "none"
) -> Plan:
    """Plan a run in the fastest way that fits, or as it was asked for.

    Args:
        task: what is to be made.
        machine: what there is.
        rates: how fast it is.
        placement: None chooses among those that the program can run. Where none fits, the one that lacks least is
            given.
        quantize: how matrices are stored where `placement` is None; nothing is quantised unasked.
    """
    if placement is not None:
        return replace(_planned(task, machine, rates, placement), asked=placement)
    ways = list[Plan]()
    for way in runnable(task, machine, quantize):
        ways.append(_planned(task, machine, rates, way))
        if not ways[-1].shortages:
            return ways[-1]
    return min(ways, key=lambda plan: sum(lack.needed - lack.free for lack in plan.shortages))


def runnable(task: Task, machine: Machine, quantize: Quantize = "none") -> tuple[Placement, ...]:
    """What a plan chooses among, the fastest first."""
    ways = RUNNABLE
    if not machine.card:
        ways = RUNNABLE[:1]
    elif machine.cards:
        ways = (*RUNNABLE[:1], Placement(cards=machine.cards))
    elif task.whole or task.ranks != (1, 1):
        ways = RUNNABLE[:2]
    return tuple(replace(way, quantize=quantize) for way in ways)


def next_smaller(plan: Plan, placement: Placement) -> Placement | None:
    """What to go on with where memory was too small in spite of a plan.

    Args:
        plan: of the run.
        placement: in which memory was too small.

    Returns:
        The next placement that takes less of the card, and no more RAM than there is; None where there is none.
    """
    if placement.cards or plan.task.ranks != (1, 1):
        return None
    for way in smaller(placement.offload):
        if plan.task.whole and way in STREAMED:
            continue
        found = replace(placement, offload=way)
        run = _Run(plan.task, plan.machine, found)
        less = replace(plan, placement=found, stages=tuple(run.stages()))
        if all(lack.what != "ram" for lack in less.shortages):
            return found
    return None


def branches(sampler: Sampler, backbone: str) -> int:
    """Forwards of a guided step: what doesn't pull isn't run, and what pulls alike is run together."""
    motion, text = sampler.motion_guidance, sampler.text_guidance
    if backbone == "cogvideox" or text == 1:
        return 1 if motion == 1 else 2
    return 2 if motion in (1, text) else 3


def guided_steps(sampler: Sampler) -> int:
    """Steps in which guidance is on."""
    start, end = sampler.guidance_range
    return sum(start <= step / sampler.steps < end for step in range(sampler.steps))


def _remembered(sampler: Sampler, branches: int, *, two_passes: bool) -> int:
    """Forwards of single branches whose blocks' outputs are kept at once: those of a guided step, as a batch or not.

    The one of an unguided step is kept apart from a batch, while of single passes it is the last.
    """
    guided = guided_steps(sampler)
    apart = branches > 1 and not two_passes and guided < sampler.steps
    return branches + apart if guided else 1


def known_as(preset: Preset, quantize: Quantize) -> str:
    """The name under which speeds of a preset are kept: quantised it has others."""
    return preset.name if quantize == "none" else f"{preset.name}, {quantize}"


def counts_of(preset: Preset, sources: Mapping[str, Source]) -> dict[str, Count]:
    """The numbers of each network that is loaded."""
    told: dict[str, Mapping[str, Any]] = {
        "transformer": preset.transformer,
        "vae": preset.vae,
        "text_encoder": preset.text_encoder,
        "picture_encoder": preset.picture_encoder,
    }
    found = {"tokenizer": sizes.tokenizer(preset.tokenizer)}
    for part, count in COUNTS[preset.backbone].items():
        if part in sources:
            source, known = sources[part], {**told[part], **sources[part].sizes}
            found[part] = count(known)
            if not known and not source.missing and source.stored_bytes and source.stored_bytes < found[part].all:
                found[part] = Count(source.stored_bytes // 2)  # a smaller one, whose sizes only its tensors tell
    return found


def _planned(task: Task, machine: Machine, rates: Rates, placement: Placement) -> Plan:
    preset, sampler = task.preset, task.preset.sampler
    run = _Run(task, machine, placement)
    stages = tuple(run.stages())
    each = branches(sampler, preset.backbone)
    guided = guided_steps(sampler)
    steps = guided * each + (sampler.steps - guided)
    counted: dict[Kind, int] = {
        "load": sum(task.sources[part].stored_bytes or count.bytes(run.wide) for part, count in run.counts.items()),
        "pose": task.pose_frames,
        "encode": run.encode_work(),
        "denoise": len(task.windows) * steps * run.step.branch_work // prod(task.ranks),
        "code": run.code_work(),
    }
    if machine.card and placement.offload in STREAMED:
        forwards = steps if task.two_passes else sampler.steps
        read = run.stored("transformer")
        counted["move"] = len(task.windows) * forwards * read
        counted["stream"] = counted["move"] if placement.offload == "disk" else 0
    work = {kind: float(amount) for kind, amount in counted.items()}
    speeds = {kind: rates.of(kind, known_as(preset, placement.quantize)) for kind in work}
    seconds = {kind: work[kind] / speeds[kind].per_s for kind in work}
    longest = [speeds[kind].source for kind in work if seconds[kind] > 0.2 * sum(seconds.values())]
    return Plan(
        task=task,
        machine=machine,
        placement=placement,
        stages=stages,
        parameters={part: count.all for part, count in run.counts.items()},
        visual_tokens=run.step.visual_tokens,
        motion_tokens=run.step.motion_tokens,
        branches=each,
        work=work,
        seconds=seconds,
        time_source=max(longest, key=("measured", "another preset", "guess").index),
        shares=run.shares,
        further_cards=tuple(share + run.spare + run.step.peak_bytes for share in run.shares[1:]),
        scratch_bytes=run.stored("transformer") if placement.offload == "disk" else 0,
    )


class _Run:
    """Walks through the stages of a run."""

    def __init__(self, task: Task, machine: Machine, placement: Placement) -> None:
        preset, on_cpu = task.preset, machine.card is None
        self.task, self.preset, self.on_cpu, self.placement = task, preset, on_cpu, placement
        self.wide = 2 if preset.precision == "bfloat16" and not on_cpu else 4
        self.counts = counts_of(preset, task.sources)
        groups, sharing = task.ranks
        batch = 1 if task.two_passes else max(1, branches(preset.sampler, preset.backbone) // groups)
        told = {**preset.transformer, **self._told("transformer")}
        vae = {**preset.vae, **self._told("vae")}
        frames, size, wide = task.latent_frames, preset.size_px, self.wide
        window = task.windows[0].frames
        self.small = preset.backbone == "cogvideox"
        make = stepping.small_step if self.small else stepping.large_step
        encode = small_encode if self.small else large_encode
        decode = small_decode if self.small else large_decode
        whole = make(told, frames, sizes.latent_size(vae, size), batch, wide)
        self.step = replace(whole, peak_bytes=whole.peak_bytes // sharing)
        each = branches(preset.sampler, preset.backbone)
        roomy = is_roomy(placement, task.ranks)
        self.kept = stepping.kept_keys(told, frames, each, wide, small=self.small) if roomy else 0
        if task.skips:
            remembered = _remembered(preset.sampler, each, two_passes=task.two_passes)
            self.kept += stepping.kept_outputs(told, whole.visual_tokens, remembered, wide, small=self.small)
        self.seen = encode(vae, window, size, wide, on_cpu=on_cpu)
        carried = task.windows[-1].carried
        self.tail = encode(vae, carried, size, wide, on_cpu=on_cpu) if carried and self.small else None
        self.decoded = decode(vae, frames, size, wide, on_cpu=on_cpu)
        self.look_work = 0
        if preset.reference_kept:
            still = encode(vae, SHORTEST, size, wide, on_cpu=on_cpu).work
            self.look_work = still + decode(vae, (SHORTEST + 3) // 4, size, wide, on_cpu=on_cpu).work
        transformer = self.counts["transformer"]
        self.spare = transformer.block * wide if placement.cards else 0  # blocks don't end where shares do
        self.shares = self._split(machine) if placement.cards else ()

    def _split(self, machine: Machine) -> tuple[int, ...]:
        """Bytes of the transformer's weights on each card: as much of the whole as the card has of what is free."""
        first = [peak + (0 if part == "transformer" else self.on_card(part)) for _, part, peak in self._walk()]
        beside = [max(first), *[self.step.peak_bytes] * (len(machine.cards_free) - 1)]
        free = [int(free / SLACK) - self.spare - taken for free, taken in zip(machine.cards_free, beside, strict=True)]
        return shares_of(self.counts["transformer"].bytes(self.wide), free)

    def _told(self, part: str) -> Sizes:
        source = self.task.sources.get(part)
        return source.sizes if source else {}

    def on_card(self, part: str) -> int:
        """What a part's weights take where it works, on the first card if there are several."""
        if part == "transformer" and self.placement.cards:
            return self.shares[0] + self.spare
        return card_bytes(self.counts[part], self.wide, self.placement)

    def stored(self, part: str) -> int:
        """What a whole part's weights take."""
        return stored_bytes(self.counts[part], self.wide, self.placement.quantize)

    def _unpacking(self, part: str, step: int) -> int:
        return unpacking_bytes(self.counts[part], self.wide, self.placement.quantize, step)

    def drawn(self, part: str) -> int:
        """What of a part's weights is in RAM once it is loaded, beside what the system can take back."""
        source, count = self.task.sources[part], self.counts[part]
        own = count.bytes(self.wide) if part == "transformer" and self.preset.loras else 0  # what LoRAs are merged into
        if self.placement.quantize != "none" and count.linear:  # packed here, from files that are only mapped
            return max(count.bytes(4) if source.seeded else own, self.stored(part))
        mapped = source.stored_bytes is not None and source.stored_bytes < 1.3 * count.bytes(self.wide)
        drawn = 0 if mapped and not source.seeded else count.bytes(self.wide)
        if part == "transformer" and self.small and mapped:  # halves of its modulation are cut off, and copied for that
            drawn = self.wide * sizes.small_unused({**self.preset.transformer, **source.sizes}, text=0)
        return max(drawn, own)

    def at_rest(self, part: str) -> int:
        """What a part's weights take in RAM, on a machine with a card, beside what the system can take back."""
        placement = self.placement
        if placement.cards and part != "transformer":  # the others come to the first card and go again
            placement = replace(placement, offload="model")
        return max(self.drawn(part), ram_bytes(self.counts[part], self.wide, placement))

    def stages(self) -> Iterator[Stage]:
        """Each stage with what it takes."""
        task, frames = self.task, self.task.latent_frames
        ours = [part for part in self.counts if part != "text_encoder"]
        base = PROGRAM_BYTES + POSE_BYTES * (task.pose_frames > 0) + GAPS_BYTES * self.on_cpu
        if "text_encoder" in self.counts and task.texts:
            text = stepping.encode_text({**self.preset.text_encoder, **self._told("text_encoder")}, PROMPT, self.wide)
            peak = text.peak_bytes + self._unpacking("text_encoder", text.peak_bytes)
            yield self._stage("read the prompt", ("text_encoder",), ("tokenizer",), peak, base)
        tokens = stepping.tokenise(self.preset.tokenizer, len(task.windows), frames)
        yield self._stage(
            "tokenize", ("tokenizer",), [part for part in ours if part != "tokenizer"], tokens.peak_bytes, base
        )
        there: list[str] = []
        for name, part, peak in self._walk():
            if self.placement.cards:
                there = list(dict.fromkeys([part, "transformer"]))
            elif self.placement.offload != "none" and not self.on_cpu:
                there = [part]
            else:
                there = list(dict.fromkeys([*there, part]))
            yield self._stage(name, tuple(there), [part for part in ours if part not in there], peak, base)

    def _walk(self) -> Iterator[tuple[str, str, int]]:
        """Who works when on a window, and what it takes beside the weights."""
        if not self.small:
            seen = stepping.encode_picture({**self.preset.picture_encoder, **self._told("picture_encoder")})
            yield "look at the picture", "picture_encoder", seen.peak_bytes
        yield "encode the picture", "vae", self.seen.peak_bytes
        step = self.step.peak_bytes
        yield "denoise", "transformer", step + self._unpacking("transformer", step) + self.kept
        yield "decode", "vae", self.decoded.peak_bytes

    def _stage(self, name: str, there: tuple[str, ...], rest: Any, peak: int, base: int) -> Stage:
        if self.on_cpu:
            weights = sum(stored_bytes(self.counts[part], 4, self.placement.quantize) for part in (*there, *rest))
            return Stage(name=name, on_device=there, card=0, ram=base + weights + peak)
        card = sum(self.on_card(part) for part in there) + peak
        back = there[0] in ("text_encoder", "tokenizer")  # these two always come back to RAM
        if there[0] == "text_encoder" and self.placement.offload in STREAMED:
            held = self.drawn("text_encoder")  # whose blocks stay as they were read, and are never pinned
            if self.placement.offload != "sequential":
                held += self.wide * (self.counts["text_encoder"].all - self.counts["text_encoder"].blocks)
        else:
            held = self.stored(there[0]) if back else sum(self.at_rest(part) for part in there)
        ram = base + held + sum(self.at_rest(part) for part in rest)
        return Stage(name=name, on_device=there, card=card, ram=ram)

    def encode_work(self) -> int:
        """Operations of tokenizer, text and picture encoder."""
        task, windows = self.task, len(self.task.windows)
        work = stepping.tokenise(self.preset.tokenizer, windows, task.latent_frames).work
        if "text_encoder" in self.counts:
            told = {**self.preset.text_encoder, **self._told("text_encoder")}
            work += task.texts * stepping.encode_text(told, PROMPT, self.wide).work
        if "picture_encoder" in self.counts:
            looks = windows if self.preset.clip_from == "previous" else 1
            told = {**self.preset.picture_encoder, **self._told("picture_encoder")}
            work += looks * stepping.encode_picture(told).work
        return work

    def code_work(self) -> int:
        """Operations of the VAE: the small model encodes its picture once and then the windows' last frames."""
        windows = len(self.task.windows)
        into = self.look_work + self.seen.work * (1 if self.small else windows)
        into += self.tail.work * (windows - 1) if self.tail else 0
        return into + windows * self.decoded.work
