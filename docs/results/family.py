"""The family of distillation on every set: `python docs/results/family.py` prints a table of the
runs in `cells/`, mean ± standard deviation over the seeds; `--less "residual, frozen"` what each row
has more than that one, seed by seed."""

from __future__ import annotations

import argparse
import statistics

from claims import CROSS, FROZEN, HERE, PLAIN, Run, scores, sources

from froster.paper.tables import TABLES

MEASURES = {
    **{name: (name,) for name in ("base", "base-swapped", "novel")},
    "HM": ("hm",),
    "across": CROSS,
}
"""Column -> the sets whose accuracies are averaged."""


def main() -> None:
    rows: dict[str, Run] = {"frozen CLIP": FROZEN}
    rows |= {row.name: (row.cell, PLAIN) for row in TABLES["family"].rows}
    parser = argparse.ArgumentParser()
    parser.add_argument("--less", choices=list(rows), metavar="ROW")
    less = parser.parse_args().less
    source, _ = sources(HERE)
    print(f"| {' | '.join(['', *MEASURES])} |\n|{'---|' * (len(MEASURES) + 1)}")
    for name, run in rows.items():
        cells = [name]
        for measure in MEASURES.values():
            values = scores(source, run, measure)
            if less:
                others = scores(source, rows[less], measure)
                values = [a - b for a, b in zip(values, others, strict=True)]
            spread = statistics.stdev(values)
            sign = "+" if less else ""
            cells.append(f"{statistics.fmean(values):{sign}.1f} ± {spread:.1f}")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
