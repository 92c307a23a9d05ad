"""The paper's claims judged on the miniature's runs: `python docs/results/claims.py` writes
`claims.md` anew from `cells/` and `tables.json`.

The claims and the rule were fixed before any run was looked at. A claim compares two runs on the
same seeds and the same test videos. With the differences d_s over the seeds,
t = mean / (sd / sqrt(n)); the claim *holds* if t exceeds the two-sided 5 % point of Student's t and
the mean has the claimed sign, *does not hold* if it exceeds it with the other sign, and is *within
noise* otherwise.

Figure 5 is judged by the same test on one number a seed: the rank correlation, over the classes of
all test sets, of a class's similarity to the training labels with its gain over frozen CLIP when
VCLIP is tuned alone. The claim is that it is positive: what lies far from training loses.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import froster
from froster.paper.family import PROJECTED, member
from froster.paper.miniature import Miniature
from froster.paper.published import TABLE_1, TABLE_2
from froster.paper.tables import ALONE, FROSTER, NETWORKS, OFFICIAL, Cell, froster_cell

HERE = Path(__file__).parent
SEEDS, SHOTS, VIDEOS = 5, 8, 240
T_POINT = 2.776
"""The two-sided 5 % point of Student's t with four degrees of freedom: five seeds."""
CROSS = ("near", "mid", "far")
PLAIN, DESCRIBED = "final, plain", "final, described"

Run = tuple[Cell | None, str]
"""A network and how its weights and labels are taken ("final, plain"); None: frozen CLIP."""
FROZEN: Run = (None, "frozen, plain")
FROZEN_DESCRIBED: Run = (None, "frozen, described")
AS_PRINTED: Run = (FROSTER, DESCRIBED)


@dataclass(frozen=True)
class Claim:
    text: str
    better: Run
    worse: Run
    measure: tuple[str, ...] = CROSS
    """Sets whose accuracies are averaged."""


def grid(name: str, tune: Any, described: bool, distill: str) -> Run:
    """A network of the fair grid (Table 3), with labels at test as in training."""
    cell = Cell(*NETWORKS[name], "froster", tune, described, distill)
    return cell, DESCRIBED if described else PLAIN


def vclip(tune: str, distill: str) -> Run:
    return grid("VCLIP", tune, False, distill)


def claims() -> list[Claim]:
    """What the paper's tables and figures are said to show."""
    claims_made = []
    for where, rows, measure in (
        ("in base-to-novel (Table 1)", TABLE_1, ("hm",)),
        ("across data sets (Table 2)", TABLE_2, CROSS),
    ):
        for name in (row.removesuffix(" (*)") for row in rows):
            if name != "FROSTER" and name in (*OFFICIAL, "Frozen CLIP"):
                other = FROZEN_DESCRIBED if name == "Frozen CLIP" else (OFFICIAL[name], PLAIN)
                claims_made.append(
                    Claim(f"FROSTER beats {name} {where}", AS_PRINTED, other, measure)
                )
    words = "tuning VCLIP alone falls below frozen CLIP on the farthest set (Table 3, K600)"
    claims_made.append(Claim(words, FROZEN, (ALONE, PLAIN), ("far",)))
    for name in NETWORKS:
        words = f"{name} gains with FROSTER, as printed: text tuned and described too (Table 3)"
        alone = grid(name, "image", False, "none")
        claims_made.append(Claim(words, grid(name, "both", True, "residual"), alone))
        words = f"{name} gains by the distillation alone (fair grid, both towers, plain labels)"
        undistilled = grid(name, "both", False, "none")
        claims_made.append(Claim(words, grid(name, "both", False, "residual"), undistilled))
    vision, both = vclip("image", "residual"), vclip("both", "residual")
    described = grid("VCLIP", "both", True, "residual")
    claims_made += [
        Claim(
            "residual beats plain distillation (Table 4, D over B)", vision, vclip("image", "plain")
        ),
        Claim("residual beats an MLP projector (Table 4, D over C)", vision, vclip("image", "mlp")),
        Claim("distilling both towers beats vision alone (Table 4, I over D)", both, vision),
        Claim("described labels help (Table 4, J over I)", described, both),
    ]
    changes: dict[str, dict[str, Any]] = {
        "alpha 0.1 beats 1 (Table 5)": {"alpha": 1.0},
        "W2 = 0 at the start beats a random one (Table 6)": {"zero_init": False},
        "beta 2 beats 1 (Table 7)": {"beta_v": 1.0, "beta_t": 1.0},
    }
    for words, settings in changes.items():
        changed = (froster_cell(**settings), DESCRIBED)
        claims_made.append(Claim(words, AS_PRINTED, changed, ("far",)))
    for name in ("ActionCLIP", "AIM", "ST-Adapter"):
        alone, summed = (OFFICIAL[name], PLAIN), (OFFICIAL[name], "ensemble, plain")
        claims_made.append(
            Claim(f"{name} summed with frozen CLIP beats it alone (Figure 1)", summed, alone)
        )
        words = f"{name} alone falls below frozen CLIP on the farthest set (Figure 1, K600)"
        claims_made.append(Claim(words, FROZEN, alone, ("far",)))
    return claims_made


