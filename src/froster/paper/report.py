"""The runs as the paper's tables: Markdown and JSON, published value, ours, and the verdicts on the claims."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from froster.files import write_text
from froster.paper.cells import Cell
from froster.paper.claims import Claim, Run, Verdict, claims, judge
from froster.paper.miniature import COLUMNS, Scores, path_of
from froster.paper.tables import TABLES, Row, Table

SETS_OF = {"base-to-novel": ("base", "novel", "hm"), "cross-dataset": ("near", "mid", "far")}


class Records:
    """What the finished runs measured."""

    def __init__(self, out: Path, seeds: int):
        self.out, self.seeds = out, range(seeds)
        frozen = out / "cells" / "frozen.json"
        self.frozen: dict[str, Scores] = json.loads(frozen.read_text())["results"] if frozen.exists() else {}

    def scores(self, cell: Cell | None, kind: str) -> dict[int, Scores]:
        """Seed -> accuracies, for the seeds that are there. Frozen CLIP has no seed: it stands for all of them."""
        if cell is None:
            found = self.frozen.get(kind)
            return dict.fromkeys(self.seeds, found) if found else {}
        paths = {seed: path_of(cell, seed, self.out) for seed in self.seeds}
        return {seed: json.loads(path.read_text())["results"][kind] for seed, path in paths.items() if path.exists()}


def kind_of(row: Row) -> str:
    """How a row's weights and labels are taken: labels at test are as in training."""
    labels = "described" if row.cell is not None and row.cell.described else "plain"
    return f"{row.weights}, {labels}"


def spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{sd}"


def table_data(table: Table, records: Records) -> list[dict[str, Any]]:
    """One object a row: its run, what is printed, ours by seed."""
    rows = []
    for row in table.rows:
        found = {} if row.quoted else records.scores(row.cell, kind_of(row))
        sets = SETS_OF[table.protocol]
        values = {name: [scores[name] for scores in found.values()] for name in sets}
        if row.cell is None:
            values = {name: v[:1] for name, v in values.items()}
        run = row.cell.key if row.cell else row.weights
        rows.append({"row": row.name, "run": run, "published": row.published, "ours": values})
    return rows


def published_line(row: dict[str, Any]) -> str:
    values = [f"{name} {value:g}" for name, value in row["published"].items() if value is not None]
    return ", ".join(values) or "–"


def table_markdown(name: str, table: Table, records: Records) -> str:
    sets = SETS_OF[table.protocol]
    head = f"| row | {' | '.join(sets)} | seeds | the paper, on its data |"
    lines = [f"## {name}: {table.title}", "", head, "|---|" + "---|" * (len(sets) + 2)]
    for row in table_data(table, records):
        cells = [spread(row["ours"][s]) for s in sets]
        lines.append(f"| {row['row']} | {' | '.join(cells)} | {len(row['ours'][sets[0]])} | {published_line(row)} |")
    if table.protocol == "cross-dataset":
        pairs = ", ".join(f"{ours} for {theirs}" for theirs, ours in COLUMNS.items())
        lines += ["", f"Sets of the world stand for the paper's: {pairs}."]
    return "\n".join([*lines, *([table.note] if table.note else []), ""])


def verdicts(records: Records) -> list[tuple[Claim, Verdict | None]]:
    """Every claim with its verdict; None where runs are missing."""
    found = []
    for claim in claims():
        better, worse = (records.scores(*run) for run in (claim.better, claim.worse))
        seeds = sorted(better.keys() & worse.keys())
        verdict = judge(claim, [better[s] for s in seeds], [worse[s] for s in seeds]) if len(seeds) > 1 else None
        found.append((claim, verdict))
    return found


def run_name(run: Run) -> str:
    cell, kind = run
    return f"`{cell.key if cell else 'frozen CLIP'}` ({kind})"


def claims_markdown(records: Records) -> str:
    lines = [
        "# The paper's claims, in miniature", "",
        "Measure: the mean accuracy over the named sets of the world. Rule: a paired t-test over the seeds at 5 %, two-sided; "
        "fixed in `src/froster/paper/claims.py` before the runs.", "",
        "| claim | better | worse | measure | difference | seeds | verdict |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for claim, v in verdicts(records):
        difference = f"{v.mean:+.1f} ± {v.sd:.1f}" if v else "–"
        result, seeds = (v.result, len(v.differences)) if v else ("runs are missing", 0)
        cells = [claim.text, run_name(claim.better), run_name(claim.worse), ", ".join(claim.measure), difference]
        lines.append(f"| {' | '.join(cells)} | {seeds} | {result} |")
    return "\n".join(lines) + "\n"


def write_report(names: Sequence[str], records: Records, head: str) -> dict[str, Any]:
    """Writes `tables.md`, `tables.json` and `claims.md` beside the runs; returns what the JSON holds."""
    data = {name: table_data(TABLES[name], records) for name in names}
    pages = [table_markdown(name, TABLES[name], records) for name in names]
    write_text(records.out / "tables.md", "\n".join([head, "", *pages]))
    write_text(records.out / "tables.json", json.dumps(data, indent=1) + "\n")
    write_text(records.out / "claims.md", claims_markdown(records))
    return data
