"""The paper's claims as measures on the miniature, each with a rule that was fixed before any run
was looked at.

A claim compares two runs on the same seeds and the same test videos. With the differences d_s over
the seeds, t = mean / (sd / sqrt(n)); the claim *holds* if t exceeds the two-sided 5 % point of
Student's t and the mean has the claimed sign, *does not hold* if it exceeds it with the other sign,
and is *within noise* otherwise.

Figure 5 is judged by the same test on one number a seed: the rank correlation, over the classes of
all test sets, of a class's similarity to the training labels with its gain over frozen CLIP when
VCLIP is tuned alone. The claim is that it is positive: what lies far from training loses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from froster.paper.cells import Cell, froster_cell
from froster.paper.published import TABLE_1, TABLE_2
from froster.paper.tables import NETWORKS, OFFICIAL

# Two-sided 5 % points of Student's t by degrees of freedom; in between, the next lower one is
# taken.
T_POINTS = {
    1: 12.71,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    15: 2.131,
    20: 2.086,
}

Run = tuple[Cell | None, str]
"""A cell and how its weights and labels are taken ("final, plain"); None: frozen CLIP."""


@dataclass(frozen=True)
class Claim:
    text: str
    better: Run
    worse: Run
    measure: tuple[str, ...]
    """Sets whose accuracies are averaged."""


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    differences: tuple[float, ...]
    result: str

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)

    @property
    def sd(self) -> float:
        return statistics.stdev(self.differences) if len(self.differences) > 1 else math.nan


CROSS = ("near", "mid", "far")
FROSTER = froster_cell(variant="step1")


def grid(method: str, tune: str, described: bool, distill: str) -> Cell:
    return Cell(method, dict(NETWORKS.values())[method], "froster", tune, described, distill)  # type: ignore[arg-type]


def run_of(name: str) -> Run:
    """The run behind a row of Table 1 or 2, with plain labels; frozen CLIP gets FROSTER's described
    ones."""
    return (
        (None, "frozen, described") if name == "Frozen CLIP" else (OFFICIAL[name], "final, plain")
    )


def claims() -> list[Claim]:
    """What the paper's tables and figures are said to show."""
    plain, text = "final, plain", "final, described"
    vclip_none = grid("vclip", "image", False, "none")
    found = []
    protocols = (
        ("in base-to-novel (Table 1)", TABLE_1, ("hm",)),
        ("across data sets (Table 2)", TABLE_2, CROSS),
    )
    for where, rows, measure in protocols:
        for name in (row.removesuffix(" (*)") for row in rows):
            if name != "FROSTER" and name in (*OFFICIAL, "Frozen CLIP"):
                found.append(
                    Claim(f"FROSTER beats {name} {where}", (FROSTER, text), run_of(name), measure)
                )
    words = "tuning VCLIP alone falls below frozen CLIP on the farthest set (Table 3, K600)"
    found.append(Claim(words, (None, "frozen, plain"), (vclip_none, plain), ("far",)))
    for name, (method, _) in NETWORKS.items():
        found.append(
            Claim(
                f"{name} gains with FROSTER, as printed: text tuned and described too (Table 3)",
                (grid(method, "both", True, "residual"), text),
                (grid(method, "image", False, "none"), plain),
                CROSS,
            )
        )
        found.append(
            Claim(
                f"{name} gains by the distillation alone (fair grid, both towers, plain labels)",
                (grid(method, "both", False, "residual"), plain),
                (grid(method, "both", False, "none"), plain),
                CROSS,
            )
        )
    vision = {
        kind: grid("vclip", "image", False, kind) for kind in ("none", "plain", "mlp", "residual")
    }
    found += [
        Claim(
            "residual beats plain distillation (Table 4, D over B)",
            (vision["residual"], plain),
            (vision["plain"], plain),
            CROSS,
        ),
        Claim(
            "residual beats an MLP projector (Table 4, D over C)",
            (vision["residual"], plain),
            (vision["mlp"], plain),
            CROSS,
        ),
        Claim(
            "distilling both towers beats vision alone (Table 4, I over D)",
            (grid("vclip", "both", False, "residual"), plain),
            (vision["residual"], plain),
            CROSS,
        ),
        Claim(
            "described labels help (Table 4, J over I)",
            (grid("vclip", "both", True, "residual"), text),
            (grid("vclip", "both", False, "residual"), plain),
            CROSS,
        ),
        Claim(
            "alpha 0.1 beats 1 (Table 5)",
            (FROSTER, text),
            (froster_cell(variant="step1", changes=(("alpha", 1.0),)), text),
            ("far",),
        ),
        Claim(
            "W2 = 0 at the start beats a random one (Table 6)",
            (FROSTER, text),
            (froster_cell(variant="step1", changes=(("zero_init", False),)), text),
            ("far",),
        ),
        Claim(
            "beta 2 beats 1 (Table 7)",
            (FROSTER, text),
            (froster_cell(variant="step1", changes=(("beta_v", 1.0), ("beta_t", 1.0))), text),
            ("far",),
        ),
    ]
    for name in ("ActionCLIP", "AIM", "ST-Adapter"):
        cell = OFFICIAL[name]
        words = f"{name} summed with frozen CLIP beats it alone (Figure 1)"
        found.append(Claim(words, (cell, "ensemble, plain"), (cell, plain), CROSS))
        words = f"{name} alone falls below frozen CLIP on the farthest set (Figure 1, K600)"
        found.append(Claim(words, (None, "frozen, plain"), (cell, plain), ("far",)))
    return found


