"""The model as people use it: load it, ask it which label fits a video, save it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import froster
from froster.data.dataset import ReadViews
from froster.encoders.blank import blank
from froster.encoders.model import CLIP, unit
from froster.encoders.precision import (
    autocast,
    parse_precision,
    pick_device,
    pick_dtype,
    with_cast_weights,
)
from froster.encoders.preprocessing import Preprocessing, normalise
from froster.encoders.tokenizer import Tokenizer, TokenizerSource, opened
from froster.errors import UsageError
from froster.evaluation.calibration import Calibration, LabelScores, fits_none
from froster.inference.class_cache import kept_or_computed
from froster.inference.loading import DEFAULT_MODEL, load_source
from froster.inference.model_folder import LoadedModel, ModelConfig, save_folder
from froster.inference.weight_cache import WeightCache
from froster.methods import Features, VideoCLIP, class_embeddings, first_difference
from froster.text.bank import PromptBank, warn_of_cuts
from froster.text.class_file import ClassFile, GivenBank
from froster.text.labels import check_texts
from froster.text.prompts import CLIP_CONTEXT
from froster.utils.address import refuse_address
from froster.utils.progress import Working, silently
from froster.utils.tensors import finite
from froster.video.transforms import described, given_clips, given_frames, inference_transform


@dataclass(frozen=True)
class Classification:
    """Labels with their scores, best first: the soft-max of the logits' mean over the views, or the
    soft-maxes' mean."""

    labels: list[str]
    scores: list[float]
    """How likely each label is if one of them fits; they sum to 1."""
    none: float | None = None
    """How likely it is that none of the labels fits; None of a model without a rule for it, as it
    was not calibrated or its scores do not tell."""
    cosine: float | None = None
    """Of the best label; None where the network's logits are no cosines."""

    @property
    def label(self) -> str:
        return self.labels[0]

    @property
    def answer(self) -> str | None:
        """The best label, or None where it is more likely that none fits."""
        return None if self.none is not None and fits_none(self.none) else self.labels[0]

    @property
    def probabilities(self) -> list[float]:
        """Of each label, with the possibility that none fits: with `none` they sum to 1. Without
        one, the scores."""
        if self.none is None:
            return self.scores
        return [score * (1 - self.none) for score in self.scores]


