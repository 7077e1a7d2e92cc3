"""The whole way on one screen: each room called once, in order."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.files import PreparedList, PreparedPose, PreparedTokens
from mtvcraft_cli.jobs.timing import Timing, plan_timing
from mtvcraft_cli.joints.files import resample, save_motion
from mtvcraft_cli.joints.framing import framing_remarks
from mtvcraft_cli.joints.gaps import describe
from mtvcraft_cli.joints.overlay import draw_over
from mtvcraft_cli.joints.own.write import write_motion
from mtvcraft_cli.joints.people import choose_person, people_rows
from mtvcraft_cli.joints.sheet import contact_sheet
from mtvcraft_cli.joints.skeleton import PARTS
from mtvcraft_cli.joints.view import write_view
from mtvcraft_cli.latents.walk import Settings, WanSettings, walk
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.runs.compare import write_comparison
from mtvcraft_cli.runs.models import Loaded, load_tokenizer
from mtvcraft_cli.runs.motion import (
    MotionInTokens,
    find_motion,
    find_people,
    find_tokens,
    first_pose,
    framed,
    sure_motion,
    to_tokens,
)
from mtvcraft_cli.runs.report import AnimationReport, FileReport
from mtvcraft_cli.runs.speed import active, active_text
from mtvcraft_cli.shapes import Frames, Picture
from mtvcraft_cli.sidecar import versions, write_sidecar
from mtvcraft_cli.tokens.files import TokenFile, save_tokens
from mtvcraft_cli.tokens.tokenise import detokenise, motion_tokens
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.video.behind import Behind
from mtvcraft_cli.video.figure import figure_box
from mtvcraft_cli.video.frames import FrameWriter
from mtvcraft_cli.video.picture import fit_picture, write_picture
from mtvcraft_cli.video.read import open_clip, read_ahead
from mtvcraft_cli.video.write import VideoWriter
from mtvcraft_cli.windows import plan_windows


def run_animation(prepared: PreparedAnimation, watch: Watch, loaded: "Loaded | None" = None) -> AnimationReport:
    """Draw the character of the reference in the poses of the driver, from files to a file.

    T frames of the driver, W windows of F latent frames each, H x W pixels. Many jobs share what is `loaded`.
    """
    if loaded is None:
        with Loaded() as own:
            return run_animation(prepared, watch, own)
    job, preset = prepared.job, prepared.job.preset
    report = AnimationReport(prepared=prepared)
    with report.stage("load"):
        tokenizer = loaded.tokenizer_for(prepared)
        report.handed_on = loaded.models is not None
        wanted = None
        if job.force or not (prepared.made and prepared.framed):
            wanted = loaded.models_for(prepared, report.remarks)
    window = prepared.windows[0]
    if wanted and preset.sampler.motion_guidance != 1 and wanted[0].resamples(window.latent_frames):
        report.warnings.append(
            f"the no-motion tokens were learned for windows of {preset.frames} frames "
            f"and are stretched to {window.frames}"
        )
    picture = fit_picture(prepared.picture, preset.size_px, job.fit, job.background)  # (H, W, 3)
    with report.stage("pose"):
        motion = find_motion(prepared.drive, prepared.estimator, job.driver, prepared.cache, report.remarks, watch)
        motion = motion and framed(motion, job.motion)  # (T, 24, 3) mm
        if motion is not None:
            report.remarks += framing_remarks(motion, figure_box(picture), preset.size_px)
    with report.stage("tokenize"):
        tokens = find_tokens(prepared, motion, tokenizer, report.warnings, watch)  # (W, F, 24) codes
    if wanted is not None:
        models, settings = wanted
        if models.dynamic:
            first_mm = first_pose(prepared, motion, tokens, tokenizer, report.remarks)
            settings = replace(settings, joint_mean_mm=first_mm)
        animate(prepared, loaded, settings, picture, tokens, tokenizer, report, watch)
        report.active = active(prepared, settings.spare)
        report.remarks.append(active_text(prepared, settings.spare))
        write_sidecar(job.output, report.sidecar())
        report.keep_rates()
    if job.compare is not None:
        with report.stage("compare"):
            write_comparison(prepared, motion, tokens, tokenizer, watch)
    return report


def animate(
    prepared: PreparedAnimation,
    loaded: Loaded,
    settings: Settings | WanSettings,
    picture: Picture,
    tokens: MotionInTokens,
    tokenizer: MotionTokenizer,
    report: AnimationReport,
    watch: Watch,
) -> None:
    """Tokens to frames, window by window, written as they are made."""
    job, timing = prepared.job, prepared.timing
    assert loaded.models is not None
    assert loaded.depot is not None

    def write(frame: Picture) -> None:
        writer.write(frame[None])
        if lossless is not None:
            lossless.write(frame[None])
        report.frames += 1

    with (
        report.stage("animate"),
        VideoWriter(job.output, job.preset.size_px, timing.rate, crf=job.crf, sound=prepared.sound) as writer,
        FrameWriter(job.frames_dir, prepared.fingerprint) if job.frames_dir is not None else nullcontext() as lossless,
    ):
        frames = walk(
            loaded.models,
            picture,
            (motion_tokens(tokens.tokens, tokenizer, window.index)[0] for window in prepared.windows),  # (F * 24, D)
            prepared.windows,
            settings,
            job.seed,
            kept=report.keep(tokens, picture, settings.joint_mean_mm),
            watch=watch,
            working=report.timed(loaded.depot.working),
            make_room=partial(loaded.make_room, prepared, report.warnings),
        )
        with Behind(write) as behind:  # encoding goes on while the next window is made
            for batch in retimed(frames, timing):
                behind.give(batch)  # (n, H, W, 3)
    report.placement = loaded.depot.placement


def retimed(frames: Iterator[Frames], timing: Timing) -> Iterator[Frames]:
    """Show each of the model's frames when its time comes: held, dropped, or one for one."""
    start = shown = 0
    for batch in frames:
        chosen = []
        while shown < timing.frames and timing.model_frame(shown) < start + len(batch):
            chosen.append(timing.model_frame(shown) - start)
            shown += 1
        start += len(batch)
        if chosen:
            yield batch[chosen]


