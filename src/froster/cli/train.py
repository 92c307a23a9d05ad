"""`froster train`: fine-tune on labelled videos, then report what was gained and what was kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist

from froster.cli.common import (
    announce,
    load_model,
    mention,
    parse_options,
    parse_where,
    spare_cores,
)
from froster.data.fingerprint import list_fingerprint
from froster.data.manifest import read_items
from froster.data.splits import Split, split
from froster.errors import UsageError
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.recognizer import DEFAULT_MODEL
from froster.inference.seen import report_of, seen_by
from froster.methods import method_from_dict
from froster.report.training import write_report
from froster.text.labels import read_label_set
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training import defaults
from froster.training.checkpoint import Checkpoints
from froster.training.distributed import process_group
from froster.training.fine_tune import fine_tune, use_of_weights
from froster.training.finish import Finished, finish
from froster.training.held_out import (
    dataset,
    marks,
    novel_by_column,
    trained_before,
    warnings,
    watch_sets,
)
from froster.training.plan import Plan, make_plan
from froster.training.run_folder import Source
from froster.training.task import ranks
from froster.training.validation import Watcher
from froster.utils.files import absolute, claim_folder, sole_writer
from froster.utils.progress import console, open_logger, progress


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def run(
    *,
    data: Path,
    out: Path,
    model: str | None,
    method: str,
    variant: str | None,
    option: Sequence[str] | None,
    preset: str | None,
    distill: str | None,
    alpha: float | None,
    beta_v: float | None,
    beta_t: float | None,
    distance: str | None,
    level: str | None,
    tune: str | None,
    novel_column: str | None,
    novel_file: Path | None,
    novel_fraction: float,
    split_seed: int,
    shots: int | None,
    holdout: float | None,
    watch: float | None,
    patience: int | None,
    epochs: int | None,
    average_from: int | None,
    batch_size: int | None,
    lr: float | None,
    new_scale: float | None,
    frames: int | None,
    sampling: str | None,
    clamp: str | None,
    views: int | None,
    flip: bool,
    seed: int,
    workers: int | None,
    compile_towers: bool,
    checkpointing: bool,
    keep: int,
    resume: bool,
    where: Sequence[str] | None,
    root: Path | None,
    labels_json: Path | None,
    descriptions: Path | None,
    truncate: bool,
    look: bool,
    blend_points: int,
    logger: str | None,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster train` does; the options are described there."""
    workers = spare_cores() if workers is None else workers
    options = parse_options(option)
    if "frames" in options:
        raise UsageError("a network is made for clips of as many frames as --frames says: use that")
    network = method_from_dict({"name": method, **options}, variant)
    if sum(given is not None for given in (novel_column, novel_file)) + (novel_fraction > 0) > 1:
        raise UsageError(
            "hold classes out by one of --novel-column, --novel-file and --novel-fraction"
        )
    items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
    mention(items)
    novel = (
        read_label_set(novel_file)
        if novel_file
        else novel_by_column(items, novel_column)
        if novel_column
        else None
    )
    plain = defaults.is_plain(items, preset)
    holdout = defaults.holdout_share(items) if holdout is None else holdout
    share = watch
    if plain and watch is None:
        trainable = [item for item in items if item.label not in set(novel or [])]
        share = defaults.watched_share(len(trainable) * (1 - novel_fraction) * (1 - holdout))
    parts = split(
        items,
        novel=novel,
        novel_fraction=novel_fraction,
        holdout=holdout,
        shots=shots,
        split_seed=split_seed,
        watch=share,
    )
    if patience and not parts.watch:
        raise UsageError(
            "--patience needs videos to watch the training by, and there are too few: --watch 0.2,"
            " or more videos"
        )
    sentences = read_descriptions(descriptions) if descriptions else {}
    start = seen_by(report_of(model or DEFAULT_MODEL))
    with process_group(device) as (rank, own_device), ExitStack() as held:
        base = load_model(model, str(own_device) if own_device else device, precision)
        plan = make_plan(
            base,
            network,
            preset,
            distill,
            parts.base,
            loss=chosen(alpha=alpha, beta_v=beta_v, beta_t=beta_t, distance=distance, level=level),
            recipe=chosen(
                epochs=epochs,
                average_from=average_from,
                batch_size=batch_size,
                lr=lr,
                new_scale=new_scale,
                tune=tune,
                patience=patience,
            ),
            sampling=chosen(kind=sampling, clamp=clamp, frames=frames),
            views=views,
            flip=flip,
        )
        given = chosen(epochs=epochs, batch_size=batch_size, patience=patience, shots=shots)
        choice = defaults.choose(plan.preset.recipe, parts, set(given), plain, ranks())
        plan = dataclasses.replace(
            plan, preset=dataclasses.replace(plan.preset, recipe=choice.recipe)
        )
        if average_from is not None and average_from > plan.preset.recipe.epochs:
            raise UsageError(
                f"--average-from {average_from} comes after the last epoch,"
                f" {plan.preset.recipe.epochs}"
            )
        recipe = dataclasses.replace(
            plan.preset.recipe,
            seed=seed,
            workers=workers,
            keep=keep,
            precision=base.precision,
            compile=compile_towers,
            checkpointing=checkpointing,
        )
        for names in filter(
            None, (parts.base, parts.novel)
        ):  # a label that is too long is found before the training
            base.bank(with_descriptions(names, sentences), truncate)
        if rank == 0:
            prepare_folder(out, resume, held)
            announce(base, model)
            describe_split(parts, plan, seed, choice.why)
        if dist.is_initialized():
            dist.barrier()
        log = open_logger(logger, out) if rank == 0 else None
        with progress(quiet=rank > 0) as bars:
            said: list[str] = []
            if rank == 0:
                said = warnings(
                    base, parts, sentences, truncate, look, bars, workers
                ) + trained_before(start, parts)
            for line in said:
                bars.console.print(f"warning: {line}", style="yellow")
            train_set = dataset(
                base,
                plan.preset.sampling,
                parts.train,
                parts.base,
                augment=plan.preset.augment,
                seed=seed,
            )
            watched = watch_sets(base, plan.preset, parts, sentences, split_seed)
            student, trained = fine_tune(
                base,
                plan.method,
                plan.loss,
                recipe,
                train_set,
                with_descriptions(parts.base, sentences),
                out,
                bars,
                network.name,
                run={
                    "data": list_fingerprint(parts.train),
                    "augment": dataclasses.asdict(plan.preset.augment),
                },
                truncate=truncate,
                log=log,
                preset=plan.preset,
                watch=Watcher(base, watched, bars, workers, truncate) if watched else None,
            )
            if rank > 0:
                return
            if trained.epochs < recipe.epochs:
                bars.console.print(
                    f"stopped after epoch {trained.epochs}: no gain on the watched videos for"
                    f" {recipe.patience}"
                )
            source = Source(
                model=whereabouts(model or DEFAULT_MODEL),
                weights=weights_fingerprint(base),
                data=str(absolute(data)),
                root=absolute(root),
                labels_json=absolute(labels_json),
                where=parse_where(where),
                descriptions=whereabouts(descriptions) if descriptions else None,
                truncate=truncate,
                holdout=holdout,
                shots=shots,
                split_seed=split_seed,
                training=list_fingerprint(parts.train),
                watch=share,
                every_novel=True,
                **(use_of_weights(base) | marks(parts, start, bars)),
            )
            finish(
                Finished(
                    out,
                    base,
                    student,
                    trained,
                    parts,
                    plan,
                    recipe,
                    source,
                    sentences,
                    {"chosen": choice.why, "warnings": said},
                    blend_points,
                    workers,
                ),
                bars,
                write_report,
                as_json,
            )


