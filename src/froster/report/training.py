"""The report page of a training run: one file, in plain words first, with what was gained and what
was kept."""

from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from froster.data.splits import Split
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import Recognizer
from froster.report import page
from froster.report.accuracy import Column, accuracy_chart, accuracy_table
from froster.report.mistakes import confusion, worst_mistakes
from froster.report.plots import coverage_figure, draw_blend, training_curves, validation_curves
from froster.text.labels import as_option, some_labels
from froster.training.measure import EvalRow, changes
from froster.utils.files import absolute
from froster.utils.progress import attempt
from froster.utils.text import shell_command

Makers = list[tuple[str, Callable[[], list[page.Part]]]]
HABITS = 12
"""Classes whose scene is shown; `report.json` has all."""
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
    after = rows[1].predictions
    confusions: Makers = [
        (
            f"What is taken for what: {WHAT[name]}",
            partial(confusion, out / "figures" / f"confusion_{name}.png", after[name]),
        )
        for name in after
    ]
    makers: Makers = [
        ("", partial(in_short, rows, parts, report)),
        ("Accuracy before and after", partial(accuracy, out, rows)),
        ("What was kept of CLIP", partial(kept, out, rows, report)),
        ("Habits of the classes", partial(habits, report["habits"])),
        ("How far a score can be trusted", partial(trust, out, tuned, report)),
        *confusions,
        ("The worst mistakes", partial(worst_mistakes, tuned, after)),
        ("Between CLIP and the tuned model", partial(blend, out, report["blend"])),
        ("Data and settings", partial(data, out, rows, parts, report)),
        ("Use the model", partial(use, out, parts, after, report["source"])),
    ]
    sections = [
        (title, attempt(f"report.html, {title or 'in short'}", make, say)) for title, make in makers
    ]
    left_out = [page.paragraph(f"Left out: {line}", "warning") for line in report["left_out"]]
    sections.insert(1, ("What could not be done", left_out))
    shown: list[page.Section] = [(title, parts) for title, parts in sections if parts]
    page.write_page(out / "report.html", f"Training report: {out.resolve().name}", shown)


def in_short(rows: list[EvalRow], parts: Split, report: dict[str, Any]) -> list[page.Part]:
    """Large numbers and a sentence for each. A change counts as one beyond two standard errors."""
    values: list[page.Card] = []
    sentences = []
    for name, c in changes(rows[0].predictions, rows[1].predictions).items():
        title = f"{'Gained' if name == 'base' else 'Kept'}: {WHAT[name]}"
        number = f"{c.before:.1f} % → {c.after:.1f} %"
        values.append((title, number, f"{c.points} points, {c.words}; {c.among}", c.kind))
        sentences.append(
            f"Of 100 test videos of {WHAT[name]}, CLIP named {c.before:.0f} right before the"
            f" training and the tuned model names {c.after:.0f} ({c.words}). Guessing would name"
            f" {c.chance:.0f}."
        )
    if (before := rows[0].together) and (after := rows[1].together):
        base, novel = changes(before.predictions, after.predictions).values()
        kinds = (base.kind, novel.kind)
        text = (
            f"harmonic mean; base {base.before:.1f} → {base.after:.1f}, novel {novel.before:.1f} →"
            f" {novel.after:.1f}; chance {base.chance:.1f}"
        )
        number = f"{before.hm:.1f} % → {after.hm:.1f} %"
        kind = next((kind for kind in ("bad", "good") if kind in kinds), "")
        values.append((f"Asked for all {base.classes} labels together", number, text, kind))
        sentences.append(
            f"Who does not know of which kind a video is asks for all {base.classes} labels"
            f" together. Then CLIP named {base.before:.0f} of 100 base videos right and the tuned"
            f" model names {base.after:.0f} ({base.words}); of novel videos {novel.before:.0f} and"
            f" {novel.after:.0f} ({novel.words}). Guessing would name {base.chance:.0f}."
        )
    if asked_foreign(report):
        share = f"{report['history'][-1]['agreement']:.0f} %"
        text = "given as CLIP gave them before"
        values.append(("Kept: answers among other labels", share, text, ""))
    if not rows[0].predictions:
        cause = "There are no test videos"
        if parts.base_test or parts.novel_test:
            cause = "No accuracy was measured on the test videos"
        sentences.append(f"{cause}, so nothing is known of the model's accuracy.")
    return [
        *([page.Part("cards", cards=values)] if values else []),
        *map(page.paragraph, sentences),
        *(page.paragraph(f"Warning: {line}", "warning") for line in report["warnings"]),
    ]


