"""The paper's tables as lists of runs, each with what the paper prints for it.

Tables 3 and 4 are laid out on the fair grid (text frozen or tuned, plain or described labels, with
or without distillation), because the paper's rows with and without FROSTER differ in all three at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from froster.errors import one_of
from froster.methods.recipe import Tune
from froster.paper.cells import (
    ALONE,
    ER_ZASR,
    FROSTER,
    Cell,
    PaperTable,
    TableRow,
    Weights,
    froster_cell,
    vclip,
)
from froster.paper.family import around_froster, family
from froster.paper.published import (
    ALPHA,
    BETA,
    TABLE_1,
    TABLE_2,
    TABLE_3_ALONE,
    TABLE_3_FROSTER,
    TABLE_4,
    ZERO_INIT,
    Values,
)
from froster.training.distill_options import Distill

OFFICIAL = {
    "ER-ZASR": ER_ZASR,
    "ActionCLIP": Cell("actionclip", preset="official"),
    "X-CLIP": Cell("xclip", preset="official"),
    "VPT": Cell("efficient-prompt", preset="official"),
    "AIM": Cell("aim", "froster", tune="image"),
    "ST-Adapter": Cell("st-adapter", "froster", tune="image"),
    "ViFi-CLIP": Cell("finetuned", preset="official"),
    "Text4Vis": Cell("text4vis", preset="official"),
    "Vita-CLIP": Cell("vita-clip", preset="official"),
    "Open-VCLIP": Cell("openvclip", preset="official"),
    "FROSTER": FROSTER,
}
"""A row's name -> its run. AIM and ST-Adapter are FROSTER's own runs (its versions, its trainer,
frozen text)."""

NETWORKS = {
    "Fine-tuned CLIP": ("finetuned", "both"),
    "ActionCLIP": ("actionclip", "transf"),
    "VCLIP": ("vclip", "step1"),
    "AdaptFormer": ("adaptformer", "froster"),
    "AIM": ("aim", "froster"),
    "ST-Adapter": ("st-adapter", "froster"),
}
"""Networks of Table 3 -> method and variant."""
PICTURED = {"VCLIP alone": ALONE, "FROSTER": FROSTER}
"""The networks of Figures 4 and 5, beside frozen CLIP."""
FROZEN_ROW = TableRow("Frozen CLIP", None, TABLE_2["Frozen CLIP"], "frozen")


def comparison(published: dict[str, Values]) -> tuple[TableRow, ...]:
    """Tables 1 and 2: methods as their own papers train them."""
    rows = []
    for name, values in published.items():
        method = name.removesuffix(" (*)")
        weights: Weights = "frozen" if method == "Frozen CLIP" else "final"
        rows.append(TableRow(name, OFFICIAL.get(method), values, weights))
    return tuple(rows)


def fair_grid() -> tuple[TableRow, ...]:
    """Table 3: every network x {text frozen, tuned} x {plain, described} x {no distillation,
    residual}."""
    tunes: tuple[Tune, ...] = ("image", "both")
    rows = []
    for name, (method, variant) in NETWORKS.items():
        printed = {
            ("image", False, "none"): TABLE_3_ALONE[name],
            ("both", True, "residual"): TABLE_3_FROSTER[name],
        }
        for tune, described, distill in product(tunes, (False, True), ("none", "residual")):
            cell = Cell(method, variant, "froster", tune, described, distill)
            text = "tuned" if tune == "both" else "frozen"
            words = f"{name}, text {text}, {cell.labels}, {distill}"
            rows.append(TableRow(words, cell, printed.get((tune, described, distill), {})))
    return tuple(rows)


def rows_of_cells(published: dict[str, Values], cells: Sequence[Cell]) -> tuple[TableRow, ...]:
    printed = zip(published.items(), cells, strict=True)
    return tuple(TableRow(name, cell, values) for (name, values), cell in printed)


def ablation() -> tuple[TableRow, ...]:
    """Table 4, with the rows that it lacks: both towers tuned without distillation, and described
    labels without the rest."""
    tunes: tuple[Tune, ...] = ("image", "text")
    cells = [vclip(*setting) for setting in product(tunes, ("none", "plain", "mlp", "residual"))]
    rows = rows_of_cells(TABLE_4, [*cells, vclip("both", "residual"), FROSTER])
    others = {
        "both, none": vclip("both", "none"),
        "vision, none, described": vclip("image", "none", described=True),
        "vision, residual, described": vclip("image", "residual", described=True),
        "both, none, described": vclip("both", "none", described=True),
    }
    extra = [TableRow(f"– {name} (not in the paper)", cell) for name, cell in others.items()]
    return (*rows[:8], extra[0], *rows[8:], *extra[1:])


def sweep(name: str, published: dict[str, Values], *settings: str) -> tuple[TableRow, ...]:
    """Values of one or more settings of the distillation; the default is FROSTER's own run."""
    default = getattr(Distill(), settings[0])
    rows = []
    for value, values in published.items():
        changes = {} if float(value) == default else dict.fromkeys(settings, float(value))
        rows.append(TableRow(f"{name} = {value}", froster_cell(**changes), values))
    return tuple(rows)


def ensembles() -> tuple[TableRow, ...]:
    """Figure 1: tuned networks alone, and summed with frozen CLIP."""
    rows = [FROZEN_ROW]
    for name in ("ActionCLIP", "AIM", "ST-Adapter"):
        cell = OFFICIAL[name]
        rows += [
            TableRow(name, cell, TABLE_3_ALONE[name]),
            TableRow(f"{name} + frozen CLIP", cell, weights="ensemble"),
        ]
    return (*rows, TableRow("FROSTER", FROSTER, TABLE_2["FROSTER"]))


def pictured() -> tuple[TableRow, ...]:
    return (
        FROZEN_ROW,
        TableRow("VCLIP alone", ALONE, TABLE_3_ALONE["VCLIP"]),
        TableRow("FROSTER", FROSTER, TABLE_2["FROSTER"]),
    )


def cross_table(title: str, rows: tuple[TableRow, ...]) -> PaperTable:
    return PaperTable(title, "cross-dataset", rows)


TABLES: dict[str, PaperTable] = {
    "table1": PaperTable("Base-to-novel", "base-to-novel", comparison(TABLE_1)),
    "table2": cross_table("Cross-dataset", comparison(TABLE_2)),
    "table3": cross_table("Networks with and without FROSTER, on the fair grid", fair_grid()),
    "table4": cross_table("Ablation of the distillation", ablation()),
    "table5": cross_table(
        "Weight alpha of the projector's MLP path", sweep("alpha", ALPHA, "alpha")
    ),
    "table6": cross_table(
        "Initialisation of W2", rows_of_cells(ZERO_INIT, [FROSTER, froster_cell(zero_init=False)])
    ),
    "table7": cross_table(
        "Weight beta of the distillation", sweep("beta", BETA, "beta_v", "beta_t")
    ),
    "fig1": cross_table("Outputs summed with frozen CLIP's", ensembles()),
    "fig4": cross_table("The networks whose attention is drawn", pictured()),
    "fig5": cross_table("The networks whose gain by class is drawn", pictured()),
    "family": cross_table("The family of distillation: no paper has these rows", family()),
    "after": cross_table("Around and after FROSTER", around_froster()),
}


def table_names(asked: Sequence[str]) -> list[str]:
    """Tables and figures without repeats, "all" spelt out. Raises UsageError for others."""
    names = list(TABLES) if "all" in asked else list(dict.fromkeys(asked))
    for name in names:
        one_of("a table or figure", name, "all", *TABLES)
    return names
