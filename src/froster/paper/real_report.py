"""The runs on the real data sets as the paper's tables: published value, ours, and their
difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.evaluation.metrics import harmonic_mean, over_splits
from froster.paper.published import REPRODUCTION_NOISE
from froster.paper.real import SHORT, Data, Job, numbers, record_of
from froster.paper.report import kind_of
from froster.paper.tables import TABLES, Row, Table
from froster.utils import strict_json as json
from froster.utils.files import write_text

NOISE = (
    f"A difference within ± {REPRODUCTION_NOISE:g} is what a careful repetition of such a run shows"
    " (Open-VCLIP's own recipe gave a user 82.4 to 82.6 for its 83.5 on UCF*)."
)


def tests_of(job: Job, kind: str, out: Path) -> dict[str, float]:
    """Test set -> top-1 of a run that is there, for a kind of weights and labels ("final, plain");
    else empty."""
    path = record_of(job, out)
    if not path.exists():
        return {}
    found = json.loads(path.read_text())["tests"].get(kind, {})
    return {name: test["top1"] for name, test in found.items()}


def ours(
    row: Row, table: Table, data: Data, seeds: int, out: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Column of the paper -> our mean, and its standard deviation where there are several splits,
    sets or seeds."""
    if row.quoted:
        return {}, {}
    if table.protocol == "base-to-novel":
        means, spreads = {}, {}
        for dataset, column in SHORT.items():
            jobs = [
                Job(row.cell, table.protocol, dataset, n)
                for n in numbers(row.cell, data.sets(dataset))
            ]
            runs = [found for job in jobs if (found := tests_of(job, kind_of(row), out))]
            if not runs:
                continue
            for half in ("base", "novel"):
                several = over_splits([run[f"{column} {half}"] for run in runs])
                means[f"{column} {half}"], spreads[f"{column} {half}"] = (
                    several["mean"],
                    several["std"],
                )
            means[f"{column} HM"] = harmonic_mean(means[f"{column} base"], means[f"{column} novel"])
        return means, spreads
    jobs = [Job(row.cell, table.protocol, "k400", n) for n in numbers(row.cell, seeds)]
    runs = [found for job in jobs if (found := tests_of(job, kind_of(row), out))]
    columns: dict[str, list[float]] = {}
    for run in runs:
        for name, top1 in run.items():
            columns.setdefault(name.rstrip("123 "), []).append(top1)
    several_of = {column: over_splits(values) for column, values in columns.items()}
    return {c: s["mean"] for c, s in several_of.items()}, {
        c: s["std"] for c, s in several_of.items()
    }


def row_data(row: Row, table: Table, data: Data, seeds: int, out: Path) -> dict[str, Any]:
    means, spreads = ours(row, table, data, seeds, out)
    published = row.published
    difference = {
        column: value - theirs
        for column, value in means.items()
        if (theirs := published.get(column)) is not None
    }
    run = row.cell.key if row.cell else row.weights
    return {
        "row": row.name,
        "run": run,
        "published": published,
        "ours": means,
        "sd": spreads,
        "difference": difference,
    }


def cell_text(column: str, row: dict[str, Any]) -> str:
    """ "84.8 ± 0.3 (85.0, -0.2)": ours, and in brackets the paper's and the difference."""
    mine, theirs = row["ours"].get(column), row["published"].get(column)
    spread = row["sd"].get(column, 0.0)
    text = "–" if mine is None else f"{mine:.1f}" + (f" ± {spread:.1f}" if spread else "")
    if theirs is None:
        return text
    return f"{text} ({theirs:.1f}" + (
        f", {row['difference'][column]:+.1f})" if mine is not None else ")"
    )


def table_markdown(name: str, rows: list[dict[str, Any]]) -> str:
    table = TABLES[name]
    columns = list(dict.fromkeys(c for row in rows for c in (*row["published"], *row["ours"])))
    lines = [
        f"## {name}: {table.title}",
        "",
        f"| row | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    lines += [
        f"| {row['row']} | {' | '.join(cell_text(c, row) for c in columns)} |" for row in rows
    ]
    return "\n".join([*lines, *([table.note] if table.note else []), ""])


def notes_of(names: list[str], data: Data, out: Path) -> list[str]:
    """What the options mean for these tables, and what the runs had to say of their data."""
    protocols = {TABLES[name].protocol for name in names}
    said: dict[str, None] = {}
    for protocol in sorted(protocols):
        for dataset in SHORT if protocol == "base-to-novel" else ("ucf101", "hmdb51", "k600"):
            said |= dict.fromkeys(
                f"{protocol}, {dataset}: {words}" for words in data.options.words(dataset, protocol)
            )
    for path in sorted((out / "runs").glob("*.json")):
        if path.name != "settings.json":
            record = json.loads(path.read_text())
            said |= dict.fromkeys(
                f"{record['job']['dataset']}, {record['job']['protocol']}: {x}"
                for x in record["notes"]
            )
            tests = next(
                iter(record["tests"].values())
            )  # all kinds of weights and labels see the same videos
            unread = sum(len(test["errors"]) for test in tests.values())
            if unread:
                said[f"{path.stem}: {unread} test videos could not be read and count as wrong"] = (
                    None
                )
    return list(said)


def write_report(
    names: list[str], data: Data, seeds: int, out: Path, head: str, pictures: list[Path]
) -> dict[str, Any]:
    """Writes `tables.md` and `tables.json`; returns what the JSON holds."""
    found = {
        name: [row_data(row, TABLES[name], data, seeds, out) for row in TABLES[name].rows]
        for name in names
    }
    notes = notes_of(names, data, out)
    legend = (
        "Ours, mean ± sample standard deviation over splits, training sets and seeds; in brackets"
        " the paper's value and the difference."
    )
    pages = [table_markdown(name, rows) for name, rows in found.items()]
    said = ["## How it was done", "", *(f"- {note}" for note in notes), ""]
    shown = [f"![{path.stem}]({path.name})\n" for path in pictures]
    write_text(out / "tables.md", "\n".join([head, "", legend, NOISE, "", *pages, *shown, *said]))
    result = {
        "tables": found,
        "noise": REPRODUCTION_NOISE,
        "notes": notes,
        "pictures": [path.name for path in pictures],
    }
    write_text(out / "tables.json", json.dumps(result, indent=1) + "\n")
    return result
