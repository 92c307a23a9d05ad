"""`python -m benchmarks PART …`: run parts, keep their rows in docs/results/speed.json, write
docs/results/speed.md. `python -m benchmarks scale …` is benchmarks/scale.py."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import update

PARTS = {
    "step": "a training step against the released recipe's work, 100 classes",
    "step400": "the same at 400 classes",
    "memory": "peak memory of a training step",
    "evaluate": "16 clips x 3 views from files against the released recipe's work",
    "classify": "one clip against transformers' CLIPModel and XCLIPModel",
    "encoders": "image towers of PE-Core, SigLIP and EVA02 against CLIP's and transformers",
    "towers": "the same against open_clip, which must be installed; on a GPU where there is one",
    "flops": "the vision tower's achieved FLOP/s against a large matrix product",
    "merging": "token merging: time and cosine on a ViT-B/16, accuracy on the world",
    "decode": "decode + sample + resize against other readers",
    "loader": "clips a second with workers",
    "startup": "froster --help and import froster",
    "demo": "froster demo after installation",
    "export": "ONNX and OpenVINO against PyTorch",
    "teach": "froster teach on kept features, 20 classes of 20 videos",
    "serve": "sixteen clients of froster serve",
    "pipeline": "training from packed shards, loader and step against the step alone",
    "growth": "how cost grows with clips, frames, classes, views, workers",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = "; ".join(f"{name}: {words}" for name, words in PARTS.items())
    parser.add_argument(
        "parts", nargs="+", choices=[*PARTS, "all"], metavar="PART", help=f"all, or of {parts}"
    )
    parser.add_argument(
        "--rounds", type=int, help="turns of each contender; default: as the part says"
    )
    parser.add_argument(
        "--toy",
        action="store_true",
        help="a tiny network and little data, to try the script itself",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results"), help="folder of speed.json and speed.md"
    )
    args = parser.parse_args(arguments)
    installed = [part for part in PARTS if part != "towers" or find_spec("open_clip")]
    for part in installed if "all" in args.parts else args.parts:
        module = importlib.import_module(f"benchmarks.{'step' if part == 'step400' else part}")
        print(f"== {part}: {PARTS[part]}", flush=True)
        rows, notes = module.run(part, rounds=args.rounds, toy=args.toy)
        update(args.out, part, rows, notes, rounds=args.rounds, toy=args.toy)


if __name__ == "__main__":
    if sys.argv[1:2] == ["scale"]:
        from benchmarks.scale import main as scale

        scale(sys.argv[2:])
    else:
        main()
