"""Trains the paper's ablations side by side and measures them: whatever they can share is made once."""

import difflib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from accelerate.state import AcceleratorState
from filelock import FileLock, Timeout

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.preset import ABLATIONS, load_preset
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.train.ablation_table import PAPER, write_results
from mtvcraft_cli.train.measured import measure
from mtvcraft_cli.train.outcome import save_weights
from mtvcraft_cli.train.run import LOG
from mtvcraft_cli.train.settings import Recipe, load_recipe, preset_settings
from mtvcraft_cli.train.stages import Kind, prepare_latents, train_stage
from mtvcraft_cli.train.world.motions import load_motions
from mtvcraft_cli.weights.read import read_tensors

VARIANTS: Final = tuple(PAPER)
MOTION: Final = re.compile(r"\.attn0\.|^unconditional_motion_token$|^motion_position_")
"""Tensors that know of motion tokens or of their positions."""
T = TypeVar("T")
Score = dict[str, Any]
"""`variant`, `seed`, the totals of bench mini, and `splits` with the same per split."""


class TimeUp(Exception):  # noqa: N818 - nothing went wrong
    """The time that was given is over; what is done is kept."""


def ablate(
    folder: Path,
    *,
    variants: Sequence[str] = VARIANTS,
    seeds: int | None = None,
    recipe: str = "ablation",
    motion: Path | None = None,
    limit_s: float | None = None,
    changes: Mapping[str, Any] | None = None,
    watch: Watch = silent,
) -> Iterator[Score]:
    """Train and measure variants; what is done already is left alone, and `table.md` is written anew after each run.

    Several processes may work on one folder: each takes the next run that nobody else is at.

    Args:
        folder: gets `vae/`, a `tokenizer-VARIANT/` for each way of making tokens, `base/`, `clips/`,
            `runs/VARIANT-SEED/`, and `results.jsonl`, `results.json` and `table.md`.
        variants: presets under `ablations/`.
        seeds: runs of each; None does as the recipe says.
        recipe: how everything is trained; each variant is its `preset`, changed as the variant's own differs from
            `ablations/default`.
        motion: folder of the recipe's motion sets; None trains and measures on dances of our own alone.
        limit_s: seconds after which to stop; the same call goes on.
        changes: values by dotted name that replace the recipe's.
        watch: counts steps and clips.

    Yields:
        The score of each run, those of earlier calls too, in the order in which they are done.

    Raises:
        MtvcraftError: an unknown variant, a recipe that can't be read, or a folder that was made by another recipe.
        KeyboardInterrupt: training was stopped by a signal; what is done is kept.
    """
    _check(variants)
    named = load_recipe(recipe, changes)
    if motion is None:
        named = named.danced()
    until = None if limit_s is None else time.monotonic() + limit_s
    bench = _Bench(folder=folder, recipe=named.in_folder(motion or Path()), until=until, watch=watch)
    bench.claim(named)
    try:
        yield from bench.runs(variants, seeds)
    except TimeUp:
        return


