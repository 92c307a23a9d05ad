"""`froster.evaluate`: accuracy of a model on labelled videos that it has not learnt from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from froster.data.manifest import Item, Place
from froster.data.shards import Shard
from froster.errors import UsageError
from froster.evaluation.metrics import Predictions, harmonic_mean, over_splits
from froster.evaluation.multi_label import BACKGROUND, measured_alone
from froster.evaluation.reliability import reliability
from froster.inference.model_report import report_of, reported_videos
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.transport import by_transport
from froster.text.label_set import read_names
from froster.text.labels import check_labels
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.distributed import by_rank_0, process_group
from froster.training.held_out import VideosToScore, videos_to_score
from froster.training.measure import (
    EvalSet,
    Measuring,
    labelled_videos,
    load_reported,
    video_dataset,
)
from froster.training.options import EvaluateOptions
from froster.training.probes import check_probes, probes_of
from froster.training.reporter import Reporter
from froster.training.scoring import SCORES, Scoring, remove_scores, score_sets
from froster.utils.files import claim_folder, sole_maker, sole_writer, write_json
from froster.utils.work import LOCAL


@dataclass(frozen=True)
class Evaluation:
    report: dict[str, Any]
    """What `evaluation.json` holds."""
    predictions: dict[str, Predictions]
    """Of each split."""


def evaluate(
    data: str | Path,
    model: str | None = None,
    out: str | Path | None = None,
    *,
    reporter: Reporter | None = None,
    scoring: Scoring = Scoring(),  # noqa: B008
    **options: Any,
) -> Evaluation:
    """Score `model` (what `froster.load` takes; CLIP B/16 if left out) on the labelled videos of
    `data`, a folder of class folders or a manifest; unasked never on those that it has learnt from.

    `options` are the fields of `EvaluateOptions`. Into the folder `out` go the predictions and the
    report, and until that is written the score of each video, with which a stopped run goes on; a
    shard leaves its own there, for a run without one to join them. Processes of torchrun score a
    share each, and the first has the result; that of the others is empty. Raises FrosterError.
    """
    asked, name = EvaluateOptions(**options), model or DEFAULT_MODEL
    probes = check_probes(asked.probe)
    reporter = reporter or Reporter()
    out = None if out is None else Path(out)
    shard = scoring.shard
    if shard.count > 1 and out is None:
        raise UsageError("a shard leaves its scores in a folder: give --out")
    together = shard.count == 1 and scoring.engine.name == LOCAL.name
    group = process_group(asked.device) if together else nullcontext((0, None))
    with group as (rank, of_rank), ExitStack() as held:
        if rank > 0:
            reporter = Reporter()
        items = labelled_videos(Path(data), asked, reporter)
        classes = sorted({item.label for item in items})
        if asked.labels_file is not None:
            classes = read_names(asked.labels_file)
        check_labels(classes)
        texts = classes
        if asked.descriptions is not None:
            texts = with_descriptions(classes, read_descriptions(asked.descriptions))
        known = report_of(name)  # may download the model
        looked_for = len(items) if reported_videos(known) is not None else 0
        with reporter.bar("look for training videos", looked_for, keep=False) as bar:
            chosen = videos_to_score(items, asked.split, asked.part, known, bar)
        place, merge = None if of_rank is None else str(of_rank), asked.merge_tokens
        recognizer = load_reported(name, asked, reporter, place, merge_tokens=merge)
        config = recognizer.config
        sampling = config.sampling.changed(**asked.asked("clamp", kind="sampling"))
        views = asked.views or config.views
        recognizer.config = dataclasses.replace(config, sampling=sampling, views=views)
        if asked.transport:
            recognizer = by_transport(recognizer)
        if asked.multi_label:
            recognizer.with_background(classes)  # or a sentence why not
        if out is not None:
            by_rank_0(partial(claim, out, shard, held))
        reporter.say(recognizer.summary(name))
        for line in chosen.notes:
            (reporter.warn if line.startswith("warning") else reporter.say)(line)
        groups = base_and_novel(classes, known)
        sets = []
        right: dict[str, Tensor] = {}
        for split, items_of in chosen.sets.items():
            if asked.multi_label:
                items_of, right[split] = with_all_labels(items_of, classes)
                groups = {BACKGROUND: [*classes, BACKGROUND]}
            dataset = video_dataset(recognizer, recognizer.config, items_of, classes)
            names = [str(item.path) for item in items_of]
            sets.append(EvalSet(split, dataset, classes, texts, names, groups))
        how = Measuring(asked.workers, asked.truncate, reporter, asked.batch_size)
        scored = score_sets(recognizer, sets, how, probes, dataclasses.replace(scoring, folder=out))
        if isinstance(scored, dict):
            return Evaluation(scored, {})
        predictions, probed = scored
        alone = {name: p.also.pop(BACKGROUND) for name, p in predictions.items() if right}
        report = make_report(predictions, recognizer, chosen)
        for split, of_split in alone.items():
            report["splits"][split]["multi_label"] = told_alone(
                recognizer, of_split, right[split], classes
            )
        for split, of_split in predictions.items() if probes else ():
            by_probe = {probe: of_sets[split] for probe, of_sets in probed.items()}
            report["splits"][split]["probes"] = probes_of(of_split, by_probe)
        report["passed_over"] = dict(items.passed_over)
        if out is not None:
            for split, of_split in predictions.items():
                of_split.save(out / f"predictions_{split}.csv")
            write_json(out / "evaluation.json", report)
            remove_scores(out)
    return Evaluation(report, predictions)


def with_all_labels(
    items: Sequence[Item], classes: Sequence[str]
) -> tuple[list[Item], Bool[Tensor, "videos labels"]]:
    """Each video, or part of one, once, and all labels that its rows give it."""
    rows: dict[Place, list[Item]] = {}
    for item in items:
        rows.setdefault(item.place, []).append(item)
    right = torch.zeros(len(rows), len(classes), dtype=torch.bool)
    for row, same in enumerate(rows.values()):
        right[row, [classes.index(item.label) for item in same]] = True
    return [same[0] for same in rows.values()], right


def told_alone(
    recognizer: Recognizer,
    predictions: Predictions,
    right: Bool[Tensor, "videos labels"],
    classes: Sequence[str],
) -> dict[str, Any]:
    """From the logits of the classes and of the background."""
    rule = recognizer.calibration.multi_label
    assert predictions.views is not None
    scores = rule(predictions.views.mean(dim=1))
    return measured_alone(scores, right, rule.of(classes), classes)


def claim(out: Path, shard: Shard, held: ExitStack) -> None:
    """Holds the whole folder, or what a shard writes there."""
    claim_folder(out, "evaluation.json", "choose another --out")
    held.enter_context(
        sole_writer(out) if shard.count == 1 else sole_maker(shard.file(out / SCORES))
    )


def base_and_novel(classes: Sequence[str], report: dict[str, Any]) -> dict[str, list[str]]:
    """The classes that the model was trained on and the others; empty where all are of one kind."""
    trained = set(report.get("base_classes") or [])
    base, novel = [c for c in classes if c in trained], [c for c in classes if c not in trained]
    return {"base": base, "novel": novel} if base and novel else {}


def make_report(
    results: dict[str, Predictions], recognizer: Recognizer, chosen: VideosToScore
) -> dict[str, Any]:
    splits = {}
    for name, predictions in results.items():
        assert predictions.views is not None
        splits[name] = {
            **predictions.summary(),
            "reliability": reliability(recognizer.score(predictions.views), predictions.labels),
            "errors": [message for _, message in predictions.errors],
            "trained_on": None if chosen.trained is None else chosen.scored_trained[name],
            **groups_of(predictions),
        }
    report: dict[str, Any] = {
        "calibrated": recognizer.calibration.fitted is not None,
        **({"merge_tokens": recognizer.merge_tokens} if recognizer.merge_tokens else {}),
        "part": chosen.part,
        "trained_on": chosen.trained,
        "watched_by": chosen.validated,
        "notes": chosen.notes,
        "splits": splits,
    }
    if len(results) > 1:
        report["over_splits"] = {
            key: over_splits([s[key] for s in splits.values()])
            for key in ("top1", "top5")
            if all(s[key] is not None for s in splits.values())
        }
    return report


def groups_of(predictions: Predictions) -> dict[str, Any]:
    """Of the classes trained on (base) and the others (novel): among their own labels, and among
    all labels together."""
    groups: dict[str, Any] = {}
    for name, group in predictions.also.items():
        among_all = predictions.rows(predictions.places(group.classes))
        if not len(among_all.labels):
            return {}
        several = len(group.classes) > 1
        groups[name] = {
            "videos": len(among_all.labels),
            "classes": len(group.classes),
            "chance": group.chance,
            "top1": group.top(1) if several else None,
            "standard_error": group.error if several else None,
            "together": {"top1": among_all.top(1), "standard_error": among_all.error},
        }
    if not groups:
        return {}
    base, novel = groups["base"]["top1"], groups["novel"]["top1"]
    together = {name: values["together"]["top1"] for name, values in groups.items()}
    return {
        **groups,
        "hm": None if base is None or novel is None else harmonic_mean(base, novel),
        "generalised": {**together, "hm": harmonic_mean(together["base"], together["novel"])},
    }