def afterthoughts() -> list[Claim]:
    """What was asked once the first seed had been looked at, to understand it: hints, not tests."""
    plain, text = "final, plain", "final, described"
    distilled, alone = (
        grid("vclip", "both", False, "residual"),
        grid("vclip", "both", False, "none"),
    )
    return [
        Claim(
            "FROSTER with plain labels beats frozen CLIP",
            (distilled, plain),
            (None, "frozen, plain"),
            CROSS,
        ),
        Claim(
            "FROSTER with plain labels beats Open-VCLIP",
            (distilled, plain),
            (OFFICIAL["Open-VCLIP"], plain),
            ("hm",),
        ),
        Claim(
            "FROSTER with plain labels beats ViFi-CLIP",
            (distilled, plain),
            (OFFICIAL["ViFi-CLIP"], plain),
            ("hm",),
        ),
        Claim(
            "FROSTER, trained with sentences, is better asked with plain labels",
            (FROSTER, plain),
            (FROSTER, text),
            CROSS,
        ),
        Claim("FROSTER gains on base", (FROSTER, text), (None, "frozen, described"), ("base",)),
        Claim(
            "FROSTER with plain labels gains on base",
            (distilled, plain),
            (None, "frozen, plain"),
            ("base",),
        ),
        Claim(
            "distilled VCLIP keeps more of novel than undistilled",
            (distilled, plain),
            (alone, plain),
            ("novel",),
        ),
        Claim(
            "distilled VCLIP learns more of base than undistilled",
            (distilled, plain),
            (alone, plain),
            ("base",),
        ),
        Claim(
            "VCLIP summed with frozen CLIP beats distilled VCLIP",
            (alone, "ensemble, plain"),
            (distilled, plain),
            CROSS,
        ),
    ]


def judge(
    claim: Claim, better: Sequence[Mapping[str, float]], worse: Sequence[Mapping[str, float]]
) -> Verdict:
    """Scores by seed of both runs, in the same order of seeds."""
    mean = lambda scores: statistics.fmean(scores[name] for name in claim.measure)  # noqa: E731
    differences = tuple(mean(a) - mean(b) for a, b in zip(better, worse, strict=True))
    return Verdict(claim, differences, verdict(differences))


def verdict(differences: Sequence[float | None]) -> str:
    """Seeds that have no number (None, or not a number) do not count."""
    known = [value for value in differences if value is not None and math.isfinite(value)]
    n = len(known)
    if n < 2:
        return "too few seeds"
    sd = statistics.stdev(known)
    mean = statistics.fmean(known)
    point = T_POINTS[max(df for df in T_POINTS if df <= n - 1)]
    if sd == 0:
        return "within noise" if mean == 0 else "holds" if mean > 0 else "does not hold"
    t = mean / (sd / math.sqrt(n))
    return "within noise" if abs(t) <= point else "holds" if t > 0 else "does not hold"
