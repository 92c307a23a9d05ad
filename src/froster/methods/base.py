"""What every method builds, a CLIP that reads videos, and what a method says of itself."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.data.dataset import Batch
from froster.encoders.block import Block, Transformer
from froster.encoders.config import CLIPConfig
from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.encoders.reading import State
from froster.encoders.vision import VisionTower
from froster.errors import one_of
from froster.methods.recipe import FROSTER, Preset
from froster.text.bank import PromptBank

Pooling = Literal["frame_unit", "mean_then_unit"]
Level = Literal["frame", "video"]


def pool(
    frame_embeddings: Float[Tensor, "batch time embed"], pooling: Pooling
) -> Float[Tensor, "batch embed"]:
    """Frame embeddings -> video embeddings.

    `frame_unit` (FROSTER, Open-VCLIP): mean of the unit frame embeddings, not made unit again, so
    that the logits are the mean of the frames' logits. `mean_then_unit` (ViFi-CLIP and most
    others): the mean of the raw ones, made unit.
    """
    if pooling == "frame_unit":
        return unit(frame_embeddings).mean(dim=1)
    return unit(frame_embeddings.mean(dim=1))


def class_embeddings(
    prompts: Float[Tensor, "prompts classes embed"],
) -> Float[Tensor, "classes embed"]:
    """Raw prompt embeddings -> unit class embeddings: u(mean over prompts of u(prompt))."""
    return unit(unit(prompts).mean(dim=0))


@dataclass
class Features:
    """What a network makes of B clips."""

    frames: Float[Tensor, "batch time embed"]
    """Raw: after the projection, before any temporal pooling. Distillation at frame
    level holds these."""
    pooled: Float[Tensor, "batch embed"]
    """Raw: the mean of the frames, or what the temporal head makes of them."""
    video: Float[Tensor, "batch embed"]
    """As it is multiplied with the classes."""
    context: Float[Tensor, "batch rows columns"] | None = None
    """What `logits` wants to know of the clip beside its embedding (X-CLIP: its patches), or
    None."""


Objective = Callable[[Tensor], Tensor]
"""Logits -> the loss of a step's clips."""