def family_claims() -> list[Claim]:
    """What TACO's parts are said to do, on the family's runs: nobody has published these rows."""
    made = []
    for target in PROJECTED:
        for projection in (False, True):
            words = " with the projection" if projection else ""
            frozen, ema = (
                (member(target, teacher, projection), PLAIN) for teacher in ("frozen", "EMA")
            )
            made.append(Claim(f"an EMA teacher beats the frozen one: {target}{words}", ema, frozen))
        for teacher in ("frozen", "EMA"):
            without, projected = (
                (member(target, teacher, projection), PLAIN) for projection in (False, True)
            )
            words = f"the projection helps: {target}, {teacher} teacher"
            made.append(Claim(words, projected, without))
    features = member("residual"), PLAIN
    for other in ("logits", "similarities", "hint, linear", "RKD", "PKT", "anchors"):
        words = f"features through the residual projector beat {other} (frozen teacher)"
        made.append(Claim(words, features, (member(other), PLAIN)))
    return made


def afterthoughts() -> list[Claim]:
    """What was asked once the first seed had been looked at, to understand it: hints, not tests."""
    distilled, alone = vclip("both", "residual"), vclip("both", "none")
    open_vclip, vifi = (OFFICIAL["Open-VCLIP"], PLAIN), (OFFICIAL["ViFi-CLIP"], PLAIN)
    plain = "FROSTER with plain labels"
    asked_plain = "FROSTER, trained with sentences, is better asked with plain labels"
    summed = (alone[0], "ensemble, plain")
    return [
        Claim(f"{plain} beats frozen CLIP", distilled, FROZEN),
        Claim(f"{plain} beats Open-VCLIP", distilled, open_vclip, ("hm",)),
        Claim(f"{plain} beats ViFi-CLIP", distilled, vifi, ("hm",)),
        Claim(asked_plain, (FROSTER, PLAIN), AS_PRINTED),
        Claim("FROSTER gains on base", AS_PRINTED, FROZEN_DESCRIBED, ("base",)),
        Claim(f"{plain} gains on base", distilled, FROZEN, ("base",)),
        Claim("distilled VCLIP keeps more of novel than undistilled", distilled, alone, ("novel",)),
        Claim("distilled VCLIP learns more of base than undistilled", distilled, alone, ("base",)),
        Claim("VCLIP summed with frozen CLIP beats distilled VCLIP", summed, distilled),
    ]