class Recognizer:
    """A video network with its tokenizer: classify, embed, save.

    The network's weights come out frozen; training says which of them may change (`task.freeze`).
    `tokenizer` may be the error that says why a checkpoint has none; it is raised when a label has
    to be read, so that videos can be embedded without one.
    """

    def __init__(
        self,
        model: VideoCLIP,
        tokenizer: TokenizerSource,
        config: ModelConfig,
        *,
        device: torch.device | None = None,
        precision: str | torch.dtype = "auto",
        provenance: str = "froster",
        calibration: Calibration | None = None,
        class_file: ClassFile | None = None,
    ):
        """`class_file`: embeddings of the labels, in place of those of the text tower."""
        self.provenance, self.precision = provenance, parse_precision(precision)
        "`provenance`: what the weights were taken for"
        self.source: str | None = None
        "what `load` was given, a path made absolute"
        self.device = device or pick_device()
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer_source = tokenizer
        self.class_file = None if class_file is None else class_file.to(self.device)
        self.config = config
        self.calibration = calibration or Calibration()
        self.dtype = pick_dtype(self.device, model.clip.config.vision.width, precision)
        self.working: Working = silently
        "says what takes long; commands set it"
        self.remembered = 1
        "label sets whose class embeddings are kept"
        self._cache = WeightCache()
        self._warned = False

    @property
    def clip(self) -> CLIP:
        return self.model.clip

    @property
    def image_size(self) -> int:
        return self.clip.config.vision.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        return self.clip.config.preprocessing

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with to give logits; None where logits are no cosines."""
        return self.model.logit_scale

    @property
    def tokenizer(self) -> Tokenizer:
        return opened(self.tokenizer_source)

    @property
    def inference(self) -> VideoCLIP:
        """The network as `self.dtype` wants it: `model`, or one that shares its weights with the
        towers' matrices cast. Weights that are trained are never cast ahead."""
        if self.dtype == torch.float32 or not self._may_keep():
            return self.model
        if self._cache.cast is None:
            self._cache.cast = with_cast_weights(self.model, self.dtype)
        return self._cache.cast

    def _may_keep(self) -> bool:
        settings = (self.config.prompting, self.dtype, self.tokenizer_source, self.class_file)
        return self._cache.holds(self.model, settings)

    @property
    def cuts_texts(self) -> bool:
        """Are too long texts cut unasked? They are for a shorter context than CLIP's."""
        return self.clip.config.text.context < CLIP_CONTEXT

    def bank(self, labels: Sequence[str], truncate: bool = False) -> PromptBank:
        """All prompts of all labels. Raises UsageError on empty or repeated labels, and on those
        that are too long for a context of CLIP's length unless `truncate`; a shorter one cuts them,
        with one warning a model. Of a file of class embeddings: theirs, all of which it must have.
        """
        if self.class_file is not None:
            if type(self.model).text_embeddings is not VideoCLIP.text_embeddings:
                raise UsageError(f"{self.config.method.name} reads more of labels than embeddings")
            return GivenBank(self.class_file, labels)
        context = self.clip.config.text.context - self.model.reserved_tokens
        prompting = self.config.prompting
        cuts = truncate or self.cuts_texts
        bank = PromptBank(self.tokenizer, labels, context, prompting, truncate=cuts)
        if cuts and not truncate and not self._warned:
            texts = [text for row in prompting.prompts(labels) for text in row]
            self._warned = warn_of_cuts(self.tokenizer, texts, context)
        return bank

    @torch.no_grad()
    def class_embeddings(self, labels: Sequence[str], truncate: bool = False) -> Tensor:
        """Labels ("Name" or "Name: description") -> what the network compares videos with, over all
        prompts; for most networks unit class embeddings (K, E).

        The last `remembered` label sets are kept, as long as weights, prompts and tokenizer are the
        same, so that many videos cost one pass over the text; on disk, in the user's cache, all
        that fit are (`class_cache`). Nothing is kept of weights in training. Raises UsageError on
        empty or repeated labels.
        """
        check_texts(labels)
        may_keep = self._may_keep()

        def compute() -> Tensor:
            return finite(self.model.classes(self.prompts(labels, truncate)), "class embeddings")

        def recall() -> Tensor:
            on_disk = may_keep and self.class_file is None
            return kept_or_computed(self, labels, truncate, compute) if on_disk else compute()

        keep = self.remembered if may_keep else 0
        return self._cache.classes((truncate, *labels), recall, keep)

    def prompts(
        self, labels: Sequence[str], truncate: bool = False
    ) -> Float[Tensor, "prompts labels columns"]:
        """What the text tower makes of all prompts of all labels. Raises UsageError as `bank`."""
        bank = self.bank(labels, truncate)
        steps = bank.together(bank.rows)
        with (
            autocast(self.device, self.dtype),
            self.working(f"encoding {len(labels)} labels", len(steps)) as advance,
        ):
            parts = []
            for rows in steps:
                parts.append(self.inference.prompts(bank, rows).float())
                advance(1)
            return torch.cat(parts)

    @torch.no_grad()
    def embed_text(
        self, texts: Sequence[str], truncate: bool = False
    ) -> Float[Tensor, "texts embed"]:
        """Labels -> unit embeddings, each the mean over the model's prompt templates."""
        if self.config.method.closed:
            raise UsageError(f"{self.config.method.name} numbers its classes and embeds no texts")
        prompts = self.model.text_embeddings(self.prompts(texts, truncate))
        return finite(class_embeddings(prompts).cpu(), "text embeddings")

    @torch.no_grad()
    def embed_video(
        self, video: str | Path | Tensor | np.ndarray, views: int | None = None
    ) -> Float[Tensor, " embed"]:
        """A video file, or its sampled frames (T, H, W, 3) uint8, -> one unit embedding.

        Its product with `embed_text` ranks labels as `classify` does, where the network compares
        videos with one embedding a class (not X-CLIP, ActionCLIP). Raises VideoError, or UsageError
        on a wrong T.
        """
        embeddings = self.encode_clips(self._clips(video, views)).video
        return finite(unit(embeddings.mean(0)).cpu(), "video embeddings")

    @torch.no_grad()
    def embed_clips(self, clips: Tensor) -> Float[Tensor, "batch embed"]:
        """Clips (B, T, 3, S, S) uint8, as `froster.video` makes them, -> unit embeddings."""
        embeddings = self.encode_clips(given_clips(clips, self.image_size)).video
        return finite(unit(embeddings).cpu(), "video embeddings")

    def classify(
        self,
        video: str | Path | Tensor | np.ndarray,
        labels: Sequence[str],
        *,
        views: int | None = None,
        truncate: bool = False,
    ) -> Classification:
        """Which of `labels` fits the video (a file, or sampled frames (T, H, W, 3) uint8).

        Raises VideoError when no frame can be read, UsageError on an empty or repeated label or a
        wrong T.
        """
        classes = self.class_embeddings(labels, truncate)
        (answer,) = self.classify_clips(self._clips(video, views)[None], labels, classes)
        return answer

    def classify_clips(
        self, clips: Tensor, labels: Sequence[str], classes: Tensor, top: int | None = None
    ) -> list[Classification]:
        """The views of B videos, uint8 (B, V, T, 3, S, S) -> the `top` best labels of each.

        `classes` is the result of `class_embeddings` for `labels`.
        """
        outputs = self.score_clips(clips, classes)
        scores, places = outputs.scores.sort(dim=-1, descending=True)
        none, cosine = (
            [None] * len(scores) if values is None else values.tolist()
            for values in (outputs.none, outputs.cosine)
        )
        rows = zip(places[:, :top].tolist(), scores[:, :top].tolist(), none, cosine, strict=True)
        return [Classification([labels[i] for i in best], *values) for best, *values in rows]

    @torch.no_grad()
    def score_clips(self, clips: Tensor, classes: Tensor) -> LabelScores:
        """The views of B videos, uint8 (B, V, T, 3, S, S), and the result of `class_embeddings` ->
        scores, on the CPU."""
        clips = given_clips(clips, self.image_size, "B, V, T")
        features = self.encode_clips(clips.flatten(0, 1))
        logits = self.model.logits(features.video, classes, features.context).float()
        return self.score(finite(logits, "logits").unflatten(0, (len(clips), -1)).cpu())

    def score(self, views: Float[Tensor, "n views labels"]) -> LabelScores:
        """Logits of the views -> scores and, where there is a rule, how likely it is that no label
        fits."""
        return self.calibration.score(views, self.logit_scale, self.config.fusion)

    def view_reader(self, views: int | None = None) -> ReadViews:
        """What reads a video file as this model wants it, `views` clips or the model's number."""
        views = views or self.config.views
        return ReadViews(self.config.sampling, views, self.image_size, self.preprocessing)

    def read_views(
        self, video: str | Path, views: int | None = None
    ) -> UInt8[Tensor, "views time 3 size size"]:
        """The clips of a video file, all from one decode."""
        refuse_address(video)
        (result,) = self.view_reader(views)(str(video))
        return torch.from_numpy(result.clips)

    def _clips(self, video: str | Path | Tensor | np.ndarray, views: int | None) -> Tensor:
        """A video file or its sampled frames -> uint8 (V, T, 3, S, S)."""
        if isinstance(video, (Tensor, np.ndarray)):
            frames = given_frames(video, self.config.sampling.frames)
            return inference_transform(frames, self.image_size, self.preprocessing)[None]
        if isinstance(video, (str, PathLike)):
            return self.read_views(video, views)
        raise UsageError(f"a video is a path or uint8 frames (T, H, W, 3), not {described(video)}")

    def encode_clips(self, clips: Tensor) -> Features:
        """uint8 (B, T, 3, S, S) -> what the network makes of each."""
        with autocast(self.device, self.dtype):
            return self.inference.encode(normalise(clips.to(self.device), self.preprocessing))

    def teach(self, examples: Any, **options: Any) -> froster.TeachResult:
        """`froster.teach` with this model, which stays as it is: the taught one is the result's
        `model`. `examples`: label -> videos, pairs (video, label), a folder, a manifest, an index.
        """
        return froster.teach(examples, model=self, **options)

    def save(self, folder: str | Path, report: dict[str, Any] | None = None) -> Path:
        """Write a model folder: weights, config, tokenizer and report. It appears whole or not at
        all."""
        self.check_network()
        loaded = LoadedModel(
            self.model, self.tokenizer_source, self.config, self.provenance, self.calibration
        )
        save_folder(Path(folder), loaded, report or {})
        return Path(folder)

    def with_network(self, model: VideoCLIP, config: ModelConfig) -> Recognizer:
        """Another network that reads the same labels, on the same device."""
        return Recognizer(
            model,
            self.tokenizer_source,
            config,
            device=self.device,
            precision=self.precision,
            class_file=self.class_file,
        )

    def check_network(self) -> None:
        """Raises UsageError where the config does not describe the network, so that another one
        would be loaded."""
        with blank():
            described = self.config.method.build(CLIP(self.clip.config))
        if differs := first_difference(self.model, described):
            raise UsageError(
                f"the network is not what its config says ({self.config.method.name}): {differs}"
            )