class VideoCLIP(nn.Module):
    """A CLIP, whose blocks a method may have changed, with a temporal pooling. This is what is
    trained and saved.

    The way of the data is `encode_frames` -> `pool_frames` -> `logits`, and `encode_text` ->
    `classes` -> `logits`; a method overrides the step that it changes. New weights beside the CLIP
    are modules of the subclass: what stands on top of the frames in `head`, learned prompts in
    `text_prompt`.
    """

    reserved_tokens = 0
    """Places of the text context that `encode_text` fills itself."""
    cuts_texts = False
    """Its authors cut what is longer than the context; else such a label is an error."""
    shared_prompts = True
    """Learned prompts serve every class; such prompts can be distilled."""
    compares = True
    """Videos are compared with embeddings of the classes, and not scored by a closed head."""

    def __init__(self, clip: CLIP, pooling: Pooling = "frame_unit", head: nn.Module | None = None):
        super().__init__()
        one_of("pooling", pooling, "frame_unit", "mean_then_unit")
        self.clip = clip
        self.pooling: Pooling = pooling
        self.head = head

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with to give logits; None where logits are no cosines, or
        that is not known.

        A method that overrides `logits` says here what it is.
        """
        return (
            float(self.clip.logit_scale.detach().exp())
            if type(self).logits is VideoCLIP.logits
            else None
        )

    @property
    def frames_apart(self) -> bool:
        """Is a frame embedded without a look at the others? Then one that several clips share is
        embedded once.

        Known only of networks whose towers, and whose blocks' attention, are CLIP's own, whatever
        follows the frame embeddings; of others it is not assumed.
        """
        visual, kind = self.clip.visual, type(self)
        return (
            kind.encode is VideoCLIP.encode
            and kind.encode_frames is VideoCLIP.encode_frames
            and (type(visual), type(visual.transformer)) == (VisionTower, Transformer)
            and visual.temporal_embedding is None
            and all(block.frames_apart for block in visual.transformer.blocks())
        )

    @property
    def merges_tokens(self) -> bool:
        """Can it compute frame embeddings of merged tokens (`encoders.merging`)? Not where more is
        read of a frame's tokens, or they are told by their places: rotary ones, or what a method
        does between frames. Not assumed of a network with steps of its own."""
        visual, kind = self.clip.visual, type(self)
        return (
            kind.encode is VideoCLIP.encode
            and kind.encode_frames is VideoCLIP.encode_frames
            and (type(visual), type(visual.transformer)) == (VisionTower, Transformer)
            and not visual.config.rope
            and all(block.merges_tokens for block in visual.transformer.blocks())
        )

    @property
    def clips_apart(self) -> bool:
        """Is a clip scored by its embedding alone, whatever other clips and labels are asked about
        beside it? Not assumed of a network with steps of its own."""
        kind = type(self)
        return (
            kind.encode is VideoCLIP.encode
            and kind.pool_frames is VideoCLIP.pool_frames
            and kind.logits is VideoCLIP.logits
        )

    @property
    def ignores_order(self) -> bool:
        """Does a clip get the same scores whatever the order of its frames? It does where each
        frame is embedded alone and the mean is compared with the classes.

        As `frames_apart`: of a network with steps of its own it is not assumed.
        """
        kind = type(self)
        return (
            self.frames_apart
            and self.head is None
            and kind.pool_frames is VideoCLIP.pool_frames
            and kind.logits is VideoCLIP.logits
        )

    def encode(self, frames: Float[Tensor, "batch time 3 height width"]) -> Features:
        """Normalised frames -> everything that scoring and distillation need, in
        float32."""
        return self.pool_frames(self.encode_frames(frames).float())

    def encode_kept(
        self, x: Float[Tensor, "batch time 3 height width"] | Float[Tensor, "batch time dim"]
    ) -> Features:
        """`encode`, also of what is kept of frames that the tower has seen: their features before
        its projection."""
        return (
            self.encode(x) if x.ndim == 5 else self.pool_frames(self.clip.visual.project(x).float())
        )

    def encode_frames(
        self, frames: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length."""
        return self.clip.encode_image(frames)

    def frames_of(self, count: int) -> list[int]:
        """Which of a clip's `count` frames are those of `Features.frames`: what a teacher looks
        at."""
        return list(range(count))

    def pool_frames(
        self,
        z: Float[Tensor, "batch time embed"],
        context: Float[Tensor, "batch rows columns"] | None = None,
    ) -> Features:
        """Frame embeddings -> the clip's features."""
        if self.head is None:
            return Features(z, z.mean(dim=1), pool(z, self.pooling), context)
        pooled = self.head(z).float()
        return Features(z, pooled, unit(pooled), context)

    def encode_text(
        self, tokens: Int[Tensor, "classes length"]
    ) -> Float[Tensor, "classes columns"]:
        """Token ids -> what the text tower makes of them: for most networks embeddings, not unit
        length."""
        return self.clip.encode_text(tokens)

    def prompts(
        self, bank: PromptBank, rows: list[int]
    ) -> Float[Tensor, "prompts classes columns"]:
        """What the text tower makes of the given rows of prompts of every class: for most networks
        raw embeddings."""
        return bank.embed(self.encode_text, rows)

    def classes(
        self, prompts: Float[Tensor, "prompts classes columns"]
    ) -> Float[Tensor, "*prompts classes columns"]:
        """The result of `prompts` -> what `logits` compares videos with."""
        return class_embeddings(prompts)

    def logits(
        self,
        video: Float[Tensor, "batch embed"],
        classes: Float[Tensor, "*prompts classes columns"],
        context: Float[Tensor, "batch rows columns"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Of video embeddings, the result of `classes` and the clip's context."""
        return self.clip.logit_scale.exp() * video @ classes.T

    def forward(
        self,
        frames: Float[Tensor, "batch time 3 height width"],
        classes: Float[Tensor, "*prompts classes columns"],
    ) -> Float[Tensor, "batch classes"]:
        """Normalised frames and the result of `classes` -> logits."""
        features = self.encode(frames)
        return self.logits(features.video, classes, features.context)

    def losses(
        self, features: Features, classes: Tensor, logits: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        """What a step of training minimises, by name, each with its weight: the objective of the
        logits, "ce", and what the method adds to it."""
        return {"ce": objective(logits)}

    def text_embeddings(
        self, prompts: Float[Tensor, "prompts classes columns"]
    ) -> Float[Tensor, "prompts classes embed"]:
        """The raw embeddings of the texts alone, of the result of `prompts`, which may hold more:
        what is distilled and searched by."""
        return prompts

    def merged(self) -> CLIP | None:
        """A plain CLIP that computes the same frame by frame, where there is one (LoRA)."""
        return None


def plain(model: VideoCLIP) -> VideoCLIP:
    """The same with LoRA's changes folded into the weights."""
    clip = model.merged()
    return model if clip is None else VideoCLIP(clip, model.pooling, model.head)


def replace_blocks(clip: CLIP, make: Callable[[Block], Block]) -> None:
    """Put `make(block)` in the place of every block of the image tower."""
    blocks = clip.visual.transformer.resblocks
    for i, block in enumerate(blocks):
        assert isinstance(block, Block)
        blocks[i] = make(block)


LossAt = Callable[[Mapping[str, Tensor]], Tensor]
"""The loss of a step's clips once more, with these weights in place of the student's own."""
Regulariser = Callable[[VideoCLIP, LossAt, random.Random], tuple[Tensor, Tensor]]
"""What a method adds to the loss of each step, to hold the student near CLIP: what is minimised
beside the loss, and what is reported of it, both with their weight. The generator is the step's."""


@dataclass(frozen=True)
class TrainingClips:
    """The training set, for a method that looks at it before the first step."""

    batches: Callable[[], Iterable[Batch]]
    """Every clip once; this rank's."""
    classes: Callable[[], Tensor]
    """The class embeddings (K, E), encoded anew by the student as it stands."""
    seed: int


@dataclass
class Official:
    """What a released file was taken for."""

    format: str
    method: Method
    state: State
    """Under the names of our saved models. A part that the release does not hold (text tower,
    projection) is absent."""
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    preprocessing: Preprocessing = CLIP_PREPROCESSING
    """What its authors' code does, where they trained the image tower."""


@dataclass(frozen=True)
class Method(ABC):
    """A network of the literature: the fields of a subclass are its options, `build` makes it from
    a CLIP."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """What it changes, in one line."""
    reference: ClassVar[str]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name -> options; the first is the default."""
    level: ClassVar[Level] = "frame"
    """Where vision distillation attaches by itself: at `video` level where only what follows the
    frames is trained."""
    objective: ClassVar[Literal["classes", "in-batch", "in-batch sets"]] = "classes"
    """Cross-entropy over all classes, ActionCLIP's contrast within the batch, or OST's, in which a
    class is all of its prompts."""
    trains_clip: ClassVar[bool] = True
    """Does it train CLIP's weights? Else it trains adapters or prompts in their place, and a
    recipe's `lr` is their rate."""
    small_scale: ClassVar[float] = 30.0
    """In a small network such as the nano CLIP: the rate of new weights as a multiple of the
    others' (`docs/lab.md`)."""
    output_layers: ClassVar[str] = ""
    """A regular expression: the last, linear layers of new branches, which interpolation with CLIP
    can scale."""

    @property
    def learns_prompts(self) -> bool:
        """Prompts for all classes are learned, so the teacher's class embeddings are those of the
        28 templates."""
        return False

    @property
    def closed(self) -> bool:
        """Does it know only the classes that it was trained on?"""
        return False

    @property
    def patch(self) -> float:
        """The share of CLIP's weights in the final ones."""
        return 0.0

    @classmethod
    def make(cls, variant: str | None = None, **options: Any) -> Method:
        """The method in one of its variants, with single options changed."""
        return cls(**{**cls.variants.get(variant or "", {}), **options})

    def preset(self) -> Preset:
        """The paper's own setting."""
        return FROSTER

    def froster_preset(self) -> Preset:
        """The method inside FROSTER's training: its prompts, clips, schedule and distillation."""
        return FROSTER

    @abstractmethod
    def build(self, clip: CLIP) -> VideoCLIP:
        """Turn `clip` into the video network, in place."""

    def trains(self, name: str) -> bool:
        """Does the paper train this weight of the network (`clip.visual.…`, `clip.text.…`,
        `head.…`)?"""
        return True

    def for_classes(self, labels: Sequence[str]) -> Method:
        """The method as it is trained on these classes; most do not depend on them."""
        return self

    def for_encoder(self, config: CLIPConfig) -> Method:
        """The method as it is trained on this encoder; most do not depend on it."""
        return self

    def regulariser(
        self, clip: CLIP, student: VideoCLIP, clips: TrainingClips
    ) -> Regulariser | None:
        """What training adds to the loss of this method. `clip` is where `student` starts from."""
        return None

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """Weights under the names of the method's own release, or None where `state` is nothing of
        the kind."""
        return None
