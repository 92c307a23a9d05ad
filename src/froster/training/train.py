"""`froster.train`: from a folder of labelled videos to a model that has been measured."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.utils.data import Dataset

from froster.data.fingerprint import file_fingerprints, list_fingerprint
from froster.data.items import labels_of, where_in
from froster.data.splits import Split, split
from froster.encoders.tokenizer import opened
from froster.errors import DataError, UsageError
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.model_report import (
    ReportedVideos,
    counted,
    report_of,
    reported_videos,
    written,
)
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.methods import Method, method_from_dict
from froster.text.label_set import read_names
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.batches import steps_of_epoch
from froster.training.checkpoint import Checkpoints
from froster.training.checks import warnings
from froster.training.compiling import worth_compiling
from froster.training.distill_options import Distill
from froster.training.distributed import process_group, ranks, spread_over_ranks
from froster.training.fine_tune import FineTuning, Hooks, fine_tune, use_of_weights
from froster.training.finish import TrainingResult, TrainingRun, assist, finish
from froster.training.habits import measure_habits
from froster.training.held_out import novel_by_column
from froster.training.importance import read_importance
from froster.training.kept import KeptTower, moves_frames
from froster.training.measure import Measuring, labelled_videos, load_reported, training_dataset
from froster.training.options import TrainOptions
from froster.training.plan import (
    TrainPlan,
    choose,
    ema_beta_of,
    holdout_share,
    is_plain,
    make_plan,
    validation_share,
)
from froster.training.reporter import Log, Reporter, open_logger
from froster.training.run_folder import RunInputs, whereabouts
from froster.training.trainer import Trained
from froster.training.validation import Validator, validation_sets
from froster.utils.files import absolute, claim_folder, sole_writer
from froster.utils.tensors import StateDict

if TYPE_CHECKING:
    from froster.training.memory import Memory


@dataclass(frozen=True)
class TrainingVideos:
    """The videos of a run, and how they were taken apart."""

    parts: Split
    plain: bool
    """They have no split of their own, and no preset was asked for: defaults may be chosen."""
    holdout: float
    share: float | None
    """Of the training videos, for validation."""
    sentences: dict[str, str]


def train(
    data: str | Path,
    out: str | Path,
    model: str | None = None,
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> TrainingResult | None:
    """Fine-tune `model` (what `froster.load` takes; CLIP B/16 if left out) on the labelled videos
    of `data`, a folder of class folders or a manifest, and write the run into the folder `out`.

    `options` are the fields of `TrainOptions` and of `Distill`, which `froster train` has too.
    `reporter` is told what happens. Returns the model and what was measured; None on all processes
    of torchrun but the first, and where only the memory was asked for. Raises FrosterError."""
    asked, out, name = TrainOptions.of(**options), Path(out), model or DEFAULT_MODEL
    reporter = reporter or Reporter()
    method = method_from_dict({"name": asked.method, **asked.option}, asked.variant)
    start = reported_videos(report_of(name))
    with process_group(asked.device) as (rank, of_rank), ExitStack() as held:
        if rank > 0:
            reporter = Reporter()
        videos = read_videos(Path(data), asked, reporter)
        device = str(of_rank) if of_rank else None
        base = load_reported(name, asked, reporter, device)
        opened(base.tokenizer_source)  # saved with the model, and read by nothing of a class file
        plan, why = plan_of(base, method, videos, asked)
        for names in filter(None, (videos.parts.base, videos.parts.novel)):
            # A label that is too long is found before the training.
            base.bank(with_descriptions(names, videos.sentences), asked.truncate)
        how = Measuring(asked.workers, asked.truncate, reporter, spread=spread_over_ranks())
        importance = {} if asked.hold is None else read_importance(name)
        if asked.memory:
            reporter.count(memory_needed(base, plan, videos, asked, importance))
            return None
        kept, kept_note = kept_tower(base, plan, asked, out, how)
        run = TrainingRun(
            *(out, base, plan, videos.parts, videos.sentences, how),
            importance=importance,
            kept=kept,
        )
        if rank == 0:
            prepare_folder(out, asked.resume, held, reporter)
            run.chosen.extend([*why, *kept_note])
            for line in (base.summary(name), *plan_lines(run)):
                reporter.say(line)
        if dist.is_initialized():
            dist.barrier()
        if rank == 0:
            run.warnings.extend(warnings(base, run.parts, run.sentences, asked.look, how))
            run.warnings.extend(trained_before(start, run.parts, reporter))
            for line in run.warnings:
                reporter.warn(f"warning: {line}")
            if asked.look:
                reporter.say(look_for_habits(run))
        log = open_logger(asked.logger, out) if rank == 0 else None
        student, trained = fine_tune_run(run, log, asked)
        if rank > 0:
            assist(run, student, asked.split_seed, asked.blend_points)
            return None
        source = source_of(Path(data), name, base, videos, asked)
        trained_on, watched_by = marks(run.parts, start, reporter)
        source = dataclasses.replace(source, trained_on=trained_on, watched_by=watched_by)
        return finish(run, student, trained, source, asked.blend_points)


def memory_needed(
    base: Recognizer,
    plan: TrainPlan,
    videos: TrainingVideos,
    asked: TrainOptions,
    importance: StateDict,
) -> Memory:
    """What the run would need."""
    from froster.training.memory import Sizes, memory_of  # imports much that few need

    classes = with_descriptions(videos.parts.base, videos.sentences)
    how = FineTuning(
        *(plan.method, plan.distill, plan.preset.recipe, plan.preset, asked.truncate),
        importance=importance,
    )
    parts = videos.parts
    kept = asked.kept_views is not None and not moves_frames(base, plan.method, plan.preset.recipe)
    tested = max(map(len, (parts.base_test, parts.novel_test, parts.validation)))
    sizes = Sizes(len(parts.train), tested, kept)
    return memory_of(base, how, classes, sizes)


def read_videos(data: Path, asked: TrainOptions, reporter: Reporter) -> TrainingVideos:
    items = labelled_videos(data, asked, reporter)
    novel = None
    if asked.novel_file is not None:
        novel = read_names(asked.novel_file)
    elif asked.novel_column is not None:
        novel = novel_by_column(items, asked.novel_column)
    plain = is_plain(items, asked.preset)
    holdout = holdout_share(items) if asked.holdout is None else asked.holdout
    share = asked.validation
    if plain and share is None:
        trainable = len(items) - int(where_in(labels_of(items), novel or []).sum())
        share = validation_share(trainable * (1 - asked.novel_fraction) * (1 - holdout))
    parts = split(
        items,
        novel=novel,
        novel_fraction=asked.novel_fraction,
        holdout=holdout,
        shots=asked.shots,
        split_seed=asked.split_seed,
        validation=share,
    )
    if asked.patience and not parts.validation:
        raise UsageError(
            "--patience needs validation videos, and there are too few: --validation 0.2,"
            " or more videos"
        )
    sentences = read_descriptions(asked.descriptions) if asked.descriptions else {}
    return TrainingVideos(parts, plain, holdout, share, sentences)


def plan_of(
    base: Recognizer, method: Method, videos: TrainingVideos, asked: TrainOptions
) -> tuple[TrainPlan, list[str]]:
    """What will be done, and why what was not asked for."""
    if method.closed and videos.parts.novel:
        raise UsageError(
            f"{method.name} knows only the classes that it is trained on, so that nothing can be"
            " measured on novel ones: leave --novel-fraction out, or take another --variant"
        )
    plan = make_plan(base, method, videos.parts.base, asked)
    given = set(asked.asked("epochs", "batch_size", "patience", "shots"))
    choice = choose(plan.preset.recipe, videos.parts, given, videos.plain, ranks())
    recipe, distill, why = choice.recipe, plan.distill, choice.why
    if asked.average_from is not None and asked.average_from > recipe.epochs:
        last = recipe.epochs
        raise UsageError(f"--average-from {asked.average_from} comes after the last epoch, {last}")
    if videos.plain and distill.teacher == "ema" and "ema_beta" not in asked.loss:
        clips = len(videos.parts.train)
        beta = round(ema_beta_of(recipe.epochs * steps_of_epoch(recipe, clips)), 4)
        why = [*why, f"EMA teacher {beta:g} in place of {distill.ema_beta:g}: so few steps"]
        distill = dataclasses.replace(distill, ema_beta=beta)
    preset = dataclasses.replace(plan.preset, recipe=recipe)
    return dataclasses.replace(plan, preset=preset, distill=distill), why


def prepare_folder(out: Path, resume: bool, held: ExitStack, reporter: Reporter) -> None:
    """Take `out` over and lock it until `held` ends. Raises UsageError where it holds a run, or
    what one has made, and `resume` is not given, and while another process writes it."""
    begun = bool(Checkpoints(out / "checkpoints").points())
    if (begun or (out / "model").exists() or (out / "report.json").exists()) and not resume:
        raise UsageError(
            f"{out} holds a run: pass --resume to go on with it, or choose another --out"
        )
    claim_folder(out, "checkpoints" if begun else "metrics.jsonl", "choose another --out")
    held.enter_context(sole_writer(out))
    if resume and not begun:
        reporter.say(f"{out} holds no checkpoint yet: starting from the beginning")


def plan_lines(run: TrainingRun) -> list[str]:
    """What will be done, for the user."""
    parts, plan, distill, recipe = run.parts, run.plan, run.plan.distill, run.plan.preset.recipe
    teacher = "no distillation" if distill.kind == "none" else f"distil {words_of(distill)}"
    rates = f"learning rate {recipe.lr:g}"
    if plan.method.trains_clip and plan.has_new:
        rates += f", new weights {recipe.lr * recipe.new_scale:g}"
    elif not plan.method.trains_clip and plan.has_clip:
        rates += f", CLIP's weights {recipe.lr * recipe.clip_scale:g}"
    clips = recipe.epochs * steps_of_epoch(recipe, len(parts.train)) * recipe.batch_size
    vision, frames = run.base.clip.config.vision, plan.preset.sampling.frames
    hint = worth_compiling(run.base.device, vision, frames, clips)
    is_measured = plan.method.name == "vclip" and not recipe.compile
    return [
        f"{len(parts.train)} training videos of {len(parts.base)} base classes; test:"
        f" {len(parts.base_test)} base, {len(parts.novel_test)} novel ({len(parts.novel)}"
        f" classes); validation: {len(parts.validation)}",
        *parts.notes,
        f"{plan.method.name}, {teacher}, {recipe.epochs} epochs of batch {recipe.batch_size},"
        f" {rates}, seed {recipe.seed}",
        f"trained: {plan.trained:,} of {plan.weights:,} weights",
        *plan.notes,
        *run.chosen,
        *([hint] if hint and is_measured else []),
    ]


def words_of(distill: Distill) -> str:
    """`residual (cosine, frame)`, and what else is not as FROSTER's."""
    compared = distill.distance if distill.target == "features" else distill.target
    more = [f"{distill.side} alone"] if distill.side != "both" else []
    if distill.teacher == "ema":
        more.append(f"EMA teacher {distill.ema_beta:g}")
    return f"{distill.kind} ({', '.join([compared, distill.level, *more])})"