def verdict(differences: Sequence[float | None]) -> str:
    """Of one difference a seed; a seed without a number (None, or not a number) does not count, and
    fewer than all five seeds are too few for `T_POINT`."""
    known = [value for value in differences if value is not None and math.isfinite(value)]
    if len(known) < SEEDS:
        return "too few seeds"
    mean, sd = statistics.fmean(known), statistics.stdev(known)
    if sd == 0:
        return "within noise" if mean == 0 else "holds" if mean > 0 else "does not hold"
    t = mean / (sd / math.sqrt(len(known)))
    return "within noise" if abs(t) <= T_POINT else "holds" if t > 0 else "does not hold"


def scores(source: Miniature, run: Run, measure: Sequence[str]) -> list[float]:
    """Of each seed; frozen CLIP has no seed and stands for all of them."""
    cell, kind = run
    of_runs = [source.scores(one, kind) for one in source.runs_of(cell, "cross-dataset")]
    means = [statistics.fmean(each[name] for name in measure) for each in of_runs if each]
    return means * SEEDS if cell is None else means


def claim_line(claim: Claim, source: Miniature) -> str:
    better, worse = (scores(source, run, claim.measure) for run in (claim.better, claim.worse))
    differences = [a - b for a, b in zip(better, worse, strict=len(better) == len(worse) == SEEDS)]
    size = "–"
    if len(differences) > 1:
        size = f"{statistics.fmean(differences):+.1f} ± {statistics.stdev(differences):.1f}"
    cells = [
        claim.text,
        run_name(claim.better),
        run_name(claim.worse),
        ", ".join(claim.measure),
        size,
        str(len(differences)),
        verdict(differences),
    ]
    return f"| {' | '.join(cells)} |"


def run_name(run: Run) -> str:
    cell, kind = run
    return f"`{cell.key if cell else 'frozen CLIP'}` ({kind})"


def correlation_line(network: str, figure: Mapping[str, Any], which: str) -> str:
    """Figure 5 of one network, over all test classes or over those that were not trained on."""
    correlations = figure[which]["rank_correlation"]
    known = [rho for rho in correlations if rho is not None]
    words = f"{network}: of {which} classes, those near the training labels gain more (Figure 5)"
    measured = "–"
    if len(known) > 1:
        measured = f"{statistics.fmean(known):+.2f} ± {statistics.stdev(known):.2f}"
    measure = "rank correlation of gain and similarity"
    cells = [words, "–", "–", measure, measured, str(len(known)), verdict(correlations)]
    return f"| {' | '.join(cells)} |"


def page(source: Miniature, figure_5: Mapping[str, Any]) -> str:
    head = [
        "| claim | better | worse | measure | difference | seeds | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    stated = ("VCLIP alone", "all")  # the one network that the paper speaks of
    others = [
        (network, which)
        for network, figure in figure_5.items()
        for which in figure
        if (network, which) != stated
    ]
    lines = [
        "# The paper's claims, in miniature",
        "",
        "Measure: the mean accuracy over the named sets of the world. Rule: a paired t-test over"
        " the seeds at 5 %, two-sided; claims and rule (`docs/results/claims.py`) were fixed before"
        " the runs.",
        "",
        *head,
        *(claim_line(claim, source) for claim in claims()),
        correlation_line(stated[0], figure_5[stated[0]], stated[1]),
        "",
        "Each line is a test at 5 % by itself: of so many, two or three would pass by chance.",
        "",
        "## The family of distillation",
        "",
        "What TACO's parts and the other targets are said to do, on VCLIP with both towers tuned and"
        " plain labels.",
        "",
        *head,
        *(claim_line(claim, source) for claim in family_claims()),
        "",
        "## Asked afterwards",
        "",
        "Once the first seed had been looked at, to understand it: hints, not tests.",
        "",
        *head,
        *(claim_line(claim, source) for claim in afterthoughts()),
        *(correlation_line(network, figure_5[network], which) for network, which in others),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    miniature = Miniature(froster.load("nano", device="cpu"), HERE, SEEDS, SHOTS, VIDEOS)
    figure_5 = json.loads((HERE / "tables.json").read_text(encoding="utf-8"))["fig5"]
    (HERE / "claims.md").write_text(page(miniature, figure_5), encoding="utf-8")
