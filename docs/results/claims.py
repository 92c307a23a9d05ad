"""The paper's claims judged on the miniature's runs: `python docs/results/claims.py` writes
`claims.md` anew from `cells/`, `long/cells/` and `tables.json`.

The claims and the rule were fixed before any distilled network was trained on this world. A claim
compares two runs on the same seeds and the same test videos. With the differences d_s over the
seeds, t = mean / (sd / sqrt(n)); the claim *holds* if t exceeds the two-sided 5 % point of Student's
t and the mean has the claimed sign, *does not hold* if it exceeds it with the other sign, and is
*within noise* otherwise. A claim whose runs were not all made has *too few seeds*.

Figure 5 is judged by the same test on one number a seed: the rank correlation, over the classes of
all test sets, of a class's similarity to the training labels with its gain over frozen CLIP when
VCLIP is tuned alone. The claim is that it is positive: what lies far from training loses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import froster
from froster.paper.family import DESCRIBED as ASKED_DESCRIBED
from froster.paper.family import GAUSSIAN, LATER, PROJECTED, member
from froster.paper.miniature import Miniature
from froster.paper.published import TABLE_1, TABLE_2
from froster.paper.tables import FROSTER, NETWORKS, OFFICIAL, Cell, froster_cell

HERE = Path(__file__).parent
SEEDS, SHOTS, LONG, VIDEOS = 5, 16, 60, 672
"""Videos: of each test set, a standard error of 1.9 points at most."""
LONG_RATE = 3e-4
"""What `choose.py` chose for the longer regime, as `RATE` for the shorter one."""
T_POINT = 2.776
"""The two-sided 5 % point of Student's t with four degrees of freedom: five seeds."""
CROSS = ("near", "mid", "far")
PLAIN, DESCRIBED = "final, plain", "final, described"

Run = tuple[Cell | None, str]
"""A network and how its weights and labels are taken ("final, plain"); None: frozen CLIP."""
SUCCESSORS = ("TACO", "Open-MeDe", "TC-CLIP", "BDC-CLIP", "MoTE", "OST", "EZ-CLIP")
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


DISTILLED = (vclip("both", "residual"), vclip("image", "residual"))
ALONE = (vclip("both", "none"), vclip("image", "none"))
HOT = 1e-3


def habit_claims() -> list[Claim]:
    return [*core_claims(), *ablation_claims()]


def core_claims() -> list[Claim]:
    """What habits are said to do, and distillation against them: the question of this programme,
    asked of 16 and of 60 training videos a class."""
    (distilled, image_distilled), (alone, image_alone) = DISTILLED, ALONE
    swapped = ("base-swapped",)
    return [
        Claim("tuning VCLIP alone gains on base with habits", image_alone, FROZEN, ("base",)),
        Claim("it falls below frozen CLIP on the farthest set", FROZEN, image_alone, ("far",)),
        Claim("it falls below frozen CLIP across data sets", FROZEN, image_alone),
        Claim("it falls below frozen CLIP on novel classes", FROZEN, image_alone, ("novel",)),
        Claim(
            "it falls below frozen CLIP where habits are exchanged", FROZEN, image_alone, swapped
        ),
        Claim("distillation, both towers: wins across data sets", distilled, alone),
        Claim("distillation, both towers: wins on the farthest set", distilled, alone, ("far",)),
        Claim("distillation, both towers: wins on novel classes", distilled, alone, ("novel",)),
        Claim("distillation, both towers: wins in HM", distilled, alone, ("hm",)),
        Claim("distillation, both towers: costs base accuracy", alone, distilled, ("base",)),
        Claim("distillation, both towers: wins where habits differ", distilled, alone, swapped),
        Claim("distillation, image tower: wins across data sets", image_distilled, image_alone),
        Claim("distillation, image tower: wins in HM", image_distilled, image_alone, ("hm",)),
        Claim("distilled VCLIP beats frozen CLIP across data sets", distilled, FROZEN),
        Claim("distilled VCLIP beats frozen CLIP in HM", distilled, FROZEN, ("hm",)),
        Claim("FROSTER as printed beats VCLIP alone across data sets", AS_PRINTED, image_alone),
        Claim("FROSTER as printed beats VCLIP alone in HM", AS_PRINTED, image_alone, ("hm",)),
    ]


def ablation_claims() -> list[Claim]:
    """What Table 4 is said to show."""
    vision, both = vclip("image", "residual"), vclip("both", "residual")
    plain, mlp = vclip("image", "plain"), vclip("image", "mlp")
    described = grid("VCLIP", "both", True, "residual")
    return [
        Claim("residual beats plain distillation (Table 4, D over B)", vision, plain),
        Claim("residual beats an MLP projector (Table 4, D over C)", vision, mlp),
        Claim("distilling both towers beats vision alone (Table 4, I over D)", both, vision),
        Claim("described labels help (Table 4, J over I)", described, both),
    ]


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
    for name in NETWORKS:
        words = f"{name} gains with FROSTER, as printed: text tuned and described too (Table 3)"
        alone = grid(name, "image", False, "none")
        claims_made.append(Claim(words, grid(name, "both", True, "residual"), alone))
        words = f"{name} gains by the distillation alone (fair grid, both towers, plain labels)"
        undistilled = grid(name, "both", False, "none")
        claims_made.append(Claim(words, grid(name, "both", False, "residual"), undistilled))
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
    for name in (None, "residual"):
        uniform = member(name)
        gaussian = dataclasses.replace(uniform, recipe=GAUSSIAN)
        words = f"a Gaussian average beats a uniform one: {name or 'nothing distilled'}"
        made.append(Claim(words, (gaussian, PLAIN), (uniform, PLAIN)))
    features = member("residual"), PLAIN
    for other in ("logits", "similarities", "hint, linear", "RKD", "PKT", "anchors"):
        words = f"features through the residual projector beat {other} (frozen teacher)"
        made.append(Claim(words, features, (member(other), PLAIN)))
    return made


