"""The report page of a training run: one file, in plain words first, with what was gained and what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.commands.blend_curve import draw
from froster.commands.train_mistakes import common_mistakes, worst_mistakes
from froster.evaluation import Predictions, harmonic_mean_error, paired_gain, standard_error
from froster.experiment import Row
from froster.insight import page
from froster.insight.distance import confusion_matrix, confusion_picture
from froster.insight.plots import Bars, accuracy_bars, training_curves
from froster.insight.reliability import coverage_figure
from froster.insight.watched import watched_figure
from froster.recognizer import Recognizer
from froster.splits import Split

Section = tuple[str, list[str]]
WHAT = {"base": "the classes it was trained on", "novel": "classes it never saw in training"}


def write_report(out: Path, tuned: Recognizer, parts: Split, rows: list[Row], report: dict[str, Any]) -> None:
    found = rows[1].predictions
    sections: list[Section] = [
        ("", in_short(rows, report)),
        ("Accuracy before and after", accuracy(out, rows)),
        ("What was kept of CLIP", kept(out, rows, report)),
        ("How far a score can be trusted", trust(out, tuned, report)),
        *(confusion(out, name, found[name]) for name in found),
        ("The worst mistakes", worst_mistakes(tuned, found)),
        ("Between CLIP and the tuned model", blend(out, report)),
        ("Data and settings", data(out, rows, parts, report)),
        ("Use the model", use(out, parts)),
    ]
    page.write_page(out / "report.html", f"Training report: {out.resolve().name}", [s for s in sections if s[1]])


def in_short(rows: list[Row], report: dict[str, Any]) -> list[str]:
    """Large numbers and a sentence for each. A change counts as one beyond two standard errors."""
    values, sentences = [], []
    for name, title in (("base", "Gained"), ("novel", "Kept")):
        if name not in rows[0].predictions:
            continue
        before, after = (row.predictions[name] for row in rows[:2])
        gain, error = paired_gain(before, after)
        kind = "" if abs(gain) <= 2 * error else "good" if gain > 0 else "bad"
        number = f"{before.top(1):.0f} % → {after.top(1):.0f} %"
        values.append((f"{title}: {WHAT[name]}", number, f"{gain:+.1f} ± {error:.1f} points, {len(after.labels)} videos", kind))
        sure = "" if kind else ", so nothing has changed" if not gain else ", which may be chance"
        sentences.append(
            f"Of 100 test videos of {WHAT[name]}, CLIP named {before.top(1):.0f} right before the training and the tuned model "
            f"names {after.top(1):.0f}{sure}."
        )
    if "novel" not in rows[0].predictions and report["history"]:
        share = report["history"][-1]["agreement"]
        values.append(("Kept: answers among other labels", f"{share:.0f} %", "given as CLIP gave them before", ""))
    if not values:
        sentences.append("There are no test videos, so nothing is known of the model's accuracy.")
    parts = [page.cards(values)] if values else []
    parts += [page.paragraph(sentence) for sentence in sentences]
    return parts + [page.paragraph(f"Warning: {line}", "warning") for line in report["warnings"]]


def value(row: Row, column: str) -> float | None:
    return row.hm if column == "hm" else row.top1(column)


def error(row: Row, column: str) -> float | None:
    """One standard error of test sampling."""
    if column == "hm":
        values = [value(row, name) or 0.0 for name in WHAT]
        return harmonic_mean_error(*values, *((error(row, name) or 0.0) for name in WHAT))
    return standard_error(row.predictions[column].top(1), len(row.predictions[column].labels))


def accuracy(out: Path, rows: list[Row]) -> list[str]:
    sets = [name for name in WHAT if name in rows[0].predictions]
    if not sets:
        return []
    columns = [*sets, "hm"] if len(sets) == 2 else sets
    shown = [*sets, "HM"] if len(sets) == 2 else sets
    bars = [Bars(name, [value(r, c) for c in columns], [error(r, c) for c in columns])
            for name, r in zip(("before", "after"), rows, strict=False)]  # fmt: skip
    figure = accuracy_bars(shown, bars, out / "figures" / "accuracy.png")
    cells = [[r.method, r.weights, *(cell(r, c) for c in columns)] for r in rows]
    tests = ", ".join(f"{len(rows[0].predictions[name].labels)} {name}" for name in sets)
    caption = (
        f"Share of the test videos named right, with whiskers of one standard error ({tests}). Base: {WHAT['base']}. "
        f"Novel: {WHAT['novel']}. HM: the harmonic mean of both."
    )
    return [page.embedded(figure.read_bytes(), caption), page.table(["method", "weights", *shown], cells, [1])]


def cell(row: Row, column: str) -> str:
    found = value(row, column)
    return "–" if found is None else f"{found:.1f} ± {error(row, column):.1f}"


def kept(out: Path, rows: list[Row], report: dict[str, Any]) -> list[str]:
    """Zero-shot ability on labels that were not trained on, at the end and epoch by epoch."""
    parts, history = [], report["history"]
    if "novel" in rows[0].predictions:
        before, after = (row.predictions["novel"] for row in rows[:2])
        gain, spread = paired_gain(before, after)
        parts.append(
            page.paragraph(
                f"Among {len(after.classes)} classes that were held out of the training, CLIP named {before.top(1):.1f} % of "
                f"{len(after.labels)} videos right, the tuned model {after.top(1):.1f} % ({gain:+.1f} ± {spread:.1f} points)."
            )
        )
    else:
        text = "No classes were held out, so accuracy on new labels is not known; --novel-fraction 0.2 holds a fifth out."
        if history:
            text += (
                f" Asked for {history[-1]['foreign']:.0f} labels that have nothing to do with the training, the model answered "
                f"{history[-1]['agreement']:.0f} % of the watched videos as CLIP did before."
            )
        parts.append(page.paragraph(text))
    if history:
        figure = watched_figure(history, out / "figures" / "watched.png")
        caption = (
            f"Measured after every epoch, on {report['watched_videos']} videos of the training classes that neither train nor "
            "test. Dashed: CLIP before the training. Only the base curve may stop the training."
        )
        parts.append(page.embedded(figure.read_bytes(), caption))
    return parts


def trust(out: Path, tuned: Recognizer, report: dict[str, Any]) -> list[str]:
    found = report["reliability"]
    if found is None:
        return []
    before, after = found["before"], found["after"]
    calibrated = tuned.calibration.fitted is not None
    curves = {"as trained": before["coverage"], **({"calibrated": after["coverage"]} if calibrated else {})}
    figure = coverage_figure(curves, out / "figures" / "coverage.png")
    how = (
        f"Scores are calibrated on {tuned.calibration.fitted['videos']} watched videos (temperature "  # type: ignore[index]
        f"{tuned.calibration.temperature:.2f}): on the test, a score is off by {after['ece']:.1f} points on average, "
        f"{before['ece']:.1f} before."
        if calibrated
        else f"Scores are not calibrated; on the test, a score is off by {before['ece']:.1f} points on average. With more "
        "videos the training calibrates them, or froster calibrate does."
    )
    caption = "If only the surest answers are taken, how many of them are right. Test videos of base classes."
    picture = page.embedded(figure.read_bytes(), caption)
    if not found["none"]:
        return [page.paragraph(how), picture]
    last = found["none"][-1]
    none = (
        f"Every answer comes with the probability that none of the labels fits. Among {last['labels']} labels, it tells a "
        f"video whose label is there from one whose label is not in {last['right']:.0f} % of the cases, among two in "
        f"{next(row['right'] for row in found['none'] if row['labels'] == min(2, last['labels'])):.0f} % (chance is 50)."
    )
    return [page.paragraph(how), page.paragraph(none), picture]


def confusion(out: Path, name: str, found: Predictions) -> Section:
    counts = confusion_matrix(found)
    picture = confusion_picture(counts, found.classes, out / "figures" / f"confusion_{name}.png")
    caption = "Rows are the right classes, columns the answers; darker is more, and the diagonal is right."
    parts = [page.embedded(picture.read_bytes(), caption)]
    pairs = common_mistakes(counts, found.classes)
    if pairs:
        parts.insert(0, page.table(["the right class", "was taken for", "videos"], pairs))
    return f"What is taken for what: {WHAT[name]}", parts


def blend(out: Path, report: dict[str, Any]) -> list[str]:
    found = report["blend"]
    if found is None:
        return []
    draw(found, out / "figures" / "blend.png")
    share, choosing = found["ratio"], found["choosing"]
    caption = (
        "Mixtures of the weights: left as tuned, right CLIP's. The line is the accuracy on test videos; grey is what a ratio is "
        f"chosen by, {choosing['videos']} held-out base videos ({choosing['of']})."
    )
    text = f"Held-out base videos speak for a share of {share:.2g} of CLIP's weights. To make that model, or another mixture:"
    return [
        page.embedded((out / "figures" / "blend.png").read_bytes(), caption),
        page.paragraph(text), page.code(f"froster blend {out}\nfroster blend {out} --ratio 0.5 --out {out}-half"),
    ]  # fmt: skip


def data(out: Path, rows: list[Row], parts: Split, report: dict[str, Any]) -> list[str]:
    curves = training_curves({rows[1].method: out / "metrics.jsonl"}, out / "figures" / "training.png")
    lines = [
        f"{report['training_videos']} training videos in {report['epochs']} epochs; base classes: {', '.join(parts.base)}",
        f"novel classes: {', '.join(parts.novel) or 'none'}",
        *parts.notes,
        *report["chosen"],
        *(f"skipped in training, {n} times: {m}" for m, n in report["unreadable_in_training"].items()),
        *(f"unreadable, scored wrong: {m}" for m in report["unreadable_in_test"]),
    ]
    return [*(page.paragraph(x) for x in lines), page.embedded(curves.read_bytes(), "Training: running means over the steps.")]


def use(out: Path, parts: Split) -> list[str]:
    labels = ", ".join((parts.base + parts.novel)[:3])
    commands = (
        f'froster classify VIDEO --model {out} --labels "{labels}"\n'
        f"froster evaluate --data FOLDER --model {out}\n"
        f"froster calibrate {out}\n"
        f"froster push {out} USER/NAME --license LICENCE"
    )
    python = f'import froster\n\nmodel = froster.load("{out}")\nprint(model.classify("VIDEO", {parts.base[:2]!r}).answer)'
    return [page.paragraph("On the command line:"), page.code(commands), page.paragraph("In Python:"), page.code(python)]