def whereabouts(name: str | Path) -> str:
    """The whole path of a file or folder; names such as nano, kinetics400 or a hub id stay."""
    return str(absolute(name)) if Path(name).exists() and str(name) != "nano" else str(name)


def prepare_folder(out: Path, resume: bool, held: ExitStack) -> None:
    """Take `out` over and lock it until `held` ends. Raises UsageError where it holds a run, or
    what one has made, and `resume` is not given, and while another process writes it."""
    begun = bool(Checkpoints(out / "checkpoints").epochs())
    if (begun or (out / "model").exists() or (out / "report.json").exists()) and not resume:
        raise UsageError(
            f"{out} holds a run: pass --resume to go on with it, or choose another --out"
        )
    claim_folder(out, "checkpoints" if begun else "metrics.jsonl", "choose another --out")
    held.enter_context(sole_writer(out))
    if resume and not begun:
        console.print(f"{out} holds no checkpoint yet: starting from the beginning")


def describe_split(parts: Split, plan: Plan, seed: int, chosen_defaults: Sequence[str]) -> None:
    loss, recipe = plan.loss, plan.preset.recipe
    teacher = (
        f"distil {loss.kind} ({loss.distance}, {loss.level})"
        if loss.kind != "none"
        else "no distillation"
    )
    rates = f"learning rate {recipe.lr:g}"
    if plan.method.trains_clip and plan.has_new:
        rates += f", new weights {recipe.lr * recipe.new_scale:g}"
    elif not plan.method.trains_clip and plan.has_clip:
        rates += f", CLIP's weights {recipe.lr * recipe.clip_scale:g}"
    for line in (
        (
            f"{len(parts.train)} training videos of {len(parts.base)} base classes; test:"
            f" {len(parts.base_test)} base, {len(parts.novel_test)} novel ({len(parts.novel)}"
            f" classes); watched: {len(parts.watch)}"
        ),
        *parts.notes,
        (
            f"{plan.method.name}, {teacher}, {recipe.epochs} epochs of batch {recipe.batch_size},"
            f" {rates}, seed {seed}"
        ),
        f"trained: {plan.trained:,} of {plan.weights:,} weights",
        *plan.notes,
        *chosen_defaults,
    ):
        console.print(line)
