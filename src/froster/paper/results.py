"""The stored runs as the paper's tables, in Markdown and JSON: what was measured beside what was
published.

On the paper's data the two are compared number by number; in miniature only what a network gained
over frozen CLIP can be.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from rich.progress import Progress

from froster import __version__
from froster.evaluation.metrics import harmonic_mean
from froster.paper.cells import PaperTable, TableRow
from froster.paper.figures import draw
from froster.paper.miniature import STANDS_FOR
from froster.paper.programme import RunSource, carry_out, measured, runs_of_tables
from froster.paper.published import REPRODUCTION_NOISE, TABLE_1, TABLE_2, Values
from froster.paper.tables import TABLES
from froster.utils.files import write_json, write_text

MINIATURE_SETS = {"base-to-novel": ("base", "novel", "hm"), "cross-dataset": ("near", "mid", "far")}
"""Protocol -> columns of a table in miniature."""
TITLES = {
    "fig1": "Figure 1: alone, and summed with frozen CLIP",
    "fig4": "Figure 4: attention of [CLS]",
    "fig5": "Figure 5: gain of each class over frozen CLIP by its similarity to training",
}
PUBLISHED_LEGEND = (
    "Ours, mean ± sample standard deviation over splits, training sets and seeds; in brackets the"
    " paper's value and the difference.\n"
    f"A difference within ± {REPRODUCTION_NOISE:g} is what a careful repetition of such a run shows"
    " (Open-VCLIP's own recipe gave a user 82.4 to 82.6 for its 83.5 on UCF*)."
)
MINIATURE_LEGEND = (
    "Accuracy in per cent, mean ± sample standard deviation over the seeds; every number is in"
    " `cells/`. *Gain*: over frozen CLIP with plain labels, ours the mean over the sets of the"
    " world, the paper's over those of UCF*, HMDB* and K600 that it prints (base-to-novel: of the"
    " harmonic mean)."
)


def published_row(source: RunSource, row: TableRow, table: PaperTable) -> dict[str, Any]:
    """On the paper's data: means, standard deviations, and differences from what is printed."""
    columns = measured(source, row, table)
    means, spreads = {}, {}
    for column, values in columns.items():
        means[column] = statistics.fmean(values)
        spreads[column] = statistics.stdev(values) if len(values) > 1 else 0.0
        if column.endswith(" novel"):
            name = column.removesuffix(" novel")
            means[f"{name} HM"] = harmonic_mean(means[f"{name} base"], means[column])
    printed = {column: row.published.get(column) for column in means}
    differences = {c: means[c] - value for c, value in printed.items() if value is not None}
    return {"ours": means, "sd": spreads, "difference": differences}


def miniature_row(source: RunSource, row: TableRow, table: PaperTable) -> dict[str, Any]:
    """In miniature: every seed's accuracies, and the one thing to compare with a paper by, the gain
    over frozen CLIP with plain labels, in points: ours, the mean over the table's sets, and the
    paper's, over those of its columns that the row prints. Base-to-novel: of the harmonic mean."""
    (frozen_run,) = source.runs_of(None, table.protocol)
    frozen = source.scores(frozen_run, "frozen, plain")
    printed: Values = TABLE_2["Frozen CLIP"]
    sets, columns = source.columns, list(STANDS_FOR)
    if table.protocol == "base-to-novel":
        printed = TABLE_1["Frozen CLIP (*)"]
        sets, columns = ("hm",), [column for column in printed if column.endswith("HM")]
    pairs = [(row.published.get(column), printed[column]) for column in columns]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    ours = measured(source, row, table)
    points = [value - frozen[name] for name in sets for value in ours.get(name, []) if frozen]
    return {
        "ours": {name: ours.get(name, []) for name in MINIATURE_SETS[table.protocol]},
        "gain": statistics.fmean(points) if points else None,
        "published_gain": statistics.fmean(differences) if differences else None,
    }


def table_data(source: RunSource, table: PaperTable) -> list[dict[str, Any]]:
    """One object a row: its run, what is printed, what was measured."""
    of_row = published_row if source.published else miniature_row
    return [
        {
            "row": row.name,
            "run": row.cell.key if row.cell else row.weights,
            "published": row.published,
            **({"caveat": row.caveat} if row.caveat else {}),
            **of_row(source, row, table),
        }
        for row in table.rows
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def published_table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(c for row in rows for c in (*row["published"], *row["ours"])))
    cells = [[row["row"], *(compared(row, column) for column in columns)] for row in rows]
    return with_caveats(["row", *columns], cells, rows)


