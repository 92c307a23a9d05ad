"""The page of `froster evaluate`: how much is right, whether motion is used, what is taken for
what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.report import page
from froster.report.mistakes import confusion
from froster.report.plots import Bars, accuracy_bars, coverage_figure
from froster.training.evaluate import Evaluation
from froster.training.probes import SHOWS, probe_lines

MOST_CLASSES = 40
"""Rows of the table of classes: those that lose most. `evaluation.json` has all."""


def write_evaluation(evaluation: Evaluation, out: Path) -> Path:
    """`report.html` with its pictures beside it."""
    splits = evaluation.report["splits"]
    curves = {name: result["reliability"]["coverage"] for name, result in splits.items()}
    coverage = coverage_figure(curves, out / "coverage.png")
    caption = "Share of right answers among the surest ones."
    sections: list[page.Section] = [
        ("", [*in_short(evaluation.report), page.embedded(coverage, caption)])
    ]
    for name, predictions in evaluation.predictions.items():
        if probes := splits[name].get("probes"):
            title = f"Is motion used? {name}"
            sections.append((title, probe_parts(out, name, splits[name], probes)))
        sections.append(
            (
                f"What is taken for what: {name}",
                confusion(out / f"confusion_{name}.png", predictions, name),
            )
        )
    return page.write_page(out / "report.html", f"Evaluation: {out.resolve().name}", sections)


def in_short(report: dict[str, Any]) -> list[page.Part]:
    rows = [
        [
            name,
            str(result["videos"]),
            str(result["classes"]),
            f"{result['chance']:.1f}",
            f"{result['top1']:.1f} ± {result['standard_error']:.1f}",
        ]
        for name, result in report["splits"].items()
    ]
    columns = ["videos of", "number", "labels", "chance, %", "right, %"]
    notes = [page.paragraph(line, "note") for line in report["notes"]]
    return [page.table(columns, rows), *notes]


def probe_parts(
    out: Path, name: str, usual: dict[str, Any], probes: dict[str, Any]
) -> list[page.Part]:
    """The usual accuracy beside that of each probe, a sentence for each, and the classes that lose
    most. No picture and no table where the network cannot know the order."""
    texts = [page.paragraph(line) for line in probe_lines(name, probes)]
    computed = {probe: p for probe, p in probes.items() if not p["by_construction"]}
    if not computed:
        return texts
    first = {name: next(iter(computed.values())), **next(iter(computed.values()))["groups"]}
    bars = [Bars("as usual", [c["before"] for c in first.values()], [None] * len(first))]
    for probe, p in computed.items():
        of_probe = [p, *p["groups"].values()]
        bars.append(Bars(probe, [c["after"] for c in of_probe], [c["error"] for c in of_probe]))
    chance = [c["chance"] for c in first.values()]
    figure = accuracy_bars(list(first), bars, out / f"probes_{name}.png", chance)
    shows = "; ".join(f"{probe}: {SHOWS[probe]}" for probe in computed)
    caption = (
        f"The same videos. {shows}. Whiskers: one standard error of the difference from the usual"
        " accuracy. Dashed: what guessing gets."
    )
    return [*texts, page.embedded(figure, caption), *class_table(usual, computed)]


def class_table(usual: dict[str, Any], probes: dict[str, Any]) -> list[page.Part]:
    """Class by class, the largest loss of any probe first."""
    by_class = [p["per_class"] for p in probes.values()]
    lost = {name: min(p[name]["gain"] for p in by_class) for name in usual["per_class"]}
    order = sorted(lost, key=lambda name: lost[name])[:MOST_CLASSES]
    rows = [
        [
            name,
            str(by_class[0][name]["videos"]),
            f"{usual['per_class'][name]:.1f}",
            *(f"{p[name]['gain']:+.1f} ± {p[name]['error']:.1f}" for p in by_class),
        ]
        for name in order
    ]
    text = (
        "Class by class, in points. Of many classes a few lose more than two standard errors by"
        " chance."
    )
    return [
        page.paragraph(text, "note"),
        page.table(["class", "videos", "as usual, %", *probes], rows),
    ]