def kept_tower(
    base: Recognizer, plan: TrainPlan, asked: TrainOptions, out: Path, how: Measuring
) -> tuple[KeptTower | None, list[str]]:
    """Where the image tower stays as it is and `--kept-views` is given: its features; and a line
    on that."""
    cause = moves_frames(base, plan.method, plan.preset.recipe)
    if asked.kept_views is None:
        line = "the image tower is frozen: --kept-views N would compute N clips of a video once"
        return None, [] if cause else [line]
    clips = f"{asked.kept_views} different clips of each training video"
    if cause:
        return None, [f"{clips}; {cause}, so none is kept"]
    tower = KeptTower(base, out / "features", how.workers, how.reporter)
    return tower, [f"{clips}, whose features are computed once: the image tower is frozen"]


def fine_tune_run(
    run: TrainingRun, log: Log | None, asked: TrainOptions
) -> tuple[Recognizer, Trained]:
    base, plan, parts, how = run.base, run.plan, run.parts, run.how
    preset, recipe = plan.preset, plan.preset.recipe
    draws = asked.kept_views
    train_set = training_dataset(base, preset, parts.train, parts.base, recipe.seed, draws)
    settings = FineTuning(
        plan.method,
        plan.distill,
        recipe,
        preset,
        truncate=how.truncate,
        run={
            "data": list_fingerprint(parts.train),
            "augment": dataclasses.asdict(preset.augment),
            **({} if draws is None else {"kept_views": draws}),
        },
        importance=run.importance,
    )
    closed = plan.method.closed
    sets = validation_sets(base, preset, parts, run.sentences, asked.split_seed, closed)
    clips: Dataset = train_set
    if run.kept is not None:
        clips, sets = run.kept.clips(train_set), run.kept.sets(sets)
    validate = Validator(base, sets, how) if sets else None
    classes = with_descriptions(parts.base, run.sentences)
    hooks = Hooks(how.reporter, log, validate)
    student, trained = fine_tune(base, settings, clips, classes, run.out, hooks)
    if trained.epochs < recipe.epochs:
        how.reporter.say(
            f"stopped after epoch {trained.epochs}: no gain on the validation videos for"
            f" {recipe.patience}"
        )
    return student, trained