def asked_foreign(report: dict[str, Any]) -> bool:
    """Were the validation videos asked for labels of other things, there being no novel classes to
    measure?"""
    return bool(report["history"]) and "foreign" in report["history"][-1]


def accuracy(out: Path, rows: list[EvalRow]) -> list[page.Part]:
    sets = {name: p for name, p in rows[0].predictions.items() if name in WHAT}
    if not sets:
        return []
    names = [*sets, "hm"] if len(sets) == 2 else list(sets)
    columns = [Column(name) for name in names]
    columns += [Column(name, together=True) for name in names if rows[0].together]
    named = dict(zip(("before", "after"), rows, strict=False))
    figure = accuracy_chart(named, columns, out / "figures" / "accuracy.png")
    tests = ", ".join(f"{len(predictions.labels)} {name}" for name, predictions in sets.items())
    caption = (
        f"Share of the test videos named right, with whiskers of one standard error ({tests})."
        f" Base: {WHAT['base']}. Novel: {WHAT['novel']}. HM: the harmonic mean of both. Dashed:"
        " what guessing gets."
    )
    if rows[0].together:
        caption += " With *: the same videos, asked for base and novel labels together."
    return [page.embedded(figure, caption), accuracy_table(rows, columns, [1], errors=True)]


def kept(out: Path, rows: list[EvalRow], report: dict[str, Any]) -> list[page.Part]:
    """Zero-shot ability on labels that were not trained on, at the end and epoch by epoch."""
    history = report["history"]
    if "novel" in rows[0].predictions:
        c = changes(rows[0].predictions, rows[1].predictions)["novel"]
        text = (
            f"Among {c.classes} classes that were held out of the training, CLIP named"
            f" {c.before:.1f} % of {c.videos} videos right, the tuned model {c.after:.1f} %"
            f" ({c.points} points, {c.words}; guessing gets {c.chance:.1f} %)."
        )
    else:
        text = "Accuracy on the classes that were held out was not measured."
        if not report["novel_classes"]:
            text = (
                "No classes were held out, so accuracy on new labels is not known; --novel-fraction"
                " 0.2 holds a fifth out."
            )
        if asked_foreign(report):
            text += (
                f" Asked for {history[-1]['foreign']:.0f} labels that have nothing to do with the"
                f" training, the model answered {history[-1]['agreement']:.0f} % of the validation"
                " videos as CLIP did before."
            )
    if not history:
        return [page.paragraph(text)]
    caption = (
        f"Measured after every epoch, on {report['watched_videos']} videos of the training classes"
        " that neither train nor test. Dashed: CLIP before the training. Only the base curve may"
        " stop the training."
    )
    figure = validation_curves(history, out / "figures" / "validation.png")
    return [page.paragraph(text), page.embedded(figure, caption)]


def habits(measured: dict[str, Any] | None) -> list[page.Part]:
    """What scenes alone tell of the training classes, and the clearest of their scenes."""
    if measured is None:
        return []
    text = (
        "One frame of every training video, of which only the scene word (place, light, camera) is"
        " known that fits it best: how often does that word tell the class of a held-out video?"
    )
    rows = [
        [h["label"], h["word"], f"{h['share']:.0f} %", f"{h['elsewhere']:.0f} %"]
        for h in measured["habits"][:HABITS]
    ]
    table = page.table(["class", "its scene", "of its clips", "of others"], rows)
    texts = [page.paragraph(capital(measured["sentence"])), page.paragraph(text, "note")]
    return [*texts, table] if measured["kind"] == "habits" else texts


