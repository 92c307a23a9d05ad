"""`froster.evaluate`: accuracy of a model on labelled videos that it has not learnt from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.manifest import read_items
from froster.evaluation.metrics import Predictions, harmonic_mean, over_splits
from froster.evaluation.metrics import evaluate as score
from froster.evaluation.reliability import reliability
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.seen import report_of, seen_by
from froster.text.labels import check_labels, read_label_set
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.held_out import VideosToScore, videos_to_score
from froster.training.measure import (
    class_source,
    load_reported,
    passed_over_lines,
    scorer_of,
    summary_line,
    video_dataset,
)
from froster.training.options import EvaluateOptions
from froster.training.reporter import Reporter
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text


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
    **options: Any,
) -> Evaluation:
    """Score `model` (what `froster.load` takes; CLIP B/16 if left out) on the labelled videos of
    `data`, a folder of class folders or a manifest; never, unasked, on those that it was trained on.

    `options` are the fields of `EvaluateOptions`. Into the folder `out` go the predictions and the
    report. Raises FrosterError.
    """
    asked, name = EvaluateOptions(**options), model or DEFAULT_MODEL
    reporter = reporter or Reporter()
    out = None if out is None else Path(out)
    items = read_items(
        Path(data), labels_json=asked.labels_json, root=asked.root, where=dict(asked.where)
    )
    for line in passed_over_lines(items):
        reporter.say(line)
    classes = sorted({item.label for item in items})
    if asked.labels_file is not None:
        classes = read_label_set(asked.labels_file)
    check_labels(classes)
    texts = classes
    if asked.descriptions is not None:
        texts = with_descriptions(classes, read_descriptions(asked.descriptions))
    known = report_of(name)  # may download the model
    looked_for = len(items) if seen_by(known) is not None else 0
    with reporter.bar("look for training videos", looked_for, keep=False) as bar:
        chosen = videos_to_score(items, asked.split, asked.part, known, bar)
    recognizer = load_reported(name, asked.device, asked.precision, reporter)
    config = recognizer.config
    changes = {"kind": asked.sampling, "clamp": asked.clamp}
    recognizer.config = dataclasses.replace(
        config,
        sampling=config.sampling.changed(**{k: v for k, v in changes.items() if v is not None}),
        views=asked.views or config.views,
    )
    if asked.transport:
        recognizer = recognizer.by_transport()
    if out is not None:
        claim_folder(out, "evaluation.json", "choose another --out")
    with nullcontext() if out is None else sole_writer(out):
        reporter.say(summary_line(recognizer, name))
        for line in chosen.notes:
            (reporter.warn if line.startswith("warning") else reporter.say)(line)
        groups = base_and_novel(classes, known)
        source = class_source(recognizer, dict(zip(classes, texts, strict=True)), asked.truncate)
        scorer = scorer_of(recognizer, source, [classes, *groups.values()])
        predictions: dict[str, Predictions] = {}
        with reporter.bar("evaluate", sum(map(len, chosen.sets.values()))) as bar:
            for split, videos in chosen.sets.items():
                (predictions[split],) = score(
                    [scorer],
                    video_dataset(recognizer, recognizer.config, videos, classes),
                    classes,
                    names=[str(item.path) for item in videos],
                    batch_size=asked.batch_size,
                    workers=asked.workers,
                    on_videos=bar,
                    also=groups,
                )
        report = make_report(predictions, recognizer, chosen)
        report["passed_over"] = dict(items.passed_over)
        if out is not None:
            for split, one in predictions.items():
                one.save(out / f"predictions_{split}.csv")
            write_text(out / "evaluation.json", json.dumps(report, indent=2) + "\n")
    return Evaluation(report, predictions)


def base_and_novel(classes: Sequence[str], report: dict[str, Any]) -> dict[str, list[str]]:
    """The classes that the model was trained on and the others, where there are both; else nothing."""
    trained = set(report.get("base_classes") or [])
    groups = {
        "base": [c for c in classes if c in trained],
        "novel": [c for c in classes if c not in trained],
    }
    return groups if all(groups.values()) else {}


def make_report(
    results: dict[str, Predictions], recognizer: Recognizer, chosen: VideosToScore
) -> dict[str, Any]:
    splits = {name: predictions.summary() for name, predictions in results.items()}
    for name, predictions in results.items():
        assert predictions.views is not None
        splits[name]["reliability"] = reliability(
            recognizer.judge(predictions.views), predictions.labels
        )
        splits[name]["errors"] = [message for _, message in predictions.errors]
        splits[name]["trained_on"] = None if chosen.trained is None else chosen.scored_trained[name]
        splits[name] |= groups_of(predictions)
    report: dict[str, Any] = {
        "calibrated": recognizer.calibration.fitted is not None,
        "part": chosen.part,
        "trained_on": chosen.trained,
        "watched_by": chosen.watched,
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
    for name, own in predictions.also.items():
        every = predictions.rows(predictions.places(own.classes))
        if not len(every.labels):
            return {}
        groups[name] = {
            "videos": len(every.labels),
            "classes": len(own.classes),
            "chance": own.chance,
            "top1": own.top(1) if len(own.classes) > 1 else None,
            "standard_error": own.error if len(own.classes) > 1 else None,
            "together": {"top1": every.top(1), "standard_error": every.error},
        }
    if not groups:
        return {}
    base, novel = groups["base"], groups["novel"]
    together = {name: group["together"]["top1"] for name, group in groups.items()}
    both = base["top1"] is not None and novel["top1"] is not None
    return {
        **groups,
        "hm": harmonic_mean(base["top1"], novel["top1"]) if both else None,
        "generalised": {**together, "hm": harmonic_mean(together["base"], together["novel"])},
    }