def load(
    source: str | Path = DEFAULT_MODEL,
    *,
    clip: str | Path | None = None,
    classes: str | Path | None = None,
    device: str | None = None,
    precision: str | torch.dtype = "auto",
) -> Recognizer:
    """A model from a froster or Hugging Face CLIP folder, here or on the hub, a checkpoint file, or
    `"nano"`.

    Released checkpoints of the methods are recognised by the names of their weights; `provenance`
    of the result says what a file was taken for. Some hold an image tower or a head alone: `clip`,
    of the same width, gives what they lack. `classes`: a safetensors of class names and their
    embeddings (`ClassFile`), made by another text tower. Raises CheckpointError when the weights do
    not fit, FrosterError when the hub cannot be reached."""
    place, precision = pick_device(device), parse_precision(precision)
    loaded = load_source(source, clip)
    width = loaded.network.clip.config.embed_dim
    class_file = None if classes is None else ClassFile.from_file(classes, width)
    recognizer = Recognizer(
        loaded.network,
        loaded.tokenizer,
        loaded.config,
        device=place,
        precision=precision,
        provenance=loaded.provenance,
        calibration=loaded.calibration,
        class_file=class_file,
    )
    path = os.path.abspath(os.path.expanduser(source))
    is_path = str(source) != "nano" and os.path.exists(path)
    recognizer.source = path if is_path else str(source)
    return recognizer


def as_recognizer(model: Recognizer | str | Path) -> Recognizer:
    """The model itself, or what `load` makes of its name."""
    return model if isinstance(model, Recognizer) else load(model)