def capital(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def trust(out: Path, tuned: Recognizer, report: dict[str, Any]) -> list[page.Part]:
    measured, calibration = report["reliability"], tuned.calibration
    if measured is None:
        return []
    before, after = measured["before"], measured["after"]
    curves = {"as trained": before["coverage"]}
    if calibration.fitted is None:
        text = (
            f"Scores are not calibrated; on the test, a score is off by {before['ece']:.1f} points"
            " on average. With more videos the training calibrates them, or froster calibrate does."
        )
    else:
        curves["calibrated"] = after["coverage"]
        text = (
            f"Scores are calibrated on {calibration.fitted['videos']} validation videos"
            " (temperature"
            f" {calibration.temperature:.2f}): on the test, a score is off by {after['ece']:.1f}"
            f" points on average, {before['ece']:.1f} before."
        )
    texts = [text]
    if none := measured["none"]:
        last = none[-1]
        of_two = next(row["right"] for row in none if row["labels"] == min(2, last["labels"]))
        texts.append(
            "Every answer comes with the probability that none of the labels fits. Among"
            f" {last['labels']} labels, it tells a video whose label is there from one whose label"
            f" is not in {last['right']:.0f} % of the cases, among two in {of_two:.0f} % (chance is"
            " 50)."
        )
    caption = "Share of right answers among the surest ones, on test videos of base classes."
    figure = coverage_figure(curves, out / "figures" / "coverage.png")
    return [*map(page.paragraph, texts), page.embedded(figure, caption)]


def blend(out: Path, curve: dict[str, Any] | None) -> list[page.Part]:
    if curve is None:
        return []
    choosing, run = curve["choosing"], absolute(out)
    caption = (
        "Mixtures of the weights: left as tuned, right CLIP's. The line is the accuracy on test"
        f" videos; grey is what a ratio is chosen by, {choosing['videos']} held-out base videos"
        f" ({choosing['of']})."
    )
    text = (
        f"Held-out base videos speak for a share of {curve['ratio']:.2g} of CLIP's weights. To make"
        " that model, or another mixture:"
    )
    half = shell_command("blend", run, "--ratio", 0.5, "--out", f"{run}-half")
    return [
        page.embedded(draw_blend(curve, out / "figures" / "blend.png"), caption),
        page.paragraph(text),
        page.code(f"{shell_command('blend', run)}\n{half}"),
    ]


def data(out: Path, rows: list[EvalRow], parts: Split, report: dict[str, Any]) -> list[page.Part]:
    runs = {rows[1].method: out / "metrics.jsonl"}
    curves = training_curves(runs, out / "figures" / "training.png")
    skipped = report["unreadable_in_training"].items()
    lines = [
        f"{report['training_videos']} training videos in {report['epochs']} epochs; base classes:"
        f" {', '.join(parts.base)}",
        f"novel classes: {', '.join(parts.novel) or 'none'}",
        *parts.notes,
        *report["chosen"],
        *(f"skipped in training, {count} times: {message}" for message, count in skipped),
        *(f"unreadable, scored wrong: {message}" for message in report["unreadable_in_test"]),
    ]
    caption = "Training: running means over the steps."
    return [*map(page.paragraph, lines), page.embedded(curves, caption)]


def use(
    out: Path, parts: Split, measured: dict[str, Predictions], source: dict[str, Any]
) -> list[page.Part]:
    """Commands that work as they are pasted, wherever that is."""
    run = absolute(out)
    data = ["--data", source["data"]]
    for option in ("root", "labels_json"):
        data += [f"--{option.replace('_', '-')}", source[option]] if source[option] else []
    data += [word for pair in source["where"].items() for word in ("--where", "=".join(pair))]
    commands = [
        shell_command("evaluate", *data, "--model", run),
        shell_command("calibrate", run),
        shell_command("push", run, "USER/NAME", "--license", "LICENCE"),
    ]
    video, labels = "VIDEO", parts.base[:2]
    if shown := example(parts, measured):
        video, labels = shown
        listed = ("--labels", as_option(labels))
        commands.insert(0, shell_command("classify", video, "--model", run, *listed))
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


def example(parts: Split, measured: dict[str, Predictions]) -> tuple[str, list[str]] | None:
    """A test video (one that was named right, where there is one) and labels with its own among
    them."""
    right = {
        name
        for predictions in measured.values()
        for name, rank in zip(predictions.names or [], predictions.ranks().tolist(), strict=False)
        if rank == 0
    }
    every = chain(parts.base_test, parts.novel_test)
    named_right = (item for item in every if str(item.path) in right)
    for item in chain(named_right, parts.base_test, parts.novel_test, parts.train):
        labels = some_labels(item.label, parts.base + parts.novel)
        if as_option(labels) is not None:
            return str(absolute(item.path)), labels
    return None