def successor_claims() -> list[Claim]:
    """What the systems after FROSTER say: that they are better than it, and than frozen CLIP."""
    made = []
    for name in SUCCESSORS:
        run = LATER[name], DESCRIBED if name in ASKED_DESCRIBED else PLAIN
        made.append(Claim(f"{name} beats FROSTER", run, AS_PRINTED))
        made.append(Claim(f"{name} beats frozen CLIP", run, FROZEN))
    return made


def cells_of(claims: Sequence[Claim]) -> list[Cell]:
    """The networks behind these claims, in their order."""
    runs = [run for claim in claims for run in (claim.better, claim.worse)]
    return list(dict.fromkeys(cell for cell, _ in runs if cell is not None))


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


def scores(source: Miniature, run: Run, measure: Sequence[str]) -> dict[int, float]:
    """Of each seed whose run was made; frozen CLIP has no seed and stands for all of them."""
    cell, kind = run
    of_runs = {
        one.number: source.scores(one, kind) for one in source.runs_of(cell, "cross-dataset")
    }
    means = {
        seed: statistics.fmean(each[name] for name in measure)
        for seed, each in of_runs.items()
        if each
    }
    return (
        {seed: mean for mean in means.values() for seed in range(SEEDS)} if cell is None else means
    )


def paired(source: Miniature, better: Run, worse: Run, measure: Sequence[str]) -> list[float]:
    """What one run has more than another, of each seed of which both were made."""
    more, less = (scores(source, run, measure) for run in (better, worse))
    return [value - less[seed] for seed, value in more.items() if seed in less]


def shown(values: Sequence[float], sign: str = "+") -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{spread}"


def claim_line(claim: Claim, source: Miniature) -> str:
    differences = paired(source, claim.better, claim.worse, claim.measure)
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


HEAD = [
    "| claim | better | worse | measure | difference | seeds | verdict |",
    "|---|---|---|---|---|---|---|",
]


def section(title: str, words: str, claims: Sequence[Claim], source: Miniature) -> list[str]:
    return [f"## {title}", "", words, "", *HEAD, *(claim_line(claim, source) for claim in claims)]


def page(short: Miniature, long: Miniature, figure_5: Mapping[str, Any]) -> str:
    lines = [
        "# The paper's claims, in miniature",
        "",
        "Measure: the mean accuracy over the named sets of the world. Rule: a paired t-test over"
        " the seeds at 5 %, two-sided; claims and rule (`docs/results/claims.py`) were fixed before"
        " any distilled network was trained on this world. Each line is a test at 5 % by itself: of"
        " so many, some would pass by chance.",
        "",
        *section(f"Habits and distillation, {SHOTS} videos a class", "", habit_claims(), short),
        "",
        *section(f"The same, {LONG} videos a class", "", habit_claims(), long),
        "",
        *section(
            f"The same, {SHOTS} videos a class, at the rate {HOT:g}", "", core_claims(), hot(short)
        ),
        "",
        *section("The paper's tables and figures", f"{SHOTS} videos a class.", claims(), short),
    ]
    if "VCLIP alone" in figure_5:
        lines.append(correlation_line("VCLIP alone", figure_5["VCLIP alone"], "all"))
    family = (
        "What TACO's parts, a Gaussian average and the other targets are said to do, on VCLIP with"
        " both towers tuned and plain labels."
    )
    after = "Each as its own paper trains it, fitted to the nano."
    lines += ["", *section("The family of distillation", family, family_claims(), short)]
    lines += ["", *section("After FROSTER", after, successor_claims(), short)]
    return "\n".join(lines) + "\n"


def sources(
    here: Path, device: str = "cpu", long_rate: float = LONG_RATE, **how: Any
) -> tuple[Miniature, Miniature]:
    """The runs of both regimes."""
    base = froster.load("nano", device=device, precision="float32")
    short = Miniature(base, here, SEEDS, SHOTS, VIDEOS, **how)
    return short, Miniature(base, here / "long", SEEDS, LONG, VIDEOS, **{**how, "rate": long_rate})


def hot(short: Miniature) -> Miniature:
    """The core of the runs at a rate that validation did not choose."""
    habits = short.sizes["habits"]
    return Miniature(short.base, short.out / "hot", SEEDS, SHOTS, VIDEOS, habits, HOT)


STRENGTHS = (0.0, 0.5, 0.8, 0.95)
"""Of the curve over how often a video keeps its class's habits (`curve.py`), beside 0.9."""
CURVE = (ALONE[1], DISTILLED[1])
"""Its networks: the image tower, which is the cheaper one to tune."""
CURVE_SEEDS = 3
LONG_SEEDS = 3
"""Of Tables 2 to 4 with more videos: what two cores can make."""


def with_habits(short: Miniature, strength: float) -> Miniature:
    """The runs of 16 videos a class in a world with other habits, or in one without (0)."""
    if strength == short.sizes["habits"]:
        return short
    folder = short.out / "curve" / f"{strength:g}"
    return Miniature(short.base, folder, SEEDS, SHOTS, VIDEOS, strength, short.sizes["rate"])


if __name__ == "__main__":
    tables = HERE / "tables.json"
    figure_5 = json.loads(tables.read_text(encoding="utf-8"))["fig5"] if tables.exists() else {}
    (HERE / "claims.md").write_text(page(*sources(HERE), figure_5), encoding="utf-8")
