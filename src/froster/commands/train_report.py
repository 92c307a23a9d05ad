"""The report page of a training run: before and after, curves, and what the models said of some test videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.errors import VideoError
from froster.evaluation import Predictions, standard_error
from froster.experiment import Row
from froster.insight import page
from froster.insight.plots import Bars, Clip, Verdict, accuracy_bars, classified_clips, training_curves
from froster.recognizer import Recognizer
from froster.splits import Split

COLUMNS = ("base", "novel", "hm")
SHOWN_CLIPS = 4


def write_report(
    out: Path, base: Recognizer, tuned: Recognizer, parts: Split, rows: list[Row], report: dict[str, Any]
) -> None:
    main = rows[:2]
    sets = [name for name in ("base", "novel") if name in rows[0].predictions]
    columns = [*sets, "hm"] if len(sets) == 2 else sets
    path = out / "report.html"
    sections: list[tuple[str, list[str]]] = []
    if sets:
        bars = [Bars(f"{r.method}, {r.weights}", [value(r, c) for c in columns], [error(r, c) for c in columns]) for r in main]
        figure = accuracy_bars(columns, bars, out / "figures" / "accuracy.png")
        cells = [[r.method, r.weights, *("–" if value(r, c) is None else f"{value(r, c):.1f}" for c in columns)] for r in rows]
        tests = f"{len(parts.base_test)} base, {len(parts.novel_test)} novel"
        caption = f"Top-1 accuracy, whiskers of one standard error; test videos: {tests}."
        sections.append(("", [page.figure(figure, path, caption), page.table(["method", "weights", *columns], cells, [1])]))
    curves = training_curves({rows[1].method: out / "metrics.jsonl"}, out / "figures" / "training.png")
    sections.append(("Training", [page.figure(curves, path, "Running means over the steps.")]))
    clips = [clip for name in sets for clip in some_clips(rows, name, tuned)]
    if clips:
        strips = classified_clips(clips, out / "figures" / "clips.png")
        caption = "Scores within the video's own set. Green: the right label."
        sections.append(("Test videos", [page.figure(strips, path, caption)]))
    facts = [
        f"{report['training_videos']} training videos; base classes: {', '.join(parts.base)}",
        f"novel classes: {', '.join(parts.novel) or 'none'}",
        *parts.notes,
        *(f"skipped in training, {n} times: {m}" for m, n in report["unreadable_in_training"].items()),
        *(f"unreadable, scored wrong: {m}" for m in report["unreadable_in_test"]),
    ]
    sections.append(("Data", [page.paragraph(fact) for fact in facts]))
    labels = ", ".join((parts.base + parts.novel)[:3])
    sections.append(("Use the model", [page.code(f'froster classify VIDEO --model {out} --labels "{labels}"')]))
    page.write_page(path, f"froster train: {rows[1].method}", sections)


def value(row: Row, column: str) -> float | None:
    return row.hm if column == "hm" else row.top1(column)


def error(row: Row, column: str) -> float | None:
    return None if column == "hm" else standard_error(row.predictions[column].top(1), len(row.predictions[column].labels))


def some_clips(rows: list[Row], name: str, reader: Recognizer) -> list[Clip]:
    """A few test videos, evenly picked, with the scores of the starting and the tuned model."""
    before, after = rows[0].predictions[name], rows[1].predictions[name]
    count = min(SHOWN_CLIPS // 2, len(after.labels))
    clips = []
    for k in range(count):
        i = (2 * k + 1) * len(after.labels) // (2 * count)
        label = after.classes[int(after.labels[i])]
        try:
            frames = reader.read_views(after.names[i], 1)[0]  # type: ignore[index]
        except VideoError:
            continue
        verdicts = [verdict("before", before, i, reader), verdict("after", after, i, reader)]
        clips.append(Clip(f"{Path(after.names[i]).name}  (right: {label}, {name})", frames, label, verdicts))  # type: ignore[index]
    return clips


def verdict(name: str, predictions: Predictions, index: int, reader: Recognizer) -> Verdict:
    scores, order = (predictions.logits[index] / reader.config.views).softmax(-1).sort(descending=True)
    return Verdict(name, [predictions.classes[j] for j in order[:3].tolist()], scores[:3].tolist())
