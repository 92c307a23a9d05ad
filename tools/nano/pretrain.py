"""Makes the nano CLIP that ships with the package, from nothing: `python -m tools.nano.pretrain
--out nano`.

Stills of the world are rendered once; captions are written anew at every use. For the first third
of the steps the image tower alone learns which words stand in the caption (a linear head, thrown
away later): nouns come ten times faster that way than from contrast alone, which the scenes solve.
Then both towers learn by contrast, the words going on beside it. The logit scale is not learnt: it
follows a schedule to 60, so that a cosine weighs about what it weighs in CLIP.

On one thread of a shared machine the default recipe takes about 40 minutes, on a GPU
(`--device cuda --workers 8`) two; the accuracies of what ships are in `nano/report.json`, measured
on held-out stills.
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
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

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
from tools.nano.captions import CONTENT, DESCRIBED, caption, content
from tools.nano.stills import Still, draw_stills, render_stills
from tools.nano.zero_shot import Exam, examine

NANO = Path(__file__).parents[2] / "src" / "froster" / "world" / "nano"
"""The model folder that ships."""


SHOWN = 20
"""Steps from one look at the loss to the next: a GPU has to be waited for."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. On a CPU they repeat bit by bit on one machine with the
    same number of threads."""

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
    sentences: float = DESCRIBED
    """Share of the captions of things in motion that hold a sentence."""
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
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Batch(NamedTuple):
    """What a step learns from: which stills, how they are mirrored and shifted, and a caption
    each."""

    picked: Tensor  # (B,)
    mirrored: Tensor  # (B,) bool
    shift: tuple[int, int]
    tokens: Tensor  # (B, L)
    bags: Tensor  # (B, words)


class Batches(Dataset):
    """Step -> its batch, from a random stream of its own: the same whichever process draws it."""

    def __init__(self, recipe: Recipe, stills: list[Still], tokenizer: Tokenizer, context: int):
        self.recipe, self.stills = recipe, stills
        self.tokenizer, self.context = tokenizer, context
        self.alone = np.array([i for i, still in enumerate(stills) if still.other is None])

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> Batch:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 4, step])
        easy = step < recipe.easy * recipe.steps
        picked = rng.choice(self.alone if easy else len(self.stills), recipe.batch)
        mirrored = torch.from_numpy(rng.random(recipe.batch) < 0.5)
        right, down = rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()
        captions = [caption(self.stills[i], rng, recipe.sentences) for i in picked]
        tokens = self.tokenizer(captions, self.context)
        shift = (right, down)
        return Batch(torch.from_numpy(picked), mirrored, shift, tokens, bag_of_words(captions))


class Pretraining:
    """The state of one run: stills, towers, head, optimizer, on `device`; `workers` processes
    draw the batches, 0: this one."""

    def __init__(
        self,
        recipe: Recipe,
        stills: list[Still],
        images: Tensor,
        device: str = "cpu",
        workers: int = 0,
    ):
        torch.manual_seed(recipe.seed)
        self.recipe, self.images, self.device = recipe, images.to(device), device
        self.tokenizer = build_tokenizer()
        self.clip = CLIP(nano_config(self.tokenizer.vocab_size)).to(device)
        self.clip.logit_scale.requires_grad_(False)
        self.head = nn.Linear(self.clip.config.vision.width, len(CONTENT)).to(device)
        named = [*self.clip.named_parameters(), *self.head.named_parameters("head")]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(named, recipe.weight_decay),
            lr=recipe.lr,
            betas=(0.9, 0.98),
            fused=True,
        )
        batches = Batches(recipe, stills, self.tokenizer, self.clip.config.text.context)
        self.batches = DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
            prefetch_factor=8 if workers else None,
            pin_memory=device == "cuda",
        )

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

    def stills(self, batch: Batch) -> Tensor:
        """(B, 3, 60, 60) uint8, mirrored and shifted."""
        images = self.images[batch.picked.to(self.device, non_blocking=True)]
        mirrored = batch.mirrored.to(self.device, non_blocking=True)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images.roll(batch.shift, (-2, -1))

    def step(self, step: int, batch: Batch) -> Tensor:
        """One step of the optimizer; returns the loss, which is not waited for."""
        recipe = self.recipe
        with torch.no_grad():
            scale = self.schedule(step)
        bags = batch.bags.to(self.device, non_blocking=True)
        visual = self.clip.visual
        tokens = visual.transformer(visual.embed(normalise(self.stills(batch))))
        features = visual.ln_post(tokens[:, 0])
        loss = F.cross_entropy(self.head(features), bags / bags.sum(1, keepdim=True))
        if step >= recipe.words_only * recipe.steps:
            texts = self.clip.encode_text(batch.tokens)
            loss = loss + contrast(unit(features @ visual.proj), unit(texts), bags, scale)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(
            (p for group in self.optimizer.param_groups for p in group["params"]), 1.0
        )
        self.optimizer.step()
        return loss.detach()


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
            {name: tensor.half().cpu() for name, tensor in clip.state_dict().items()},
            part / "model.safetensors",
        )
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tokenizer.save(part / "tokenizer.json")
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def pretrain(
    recipe: Recipe, out: Path, quiet: bool = False, device: str = "cpu", workers: int = 1
) -> dict[str, float]:
    """Carry out a recipe on `device`, `workers` processes rendering the stills and drawing the
    batches; the model folder `out` is written anew at every snapshot. Returns the last
    accuracies."""
    torch.set_num_threads(recipe.threads)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU; nothing else knows it
    began = time.monotonic()
    stills = draw_stills(recipe.stills, recipe.seed)
    scores: dict[str, float] = {}
    with progress(quiet) as display:
        bar = display.add_task("rendering stills", total=recipe.stills, note="")
        images = render_stills(
            stills, recipe.seed, lambda done: display.update(bar, completed=done), workers
        )
        exam = Exam.draw(recipe.exam)
        run = Pretraining(recipe, stills, images, device, workers if workers > 1 else 0)
        bar = display.add_task("pretraining", total=recipe.steps, note="")
        for step, batch in enumerate(run.batches):
            loss = run.step(step, batch)
            if (step + 1) % SHOWN == 0:
                display.update(bar, completed=step + 1, note=f"loss {loss.item():.3f}")
            if (step + 1) % recipe.snapshot == 0 or step + 1 == recipe.steps:
                scores = examine(run.clip, run.tokenizer, exam)
                run.clip.train()
                seconds = round(time.monotonic() - began)
                report = {
                    "made_by": "python -m tools.nano.pretrain",
                    "steps_done": step + 1,
                    "seconds": seconds,
                    "device": device,
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
    parser.add_argument(
        "--sentences", type=float, default=default.sentences, help=f"default: {default.sentences}"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that render and write captions (default: 1)",
    )
    values = vars(parser.parse_args(arguments))
    out, device, workers = (values.pop(name) for name in ("out", "device", "workers"))
    try:
        pretrain(Recipe(**values), out, device=device, workers=workers)
    except KeyboardInterrupt:
        console.print(f"stopped; the last snapshot, if there was one, is in {out}")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