def with_caveats(
    head: Sequence[str], cells: Sequence[Sequence[str]], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """A table with a last column for what keeps the published numbers from being compared, where
    there is such a thing."""
    if not any("caveat" in row for row in rows):
        return markdown_table(head, cells)
    longer = [[*line, row.get("caveat", "")] for line, row in zip(cells, rows, strict=True)]
    return markdown_table([*head, "of the published numbers"], longer)


def compared(row: dict[str, Any], column: str) -> str:
    """ "84.8 ± 0.3 (85.0, -0.2)": ours, and in brackets the paper's and the difference."""
    ours, printed = row["ours"].get(column), row["published"].get(column)
    sd = row["sd"].get(column, 0.0)
    text = "–" if ours is None else f"{ours:.1f}" + (f" ± {sd:.1f}" if sd else "")
    if printed is None:
        return text
    difference = "" if ours is None else f", {row['difference'][column]:+.1f}"
    return f"{text} ({printed:.1f}{difference})"


def miniature_table(rows: list[dict[str, Any]], table: PaperTable) -> list[str]:
    sets = MINIATURE_SETS[table.protocol]
    cells = []
    for row in rows:
        ours, paper = row["gain"], row["published_gain"]
        difference = None if ours is None or paper is None else ours - paper
        printed = [f"{name} {v:g}" for name, v in row["published"].items() if v is not None]
        cells.append(
            [
                row["row"],
                *(spread(row["ours"][name]) for name in sets),
                str(len(row["ours"][sets[0]])),
                *("–" if v is None else f"{v:+.1f}" for v in (ours, paper, difference)),
                ", ".join(printed) or "–",
            ]
        )
    gained = ("seeds", "gain, ours", "gain, paper", "difference", "the paper, on its data")
    lines = with_caveats(["row", *sets, *gained], cells, rows)
    if table.protocol == "cross-dataset":
        pairs = ", ".join(f"{ours} for {column}" for column, ours in STANDS_FOR.items())
        lines += ["", f"Sets of the world stand for the paper's: {pairs}."]
    return lines


def spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{sd}"


def reproduce(
    source: RunSource,
    names: Sequence[str],
    title: str,
    bars: Progress,
    *,
    shard: tuple[int, int] = (0, 1),
    report: bool = False,
) -> dict[str, Any]:
    """Make the runs of these tables that are missing, or with `report` none, draw the figures, and
    write the report under `title`.

    Returns what `tables.json` holds, and under "failed" the runs that could not be made. Raises
    UsageError where the folder holds runs of other settings.
    """
    source.check()
    failed = []
    if not report:
        failed = carry_out(source, runs_of_tables(source, names), bars, shard)
    correlations = draw(source, names, bars, train=not report and shard[0] == 0)
    return {**write_report(source, names, title, correlations), "failed": failed}


def write_report(
    source: RunSource, names: Sequence[str], title: str, correlations: dict[str, Any]
) -> dict[str, Any]:
    """Writes `tables.md` and `tables.json` beside the runs; returns what the JSON holds."""
    tables = {name: table_data(source, TABLES[name]) for name in names}
    notes = source.notes(names)
    pictures = {name: sorted(source.out.glob(f"{name}*.png")) for name in TITLES if name in names}
    made = f"froster {__version__}, torch {torch.__version__}, Python {platform.python_version()}."
    lines = [title, "", f"{made} {source.effort()}".strip(), ""]
    lines += [PUBLISHED_LEGEND if source.published else MINIATURE_LEGEND, ""]
    for name, rows in tables.items():
        lines += [f"## {name}: {TABLES[name].title}", ""]
        lines += published_table(rows) if source.published else miniature_table(rows, TABLES[name])
        lines.append("")
    for name, paths in pictures.items():
        if paths:
            lines += [f"## {TITLES[name]}", ""]
            lines += [*(f"![{path.stem}]({path.name})" for path in paths), ""]
    if notes:
        lines += ["## How it was done", "", *(f"- {note}" for note in notes), ""]
    write_text(source.out / "tables.md", "\n".join(lines))
    result: dict[str, Any] = {
        "tables": tables,
        "fig5": correlations,
        "notes": notes,
        "pictures": [path.name for paths in pictures.values() for path in paths],
    }
    if source.published:
        result["noise"] = REPRODUCTION_NOISE
    write_json(source.out / "tables.json", result, indent=1)
    return result
