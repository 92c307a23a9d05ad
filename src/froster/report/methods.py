"""What `froster train` can build and distil: the facts behind `froster methods` and the tables
of docs/methods.md."""

import dataclasses
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from froster.encoders.blank import blank
from froster.encoders.config import ARCHITECTURES
from froster.encoders.model import CLIP
from froster.methods import METHODS, Method
from froster.methods.bert import Bert
from froster.methods.er_zasr import ElaborativeRehearsal
from froster.methods.recipe import Preset
from froster.methods.weight_names import new_weights
from froster.training.attach import freeze, trained
from froster.training.options import RehearsalOptions
from froster.training.rehearsal import learns
from froster.training.streams import POINTS, SEGMENTS
from froster.utils.files import write_text

MARKS = "<!-- froster methods: begin -->\n", "<!-- froster methods: end -->"


@functools.cache
def facts(method: Method) -> dict[str, Any]:
    """What a method has and trains on CLIP B/16, counted without allocating a weight, and its two
    recipes in full."""
    with blank():
        model = method.for_classes(["one", "two"]).build(CLIP(ARCHITECTURES["ViT-B/16"]))
    new = new_weights(model)
    freeze(model, method, "method")
    vision = trained(model, "clip.visual.") or (trained(model, "head.") and method.level == "video")
    text = trained(model, "clip.text.") or (model.shared_prompts and trained(model, "text_prompt"))
    return {
        "new": sum(p.numel() for name, p in model.named_parameters() if name in new),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "distils": [*([method.level] if vision else []), *(["text"] if text else [])],
        "options": dataclasses.asdict(method),
        "presets": {
            name: dataclasses.asdict(preset) for name, preset in presets_of(method).items()
        },
    }


def listing() -> list[dict[str, Any]]:
    """Every method with the facts of each variant; the first variant is the default. The last one
    is no network on CLIP, and has a command of its own."""
    networks = [
        {
            "name": method.name,
            "command": f"froster train --method {method.name}",
            "summary": method.summary,
            "reference": method.reference,
            "variants": {
                name: facts(method.make(name or None)) for name in method.variants or {"": {}}
            },
            "presets": {name: preset_line(preset) for name, preset in presets_of(method()).items()},
        }
        for method in METHODS.values()
    ]
    return [*networks, er_zasr()]


def er_zasr() -> dict[str, Any]:
    """ER-ZASR by its authors' sizes, counted without allocating a weight."""
    sizes = {"word": 30522, "position": 512, "token_type": 2}
    with blank():
        bert = {f"embeddings.{n}_embeddings.weight": torch.empty(k, 768) for n, k in sizes.items()}
        for layer in range(12):
            name = f"encoder.layer.{layer}.intermediate.dense.weight"
            bert[name] = torch.empty(3072, 768)
        network = ElaborativeRehearsal(Bert(bert), features=2048)
    learns(network)
    asked = RehearsalOptions()
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    official = (
        f"adam {asked.lr:.3g}, decay {asked.weight_decay:g}, {asked.epochs} epochs of batch"
        f" {asked.batch_size}, {SEGMENTS.frames} + {POINTS} frames uniform, 1 views"
    )
    variants = {
        fusion: {
            "new": sum(p.numel() for p in network.parameters()),
            "trained": count,
            "distils": [],
            "options": {**dataclasses.asdict(asked), "fusion": fusion},
            "presets": {},
        }
        for fusion in ("late", "early")
    }
    return {
        "name": "er-zasr",
        "command": "froster rehearse",
        "summary": "no CLIP: what moves (TSM-ResNet) and what is seen (BiT's concepts), compared by"
        " a BERT with definitions of the classes and with the objects of the batch",
        "reference": "Chen & Huang, Elaborative Rehearsal, ICCV 2021",
        "variants": variants,
        "presets": {"official": official, "froster": "none: it has no CLIP that could be kept"},
    }


def presets_of(method: Method) -> dict[str, Preset]:
    return {"official": method.preset(), "froster": method.froster_preset()}


def preset_line(preset: Preset) -> str:
    recipe = preset.recipe
    rate = f"{recipe.lr:.3g}"
    rate += f" (new {recipe.lr * recipe.new_scale:.3g})" if recipe.new_scale != 1 else ""
    rate += f" (CLIP's {recipe.clip_lr:.3g})" if recipe.clip_lr is not None else ""
    return (
        f"{recipe.optimizer} {rate}, decay {recipe.weight_decay:g}, {recipe.epochs} epochs of batch"
        f" {recipe.batch_size}, {preset.sampling.frames} frames {preset.sampling.kind},"
        f" {preset.views} views"
    )


def millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def methods_table() -> str:
    """What there is, one row a method. What is equal for all variants is told once."""
    rows = []
    for method in listing():
        known = method["variants"].values()
        counts = [millions(variant["trained"]) for variant in known]
        places = ["+".join(variant["distils"]) or "no" for variant in known]
        variants, trained, distils = (
            "<br>".join(cells[: 1 if len(set(cells)) == 1 else None]) or "–"
            for cells in (list(method["variants"]), counts, places)
        )
        cells = [f"`{method['name']}`", variants, trained, method["summary"], distils]
        rows.append([*cells, method["reference"]])
    columns = ["method", "variants", "trained, B/16", "what it changes", "distils", "reference"]
    return markdown(columns, rows)


def presets_table() -> str:
    """The presets, one row a method."""
    rows = [
        [f"`{method['name']}`", *method["presets"].values()]
        for method in listing()
        if method["name"] != "frozen"
    ]
    return markdown(["method", "official", "froster"], rows)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:], ""])


def fill(page: str) -> str:
    """The page with what stands between the marks replaced by today's tables."""
    tables = iter([methods_table(), presets_table()])
    between = "(?s)" + ".*?".join(map(re.escape, MARKS))
    return re.sub(between, lambda _: next(tables).join(MARKS), page)


def main(pages: Sequence[str]) -> None:
    """`python -m froster.report.methods docs/methods.md` writes the tables of the page anew."""
    for page in map(Path, pages):
        write_text(page, fill(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1:])
