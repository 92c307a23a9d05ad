"""The runs as the paper's tables: Markdown and JSON, published value, ours, and the verdicts on the
claims."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from froster.paper.cells import Cell
from froster.paper.claims import Claim, Run, Verdict, afterthoughts, claims, judge
from froster.paper.miniature import COLUMNS, Scores, path_of, videos_of_class
from froster.paper.published import TABLE_1, TABLE_2
from froster.paper.tables import TABLES, Row, Table
from froster.utils import strict_json as json
from froster.utils.files import write_text
from froster.world.sets import SETS

SETS_OF = {"base-to-novel": ("base", "novel", "hm"), "cross-dataset": ("near", "mid", "far")}


class Records:
    """What the finished runs measured."""

    def __init__(self, out: Path, seeds: int):
        self.out, self.seeds = out, range(seeds)
        frozen = out / "cells" / "frozen.json"
        self.start: dict[str, Any] = json.loads(frozen.read_text()) if frozen.exists() else {}

    @property
    def frozen(self) -> dict[str, Scores]:
        return self.start.get("results", {})

    def read(self, cell: Cell | None) -> dict[int, dict[str, Any]]:
        """Seed -> record, for the seeds that are there. Frozen CLIP has no seed: it stands for all
        of them."""
        if cell is None:
            return dict.fromkeys(self.seeds, self.start) if self.start else {}
        paths = {seed: path_of(cell, seed, self.out) for seed in self.seeds}
        return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}

    def effort(self) -> str:
        """How many runs there are, and what they took."""
        seconds = [
            json.loads(path.read_text())["seconds"]
            for path in (self.out / "cells").glob("*_seed-*.json")
        ]
        return (
            f"{len(seconds)} runs, {sum(seconds) / 3600:.1f} hours of wall time in all, one thread"
            " each, on shared cores."
        )

    def scores(self, cell: Cell | None, kind: str) -> dict[int, Scores]:
        """Seed -> accuracies."""
        return {seed: record["results"][kind] for seed, record in self.read(cell).items()}

    def by_class(self, cell: Cell | None, kind: str) -> dict[int, dict[str, float]]:
        """Seed -> class -> accuracy in per cent, of the classes of all test sets."""
        found = {}
        for seed, record in self.read(cell).items():
            counts = record["correct"][kind]
            shown = {name: videos_of_class(name, record["videos"]) for name in counts}
            found[seed] = {
                label: 100 * right / shown[name]
                for name in counts
                for label, right in zip(SETS[name].classes, counts[name], strict=True)
            }
        return found


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
        gain, published = gains(row, table, found, records)
        rows.append(
            {
                "row": row.name,
                "run": run,
                "published": row.published,
                "ours": values,
                "gain": gain,
                "published_gain": published,
            }
        )
    return rows


def gains(
    row: Row, table: Table, found: dict[int, Scores], records: Records
) -> tuple[float | None, float | None]:
    """Over frozen CLIP with plain labels, in points: ours, the mean over the table's sets, and the
    paper's, over those of its columns that the row prints. Base-to-novel: of the harmonic mean. The
    one thing to compare a miniature with a paper by."""
    start = records.frozen.get("frozen, plain")
    if table.protocol == "base-to-novel":
        theirs = [
            (row.published[c], v)
            for c, v in TABLE_1["Frozen CLIP (*)"].items()
            if c.endswith("HM") and c in row.published
        ]
        sets = ["hm"]
    else:
        frozen = TABLE_2["Frozen CLIP"]
        columns = [c for c in COLUMNS if row.published.get(c) is not None and frozen[c] is not None]
        theirs = [(row.published[c], frozen[c]) for c in columns]
        sets = list(COLUMNS.values())
    differences = [a - b for a, b in theirs if a is not None and b is not None]
    published = statistics.fmean(differences) if differences else None
    if not found or start is None:
        return None, published
    return (
        statistics.fmean(scores[s] - start[s] for scores in found.values() for s in sets),
        published,
    )


def published_line(row: dict[str, Any]) -> str:
    values = [f"{name} {value:g}" for name, value in row["published"].items() if value is not None]
    return ", ".join(values) or "–"


def table_markdown(name: str, table: Table, records: Records) -> str:
    sets = SETS_OF[table.protocol]
    head = (
        f"| row | {' | '.join(sets)} | seeds | gain, ours | gain, paper | difference | the paper,"
        " on its data |"
    )
    lines = [f"## {name}: {table.title}", "", head, "|---|" + "---|" * (len(sets) + 5)]
    for row in table_data(table, records):
        cells = [spread(row["ours"][s]) for s in sets]
        ours, paper = row["gain"], row["published_gain"]
        difference = None if ours is None or paper is None else ours - paper
        signed = ["–" if value is None else f"{value:+.1f}" for value in (ours, paper, difference)]
        seeds = len(row["ours"][sets[0]])
        lines.append(
            f"| {row['row']} | {' | '.join([*cells, str(seeds), *signed])} |"
            f" {published_line(row)} |"
        )
    if table.protocol == "cross-dataset":
        pairs = ", ".join(f"{ours} for {theirs}" for theirs, ours in COLUMNS.items())
        lines += ["", f"Sets of the world stand for the paper's: {pairs}."]
    return "\n".join([*lines, *([table.note] if table.note else []), ""])


def verdicts(asked: Sequence[Claim], records: Records) -> list[tuple[Claim, Verdict | None]]:
    """Every claim with its verdict; None where runs are missing."""
    found = []
    for claim in asked:
        better, worse = (records.scores(*run) for run in (claim.better, claim.worse))
        seeds = sorted(better.keys() & worse.keys())
        verdict = (
            judge(claim, [better[s] for s in seeds], [worse[s] for s in seeds])
            if len(seeds) > 1
            else None
        )
        found.append((claim, verdict))
    return found


def claim_data(claim: Claim, v: Verdict | None) -> dict[str, Any]:
    return {
        "claim": claim.text,
        "better": run_name(claim.better),
        "worse": run_name(claim.worse),
        "measure": claim.measure,
        "differences": v.differences if v else [],
        "result": v.result if v else "runs are missing",
    }


def run_name(run: Run) -> str:
    cell, kind = run
    return f"`{cell.key if cell else 'frozen CLIP'}` ({kind})"


CLAIM_OF_FIGURE_5 = "VCLIP alone"
"""The one network that the claim speaks of; over all test classes."""
HEAD = (
    "| claim | better | worse | measure | difference | seeds | verdict |",
    "|---|---|---|---|---|---|---|",
)


def claims_markdown(records: Records, gain_by_distance: Mapping[str, Any]) -> str:
    lines = [
        "# The paper's claims, in miniature",
        "",
        (
            "Measure: the mean accuracy over the named sets of the world. Rule: a paired t-test"
            " over the seeds at 5 %, two-sided; fixed in `src/froster/paper/claims.py` before the"
            " runs."
        ),
        "",
        *HEAD,
        *(claim_line(claim, v) for claim, v in verdicts(claims(), records)),
    ]
    stated = [CLAIM_OF_FIGURE_5] if CLAIM_OF_FIGURE_5 in gain_by_distance else []
    lines += [correlation_line(network, gain_by_distance[network], "all") for network in stated]
    lines += [
        "",
        "Each line is a test at 5 % by itself: of so many, two or three would pass by chance.",
        "",
        "## Asked afterwards",
        "",
        "Once the first seed had been looked at, to understand it: hints, not tests.",
        "",
        *HEAD,
        *(claim_line(claim, v) for claim, v in verdicts(afterthoughts(), records)),
        *(
            correlation_line(network, found, which)
            for network, found in gain_by_distance.items()
            for which in found
            if (network, which) != (CLAIM_OF_FIGURE_5, "all")
        ),
    ]
    return "\n".join(lines) + "\n"


def correlation_line(network: str, found: Mapping[str, Any], which: str) -> str:
    """Figure 5 of one network, over all test classes or over those that were not trained on."""
    each = [rho for rho in found[which]["rank_correlation"] if rho is not None]
    words = f"{network}: of {which} classes, those near the training labels gain more (Figure 5)"
    measured = (
        f"{statistics.fmean(each):+.2f} ± {statistics.stdev(each):.2f}" if len(each) > 1 else "–"
    )
    cells = [
        words,
        "–",
        "–",
        "rank correlation of gain and similarity",
        measured,
        str(len(each)),
        found[which]["verdict"],
    ]
    return f"| {' | '.join(cells)} |"


def claim_line(claim: Claim, v: Verdict | None) -> str:
    difference = f"{v.mean:+.1f} ± {v.sd:.1f}" if v else "–"
    result, seeds = (v.result, len(v.differences)) if v else ("runs are missing", 0)
    cells = [
        claim.text,
        run_name(claim.better),
        run_name(claim.worse),
        ", ".join(claim.measure),
        difference,
    ]
    return f"| {' | '.join(cells)} | {seeds} | {result} |"


def pictures_markdown(out: Path) -> list[str]:
    """The pictures that lie beside the report."""
    titles = {
        "fig1": "Figure 1: alone, and summed with frozen CLIP",
        "fig4": "Figure 4: attention of [CLS]",
        "fig5": "Figure 5: gain of each class over frozen CLIP by its similarity to training",
    }
    lines = []
    for name, title in titles.items():
        found = sorted(out.glob(f"{name}*.png"))
        if found:
            lines += [f"## {title}", "", *(f"![{path.stem}]({path.name})" for path in found), ""]
    return lines


LEGEND = (
    "Accuracy in per cent, mean ± sample standard deviation over the seeds; every number is in"
    " `cells/`. *Gain*: over frozen CLIP with plain labels, ours the mean over the sets of the"
    " world, the paper's over those of UCF*, HMDB* and K600 that it prints (base-to-novel: of the"
    " harmonic mean)."
)


def write_report(
    names: Sequence[str], records: Records, gain_by_distance: Mapping[str, Any], head: str
) -> dict[str, Any]:
    """Writes `tables.md`, `tables.json` and `claims.md` beside the runs; returns what the JSON
    holds."""
    data = {
        "tables": {name: table_data(TABLES[name], records) for name in names},
        "claims": [claim_data(claim, v) for claim, v in verdicts(claims(), records)],
        "asked_afterwards": [
            claim_data(claim, v) for claim, v in verdicts(afterthoughts(), records)
        ],
        "fig5": gain_by_distance,
    }
    pages = [table_markdown(name, TABLES[name], records) for name in names]
    write_text(
        records.out / "tables.md",
        "\n".join([head, "", LEGEND, "", *pages, *pictures_markdown(records.out)]),
    )
    write_text(records.out / "tables.json", json.dumps(data, indent=1) + "\n")
    write_text(records.out / "claims.md", claims_markdown(records, gain_by_distance))
    return data
