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

from froster.encoders.blank import blank
from froster.encoders.model import CLIP, unit
from froster.encoders.precision import parse_precision, pick_device
from froster.errors import UsageError
from froster.evaluation.calibration import LabelScores
from froster.inference.answering import Reading, answer_each, labels_shown
from froster.inference.classification import Classification
from froster.inference.embedder import Embedder
from froster.inference.inputs import FPS, VideoFile, VideoLike
from froster.inference.loading import DEFAULT_MODEL, load_source
from froster.inference.model_folder import LoadedModel, ModelConfig, save_folder
from froster.inference.notebook import small_pictures
from froster.methods import VideoCLIP, first_difference
from froster.text.class_file import ClassFile
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
        empty = torch.empty(0, self.clip.config.embed_dim)
        return torch.stack(embeddings) if embeddings else empty

    # A text is a sequence of texts too; the first form that fits counts.
    @overload
    def classify(  # type: ignore[overload-overlap]
        self,
        video: VideoFile | np.ndarray | Tensor | Sequence[Image],
        labels: Sequence[str],
        *,
        views: int | None = ...,
        truncate: bool = ...,
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
        labels: Sequence[str],
        *,
        views: int | None = ...,
        truncate: bool = ...,
        fps: float = ...,
        workers: int | None = ...,
        batch_size: int | None = ...,
        progress: bool = ...,
    ) -> Any: ...

    @overload
    def classify(
        self,
        video: Sequence[VideoLike],
        labels: Sequence[str],
        *,
        views: int | None = ...,
        truncate: bool = ...,
        fps: float = ...,
        workers: int | None = ...,
        batch_size: int | None = ...,
        progress: bool = ...,
    ) -> list[Classification]: ...

    def classify(
        self,
        video: VideoLike | Sequence[VideoLike],
        labels: Sequence[str],
        *,
        views: int | None = None,
        truncate: bool = False,
        fps: float = FPS,
        workers: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Classification | list[Classification]:
        """Which of `labels` fits the video; for a list of videos, a list of answers.

        A video is a path, an http address (downloaded, and deleted again), the bytes of a file, a
        file opened in binary mode, frames (T, H, W, 3) uint8 of NumPy or PyTorch, or a list of
        pictures, PIL's or (H, W, 3) uint8. A list whose every entry is one picture is one video;
        any other list is a list of videos. Frames are sampled as those of a file of `fps` frames
        per second; too few for a dense clip are spread over it.

        `workers`: processes that read files, by default none for up to 8 videos (a script that has
        some needs `if __name__ == "__main__":`). `batch_size`: videos that the network sees at
        once. `progress`: a bar on standard error.

        Raises VideoError when no frame can be read, UsageError on an empty or repeated label and
        on what is no video. Where some videos of a list cannot be read the others are answered,
        and BatchError, which is raised at the end, holds the answers.
        """
        with labels_shown(self, progress):
            classes = self.class_embeddings(labels, truncate)

        def answer(clips: Tensor) -> list[Classification]:
            results = self.classify_clips(clips, labels, classes)
            return [
                dataclasses.replace(result, pictures=small_pictures(views))
                for result, views in zip(results, clips, strict=True)
            ]

        how = Reading(views, fps, workers, batch_size, progress)
        answers, one = answer_each(self, video, answer, how, "classify")
        return answers[0] if one else answers

    def timeline(
        self,
        video: VideoFile,
        labels: Sequence[str],
        *,
        window: float | None = None,
        stride: float | None = None,
        min_segment: float = 0.0,
        batch_size: int = 8,
        truncate: bool = False,
        progress: bool = False,
    ) -> Timeline:
        """Which of `labels` fits when, in a video file of any length, as `froster.timeline` says."""
        from froster.inference.timeline import timeline

        return timeline(
            self,
            video,
            labels,
            window=window,
            stride=stride,
            min_segment=min_segment,
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )

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
