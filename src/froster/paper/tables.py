"""The paper's tables as lists of runs, each with what the paper prints for it.

Table 3 and 4 are laid out on the fair grid (text frozen or tuned, plain or described labels, with
or without distillation), because the paper's rows with and without FROSTER differ in all three at
once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from froster.paper.cells import Cell, froster_cell
from froster.paper.published import (
    ALPHA,
    BETA,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    ZERO_INIT,
    Values,
)

Protocol = Literal["base-to-novel", "cross-dataset"]
Weights = Literal["frozen", "final", "ensemble"]


@dataclass(frozen=True)
class Row:
    name: str
    cell: Cell | None
    """None: frozen CLIP, or a row that is only quoted."""
    published: Values = field(default_factory=dict)
    weights: Weights = "final"
    """What is measured: frozen CLIP, the run's final weights, or the sum of both outputs."""

    @property
    def quoted(self) -> bool:
        return self.cell is None and self.weights != "frozen"


@dataclass(frozen=True)
class Table:
    title: str
    protocol: Protocol
    rows: tuple[Row, ...]
    note: str = ""


OFFICIAL = {
    "ActionCLIP": Cell("actionclip", preset="official"),
    "X-CLIP": Cell("xclip", preset="official"),
    "VPT": Cell("efficient-prompt", preset="official"),
    "AIM": Cell("aim", "froster", tune="image"),
    "ST-Adapter": Cell("st-adapter", "froster", tune="image"),
    "ViFi-CLIP": Cell("finetuned", preset="official"),
    "Text4Vis": Cell("text4vis", preset="official"),
    "Vita-CLIP": Cell("vita-clip", preset="official"),
    "Open-VCLIP": Cell("openvclip", preset="official"),
    "FROSTER": froster_cell(variant="step1"),
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


def row_of(name: str, published: Values) -> Row:
    plain = name.removesuffix(" (*)")
    if plain == "Frozen CLIP":
        return Row(name, None, published, "frozen")
    return Row(name, OFFICIAL.get(plain), published)


def fair_grid() -> tuple[Row, ...]:
    """Table 3: every network x {text frozen, tuned} x {plain, described} x {no distillation,
    residual}."""
    rows = []
    for name, (method, variant) in NETWORKS.items():
        alone, with_froster = TABLE_3[name]
        for tune, described, distill in product(
            ("image", "both"), (False, True), ("none", "residual")
        ):
            text, labels = (
                "tuned" if tune == "both" else "frozen",
                "described" if described else "plain",
            )
            words = f"{name}, text {text}, {labels}, {distill}"
            printed = {("image", False, "none"): alone, ("both", True, "residual"): with_froster}
            published = printed.get((tune, described, distill), {})
            cell = Cell(method, variant, "froster", tune, described, distill)  # type: ignore[arg-type]
            rows.append(Row(words, cell, published))
    return tuple(rows)


def ablation() -> tuple[Row, ...]:
    """Table 4, with the rows that it lacks: both towers tuned without distillation, and described
    labels without the rest."""
    rows = []
    for letter, (tune, distill) in zip(
        "ABCDEFGH", product(("image", "text"), ("none", "plain", "mlp", "residual")), strict=True
    ):
        name = f"{letter} {'vision' if tune == 'image' else 'text'}, {distill}"
        cell = Cell("vclip", "step1", "froster", tune, False, distill)  # type: ignore[arg-type]
        rows.append(Row(name, cell, TABLE_4[name]))
    both = Cell("vclip", "step1", "froster", "both")
    rows.append(Row("– both, none (not in the paper)", both))
    for name, described in (("I both, residual", False), ("J both, residual, described", True)):
        rows.append(
            Row(
                name,
                Cell("vclip", "step1", "froster", "both", described, "residual"),
                TABLE_4[name],
            )
        )
    for tune, distill in (("image", "none"), ("image", "residual"), ("both", "none")):
        name = (
            f"– {'vision' if tune == 'image' else 'both'}, {distill}, described (not in the paper)"
        )
        rows.append(Row(name, Cell("vclip", "step1", "froster", tune, True, distill)))  # type: ignore[arg-type]
    return tuple(rows)


def sweep(name: str, published: dict[str, Values], default: str) -> tuple[Row, ...]:
    rows = []
    for value, row in published.items():
        changes = () if value == default else ((name, float(value)),)
        rows.append(Row(f"{name} = {value}", froster_cell(variant="step1", changes=changes), row))
    return tuple(rows)


def betas() -> tuple[Row, ...]:
    rows = []
    for value, published in BETA.items():
        changes = () if value == "2" else (("beta_v", float(value)), ("beta_t", float(value)))
        rows.append(
            Row(f"beta = {value}", froster_cell(variant="step1", changes=changes), published)
        )
    return tuple(rows)


def zero_init() -> tuple[Row, ...]:
    cells = (
        froster_cell(variant="step1"),
        froster_cell(variant="step1", changes=(("zero_init", False),)),
    )
    return tuple(
        Row(name, cell, row) for (name, row), cell in zip(ZERO_INIT.items(), cells, strict=True)
    )


def ensembles() -> tuple[Row, ...]:
    """Figure 1: tuned networks alone, and summed with frozen CLIP."""
    rows = [Row("Frozen CLIP", None, TABLE_2["Frozen CLIP"], "frozen")]
    for name in ("ActionCLIP", "AIM", "ST-Adapter"):
        cell = OFFICIAL[name]
        rows += [
            Row(name, cell, TABLE_3[name][0]),
            Row(f"{name} + frozen CLIP", cell, weights="ensemble"),
        ]
    return (*rows, Row("FROSTER", froster_cell(variant="step1"), TABLE_2["FROSTER"]))


ALONE = Cell("vclip", "step1", "froster", "image")
"""VCLIP tuned by itself: text frozen, plain labels, no distillation."""
PICTURED = {"VCLIP alone": ALONE, "FROSTER": froster_cell(variant="step1")}
"""The networks of Figures 4 and 5, beside frozen CLIP."""


def pictured() -> tuple[Row, ...]:
    published = {"VCLIP alone": TABLE_3["VCLIP"][0], "FROSTER": TABLE_2["FROSTER"]}
    frozen = Row("Frozen CLIP", None, TABLE_2["Frozen CLIP"], "frozen")
    return (frozen, *(Row(name, cell, published[name]) for name, cell in PICTURED.items()))


TABLES: dict[str, Table] = {
    "table1": Table(
        "Base-to-novel", "base-to-novel", tuple(row_of(name, row) for name, row in TABLE_1.items())
    ),
    "table2": Table(
        "Cross-dataset", "cross-dataset", tuple(row_of(name, row) for name, row in TABLE_2.items())
    ),
    "table3": Table(
        "Networks with and without FROSTER, on the fair grid", "cross-dataset", fair_grid()
    ),
    "table4": Table("Ablation of the distillation", "cross-dataset", ablation()),
    "table5": Table(
        "Weight alpha of the projector's MLP path", "cross-dataset", sweep("alpha", ALPHA, "0.1")
    ),
    "table6": Table("Initialisation of W2", "cross-dataset", zero_init()),
    "table7": Table("Weight beta of the distillation", "cross-dataset", betas()),
    "fig1": Table("Outputs summed with frozen CLIP's", "cross-dataset", ensembles()),
    "fig4": Table("The networks whose attention is drawn", "cross-dataset", pictured()),
    "fig5": Table("The networks whose gain by class is drawn", "cross-dataset", pictured()),
}


def cells_of(names: list[str]) -> list[Cell]:
    """The runs that these tables need, each once, in the order of the tables."""
    found = {
        row.cell.key: row.cell
        for name in names
        for row in TABLES[name].rows
        if row.cell is not None
    }
    return list(found.values())
