"""Trains 4DMoT, the motion tokenizer (paper, stage 2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mtvcraft_cli.joints.skeleton import PARTS
from mtvcraft_cli.preset import JointAxes, Statistics
from mtvcraft_cli.tokens.normalise import normalise, seen
from mtvcraft_cli.tokens.tokenise import tokenise
from mtvcraft_cli.tokens.tokenizer import CODES, MotionTokenizer, tokenizer_from_tensors
from mtvcraft_cli.train.codebook import MovingCodebook, SeededDraws
from mtvcraft_cli.train.motion import MotionSet, draw_seen, gather, read_motion, seen_by_camera
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.parts import trained_before
from mtvcraft_cli.train.run import check_whole, samples_rng
from mtvcraft_cli.train.settings import TokenizerTraining, check_lengths
from mtvcraft_cli.weights.read import read_tensors
from mtvcraft_cli.windows import plan_windows

REPORTED_CLIPS = 200
REPORT_SEED = 20
SPLIT_SEED = 21
APART = 0.01
"""How far a split code's parts lie from where it was, in spreads of the codebook."""
CODEBOOK = "vq.codebook"
FOLDED = 4
"""Frames of a token."""
NEAR = 0.25
"""Mean square of a short way, in spreads: errors of shorter ones count no more."""


