"""Efficient-Prompt (Ju et al.; "VPT" in the FROSTER paper): CLIP frozen, learned vectors around the
class name, and a temporal transformer on the frame embeddings.

    [SOT] [prefix learned] name [postfix learned] [EOT]

The learned vectors are rows of one table by absolute position, so the length of a name decides
which rows follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.base import Method, Official, VideoCLIP
from froster.methods.heads import TemporalTransformer, check_reserved
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import count_layers, has, rename
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

TEMPERATURE = 0.07
NAME_ALONE = Prompting(("{}",), "plain")


class PromptedNet(VideoCLIP):
    def __init__(self, clip: CLIP, head: TemporalTransformer, prefix: int, postfix: int):
        super().__init__(clip, "mean_then_unit", head)
        self.prefix, self.postfix = prefix, postfix
        self.reserved_tokens = check_reserved(prefix + postfix, clip.config.text)
        text = clip.config.text
        self.text_prompt = nn.Embedding(text.context, text.width)
        nn.init.normal_(self.text_prompt.weight, std=0.01)

    def places(
        self, tokens: Int[Tensor, "classes tokens"], length: int
    ) -> Int[Tensor, "classes length"]:
        """The column of `tokens` that stands there, or -1 for a
        learned row."""
        # As many as the name's tokens, plus one for the start.
        end = self.clip.config.text.ends(tokens)[:, None]
        place = torch.arange(length, device=tokens.device).expand(len(tokens), -1)
        name = (place > self.prefix) & (place < self.prefix + end)
        column = torch.where(name, place - self.prefix, -1)
        column = torch.where(place == end + self.prefix + self.postfix, end, column)
        return torch.where(place == 0, 0, column)

    def prompt_rows(
        self, tokens: Int[Tensor, "classes tokens"], length: int
    ) -> Float[Tensor, "classes length width"]:
        """The text tower's input. Behind the end token stand learned
        rows, which nobody sees."""
        column = self.places(tokens, length)
        words = self.clip.text.token_embedding(tokens.gather(1, column.clamp(min=0)))
        return torch.where(column[..., None] < 0, self.text_prompt.weight[:length], words)

    def encode_text(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self.text_prompt.weight.device)
        end = self.clip.config.text.ends(tokens) + self.reserved_tokens
        length = int(end.max()) + 1
        if length > len(self.text_prompt.weight):
            raise UsageError(
                f"a prompt of {length} tokens, {self.reserved_tokens} of them learned, does not fit"
                " the context"
            )
        return self.clip.text.encode(self.prompt_rows(tokens, length), end, same=1 + self.prefix)

    @property
    def logit_scale(self) -> float:
        """Of the fixed temperature."""
        return 1 / TEMPERATURE

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        return video @ classes.T / TEMPERATURE


@dataclass(frozen=True)
class EfficientPrompt(Method):
    """The learned rows, the frame positions and the temporal transformer are trained."""

    name = "efficient-prompt"
    summary = (
        "CLIP frozen; learned vectors around the class name, a temporal transformer on the frame"
        " embeddings"
    )
    reference = (
        "Ju et al., Prompting Visual-Language Models for Efficient Video Understanding, ECCV 2022"
    )
    trains_clip = False
    level = "video"

    prefix: int = 16
    postfix: int = 16
    layers: int = 2
    heads: int = 8
    frames: int = 16

    @property
    def learns_prompts(self) -> bool:
        return True

    def build(self, clip: CLIP) -> VideoCLIP:
        head = TemporalTransformer(
            clip.config.embed_dim, self.heads, self.layers, self.frames, skip=False
        )
        head.initialise(std=None, positions_std=0.01)
        return PromptedNet(clip, head, self.prefix, self.postfix)

    def trains(self, name: str) -> bool:
        return name.startswith(("head.", "text_prompt."))

    def preset(self) -> Preset:
        """HMDB's command: 1,100 steps of a schedule that turns after 200,000, so the rate stays
        what it is."""
        recipe = tuned(
            1e-4, epochs=40, batch_size=64, schedule="constant", weight_decay=0.01, decay="all"
        )
        note = (
            "negatives: all classes (the release draws 400); one view in place of five random clips"
        )
        sampling = Sampling("uniform", self.frames)
        return Preset(recipe, NAME_ALONE, Augment(flip=False), sampling, 1, "probs", note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(1e-4, prompting=NAME_ALONE)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if not has(state, r"^temporalModelling\."):
            return None
        rules = [
            (r"^clipmodel\.visual\.", "visual."),
            (r"^clipmodel\.logit_scale$", "logit_scale"),
            (r"^clipmodel\.", "text."),
            (r"^embedding\.", "text_prompt."),
            (r"^temporalEmbedding\.weight$", "head.positional_embedding"),
            (r"^temporalModelling\.", "head.transformer."),
        ]
        weights = rename(state, rules)
        layers = count_layers(state, "temporalModelling.resblocks")
        method = cls(layers=layers, frames=len(weights["head.positional_embedding"]))
        notes = [
            "the weights do not tell prefix and postfix (16 + 16 assumed) nor the head's attention"
            " heads (8 assumed)"
        ]
        return Official("Efficient-Prompt", method, weights, notes=notes)
