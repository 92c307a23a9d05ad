"""The report page of a training run: one file, in plain words first, with what was gained and what
was kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from froster.data.splits import Split
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import Recognizer
from froster.report import page
from froster.report.accuracy import Column, accuracy_chart, accuracy_table
from froster.report.distance import confusion_matrix, confusion_picture
from froster.report.mistakes import common_mistakes, worst_mistakes
from froster.report.plots import coverage_figure, draw_blend, training_curves, validation_curves
from froster.text.labels import as_option, some_labels
from froster.training.measure import EvalRow, changes
from froster.utils.files import absolute
from froster.utils.progress import attempt
from froster.utils.text import shell_command

WHAT = {"base": "the classes it was trained on", "novel": "classes it never saw in training"}


def write_report(
    out: Path,
    tuned: Recognizer,
    parts: Split,
    rows: list[EvalRow],
    report: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """A section that cannot be made is left out, and `say` is told why."""
    found = rows[1].predictions
    makers: list[tuple[str, Callable[[], list[page.Part]]]] = [
        ("", partial(in_short, rows, parts, report)),
        ("Accuracy before and after", partial(accuracy, out, rows)),
        ("What was kept of CLIP", partial(kept, out, rows, report)),
        ("How far a score can be trusted", partial(trust, out, tuned, report)),
        *(
            (f"What is taken for what: {WHAT[name]}", partial(confusion, out, name, found[name]))
            for name in found
        ),
        ("The worst mistakes", partial(worst_mistakes, tuned, found)),
        ("Between CLIP and the tuned model", partial(blend, out, report)),
        ("Data and settings", partial(data, out, rows, parts, report)),
        ("Use the model", partial(use, out, parts, found, report["source"])),
    ]
    sections = [
        (title, attempt(f"report.html, {title or 'in short'}", make, say)) for title, make in makers
    ]
    left_out = [page.paragraph(f"Left out: {line}", "warning") for line in report["left_out"]]
    if left_out:
        sections.insert(1, ("What could not be done", left_out))
    shown: list[page.Section] = [(title, parts) for title, parts in sections if parts]
    page.write_page(out / "report.html", f"Training report: {out.resolve().name}", shown)


def in_short(rows: list[EvalRow], parts: Split, report: dict[str, Any]) -> list[page.Part]:
    """Large numbers and a sentence for each. A change counts as one beyond two standard errors."""
    values, sentences = [], []
    for name, c in changes(rows[0].predictions, rows[1].predictions).items():
        title = {"base": "Gained", "novel": "Kept"}[name]
        number = f"{c.before:.1f} % → {c.after:.1f} %"
        values.append(
            (f"{title}: {WHAT[name]}", number, f"{c.points} points, {c.words}; {c.among}", c.kind)
        )
        sentences.append(
            f"Of 100 test videos of {WHAT[name]}, CLIP named {c.before:.0f} right before the"
            f" training and the tuned model names {c.after:.0f} ({c.words}). Guessing would name"
            f" {c.chance:.0f}."
        )
    if (before := rows[0].together) and (after := rows[1].together):
        asked = changes(before.predictions, after.predictions)
        base, novel = asked["base"], asked["novel"]
        kind = (
            "bad"
            if "bad" in (base.kind, novel.kind)
            else "good"
            if "good" in (base.kind, novel.kind)
            else ""
        )
        text = (
            f"harmonic mean; base {base.before:.1f} → {base.after:.1f}, novel {novel.before:.1f} →"
            f" {novel.after:.1f}"
        )
        values.append(
            (
                f"Asked for all {base.classes} labels together",
                f"{before.hm:.1f} % → {after.hm:.1f} %",
                f"{text}; chance {base.chance:.1f}",
                kind,
            )
        )
        sentences.append(
            f"Who does not know of which kind a video is asks for all {base.classes} labels"
            f" together. Then CLIP named {base.before:.0f} of 100 base videos right and the tuned"
            f" model names {base.after:.0f} ({base.words}); of novel videos {novel.before:.0f} and"
            f" {novel.after:.0f} ({novel.words}). Guessing would name {base.chance:.0f}."
        )
    if asked_foreign(report):
        share = report["history"][-1]["agreement"]
        values.append(
            (
                "Kept: answers among other labels",
                f"{share:.0f} %",
                "given as CLIP gave them before",
                "",
            )
        )
    if not rows[0].predictions:
        tests = parts.base_test or parts.novel_test
        cause = (
            "No accuracy was measured on the test videos" if tests else "There are no test videos"
        )
        sentences.append(f"{cause}, so nothing is known of the model's accuracy.")
    shown = [page.cards(values)] if values else []
    shown += [page.paragraph(sentence) for sentence in sentences]
    return shown + [page.paragraph(f"Warning: {line}", "warning") for line in report["warnings"]]


def asked_foreign(report: dict[str, Any]) -> bool:
    """Were the watched videos asked for labels of other things, there being no novel classes to
    measure?"""
    return bool(report["history"]) and "foreign" in report["history"][-1]


def accuracy(out: Path, rows: list[EvalRow]) -> list[page.Part]:
    sets = [name for name in WHAT if name in rows[0].predictions]
    if not sets:
        return []
    names = [*sets, "hm"] if len(sets) == 2 else sets
    columns = [Column(name) for name in names]
    columns += [Column(name, together=True) for name in names if rows[0].together]
    named = dict(zip(("before", "after"), rows, strict=False))
    figure = accuracy_chart(named, columns, out / "figures" / "accuracy.png")
    tests = ", ".join(f"{len(rows[0].predictions[name].labels)} {name}" for name in sets)
    caption = (
        f"Share of the test videos named right, with whiskers of one standard error ({tests})."
        f" Base: {WHAT['base']}. Novel: {WHAT['novel']}. HM: the harmonic mean of both. Dashed:"
        " what guessing gets."
        + (
            " With *: the same videos, asked for the labels of base and novel classes together."
            if rows[0].together
            else ""
        )
    )
    table = accuracy_table(rows, columns, [1], errors=True)
    return [page.embedded(figure.read_bytes(), caption), table]


def kept(out: Path, rows: list[EvalRow], report: dict[str, Any]) -> list[page.Part]:
    """Zero-shot ability on labels that were not trained on, at the end and epoch by epoch."""
    parts, history = [], report["history"]
    if "novel" in rows[0].predictions:
        c = changes(rows[0].predictions, rows[1].predictions)["novel"]
        parts.append(
            page.paragraph(
                f"Among {c.classes} classes that were held out of the training, CLIP named"
                f" {c.before:.1f} % of {c.videos} videos right, the tuned model {c.after:.1f} %"
                f" ({c.points} points, {c.words}; guessing gets {c.chance:.1f} %)."
            )
        )
    else:
        text = (
            "Accuracy on the classes that were held out was not measured."
            if report["novel_classes"]
            else (
                "No classes were held out, so accuracy on new labels is not known; --novel-fraction"
                " 0.2 holds a fifth out."
            )
        )
        if asked_foreign(report):
            text += (
                f" Asked for {history[-1]['foreign']:.0f} labels that have nothing to do with the"
                f" training, the model answered {history[-1]['agreement']:.0f} % of the watched"
                " videos as CLIP did before."
            )
        parts.append(page.paragraph(text))
    if history:
        figure = validation_curves(history, out / "figures" / "watched.png")
        caption = (
            f"Measured after every epoch, on {report['watched_videos']} videos of the training"
            " classes that neither train nor test. Dashed: CLIP before the training. Only the base"
            " curve may stop the training."
        )
        parts.append(page.embedded(figure.read_bytes(), caption))
    return parts


def trust(out: Path, tuned: Recognizer, report: dict[str, Any]) -> list[page.Part]:
    found = report["reliability"]
    if found is None:
        return []
    before, after = found["before"], found["after"]
    calibrated = tuned.calibration.fitted is not None
    curves = {
        "as trained": before["coverage"],
        **({"calibrated": after["coverage"]} if calibrated else {}),
    }
    figure = coverage_figure(curves, out / "figures" / "coverage.png")
    how = (
        f"Scores are calibrated on {tuned.calibration.fitted['videos']} watched videos (temperature "  # type: ignore[index]
        f"{tuned.calibration.temperature:.2f}): on the test, a score is off by {after['ece']:.1f}"
        " points on average, "
        f"{before['ece']:.1f} before."
        if calibrated
        else (
            f"Scores are not calibrated; on the test, a score is off by {before['ece']:.1f} points"
            " on average. With more videos the training calibrates them, or froster calibrate"
            " does."
        )
    )
    caption = (
        "If only the surest answers are taken, how many of them are right. Test videos of base"
        " classes."
    )
    picture = page.embedded(figure.read_bytes(), caption)
    if not found["none"]:
        return [page.paragraph(how), picture]
    last = found["none"][-1]
    none = (
        "Every answer comes with the probability that none of the labels fits. Among"
        f" {last['labels']} labels, it tells a video whose label is there from one whose label is"
        f" not in {last['right']:.0f} % of the cases, among two in"
        f" {next(row['right'] for row in found['none'] if row['labels'] == min(2, last['labels'])):.0f}"
        " % (chance is 50)."
    )
    return [page.paragraph(how), page.paragraph(none), picture]


def confusion(out: Path, name: str, found: Predictions) -> list[page.Part]:
    counts = confusion_matrix(found)
    picture = confusion_picture(counts, found.classes, out / "figures" / f"confusion_{name}.png")
    caption = (
        "Rows are the right classes, columns the answers; darker is more, and the diagonal is"
        " right."
    )
    parts = [page.embedded(picture.read_bytes(), caption)]
    pairs = common_mistakes(counts, found.classes)
    if pairs:
        parts.insert(0, page.table(["the right class", "was taken for", "videos"], pairs))
    return parts


def blend(out: Path, report: dict[str, Any]) -> list[page.Part]:
    found = report["blend"]
    if found is None:
        return []
    draw_blend(found, out / "figures" / "blend.png")
    share, choosing, run = found["ratio"], found["choosing"], absolute(out)
    caption = (
        "Mixtures of the weights: left as tuned, right CLIP's. The line is the accuracy on test"
        f" videos; grey is what a ratio is chosen by, {choosing['videos']} held-out base videos"
        f" ({choosing['of']})."
    )
    text = (
        f"Held-out base videos speak for a share of {share:.2g} of CLIP's weights. To make that"
        " model, or another mixture:"
    )
    return [
        page.embedded((out / "figures" / "blend.png").read_bytes(), caption),
        page.paragraph(text),
        page.code(
            f"{shell_command('blend', run)}\n{shell_command('blend', run, '--ratio', 0.5, '--out', f'{run}-half')}"
        ),
    ]


def data(out: Path, rows: list[EvalRow], parts: Split, report: dict[str, Any]) -> list[page.Part]:
    curves = training_curves(
        {rows[1].method: out / "metrics.jsonl"}, out / "figures" / "training.png"
    )
    lines = [
        (
            f"{report['training_videos']} training videos in {report['epochs']} epochs; base"
            f" classes: {', '.join(parts.base)}"
        ),
        f"novel classes: {', '.join(parts.novel) or 'none'}",
        *parts.notes,
        *report["chosen"],
        *(
            f"skipped in training, {n} times: {m}"
            for m, n in report["unreadable_in_training"].items()
        ),
        *(f"unreadable, scored wrong: {m}" for m in report["unreadable_in_test"]),
    ]
    return [
        *(page.paragraph(x) for x in lines),
        page.embedded(curves.read_bytes(), "Training: running means over the steps."),
    ]


def use(
    out: Path, parts: Split, found: dict[str, Predictions], source: dict[str, Any]
) -> list[page.Part]:
    """Commands that work as they are pasted, wherever that is."""
    run = absolute(out)
    shown = example(parts, found)
    data = ["--data", source["data"], *(["--root", source["root"]] if source["root"] else [])]
    data += ["--labels-json", source["labels_json"]] if source["labels_json"] else []
    data += [word for pair in source["where"].items() for word in ("--where", "=".join(pair))]
    commands = [
        *(
            [shell_command("classify", shown[0], "--model", run, "--labels", as_option(shown[1]))]
            if shown
            else []
        ),
        shell_command("evaluate", *data, "--model", run),
        shell_command("calibrate", run),
        shell_command("push", run, "USER/NAME", "--license", "LICENCE"),
    ]
    video, labels = shown or ("VIDEO", parts.base[:2])
    python = (
        f"import froster\n\nmodel = froster.load({run!r})\nprint(model.classify({video!r},"
        f" {labels!r}).answer)"
    )
    return [
        page.paragraph("On the command line:"),
        page.code("\n".join(commands)),
        page.paragraph("In Python:"),
        page.code(python),
    ]


def example(parts: Split, found: dict[str, Predictions]) -> tuple[str, list[str]] | None:
    """A test video (one that was named right, where there is one) and labels with its own among
    them."""
    items = [*parts.base_test, *parts.novel_test]
    right = {
        name
        for p in found.values()
        for name, rank in zip(p.names or [], p.ranks().tolist(), strict=False)
        if rank == 0
    }
    for item in sorted(items, key=lambda item: str(item.path) not in right) + parts.train:
        labels = some_labels(item.label, parts.base + parts.novel)
        if as_option(labels) is not None:
            return str(absolute(item.path)), labels
    return None
