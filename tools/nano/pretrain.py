"""Makes the nano CLIP that ships with the package, from nothing: `python -m tools.nano.pretrain
--out nano`.

Stills of the world are rendered once; captions are written anew at every use. For the first third
of the steps the image tower alone learns which words stand in the caption (a linear head, thrown
away later): nouns come ten times faster that way than from contrast alone, which the scenes solve.
Then both towers learn by contrast, the words going on beside it. The logit scale is not learnt: it
follows a schedule to 60, so that a cosine weighs about what it weighs in CLIP.

On one thread of a shared machine the default recipe takes 38 minutes; the accuracies of what ships
are in `nano/report.json`, measured on held-out stills.
"""

from __future__ import annotations

import os

if (
    __name__ == "__main__"
):  # before torch loads: waiting threads that spin starve everyone else on a shared machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import normalise
from froster.encoders.tokenizer import Tokenizer
from froster.training.optim import parameter_groups
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder
from froster.utils.progress import console, progress
from froster.utils.tensors import save_tensors
from tools.nano.bpe import build_tokenizer
from tools.nano.captions import CONTENT, caption, content
from tools.nano.stills import Still, draw_stills, render_stills
from tools.nano.zero_shot import Exam, examine

NANO = Path(__file__).parents[2] / "src" / "froster" / "world" / "nano"
"""The model folder that ships."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. They repeat bit by bit on one machine with the same
    number of threads."""

    steps: int = 8000
    seed: int = 0
    threads: int = 1
    stills: int = 100_000
    batch: int = 128
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 100
    easy: float = 0.12
    """Share of the steps with stills of one thing only."""
    words_only: float = 0.33
    """Share of the steps in which the text tower rests."""
    scale: tuple[float, float] = (14.0, 60.0)
    """The logit scale, from the first step of contrast to the last quarter of all steps;
    exponential in between."""
    shift: int = 3
    """Largest shift of a batch in pixels."""
    exam: int = 800
    """Held-out stills that the accuracies are measured on."""
    snapshot: int = 300
    """Steps from one snapshot to the next."""


def nano_config(vocab: int) -> CLIPConfig:
    """1.5 million parameters: three blocks of width 128 in each tower, a convolutional stem, 26
    image tokens."""
    vision = VisionConfig(image_size=60, patch_size=12, width=128, layers=3, heads=4, stem=True)
    text = TextConfig(context=256, vocab=vocab, width=128, layers=3, heads=4)
    # The exact GELU is one fused operation: on a processor a step is some 12 % faster than with
    # CLIP's quick one.
    return CLIPConfig(vision, text, embed_dim=128, activation="gelu")


def bag_of_words(captions: list[str]) -> Tensor:
    """Which content words each caption has: (B, words) float, 0 or 1."""
    bags = torch.zeros(len(captions), len(CONTENT))
    for row, text in enumerate(captions):
        bags[row, content(text)] = 1
    return bags


