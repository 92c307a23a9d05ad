"""Text4Vis: ActionCLIP's head, and the frozen text tower's embedding of one sentence a class as a
fixed classifier."""

from __future__ import annotations

from dataclasses import dataclass

from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import one_of
from froster.methods.actionclip import HEAD_NAMES, late_transformer
from froster.methods.base import Method, Official, VideoCLIP
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import count_layers, has, ours, rename
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling


@dataclass(frozen=True)
class Text4Vis(Method):
    """The image tower, the head and the logit scale are trained; the text never."""

    name = "text4vis"
    summary = (
        "a 6-layer temporal transformer on the frame embeddings; the text is a fixed classifier"
    )
    reference = "Wu et al., Text4Vis, AAAI 2023"
    variants = {"transf": {"head": "transf"}, "mean": {"head": "mean"}}

    head: str = "transf"
    layers: int = 6
    heads: int | None = None
    """Attention heads; default: `heads_of`."""

    def __post_init__(self) -> None:
        one_of("head", self.head, "transf", "mean")

    def build(self, clip: CLIP) -> VideoCLIP:
        head = late_transformer(clip, self.layers, self.heads) if self.head == "transf" else None
        return VideoCLIP(clip, "mean_then_unit", head)

    def trains(self, name: str) -> bool:
        return not name.startswith("clip.text.")

    def preset(self) -> Preset:
        recipe = tuned(
            5e-6,
            epochs=30,
            batch_size=256,
            new_scale=10,
            warmup_epochs=5,
            lr_ends=0.0,
            weight_decay=0.2,
            decay="all",
        )
        prompting = Prompting(("a video of a person {}.",), "plain")
        augment = Augment(crop="resized", grayscale=0.2)
        return Preset(recipe, prompting, augment, Sampling("uniform", 8), views=1)

    def froster_preset(self) -> Preset:
        return with_head(3.33e-5)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """Image tower, logit scale and head in one model; ActionCLIP's files have the text tower
        too."""
        if not has(state, r"^fusion_model\.transformer\..*\.c_fc\.") or has(
            state, "token_embedding"
        ):
            return None
        layers = count_layers(state, "fusion_model.transformer.resblocks")
        return Official("Text4Vis", cls(layers=layers), rename(ours(state), HEAD_NAMES))
