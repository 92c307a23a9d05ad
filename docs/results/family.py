"""The family of distillation on every set: `python docs/results/family.py` prints a table of the
runs in `cells/`, mean ± standard deviation over the seeds; `--less "residual, frozen"` what each row
has more than that one, seed by seed."""

from __future__ import annotations

import argparse

from claims import CROSS, FROZEN, HERE, PLAIN, Run, paired, scores, shown, sources

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
            if less:
                cells.append(shown(paired(source, run, rows[less], measure)))
            else:
                cells.append(shown([*scores(source, run, measure).values()], ""))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
