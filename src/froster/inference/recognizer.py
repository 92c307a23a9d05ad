"""The model as people use it: load it, ask it which label fits a video, save it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

import froster
from froster.encoders.blank import blank
from froster.encoders.model import CLIP, unit
from froster.encoders.precision import parse_precision, pick_device
from froster.errors import UsageError
from froster.evaluation.calibration import LabelScores
from froster.evaluation.multi_label import BACKGROUND
from froster.inference.answering import Reading, answer_each, labels_shown
from froster.inference.classification import Classification
from froster.inference.embedder import Embedder
from froster.inference.inputs import FPS, VideoFile, VideoLike
from froster.inference.loading import DEFAULT_MODEL, load_source
from froster.inference.model_folder import LoadedModel, ModelConfig, save_folder
from froster.inference.notebook import small_pictures
from froster.methods import VideoCLIP, first_difference
from froster.text.class_file import ClassFile
from froster.text.label_set import Labels, LabelSet, as_labels, groups_of
from froster.text.labels import check_labels
from froster.text.prompts import Prompting
from froster.utils.address import is_address
from froster.utils.tensors import finite
from froster.video.transforms import given_clips

if TYPE_CHECKING:
    from froster.inference.timeline import Timeline


class Recognizer(Embedder):
    """A video network with its tokenizer: classify, embed, save."""

    def __repr__(self) -> str:
        config, vision = self.config, self.clip.config.vision
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"Recognizer({config.method.name} on {self.source or self.provenance}:"
            f" {vision.layers} layers of {vision.width}, patches of {vision.patch_size},"
            f" {self.image_size} px, {config.sampling.frames} frames {config.sampling.kind} in"
            f" {config.views} views, {self.device}, {dtype})"
        )

    @torch.no_grad()
    def embed_video(
        self,
        video: VideoLike | Sequence[VideoLike],
        views: int | None = None,
        *,
        fps: float = FPS,
        workers: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "*videos embed"]:
        """A video, in any form that `classify` takes, -> one unit embedding (E,); a list of videos
        -> one each (n, E).

        The product with `embed_text` ranks labels as `classify` does, where the network compares
        videos with one embedding a class (not X-CLIP, ActionCLIP). Raises as `classify`.
        """

        def answer(clips: Tensor) -> list[Tensor]:
            embeddings = self.encode_clips(clips.flatten(0, 1)).video.unflatten(0, clips.shape[:2])
            return list(finite(unit(embeddings.mean(1)).cpu(), "video embeddings"))

        how = Reading(views, fps, workers, batch_size, progress)
        embeddings, one = answer_each(self, video, answer, how, "embed")
        if one:
            return embeddings[0]
        return torch.stack(embeddings) if embeddings else torch.empty(0, self.clip.config.embed_dim)

    # A text is a sequence of texts too; the first form that fits counts.
    @overload
    def classify(  # type: ignore[overload-overlap]
        self,
        video: VideoFile | np.ndarray | Tensor | Sequence[Image],
        labels: Labels,
        *,
        views: int | None = ...,
        truncate: bool = ...,
        multi_label: bool = ...,
        fps: float = ...,
        workers: int | None = ...,
        batch_size: int | None = ...,
        progress: bool = ...,
    ) -> Classification: ...

    # Frames (H, W, 3) of one video, or videos (T, H, W, 3): no type tells.
    @overload
    def classify(
        self,
        video: Sequence[np.ndarray] | Sequence[Tensor],
        labels: Labels,
        *,
        views: int | None = ...,
        truncate: bool = ...,
        multi_label: bool = ...,
        fps: float = ...,
        workers: int | None = ...,
        batch_size: int | None = ...,
        progress: bool = ...,
    ) -> Any: ...

    @overload
    def classify(
        self,
        video: Sequence[VideoLike],
        labels: Labels,
        *,
        views: int | None = ...,
        truncate: bool = ...,
        multi_label: bool = ...,
        fps: float = ...,
        workers: int | None = ...,
        batch_size: int | None = ...,
        progress: bool = ...,
    ) -> list[Classification]: ...

    def classify(
        self,
        video: VideoLike | Sequence[VideoLike],
        labels: Labels,
        *,
        views: int | None = None,
        truncate: bool = False,
        multi_label: bool = False,
        fps: float = FPS,
        workers: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Classification | list[Classification]:
        """Which of `labels` fits the video; for a list of videos, a list of answers.

        A video is a path, an address (s3://…, https://…), the bytes of a file, a file opened in
        binary mode, frames (T, H, W, 3) uint8 of NumPy or PyTorch, or a list of pictures, PIL's or
        (H, W, 3) uint8. A list whose every entry is one picture is one video; any other list is a
        list of videos. Frames are sampled as those of a file of `fps` frames per second; too few
        for a dense clip are spread over it.

        `labels` are names, or a mapping of names to a description, a list of prompts or a group of
        labels; "sport/archery" is in the group "sport", whose score is the sum of its labels'.
        `multi_label`: any number of labels may fit, each is weighed by itself.

        `workers`: processes that read files, by default none for up to 8 videos (a script that has
        some needs `if __name__ == "__main__":`). `batch_size`: videos that the network sees at
        once. `progress`: a bar on standard error.

        Raises VideoError when no frame can be read, UsageError on an empty or repeated label and on
        what is no video. Where some of a list cannot be read, BatchError holds the others' answers.
        """
        names = as_labels(labels)
        with labels_shown(self, progress):
            classes = self.class_embeddings(
                self.with_background(names) if multi_label else names, truncate
            )

        def answer(clips: Tensor) -> list[Classification]:
            results = self.classify_clips(clips, names, classes, multi_label=multi_label)
            return [
                dataclasses.replace(result, pictures=small_pictures(views))
                for result, views in zip(results, clips, strict=True)
            ]

        how = Reading(views, fps, workers, batch_size, progress)
        answers, one = answer_each(self, video, answer, how, "classify")
        return answers[0] if one else answers

    def with_background(self, labels: Sequence[str]) -> LabelSet:
        """The labels, and behind them the text that each is weighed against where each stands by
        itself. Raises UsageError where the model knows no texts beside its classes."""
        if self.class_file is not None or self.config.method.closed:
            raise UsageError(
                "multi-label weighs labels against a text that says nothing, and this model can be"
                " asked for its classes alone"
            )
        if not isinstance(labels, LabelSet):
            check_labels(labels)
            labels = LabelSet({label: [label] for label in labels})
        if BACKGROUND in labels:
            raise UsageError(f"{BACKGROUND!r} is what labels are weighed against: leave it out")
        return LabelSet({**labels.to_dict(), BACKGROUND: [BACKGROUND]})

    def timeline(
        self,
        video: VideoFile,
        labels: Labels,
        *,
        window: float | None = None,
        stride: float | None = None,
        min_segment: float = 0.0,
        batch_size: int = 8,
        truncate: bool = False,
        multi_label: bool = False,
        progress: bool = False,
    ) -> Timeline:
        """Which of `labels` fits when, in a video file of any length: see `froster.timeline`."""
        return froster.timeline(
            self,
            video,
            labels,
            window=window,
            stride=stride,
            min_segment=min_segment,
            batch_size=batch_size,
            truncate=truncate,
            multi_label=multi_label,
            progress=progress,
        )

    def classify_clips(
        self,
        clips: Tensor,
        labels: Sequence[str],
        classes: Tensor,
        top: int | None = None,
        multi_label: bool = False,
    ) -> list[Classification]:
        """The views of B videos, uint8 (B, V, T, 3, S, S) -> the `top` best labels of each.

        `classes` is the result of `class_embeddings` for `labels`, with `multi_label` for
        `with_background(labels)`.
        """
        return self._answers(self.logits_of_clips(clips, classes), labels, top, multi_label)

    @torch.no_grad()
    def classify_together(
        self, clips: Sequence[Tensor], labels: Sequence[Sequence[str]], truncate: Sequence[bool]
    ) -> list[Classification]:
        """Several videos, uint8 (V, T, 3, S, S) of one shape, each among labels of its own, by one
        pass through the image tower. For networks with `clips_apart`."""
        together = given_clips(torch.stack(list(clips)), self.image_size, "B, V, T")
        embeddings = self.encode_clips(together.flatten(0, 1)).video.unflatten(
            0, together.shape[:2]
        )
        answers = []
        for video, names, cut in zip(embeddings, labels, truncate, strict=True):
            classes = self.class_embeddings(names, cut)
            logits = finite(self.model.logits(video, classes, None).float(), "logits")
            answers += self._answers(logits[None].cpu(), names)
        return answers

    def _answers(
        self,
        views: Float[Tensor, "n views labels"],
        labels: Sequence[str],
        top: int | None = None,
        multi_label: bool = False,
    ) -> list[Classification]:
        """What the logits of the views of n videos say."""
        none: list[float | None] = [None] * len(views)
        cosine, rule = list(none), self.calibration.multi_label
        if multi_label:
            likely = rule(views.mean(dim=1))
        else:
            outputs = self.score(views)
            likely = outputs.scores
            none = none if outputs.none is None else outputs.none.tolist()
            cosine = cosine if outputs.cosine is None else outputs.cosine.tolist()
        scores, places = likely.sort(dim=-1, descending=True)
        groups, thresholds = groups_of(labels), rule.of(labels)
        answers = []
        of_group = torch.Tensor.max if multi_label else torch.Tensor.sum
        for row, best, values, no_label, closeness in zip(
            likely, places, scores, none, cosine, strict=True
        ):
            shown = best[:top].tolist()
            answers.append(
                Classification(
                    [labels[place] for place in shown],
                    values[:top].tolist(),
                    no_label,
                    closeness,
                    {name: float(of_group(row[below])) for name, below in groups.items()},
                    [thresholds[place] for place in shown] if multi_label else None,
                )
            )
        return answers

    @torch.no_grad()
    def logits_of_clips(
        self, clips: Tensor, classes: Tensor
    ) -> Float[Tensor, "batch views columns"]:
        """The views of B videos, uint8 (B, V, T, 3, S, S), and the result of `class_embeddings` ->
        logits, on the CPU."""
        clips = given_clips(clips, self.image_size, "B, V, T")
        features = self.encode_clips(clips.flatten(0, 1))
        logits = self.model.logits(features.video, classes, features.context).float()
        return finite(logits, "logits").unflatten(0, (len(clips), -1)).cpu()

    def score_clips(self, clips: Tensor, classes: Tensor) -> LabelScores:
        """The same views and classes -> scores, on the CPU."""
        return self.score(self.logits_of_clips(clips, classes))

    def score(self, views: Float[Tensor, "n views labels"]) -> LabelScores:
        """Logits of the views -> scores and, where there is a rule, how likely it is that no label
        fits."""
        return self.calibration.score(views, self.logit_scale, self.config.fusion)

    def teach(self, examples: Any, **options: Any) -> froster.TeachResult:
        """What `froster.teach` makes of these examples and options, with another model as its
        `model`; this one stays as it is."""
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
        """Raises UsageError where the config describes another network, which would be loaded."""
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
    templates: Sequence[str] | None = None,
    device: str | None = None,
    precision: str | torch.dtype = "auto",
    merge_tokens: int = 0,
    runtime: str | Path | None = None,
) -> Recognizer:
    """A model from a froster or CLIP folder, here or on the hub, a checkpoint file, or `"nano"`.

    Released checkpoints of the methods are recognised by the names of their weights; `provenance`
    of the result says what a file was taken for. Some hold an image tower or a head alone: `clip`,
    of the same width, gives what they lack. `classes`: a safetensors of class names and their
    embeddings (`ClassFile`), made by another text tower. `templates`: sentences with {} for the
    label, in place of the model's own. `merge_tokens`: every block merges so many of a frame's most
    similar tokens (ToMe). `runtime`: a folder of `froster export --to int8`. Raises CheckpointError
    for what does not fit, FrosterError without the hub, UsageError where it cannot merge."""
    place, precision = pick_device(device), parse_precision(precision)
    loaded = load_source(source, clip)
    if templates is not None:
        if classes is not None:
            raise UsageError("templates are for the text tower, whose place classes take")
        config = dataclasses.replace(loaded.config, prompting=Prompting(tuple(templates), "plain"))
        loaded = dataclasses.replace(loaded, config=config)
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
        merge_tokens=merge_tokens,
    )
    local = str(source) != "nano" and not is_address(source)
    path = os.path.abspath(os.path.expanduser(source)) if local else ""
    recognizer.source = path if os.path.exists(path) else str(source)
    if runtime is not None:
        recognizer.use_runtime(runtime)
    return recognizer


def as_recognizer(model: Recognizer | str | Path, merge_tokens: int = 0) -> Recognizer:
    """The model itself, or what `load` makes of its name."""
    return model if isinstance(model, Recognizer) else load(model, merge_tokens=merge_tokens)
