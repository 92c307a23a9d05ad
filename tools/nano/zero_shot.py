"""What a CLIP knows of the world's photographs: zero-shot accuracies on fresh stills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import normalise
from froster.encoders.tokenizer import Tokenizer
from froster.world.vocabulary import ALL_VERBS, COLOURS, NOUNS, SCENES
from tools.nano.captions import TEMPLATES
from tools.nano.stills import Still, draw_stills, render_stills

HELD_OUT_SEED = 1_000_003
"""Never used for pretraining."""


@dataclass(frozen=True)
class Exam:
    """Fresh stills of one thing each: `quiet` at rest, `acting` doing something."""

    quiet: list[Still]
    quiet_images: Tensor
    acting: list[Still]
    acting_images: Tensor

    @classmethod
    def draw(cls, count: int = 800, seed: int = HELD_OUT_SEED) -> Exam:
        quiet = draw_stills(count, seed, pair=0, verb=0)
        acting = draw_stills(count // 2, seed + 1, pair=0, verb=1)
        return cls(quiet, render_stills(quiet, seed), acting, render_stills(acting, seed + 1))


@torch.no_grad()
def embed_images(clip: CLIP, images: Tensor, batch: int = 200) -> Tensor:
    """uint8 stills (N, 3, 60, 60) -> unit embeddings (N, E), on the CPU."""
    device = clip.logit_scale.device
    parts = (normalise(part.to(device), clip.config.preprocessing) for part in images.split(batch))
    return torch.cat([unit(clip.encode_image(part[:, None])[:, 0]) for part in parts]).cpu()


@torch.no_grad()
def embed_prompts(
    clip: CLIP, tokenizer: Tokenizer, prompts: Sequence[Sequence[str]], batch: int = 400
) -> Tensor:
    """Prompts of K classes, equally many each -> (K, E) on the CPU, the mean of their unit
    embeddings, of unit length."""
    rows = tokenizer([prompt for group in prompts for prompt in group], clip.config.text.context)
    embeddings = torch.cat([unit(clip.encode_text(part)) for part in rows.split(batch)])
    return unit(embeddings.unflatten(0, (len(prompts), -1)).mean(1)).cpu()


def accuracy(images: Tensor, classes: Tensor, truth: Sequence[int]) -> float:
    """Share of the images whose nearest class is the true one, in percent."""
    return 100 * float(((images @ classes.T).argmax(1) == torch.tensor(truth)).float().mean())


def examine(clip: CLIP, tokenizer: Tokenizer, exam: Exam) -> dict[str, float]:
    """Zero-shot accuracies in percent, and the logit scale.

    noun (40 ways, through the 28 templates of action recognition), noun_plain ("a photo of cat"),
    scene (12), colour_noun (400), noun_acting (40, of things in motion), verb_given_noun (24, of
    things in motion).
    """
    clip.eval()
    images, acting = embed_images(clip, exam.quiet_images), embed_images(clip, exam.acting_images)
    quiet_nouns = [NOUNS.index(still.noun) for still in exam.quiet]
    acting_nouns = [NOUNS.index(still.noun) for still in exam.acting]
    colours = tuple(COLOURS)

    def classes(prompts: list[list[str]]) -> Tensor:
        return embed_prompts(clip, tokenizer, prompts)

    nouns = classes(
        [[f"{template.format(noun)} {noun}" for template in TEMPLATES] for noun in NOUNS]
    )
    verbs = classes([[f"a photo of a {noun} {verb}"] for noun in NOUNS for verb in ALL_VERBS])
    verbs = verbs.unflatten(0, (len(NOUNS), len(ALL_VERBS)))
    guesses = torch.einsum("ne,nve->nv", acting, verbs[acting_nouns]).argmax(1)
    verb_truth = torch.tensor([ALL_VERBS.index(still.verb) for still in exam.acting if still.verb])
    pairs = [
        quiet_nouns[i] * len(colours) + colours.index(still.colour)
        for i, still in enumerate(exam.quiet)
    ]
    scores = {
        "noun": accuracy(images, nouns, quiet_nouns),
        "noun_plain": accuracy(
            images, classes([[f"a photo of {noun}"] for noun in NOUNS]), quiet_nouns
        ),
        "noun_acting": accuracy(acting, nouns, acting_nouns),
        "scene": accuracy(
            images,
            classes([[f"a {noun} in the {scene}" for noun in NOUNS] for scene in SCENES]),
            [SCENES.index(still.scene) for still in exam.quiet],
        ),
        "colour_noun": accuracy(
            images,
            classes([[f"a photo of a {colour} {noun}"] for noun in NOUNS for colour in COLOURS]),
            pairs,
        ),
        "verb_given_noun": 100 * float((guesses == verb_truth).float().mean()),
        "logit_scale": float(clip.logit_scale.detach().exp()),
    }
    return {key: round(value, 2) for key, value in scores.items()}
