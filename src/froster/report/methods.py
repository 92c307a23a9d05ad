"""What `froster train` can build and distil: the facts behind `froster methods` and the tables
of docs/methods.md."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from froster.encoders.blank import blank
from froster.encoders.config import ARCHITECTURES
from froster.encoders.model import CLIP
from froster.methods import METHODS, Method
from froster.methods.recipe import Preset
from froster.methods.weight_names import new_weights
from froster.training.task import freeze, trained
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
    """Every method with the facts of each variant; the first variant is the default."""
    return [
        {
            "name": method.name,
            "summary": method.summary,
            "reference": method.reference,
            "variants": {
                name: facts(method.make(name or None)) for name in method.variants or {"": {}}
            },
            "presets": {name: preset_line(preset) for name, preset in presets_of(method()).items()},
        }
        for method in METHODS.values()
    ]


def presets_of(method: Method) -> dict[str, Preset]:
    return {"official": method.preset(), "froster": method.froster_preset()}


def preset_line(preset: Preset) -> str:
    recipe = preset.recipe
    rate = f"{recipe.lr:.3g}" + (
        f" (new {recipe.lr * recipe.new_scale:.3g})" if recipe.new_scale != 1 else ""
    )
    rate += f" (CLIP's {recipe.clip_lr:.3g})" if recipe.clip_lr is not None else ""
    return (
        f"{recipe.optimizer} {rate}, decay {recipe.weight_decay:g}, {recipe.epochs} epochs of batch"
        f" {recipe.batch_size}, {preset.sampling.frames} frames {preset.sampling.kind},"
        f" {preset.views} views"
    )


def millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def variant_cells(variants: dict[str, dict[str, Any]]) -> tuple[str, str, str]:
    """Variants, weights trained and where distillation attaches, a line each; what is equal for all
    is said once."""
    counts = [millions(v["trained"]) for v in variants.values()]
    places = ["+".join(v["distils"]) or "no" for v in variants.values()]
    return "\n".join(variants), lines_of(counts), lines_of(places)


def lines_of(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else "\n".join(values)


def markdown() -> str:
    """What there is, one row a method."""
    lines = [
        "| method | variants | trained, B/16 | what it changes | distils | reference |",
        "|---|---|---|---|---|---|",
    ]
    for method in listing():
        cells = [cell.replace("\n", "<br>") or "–" for cell in variant_cells(method["variants"])]
        lines.append(
            f"| `{method['name']}` | {cells[0]} | {cells[1]} | {method['summary']} | {cells[2]} |"
            f" {method['reference']} |"
        )
    return "\n".join(lines) + "\n"


def markdown_presets() -> str:
    """The presets, one row a method."""
    lines = ["| method | official | froster |", "|---|---|---|"]
    for method in listing():
        if method["name"] != "frozen":
            lines.append(
                f"| `{method['name']}` | {method['presets']['official']} |"
                f" {method['presets']['froster']} |"
            )
    return "\n".join(lines) + "\n"


def fill(page: str) -> str:
    """The page with what stands between the marks replaced by today's tables."""
    tables = iter([markdown(), markdown_presets()])
    begin, end = MARKS
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: begin + next(tables) + end,
        page,
        flags=re.DOTALL,
    )


def main(pages: Sequence[str]) -> None:
    """`python -m froster.report.methods docs/methods.md` brings the tables of the page up to date."""
    for page in map(Path, pages):
        write_text(page, fill(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1:])