def source_of(
    data: Path, model: str, base: Recognizer, videos: TrainingVideos, asked: TrainOptions
) -> RunInputs:
    return RunInputs(
        model=whereabouts(model),
        weights=weights_fingerprint(base),
        data=str(absolute(data)),
        root=absolute(asked.root),
        labels_json=absolute(asked.labels_json),
        where=dict(asked.where),
        descriptions=whereabouts(asked.descriptions) if asked.descriptions else None,
        truncate=asked.truncate,
        classes=None if asked.classes is None else str(absolute(asked.classes)),
        holdout=videos.holdout,
        shots=asked.shots,
        split_seed=asked.split_seed,
        training=list_fingerprint(videos.parts.train),
        watch=videos.share,
        every_novel=True,
        **use_of_weights(base),
    )


def look_for_habits(run: TrainingRun) -> str:
    """Into `run.habits`, and what to say of it: a finding, or why there is none."""
    try:
        run.habits.update(measure_habits(run.base, run.parts.train, run.how).to_dict())
    except (DataError, UsageError) as error:
        return f"habits of the classes are not known: {error}"
    return str(run.habits["sentence"])


def trained_before(start: ReportedVideos | None, parts: Split, reporter: Reporter) -> list[str]:
    """Test videos that the model which is started from has learnt from already."""
    if start is None:
        return []
    test = [*parts.base_test, *parts.novel_test]
    with reporter.bar("looking for training videos", len(test), keep=False) as bar:
        trained, _ = counted(start.parts(test, bar))
    line = (
        f"{trained} of {len(test)} test videos trained the model that this run starts from, so the"
        " test is too easy"
    )
    return [line] if trained else []


def marks(parts: Split, start: ReportedVideos | None, reporter: Reporter) -> tuple[str, str]:
    """The fingerprints of the videos that the model was trained on and validated by, those of its
    start among them."""
    before = start or ReportedVideos(frozenset(), frozenset())
    total = len(parts.train) + len(parts.validation)
    with reporter.bar("note the training videos", total) as bar:
        trained = written([*file_fingerprints(parts.train, bar), *before.trained])
        validated = written([*file_fingerprints(parts.validation, bar), *before.validated])
    return trained, validated