def contrast(images: Tensor, texts: Tensor, bags: Tensor, scale: float) -> Tensor:
    """InfoNCE over unit embeddings (B, E), both ways.

    A caption all of whose words stand in another still's caption is true of that still as well ("a
    cat" of every still captioned "a red cat"): such pairs are left out, not pushed apart.
    """
    logits = scale * images @ texts.T  # (image, text)
    also_true = bags @ bags.T == bags.sum(1)
    also_true.fill_diagonal_(False)
    logits = logits.masked_fill(also_true, -math.inf)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Pretraining:
    """The state of one run: data, towers, head, optimizer."""

    def __init__(self, recipe: Recipe, stills: list[Still], images: Tensor):
        torch.manual_seed(recipe.seed)
        self.recipe, self.stills, self.images = recipe, stills, images
        self.alone = np.array([i for i, still in enumerate(stills) if still.other is None])
        self.tokenizer = build_tokenizer()
        self.clip = CLIP(nano_config(self.tokenizer.vocab_size))
        self.clip.logit_scale.requires_grad_(False)
        self.head = nn.Linear(self.clip.config.vision.width, len(CONTENT))
        named = [*self.clip.named_parameters(), *self.head.named_parameters("head")]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(named, recipe.weight_decay),
            lr=recipe.lr,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.rng = np.random.default_rng([recipe.seed, 4])

    def batch(self, easy: bool) -> tuple[Tensor, list[str]]:
        """Stills (B, 3, 60, 60) uint8, mirrored and shifted at random, and a caption each."""
        recipe, rng = self.recipe, self.rng
        picked = rng.choice(self.alone if easy else len(self.stills), recipe.batch)
        images = self.images[torch.from_numpy(picked)]
        mirrored = torch.from_numpy(rng.random(recipe.batch) < 0.5)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        images = images.roll(
            tuple(rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()), (-2, -1)
        )
        return images, [caption(self.stills[i], rng) for i in picked]

    def schedule(self, step: int) -> float:
        """Set learning rate and logit scale for a step; returns the scale."""
        recipe = self.recipe
        done = step / recipe.steps
        rate = recipe.lr * min((step + 1) / recipe.warmup, 0.5 + 0.5 * math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        low, high = recipe.scale
        rise = min(max((done - recipe.words_only) / (0.75 - recipe.words_only), 0), 1)
        scale = low * (high / low) ** rise
        self.clip.logit_scale.fill_(math.log(scale))
        return scale

    def step(self, step: int) -> float:
        """One step of the optimizer; returns the loss."""
        recipe = self.recipe
        with torch.no_grad():
            scale = self.schedule(step)
        images, captions = self.batch(easy=step < recipe.easy * recipe.steps)
        bags = bag_of_words(captions)
        visual = self.clip.visual
        tokens = visual.transformer(visual.embed(normalise(images)))
        features = visual.ln_post(tokens[:, 0])
        loss = F.cross_entropy(self.head(features), bags / bags.sum(1, keepdim=True))
        if step >= recipe.words_only * recipe.steps:
            texts = self.clip.encode_text(self.tokenizer(captions, self.clip.config.text.context))
            loss = loss + contrast(unit(features @ visual.proj), unit(texts), bags, scale)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(
            (p for group in self.optimizer.param_groups for p in group["params"]), 1.0
        )
        self.optimizer.step()
        return loss.item()


def save_nano(clip: CLIP, tokenizer: Tokenizer, folder: Path, report: dict[str, Any]) -> None:
    """Write weights (float16), config, tokenizer and report. The folder appears whole or not at
    all."""
    config = {
        "format": "froster",
        "version": 1,
        "architecture": clip.architecture(),
        "method": {"name": "frozen"},
        "sampling": {"kind": "uniform"},
        "views": 1,
    }
    with atomic_folder(folder) as part:
        save_tensors(
            {name: tensor.half() for name, tensor in clip.state_dict().items()},
            part / "model.safetensors",
        )
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tokenizer.save(part / "tokenizer.json")
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def pretrain(recipe: Recipe, out: Path, quiet: bool = False) -> dict[str, float]:
    """Carry out a recipe; the model folder `out` is written anew at every snapshot. Returns the
    last accuracies."""
    torch.set_num_threads(recipe.threads)
    began = time.monotonic()
    stills = draw_stills(recipe.stills, recipe.seed)
    scores: dict[str, float] = {}
    with progress(quiet) as display:
        bar = display.add_task("rendering stills", total=recipe.stills, note="")
        images = render_stills(
            stills, recipe.seed, lambda done: display.update(bar, completed=done)
        )
        exam = Exam.draw(recipe.exam)
        run = Pretraining(recipe, stills, images)
        bar = display.add_task("pretraining", total=recipe.steps, note="")
        for step in range(recipe.steps):
            loss = run.step(step)
            display.update(bar, advance=1, note=f"loss {loss:.3f}")
            if (step + 1) % recipe.snapshot == 0 or step + 1 == recipe.steps:
                scores = examine(run.clip, run.tokenizer, exam)
                run.clip.train()
                seconds = round(time.monotonic() - began)
                report = {
                    "made_by": "python -m tools.nano.pretrain",
                    "steps_done": step + 1,
                    "seconds": seconds,
                    "torch": torch.__version__,
                    "recipe": dataclasses.asdict(recipe),
                    "zero_shot": scores,
                }
                save_nano(run.clip, run.tokenizer, out, report)
                console.print(
                    f"step {step + 1}  {seconds} s  loss {loss:.3f}  {json.dumps(scores)}"
                )
    return scores


def main(arguments: list[str] | None = None) -> None:
    default = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m tools.nano.pretrain", description="Make the nano CLIP anew."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("nano"), help="model folder to write (default: ./nano)"
    )
    parser.add_argument(
        "--steps", type=int, default=default.steps, help=f"default: {default.steps}"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help=f"default: {default.seed}")
    parser.add_argument(
        "--threads", type=int, default=default.threads, help=f"default: {default.threads}"
    )
    parser.add_argument(
        "--stills", type=int, default=default.stills, help=f"default: {default.stills}"
    )
    values = vars(parser.parse_args(arguments))
    out = values.pop("out")
    try:
        pretrain(Recipe(**values), out)
    except KeyboardInterrupt:
        console.print(f"stopped; the last snapshot, if there was one, is in {out}")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