def variant_of(base: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Change a preset as the ablation `name` differs from the default; so a model of any size can be taken apart."""
    default, own = (preset_settings(f"{ABLATIONS.name}/{each}") for each in (VARIANTS[0], name))
    changed = dict(base)
    for key, value in own.items():
        usual = default.get(key)
        if value != usual and isinstance(usual, Mapping):
            changed[key] = {**base[key], **{part: each for part, each in value.items() if each != usual.get(part)}}
        elif value != usual:
            changed[key] = value
    return changed


def alike(name: str) -> str:
    """The first variant whose tokens are made as this one's, and so by the same tokenizer."""

    def tokens(variant: str) -> tuple[Any, ...]:
        told = preset_settings(f"{ABLATIONS.name}/{variant}")
        return told["tokenizer"], told["differential"], told.get("joint_axes", "xyz")

    return next(first for first in VARIANTS if tokens(first) == tokens(name))


def _check(variants: Sequence[str]) -> None:
    known = f"there are {', '.join(VARIANTS)}"
    if not variants:
        raise MtvcraftError("no variant is named", hint=known, exit=Exit.USAGE)
    for name in variants:
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
            raise MtvcraftError(f"no variant `{name}`", hint=f"did you mean `{near}`? {known}", exit=Exit.USAGE)


def planned(variants: Sequence[str], recipe: Recipe, seeds: int | None) -> list[tuple[str, int]]:
    """Variant and seed of every run, one of each variant before the second of any."""
    how = recipe.ablation
    count = {name: seeds or (how.seeds if name in how.repeated else 1) for name in variants}
    return [(name, seed) for seed in range(max(count.values())) for name in variants if seed < count[name]]


@dataclass(frozen=True, kw_only=True)
class _Bench:
    folder: Path
    recipe: Recipe
    until: float | None
    watch: Watch

    def claim(self, named: Recipe) -> None:
        """Note what the folder is made by, or refuse one that was made otherwise.

        Args:
            named: the recipe with the bare names of its motion sets, wherever they lie.
        """
        parts = [asdict(part) if part else None for part in (named.tokenizer, named.vae, named.dit)]
        presets = [variant_of(named.preset, name) for name in VARIANTS]
        ablation = (named.ablation.clips, named.ablation.base)
        told = json.dumps([parts, presets, asdict(named.data), *ablation], sort_keys=True)
        made_from = hashlib.sha256(told.encode()).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "made_from.txt"
        if note.is_file() and note.read_text(encoding="utf-8").strip() != made_from:
            raise MtvcraftError(
                f"the ablations in `{self.folder}` were made by another recipe, other presets or without `--motion`",
                hint="name another folder, or remove this one",
                exit=Exit.USAGE,
            )
        write_text_whole(note, made_from + "\n")

    def runs(self, variants: Sequence[str], seeds: int | None) -> Iterator[Score]:
        """Do what is left to do; runs that another process is at come last, when it has done them or given up."""
        waiting: list[tuple[str, int]] = []
        for variant, seed in planned(variants, self.recipe, seeds):
            try:
                score = self.run(variant, seed, wait_s=0.0)
            except Timeout:
                waiting.append((variant, seed))
            else:
                yield score
        for variant, seed in waiting:
            try:
                score = self.run(variant, seed, wait_s=-1.0 if self.until is None else self._left_s() or 0.0)
            except Timeout as late:
                raise TimeUp from late
            yield score

    def run(self, variant: str, seed: int, wait_s: float) -> Score:
        """Train and measure one variant, unless that is done.

        Raises:
            Timeout: another process is at it.
        """
        folder = self.folder / "runs" / f"{variant}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / "score.json"
        with FileLock(folder / ".lock", timeout=wait_s):
            if not note.is_file():
                write_text_whole(note, json.dumps(self._trained_and_measured(variant, seed, folder), indent=1) + "\n")
                shutil.rmtree(folder / "checkpoints")
            score: Score = json.loads(note.read_text(encoding="utf-8"))
        self._write_results()
        return score

    def _trained_and_measured(self, variant: str, seed: int, folder: Path) -> Score:
        recipe = replace(self.recipe, preset=variant_of(self.recipe.preset, variant))
        parts = self._parts(recipe, alike(variant))
        title = f"{variant}, seed {seed}"
        with FileLock(self.folder / "clips.lock"):
            prepare_latents(recipe, self.folder / "clips", parts, watch=self._within(title))
        assert recipe.dit is not None  # or there would be no clips
        base = self._base() if recipe.ablation.base else recipe.dit.base
        loop = replace(recipe.dit.loop, seed=seed)
        self._train("dit", replace(recipe, dit=replace(recipe.dit, loop=loop, base=base)), folder, title, parts)
        held_out = recipe.dit.world.held_out
        motions = None if held_out is None else load_motions(Path(held_out))
        report = measure(load_preset(str(folder)), recipe.ablation.clips, motions, _titled(self.watch, title))
        return {"variant": variant, "seed": seed, **report.totals, "splits": report.splits}

    def _parts(self, recipe: Recipe, tokens_of: str) -> dict[str, Path]:
        """The networks that a transformer is trained with."""
        tokenizer = self._shared("tokenizer", f"tokenizer-{tokens_of}", recipe)
        return {"vae": self._shared("vae", "vae", recipe), "tokenizer": tokenizer}

    def _base(self) -> str:
        """Train the video model that all runs start from; only what has nothing to do with motion is taken from it."""
        dit = self.recipe.dit
        assert dit is not None
        loop = replace(dit.loop, phases=self.recipe.ablation.base)
        recipe = replace(self.recipe, dit=replace(dit, loop=loop, drop_motion=1.0))
        folder = self._shared("dit", "base", recipe, self._parts(self.recipe, VARIANTS[0]))
        with FileLock(folder / ".lock"):
            if not (weights := folder / "video.safetensors").is_file():
                tensors = read_tensors(folder / "transformer.safetensors")
                save_weights(weights, {name: tensor for name, tensor in tensors.items() if not MOTION.search(name)})
        return str(weights)

    def _shared(self, kind: Kind, name: str, recipe: Recipe, parts: Mapping[str, Path] | None = None) -> Path:
        """Train a network that several variants share, unless that is done."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        note = folder / "report.json"
        with FileLock(folder / ".lock"):
            if not note.is_file():
                self._train(kind, recipe, folder, name, parts)
                lines = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
                last: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "report"), {})
                write_text_whole(note, json.dumps(last, indent=1) + "\n")
                shutil.rmtree(folder / "checkpoints")
        return folder

    def _train(
        self, kind: Kind, recipe: Recipe, folder: Path, title: str, parts: Mapping[str, Path] | None = None
    ) -> None:
        """Train to the end, or raise."""
        left_s = self._left_s()
        AcceleratorState._reset_state(reset_partial_state=True)  # another network may want another precision
        clips, watch = self.folder / "clips", _titled(self.watch, title)
        done = train_stage(kind, recipe, folder, parts=parts, clips=clips, limit_s=left_s, watch=watch)
        if done.stopped_by is not None:
            raise KeyboardInterrupt
        if not done.finished:
            raise TimeUp

    def _left_s(self) -> float | None:
        """Seconds that are left, or None where there is no limit."""
        if self.until is None:
            return None
        if (left_s := self.until - time.monotonic()) <= 0:
            raise TimeUp
        return left_s

    def _within(self, title: str) -> Watch:
        """A titled watch that ends a loop when the time is up."""
        named = _titled(self.watch, title)

        def watch(items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
            for item in named(items, stage, total):
                yield item
                self._left_s()

        return watch

    def _write_results(self) -> None:
        notes = {note.parent.name: note for note in (self.folder / "runs").glob("*/score.json")}
        wanted = [f"{name}-{seed}" for name in VARIANTS for seed in range(len(notes) + 1)]
        scores = [json.loads(notes[name].read_text(encoding="utf-8")) for name in wanted if name in notes]
        networks = {
            note.parent.name: json.loads(note.read_text(encoding="utf-8"))
            for note in sorted(self.folder.glob("*/report.json"))
        }
        write_results(self.folder, scores, {"clips_per_split": self.recipe.ablation.clips, "networks": networks})


def _titled(watch: Watch, title: str) -> Watch:
    def titled(items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        return watch(items, f"{title}: {stage}", total)

    return titled