class TokenizerObjective(nn.Module):
    """Joints to the loss: the round trip's L1 distance, and how far latents lie from their codes.

    The codes themselves have no gradient; they are moved after each step, by what this left in `given`.
    """

    def __init__(
        self,
        tokenizer: MotionTokenizer,
        moving: MovingCodebook | None,
        commitment: float,
        seed: int,
        legible: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokenizer, self.moving = tokenizer, moving
        self.commitment, self.seed, self.legible = commitment, seed, legible
        self.read = nn.Linear(tokenizer.width, 3 * FOLDED) if legible else None
        self.given: list[tuple[Tensor, Tensor]] = []
        """Latents (n, d) and their codes (n), part for part of a step."""
        self.decoded: Tensor | None = None
        self.accelerator: Accelerator | None = None

    def forward(self, joints: Tensor) -> dict[str, Tensor]:
        """(W, N, J, 3) normalised joints to scalars; N = 4n + 1."""
        latents = self.tokenizer.encode(joints)
        loss_commit = latents.new_zeros(())
        if self.tokenizer.vq is not None:
            rows = latents.detach().flatten(0, 2)
            if self.moving is not None and not self.moving.started:
                all_rows = rows if self.accelerator is None else self.accelerator.gather(rows)
                self.moving.start(self.tokenizer.vq.codebook, all_rows, SeededDraws(self.seed, 0))
            codes = self.tokenizer.quantise(latents.detach())
            found = self.tokenizer.look_up(codes)
            loss_commit = (latents - found).square().mean()
            latents = latents + (found - latents).detach()
            if self.moving is not None:
                self.given.append((rows, codes.flatten()))
        self.decoded = self.tokenizer.decode(latents)
        l1 = (self.decoded - joints).abs().mean()
        values = {"loss": l1 + self.commitment * loss_commit, "l1": l1, "commit": loss_commit}
        if self.read is not None:
            values["misread"] = misread(self.read(latents), folded(joints))
            values["loss"] = values["loss"] + self.legible * values["misread"]
        return values


def split_codes(book: Tensor, codes: int) -> Tensor:
    """Make `codes` codes of (k, d) ones, k a divisor of `codes`: each becomes several that lie close together.

    Trained further they part (Linde, Buzo and Gray 1980), and tell more finely what one of them told.
    """
    noise = SeededDraws(SPLIT_SEED).noise(codes, book.shape[1])
    return book.repeat_interleave(codes // len(book), dim=0) + APART * book.std() * noise.to(book.device)


def misread(said: Tensor, meant: Tensor) -> Tensor:
    """How wrong (..., k) is on average, from 0; 1 is what saying nothing comes to of joints that went far.

    Errors are taken in relation to the way that a joint went: codes aren't enough to tell long ways to the millimetre.
    """
    wrong, way = (said - meant).square().mean(-1), meant.square().mean(-1)
    return (wrong / (way + NEAR)).mean()


def folded(joints: Tensor) -> Tensor:
    """(W, N, J, 3) to (W, F, J, 3 * FOLDED): what a joint does in the frames of each of its tokens.

    N = 4n + 1; the first token stands for one frame, which is repeated.
    """
    whole = torch.cat([joints[:, :1].expand(-1, FOLDED - 1, -1, -1), joints], dim=1)
    return whole.unflatten(1, (-1, FOLDED)).transpose(2, 3).flatten(-2)


class TokenizerStage:
    """Everything about training a tokenizer but the loop.

    Args:
        settings: how.
        preset: what it will be run with.
        stats: what joints are normalised with.
        motion: what to train on, and what to measure on; None reads what the settings name.
    """

    def __init__(
        self,
        settings: TokenizerTraining,
        preset: Mapping[str, Any],
        stats: Statistics,
        motion: tuple[MotionSet, MotionSet] | None = None,
    ) -> None:
        check_lengths(settings.motion.frames, "tokenizer.motion.frames")
        self.settings, self.stats = settings, stats
        self.kind, self.axes = preset.get("differential", "none"), preset.get("joint_axes", "xyz")
        self.frames, self.overlap = preset["frames"], preset["overlap"]
        self.outcome = Outcome(preset, stats)
        self.sizes = preset["tokenizer"]
        seed = settings.loop.seed
        self.motion, self.held = motion or read_sets(settings)
        torch.manual_seed(seed)
        tokenizer, split = self._tokenizer()
        moving = None
        if settings.decoder_only:
            tokenizer.encoder.requires_grad_(False)
        if tokenizer.codes is not None and (split or not settings.decoder_only):
            moving = MovingCodebook(
                tokenizer.codes, tokenizer.width, settings.decay, settings.reseed, settings.reseed_steps
            )
        legible = 0.0 if settings.decoder_only else settings.legible
        self.objective = TokenizerObjective(tokenizer, moving, settings.commitment, seed, legible)

    def _tokenizer(self) -> tuple[MotionTokenizer, bool]:
        """What is trained, and whether its codes are split ones of a base."""
        base = trained_before("tokenizer", self.settings.base, decoder_only=self.settings.decoder_only)
        if base is None:
            return MotionTokenizer(**self.sizes), False
        tensors = dict(read_tensors(base, within="module"))
        book, codes = tensors.get(CODEBOOK), self.sizes.get("codes", CODES)
        split = book is not None and codes is not None and codes > len(book) and codes % len(book) == 0
        if split:
            tensors[CODEBOOK] = split_codes(tensors[CODEBOOK].float(), codes)
        return tokenizer_from_tensors(self.sizes, tensors), split

    def join(self, accelerator: Accelerator) -> None:
        """Codes are moved by the latents of all processes."""
        check_whole(accelerator, "the tokenizer")
        self.objective.accelerator = accelerator

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Windows of one length and stride, each of another clip before another camera."""
        motion, seed = self.settings.motion, self.settings.loop.seed
        shared = samples_rng(seed, step)
        frames, stride = int(shared.choice(motion.frames)), int(shared.choice(motion.strides))
        windows = []
        for sample in samples:
            rng = samples_rng(seed, step, sample)
            seen_mm = draw_seen(self.motion, rng, frames, stride, motion.before)
            joints = normalise(torch.from_numpy(seen_mm), self.stats)
            joints = joints[1:] - {"none": 0.0, "window": joints[1], "reference": joints[0]}[self.kind]
            scale = float(rng.uniform(1 - motion.vary, 1 + motion.vary))
            shift = rng.uniform(-motion.vary, motion.vary, 3) if self.kind == "none" else np.zeros(3)
            windows.append(seen(scale * joints + torch.from_numpy(shift.astype(np.float32)), self.axes))
        return {"joints": torch.stack(windows)}

    def after(self, step: int) -> dict[str, float]:
        """Move the codes."""
        it = self.objective
        if it.moving is None:
            return {}
        rows, index = (torch.cat(parts) for parts in zip(*it.given, strict=True))
        it.given.clear()
        codebook = it.tokenizer.vq.codebook  # type: ignore[union-attr]
        draws = SeededDraws(self.settings.loop.seed, 1, step)
        return {"perplexity": it.moving.update(codebook, rows, index, draws, it.accelerator)}

    def report(self, step: int, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """Round trips of held-out motion before cameras that never change, millimetres."""
        return round_trips(
            self.objective.tokenizer, self.held, self.stats, self.kind, self.frames, self.overlap, self.axes
        )

    def export(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:  # noqa: ARG002
        """Write the tokenizer, and a preset around it."""
        self.outcome.write(folder, tokenizer=self.objective.tokenizer)


def read_sets(settings: TokenizerTraining) -> tuple[MotionSet, MotionSet]:
    """The motion that the settings name, to train on and to measure on: the same where none is held out."""
    motion = gather(settings.motion.files, settings.motion.dances, settings.loop.seed)
    return motion, read_motion(settings.held_out) if settings.held_out else motion


def round_trips(
    tokenizer: MotionTokenizer,
    held: MotionSet,
    stats: Statistics,
    kind: Any,
    frames: int,
    overlap: int,
    axes: JointAxes = "xyz",
) -> dict[str, float]:
    """Send whole clips through a tokenizer and back, as `mtvcraft tokenize` does.

    Args:
        tokenizer: of any size.
        held: clips that it has not seen.
        stats: what joints are normalised with.
        kind: what is subtracted from them.
        frames: of a window.
        overlap: of two windows.
        axes: what the tokenizer sees of them.

    Returns:
        Millimetres: `round_trip_mm` (median over joints of the mean distance), the same per part of the body, and
        `still_mm` for what a tokenizer that knows no motion would reach; the share of codes used, and perplexity.
    """
    was, tokenizer.training = tokenizer.training, False
    errors, used, still = [], [], []
    for number, clip in enumerate(held.clips()[:REPORTED_CLIPS]):
        rng = samples_rng(REPORT_SEED, number)
        joints_mm = clip if held.seen[number] else seen_by_camera(np.concatenate([clip[:1], clip]), rng)[1:]
        plan = plan_windows(len(joints_mm), frames, overlap)
        made = tokenise(joints_mm, tokenizer, plan, stats, kind, axes=axes)
        errors.append((len(joints_mm), made.report.error_mm))
        still.append((len(joints_mm), float(np.linalg.norm(joints_mm - joints_mm[:1], axis=-1).mean())))
        if tokenizer.codes is not None:
            used.append(made.tokens.ravel())
    tokenizer.training = was
    length = np.array([count for count, _ in errors], np.float64)
    per_joint = np.average(np.array([error for _, error in errors]), axis=0, weights=length)
    values = {"round_trip_mm": float(np.median(per_joint)), "worst_joint_mm": float(per_joint.max())}
    values |= {f"{part}_mm": float(per_joint[list(joints)].mean()) for part, joints in PARTS.items()}
    values["still_mm"] = float(np.average([distance for _, distance in still], weights=length))
    if tokenizer.codes is not None:
        count = np.bincount(np.concatenate(used), minlength=tokenizer.codes)
        share = count / count.sum()
        values["codes_used"] = float((count > 0).mean())
        values["perplexity"] = float(np.exp(-(share * np.log(share + 1e-12)).sum()))
    return values
