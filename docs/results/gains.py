"""What the distillation alone gains for each network of Table 3, across near, mid and far:
`python docs/results/gains.py` prints a table of the runs with 16 videos a class, and one of those
with 60, mean ± standard deviation over the seeds (one seed without), and the verdict of the claims'
rule where there are five; in the last column what the distilled network with plain labels has more
than frozen CLIP."""

from __future__ import annotations

from claims import CROSS, DESCRIBED, FROZEN, HERE, PLAIN, SEEDS, paired, shown, sources, verdict

from froster.paper.tables import TABLES

KINDS = {"plain": PLAIN, "described": DESCRIBED}


def told(differences: list[float]) -> str:
    word = f" ({verdict(differences)})" if len(differences) == SEEDS else ""
    return f"{shown(differences)}{word}"


def main() -> None:
    cells = {row.name: row.cell for row in TABLES["table3"].rows if row.cell is not None}
    networks = dict.fromkeys(name.rpartition(", text ")[0] for name in cells if ", text " in name)
    for source in sources(HERE):
        print(f"{source.sizes['shots']} videos a class\n")
        print(
            f"| network, text tower | {' | '.join(KINDS)} | less frozen CLIP |\n|---|---|---|---|"
        )
        for network in networks:
            for text in ("frozen", "tuned"):
                name, columns = f"{network}, text {text}", []
                for labels, kind in KINDS.items():
                    pair = [(cells[f"{name}, {labels}, {d}"], kind) for d in ("residual", "none")]
                    columns.append(told(paired(source, *pair, CROSS)))
                distilled = cells[f"{name}, plain, residual"], PLAIN
                columns.append(told(paired(source, distilled, FROZEN, CROSS)))
                print(f"| {network}, {text} | {' | '.join(columns)} |")
        print()


if __name__ == "__main__":
    main()
