"""What described labels cost a CLIP of the world before any training: `python -m tools.nano.videos
FOLDER` prints its accuracy on videos of every test set, asked with plain and with described labels.
"""

from __future__ import annotations

import argparse
from concurrent.futures import Executor
from itertools import product

import numpy as np
import torch

from froster.evaluation.metrics import harmonic_mean
from froster.inference.recognizer import Recognizer, load
from froster.paper.miniature import TEST_SETS, logits_of, videos_of_class
from froster.utils import strict_json as json
from froster.utils.progress import output
from froster.world.clips import WorldClips
from froster.world.sets import SETS, Videos, render_video
from tools.nano.stills import processes


def rendered(pool: Executor, name: str, per_class: int) -> Videos:
    """The test videos of a set, as `render_set` gives them, by the processes of `pool`."""
    classes = SETS[name].classes
    labels, takes = zip(*product(range(len(classes)), range(per_class)), strict=True)
    videos = list(pool.map(pixels, [name] * len(labels), labels, takes, chunksize=8))
    return Videos(torch.from_numpy(np.stack(videos)), torch.tensor(labels), classes)


def pixels(name: str, label: int, take: int) -> np.ndarray:
    return render_video(name, label, take).numpy()


def accuracies(model: Recognizer, videos: int, workers: int) -> dict[str, dict[str, float]]:
    """Labels -> test set -> top-1 in per cent, of at least so many videos a set."""
    sampling = model.config.sampling
    tests = {}
    with processes(workers) as pool:
        for name in TEST_SETS:
            of_set = rendered(pool, name, videos_of_class(name, videos))
            tests[name] = WorldClips(of_set, sampling, train=False)
    results = {}
    for labels, of_sets in logits_of(model, tests).items():
        scores = {
            name: 100 * (x.argmax(1) == tests[name].videos.labels).float().mean().item()
            for name, x in of_sets.items()
        }
        results[labels] = {**scores, "hm": harmonic_mean(scores["base"], scores["novel"])}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.nano.videos", description=__doc__)
    parser.add_argument("folder", help="a model folder")
    parser.add_argument("--videos", type=int, default=240, help="of each set (default: 240)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--workers", type=int, default=2, help="that render (default: 2)")
    given = parser.parse_args()
    model = load(given.folder, device=given.device)
    results = accuracies(model, given.videos, given.workers)
    output.print_json(json.dumps(results))


if __name__ == "__main__":
    main()
