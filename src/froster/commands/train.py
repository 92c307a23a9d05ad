"""`froster train`: fine-tune on labelled videos, then report what was gained and what was kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.progress import Progress
from rich.table import Table

from froster.checkpoint import State
from froster.commands.common import announce, load_model, parse_options, parse_where, spare_cores
from froster.commands.train_plan import Plan, make_plan
from froster.commands.train_report import write_report
from froster.distributed import process_group
from froster.errors import UsageError
from froster.evaluation import Space
from froster.experiment import EvalSet, Row, fine_tune, halfway, measure_many, weights_digest, with_weights
from froster.files import absolute, claim_folder, write_text
from froster.loggers import open_logger
from froster.methods import method_from_dict
from froster.progress import console, output, progress
from froster.recipe import Preset, Recipe
from froster.recognizer import DEFAULT_MODEL, ModelConfig, Recognizer
from froster.runs import Source, digest
from froster.splits import Split, split
from froster.text.descriptions import describe, read_descriptions
from froster.text.prompts import read_labels
from froster.training import Trained
from froster.video.augment import Augment
from froster.video.dataset import Item, VideoDataset, read_items
from froster.video.sampling import Sampling


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
    holdout: float,
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
        raise UsageError("hold classes out by one of --novel-column, --novel-file and --novel-fraction")
    items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
    novel = read_labels(novel_file) if novel_file else novel_by_column(items, novel_column) if novel_column else None
    parts = split(
        items, novel=novel, novel_fraction=novel_fraction, holdout=holdout, shots=shots, split_seed=split_seed
    )
    sentences = read_descriptions(descriptions) if descriptions else {}
    with process_group(device) as (rank, own_device):
        base = load_model(model, str(own_device) if own_device else device, precision)
        plan = make_plan(
            base, network, preset, distill, parts.base,
            loss=chosen(alpha=alpha, beta_v=beta_v, beta_t=beta_t, distance=distance, level=level),
            recipe=chosen(
                epochs=epochs, average_from=average_from, batch_size=batch_size, lr=lr, new_scale=new_scale, tune=tune
            ),
            sampling=chosen(kind=sampling, clamp=clamp, frames=frames), views=views, flip=flip,
        )  # fmt: skip
        if average_from is not None and average_from > plan.preset.recipe.epochs:
            raise UsageError(f"--average-from {average_from} comes after the last epoch, {plan.preset.recipe.epochs}")
        recipe = dataclasses.replace(
            plan.preset.recipe, seed=seed, workers=workers, keep=keep, precision=base.precision,
            compile=compile_towers, checkpointing=checkpointing,
        )  # fmt: skip
        for names in filter(None, (parts.base, parts.novel)):  # a label that is too long is found before the training
            base.bank(describe(names, sentences), truncate)
        if rank == 0:
            prepare_folder(out, resume)
            announce(base, model)
            describe_split(parts, plan, seed)
        if dist.is_initialized():
            dist.barrier()
        log = open_logger(logger, out) if rank == 0 else None
        with progress(quiet=rank > 0) as bars:
            train_set = dataset(
                base, plan.preset.sampling, parts.train, parts.base, augment=plan.preset.augment, seed=seed
            )
            student, trained = fine_tune(
                base, plan.method, plan.loss, recipe, train_set, describe(parts.base, sentences), out, bars, network.name,
                run={"data": digest(parts.train), "augment": dataclasses.asdict(plan.preset.augment)},
                truncate=truncate, log=log, preset=plan.preset,
            )  # fmt: skip
            if rank > 0:
                return
            sets = eval_sets(base, plan.preset, parts, sentences)
            states = final_weights(base, student, trained)
            rows = measure_all(base, student, states, sets, bars, workers, truncate)
            best = with_weights(student, next(iter(states.values())))
            source = Source(
                model=whereabouts(model or DEFAULT_MODEL), weights=weights_digest(base), data=str(absolute(data)),
                root=absolute(root), labels_json=absolute(labels_json), where=parse_where(where),
                descriptions=whereabouts(descriptions) if descriptions else None, truncate=truncate, holdout=holdout,
                shots=shots, split_seed=split_seed, training=digest(parts.train),
            )  # fmt: skip
            finish(out, base, best, trained, parts, recipe, plan, rows, source, as_json)


def whereabouts(name: str | Path) -> str:
    """The whole path of a file or folder; names such as nano, kinetics400 or a hub id stay."""
    return str(absolute(name)) if Path(name).exists() and str(name) != "nano" else str(name)


def novel_by_column(items: Sequence[Item], column: str) -> list[str]:
    """The classes whose rows say "novel" in `column`. Raises UsageError where a class says both or neither."""
    columns = sorted({name for item in items for name in item.columns})
    if column.lower() not in columns:
        raise UsageError(f"there is no column {column!r}; there is {', '.join(columns) or 'none'}")
    said: dict[str, set[str]] = {}
    for item in items:
        said.setdefault(item.label, set()).add(item.columns.get(column.lower(), "").lower())
    for label, words in said.items():
        if words not in ({"base"}, {"novel"}):
            raise UsageError(f"column {column!r} must say base or novel for class {label!r}, it says {sorted(words)}")
    return [label for label, words in said.items() if words == {"novel"}]


def prepare_folder(out: Path, resume: bool) -> None:
    holds_run = (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir())
    if holds_run and not resume:
        raise UsageError(f"{out} holds a run: pass --resume to go on with it, or choose another --out")
    if resume and not holds_run:
        console.print(f"{out} holds no checkpoint yet: starting from the beginning")
    claim_folder(out, "checkpoints" if holds_run else "metrics.jsonl", "choose another --out")


def describe_split(parts: Split, plan: Plan, seed: int) -> None:
    loss, recipe = plan.loss, plan.preset.recipe
    teacher = f"distil {loss.kind} ({loss.distance}, {loss.level})" if loss.kind != "none" else "no distillation"
    rates = f"learning rate {recipe.lr:g}" + (f", new weights {recipe.lr * recipe.new_scale:g}" if plan.has_new else "")
    for line in (
        f"{len(parts.train)} training videos of {len(parts.base)} base classes; test: {len(parts.base_test)} base, "
        f"{len(parts.novel_test)} novel ({len(parts.novel)} classes)",
        *parts.notes,
        f"{plan.method.name}, {teacher}, {recipe.epochs} epochs of batch {recipe.batch_size}, {rates}, seed {seed}",
        f"trained: {plan.trained:,} of {plan.weights:,} weights",
        *plan.notes,
    ):
        console.print(line)


def dataset(
    model: Recognizer, sampling: Sampling, items: Sequence[Item], classes: list[str], *, views: int = 1,
    augment: Augment | None = None, seed: int = 0,
) -> VideoDataset:  # fmt: skip
    """Videos as the network reads them: random clips where an augmentation is given, else the views of a test."""
    size = model.clip.config.vision.image_size
    train = augment is not None
    return VideoDataset(
        items, classes, sampling, size, views=views, train=train, seed=seed, augment=augment or Augment()
    )


def eval_sets(
    model: Recognizer, setting: Preset | ModelConfig, parts: Split, sentences: dict[str, str]
) -> list[EvalSet]:
    """Base and novel test videos, each against its own classes."""
    return [
        EvalSet(
            name, dataset(model, setting.sampling, items, classes, views=setting.views), classes,
            describe(classes, sentences), [str(item.path) for item in items],
        )
        for name, items, classes in (("base", parts.base_test, parts.base), ("novel", parts.novel_test, parts.novel))
        if items and len(classes) > 1
    ]  # fmt: skip


def final_weights(base: Recognizer, student: Recognizer, trained: Trained) -> dict[str, State]:
    """Words -> weights. The first are the method's own result: the mean of the epochs, in Open-VCLIP half CLIP's."""
    several = trained.averaged > 1
    mean = f"mean of {trained.averaged} epochs" if several else "last epoch"
    states = {mean: trained.average, **({"last epoch": trained.last} if several else {})}
    half = {f"{mean}, half start": halfway(base, student, trained.average)}
    patch = student.config.method.patch
    if not patch:
        return {**states, **half}
    return {f"{mean}, {patch:g} start": halfway(base, student, trained.average, patch), **states}


def measure_all(
    base: Recognizer,
    student: Recognizer,
    states: dict[str, State],
    sets: list[EvalSet],
    bars: Progress,
    workers: int,
    truncate: bool,
) -> list[Row]:
    """Frozen CLIP, each of the final weights, and the first of them together with frozen CLIP."""
    name = student.config.method.name
    models = [base, *(with_weights(student, state) for state in states.values())]
    found = measure_many(models, sets, bars, "before and after", workers, truncate)
    rows = [Row("frozen", "start", found[0])]
    rows += [Row(name, weights, p) for weights, p in zip(states, found[1:], strict=True)]
    spaces: tuple[Space, ...] = ("logit", "prob")
    frozen, tuned = rows[0].predictions, rows[1].predictions
    return rows + [
        Row(f"{name} + frozen", f"mean of {space}s", {key: frozen[key].joined(tuned[key], space) for key in frozen})
        for space in spaces
    ]


def finish(
    out: Path,
    base: Recognizer,
    tuned: Recognizer,
    trained: Trained,
    parts: Split,
    recipe: Recipe,
    plan: Plan,
    rows: list[Row],
    source: Source,
    as_json: bool,
) -> None:
    report = {
        "rows": [row.to_dict() for row in rows],
        "base_classes": parts.base,
        "novel_classes": parts.novel,
        "training_videos": len(parts.train),
        "unreadable_in_training": trained.unreadable,
        "test": {name: p.summary() for name, p in rows[1].predictions.items()},
        "unreadable_in_test": [message for p in rows[1].predictions.values() for _, message in p.errors],
        "notes": parts.notes,
        "recipe": dataclasses.asdict(recipe),
        "distill": dataclasses.asdict(plan.loss),
        "augment": dataclasses.asdict(plan.preset.augment),
        "trained_weights": plan.trained,
        "source": dataclasses.asdict(source),
    }
    tuned.save(out / "model", report)
    with_weights(tuned, trained.last).save(out / "last", report)
    for name, predictions in rows[1].predictions.items():
        predictions.save(out / f"predictions_{name}.csv")
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    write_report(out, base, tuned, parts, rows, report)
    if as_json:
        print(json.dumps(report))
    else:
        show(out, rows, trained)


def show(out: Path, rows: list[Row], trained: Trained) -> None:
    table = Table("method", "weights", "base", "novel", "HM", box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    for i, row in enumerate(rows):
        table.add_row(
            row.method, row.weights, cell(row.top1("base")), cell(row.top1("novel")), cell(row.hm),
            style="bold" if i == 1 else "",
        )  # fmt: skip
    output.print(table)
    for name, word in (("base", "gained on base classes"), ("novel", "kept on novel classes")):
        before, after = rows[0].top1(name), rows[1].top1(name)
        if before is not None and after is not None:
            console.print(f"{word}: {before:.1f} -> {after:.1f} ({after - before:+.1f})")
    for message, count in trained.unreadable.items():
        console.print(f"skipped in training, {count} times: {message}")
    for predictions in rows[1].predictions.values():
        for _, message in predictions.errors:
            console.print(f"unreadable, scored wrong: {message}")
    console.print(f"model: {out / 'model'}   report: {out / 'report.html'}")
