"""Chooses the strength of the habits and the rates from what `premises.py` has measured: `python
docs/results/choose.py FILE …` prints `HABITS RATE LONG_RATE` and, on standard error, why.

The rule: at each strength and number of training videos the rate of the tuned network is the one
with the best accuracy on validation videos of base, of equals the smaller. The strength is the
smallest at which the four premises hold with 16 videos a class; if there is none, the smallest at
which they hold with 60; if there is none either, the largest, and a premise does not hold. With 60
videos a class the rate is that of 16 where none was measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

SHOTS = (16, 60)
MARGIN = 3.0
"""Points: two standard errors of the difference of two networks on 480 videos, about."""
Line = dict[str, Any]


def premises(frozen: dict[str, dict[str, float]], alone: dict[str, float]) -> dict[str, bool]:
    plain, described = (fmean(frozen[labels].values()) for labels in ("plain", "described"))
    return {
        "frozen base between 45 and 70": 45 <= frozen["plain"]["base"] <= 70,
        "tuning gains 15 on base": alone["base"] - frozen["plain"]["base"] >= 15,
        "tuning falls below frozen on far": frozen["plain"]["far"] - alone["far"] >= MARGIN,
        "sentences cost 1 at most": plain - described <= 1,
    }


def main() -> None:
    texts = (Path(path).read_text(encoding="utf-8") for path in sys.argv[1:])
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    strengths = sorted({line["strength"] for line in lines})
    frozen = {line["strength"]: line["frozen"] for line in lines if "frozen" in line}
    best: dict[tuple[float, int], Line] = {}
    for line in sorted(lines, key=lambda line: line.get("rate", 0)):
        place = line["strength"], line["shots"]
        if "alone" in line and (
            place not in best or line["alone"]["val"] > best[place]["alone"]["val"]
        ):
            best[place] = line
    chosen = None
    for shots in SHOTS:
        for strength in strengths:
            if (strength, shots) not in best:
                continue
            line = best[strength, shots]
            held = premises(frozen[strength], line["alone"])
            print(strength, shots, line["rate"], held, file=sys.stderr)
            if chosen is None and all(held.values()):
                chosen = strength
    chosen = strengths[-1] if chosen is None else chosen
    short = best[chosen, SHOTS[0]]
    print(chosen, *(best.get((chosen, shots), short)["rate"] for shots in SHOTS))


if __name__ == "__main__":
    main()