def run_pose(prepared: PreparedPose, watch: Watch) -> FileReport:
    """Find the joints in a video, or check those of a file; write them, and what else was asked for."""
    job, remarks = prepared.job, list[str]()
    motion = find_motion(prepared.drive, prepared.estimator, job.settings, prepared.cache, remarks, watch)
    assert motion is not None
    made = {"fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    meta = {**motion.meta, "assumed": list(prepared.drive.assumed), **made}
    motion = replace(motion, meta=meta)
    timed = (
        motion if job.rate is None else resample(motion, job.rate, max(1, round(len(motion) / motion.rate * job.rate)))
    )
    record = {"settings": job.settings.told(), **meta}
    if prepared.to_make(job.output):
        write_motion(job.output, timed)
        if job.output.suffix.lower() != ".npz":  # which holds the same itself
            write_sidecar(job.output, record)
    if job.view is not None and prepared.to_make(job.view):
        write_view(job.view, timed, prepared.drive.path.name)
        write_sidecar(job.view, record)
    if job.overlay is not None and prepared.to_make(job.overlay):
        clip = open_clip(job.drive, **job.settings.seen)
        with VideoWriter(job.overlay, clip.info.size_px, motion.rate, sound=prepared.drive.own_sound()) as writer:
            for batch in watch(draw_over(read_ahead(clip.batches()), motion), "overlay", len(motion)):
                writer.write(batch)
        write_sidecar(job.overlay, record)
    seen = describe(motion)
    return FileReport(
        output=job.output,
        remarks=[*remarks, *framing_remarks(motion)],
        figures={
            "assumed": list(prepared.drive.assumed),
            "frames": len(timed),
            "filled": seen.filled,
            "unsure": seen.unsure,
            "out_of_view": seen.out_of_view,
        },
    )


def run_list(prepared: PreparedList, watch: Watch) -> FileReport:
    """Look who is in a video, and write a picture with each of them."""
    drive = prepared.drive
    scene = find_people(drive, prepared.estimator, prepared.settings, prepared.cache, watch)
    number, _ = choose_person(scene, "largest", drive.rate, drive.path.name)
    assert drive.clip is not None
    start_s = drive.clip.start_s  # of the part that was looked at
    if not prepared.made:
        clip = open_clip(drive.path, **prepared.settings.seen)
        write_picture(prepared.sheet, contact_sheet(scene, clip.frame))
        made = {"settings": prepared.settings.told(), "fingerprint": prepared.fingerprint}
        write_sidecar(prepared.sheet, {**made, "versions": versions()})
    return FileReport(
        output=prepared.sheet,
        remarks=[f"their pictures are in `{prepared.sheet}`; `--person` takes a number, by default {number} (largest)"],
        figures={
            "people": [
                {
                    "person": row.number,
                    "from_s": float(start_s + row.start_s),
                    "to_s": float(start_s + row.end_s),
                    "seen": row.seen,
                    "height": row.height,
                    "confidence": row.confidence,
                }
                for row in people_rows(scene, drive.clip.size_px, drive.rate)
            ]
        },
    )


def run_tokenizing(prepared: PreparedTokens, watch: Watch) -> FileReport:
    """Joints into tokens with a report of what is lost, or tokens back into joints."""
    job, preset = prepared.job, prepared.job.preset
    tokenizer = load_tokenizer(preset, prepared.part)
    meta = {"fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    if (tokens := prepared.drive.tokens) is not None:
        joints_mm = detokenise(
            tokens.tokens,
            tokenizer,
            tokens.plan,
            preset.statistics,
            tokens.differential,
            tokens.origin_mm,
            watch,
            preset.joint_axes,
        )
        motion = sure_motion(joints_mm, tokens.rate, tokens.size_px or preset.size_px)
        save_motion(job.output, replace(motion, meta={**meta, "source": {"name": job.drive.name}}))
        return FileReport(output=job.output, remarks=[], figures={"frames": len(motion)})

    remarks = list[str]()
    motion_found = find_motion(prepared.drive, prepared.estimator, job.driver, prepared.cache, remarks, watch)
    assert motion_found is not None
    motion_found = framed(motion_found, job.motion)
    timing = plan_timing(prepared.drive.frames, prepared.drive.rate, job.rate, preset)
    body_model = job.driver.body_model
    tokenised = to_tokens(motion_found, preset, timing, tokenizer, prepared.device, body_model, watch)
    lost = tokenised.report
    save_tokens(
        job.output,
        TokenFile(
            tokens=tokenised.tokens,
            preset=preset.name,
            tokenizer_sha256=prepared.identity,
            frames=plan_windows(timing.model_frames, preset.frames, preset.overlap)[0].frames,
            overlap=preset.overlap,
            total_frames=timing.model_frames,
            rate=timing.model_rate,
            differential=preset.differential,
            origin_mm=tokenised.origin_mm,
            size_px=motion_found.size_px,
            round_trip_mm=lost.mean_mm,
            quantisation_loss=lost.loss,
            meta={
                **meta,
                "drive_rate": str(prepared.drive.rate),
                "drive_frames": prepared.drive.frames,
                "source": {"name": job.drive.name},
            },
        ),
    )
    parts = {part: round(error_mm, 1) for part, error_mm in lost.by_part(PARTS).items()}
    remarks += [f"round trip {lost.mean_mm:.1f} mm: " + ", ".join(f"{part} {error}" for part, error in parts.items())]
    if prepared.part.seed is not None:
        remarks.append(f"the tokenizer of preset {preset.name} has random weights: its figures mean nothing yet")
    if lost.codes is not None:
        remarks.append(f"{lost.codes_used} of {lost.codes} codes used, quantisation loss {lost.loss:.4f}")
    return FileReport(
        output=job.output,
        remarks=remarks,
        warnings=[] if prepared.part.seed is not None else lost.warnings(),
        figures={
            "windows": len(tokenised.tokens),
            "round_trip_mm": round(lost.mean_mm, 2),
            "round_trip_mm_by_part": parts,
            "codes_used": lost.codes_used,
            "codes": lost.codes,
            "quantisation_loss": lost.loss,
        },
    )
