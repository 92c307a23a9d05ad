"""The premises of the miniature, measured on frozen CLIP and on VCLIP tuned alone, never on a
distilled network: `python docs/results/premises.py --strength 0.9 --rates 1e-4 3e-4 1e-3` prints a
line of JSON for each.

Training seeds, validation and test videos are other ones than those of the runs of the programme.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from froster.inference.recognizer import Recognizer, load
from froster.paper.cells import vclip
from froster.paper.miniature import logits_of, on_device
from froster.training.fine_tune import FineTuning, fine_tune
from froster.training.weights import with_weights
from froster.utils import strict_json as json
from froster.world.clips import WorldClips
from froster.world.habits import Strength
from froster.world.sets import SETS
from froster.world.stock import first_takes, stocked

FRESH = 1000
"""Seed of the videos."""
MEASURED = ("base", "base-swapped", "novel", "near", "mid", "far")


def accuracies(model: Recognizer, tests: dict[str, WorldClips]) -> dict[str, dict[str, float]]:
    frames = on_device(model, tests)
    return {
        labels: {
            name: 100 * (x.argmax(1) == tests[name].videos.labels).float().mean().item()
            for name, x in of_sets.items()
        }
        for labels, of_sets in logits_of(model, frames).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nano", default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stock", type=Path, default=Path("stock"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--strength", type=float, default=0.9)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--most-shots", type=int, default=60, help="that are rendered")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--per-class", type=int, default=20, help="test videos")
    parser.add_argument("--tune", default="image")
    parser.add_argument("--seed", type=int, default=FRESH)
    parser.add_argument("--rates", type=float, nargs="*", default=[])
    parser.add_argument("--render", action="store_true", help="only fill the stock")
    how = parser.parse_args()
    strength = Strength(*[how.strength] * 4)
    tests, base = {}, None
    if not how.render:
        base = load(how.nano, device=how.device, precision="float32")
    for name in MEASURED:
        videos = stocked(how.stock, name, how.per_class, FRESH, "test", strength, how.workers)
        if base:
            tests[name] = WorldClips(videos, base.config.sampling, train=False)
    val = stocked(how.stock, "base", how.per_class, FRESH, "val", strength, how.workers)
    train = stocked(how.stock, "base", how.most_shots, how.seed, "train", strength, how.workers)
    if base is None:
        return
    SETS["val"] = SETS["base"]
    tests["val"] = WorldClips(val, base.config.sampling, train=False)
    settings = {"strength": how.strength, "shots": how.shots, "epochs": how.epochs}
    print(json.dumps({"frozen": accuracies(base, tests), **settings}), flush=True)
    cell = vclip(how.tune, "none")
    for rate in how.rates:
        began = time.monotonic()
        method, preset = cell.setting(base, seed=how.seed, lr=rate, epochs=how.epochs)
        shown = WorldClips(
            first_takes(train, how.shots), base.config.sampling, train=True, seed=how.seed
        )
        plan = FineTuning(method, cell.loss(method), preset.recipe, preset)
        with tempfile.TemporaryDirectory() as folder:
            student, trained = fine_tune(base, plan, shown, SETS["base"].classes, Path(folder))
        trained_in = time.monotonic() - began
        result = accuracies(with_weights(student, trained.average), tests)["plain"]
        seconds = {"train": round(trained_in, 1), "all": round(time.monotonic() - began, 1)}
        line = {"alone": result, "tune": how.tune, "rate": rate, **settings, "seconds": seconds}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
