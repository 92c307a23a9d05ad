"""The model as people use it: load it, ask it which label fits a video, save it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from froster.data.dataset import ReadViews
from froster.encoders.checkpoints import Checkpoint, load_clip
from froster.encoders.model import CLIP, blank, normalise, unit
from froster.encoders.precision import (
    Precision,
    autocast,
    parse_precision,
    pick_device,
    pick_dtype,
    with_cast_weights,
)
from froster.encoders.preprocessing import Preprocessing
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.evaluation.calibration import Calibration, Judgement, fits_none, read_calibration
from froster.inference.model_folder import (
    VERSION,
    ModelConfig,
    is_model_folder,
    load_folder,
    resolve,
)
from froster.inference.released import complete, find_released, missing_parts
from froster.inference.stamp import Stamp, changes_unseen
from froster.methods import (
    VCLIP,
    Features,
    Frozen,
    Method,
    VideoCLIP,
    class_embeddings,
    first_difference,
    saved_names,
)
from froster.methods.base import Official
from froster.text.bank import PromptBank
from froster.text.labels import check_texts
from froster.utils import strict_json as json
from froster.utils.address import refuse_address
from froster.utils.files import atomic_folder
from froster.utils.progress import Working, silently
from froster.utils.tensors import cpu_state, finite, save_tensors
from froster.video.transforms import described, given_clips, given_frames, inference_transform

DEFAULT_MODEL = "openai/clip-vit-base-patch16"
NANO = Path(__file__).parents[1] / "world" / "nano"


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
        return (
            self.scores if self.none is None else [score * (1 - self.none) for score in self.scores]
        )


class Recognizer:
    """A video network with its tokenizer: classify, embed, save. `origin` says what the weights
    were taken for.

    The network's weights come out frozen; who trains it says which of them may change
    (`task.freeze`).

    Of a checkpoint without a vocabulary, `tokenizer` is the error that says what is missing; it is
    raised when a label has to be read, so that videos can be embedded without one.
    """

    def __init__(
        self,
        model: VideoCLIP,
        tokenizer: Tokenizer | FrosterError,
        config: ModelConfig,
        *,
        device: torch.device | None = None,
        precision: str | torch.dtype = "auto",
        origin: str = "froster",
        calibration: Calibration | None = None,
    ):
        self.origin, self.precision = origin, parse_precision(precision)
        self.device = device or pick_device()
        self.model = model.to(self.device).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.config = config
        self.calibration = calibration or Calibration()
        self.dtype = pick_dtype(self.device, model.clip.config.vision.width, precision)
        self.working: Working = silently
        "says what takes long; commands set it"
        self.remembered = 1
        "label sets whose class embeddings are kept"
        self._forget()

    def _forget(self) -> None:
        """What was computed from the weights as they are, and the weights' stamp."""
        self._stamp: Stamp | None = None
        self._made_with: tuple[object, ...] = ()
        self._classes: dict[tuple[object, ...], tuple[Tensor, int]] = {}
        self._cast: VideoCLIP | None = None

    def _remembers(self) -> bool:
        """May what was computed be kept? What no longer holds is forgotten."""
        if changes_unseen(self.model):
            self._forget()
            return False
        made_with = (self.config.prompting, self.dtype, self._tokenizer)
        if self._stamp is None or self._made_with != made_with or not self._stamp.fits(self.model):
            self._forget()
            self._stamp, self._made_with = Stamp(self.model), made_with
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stamp": None, "_made_with": (), "_classes": {}, "_cast": None}

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
    def inference(self) -> VideoCLIP:
        """The network as `self.dtype` wants it: `model`, or one that shares its weights with the
        towers' matrices cast.

        Weights that are trained are never cast ahead, for nothing tells when a fused optimiser has
        changed them.
        """
        if self.dtype == torch.float32 or not self._remembers():
            return self.model
        if self._cast is None:
            self._cast = with_cast_weights(self.model, self.dtype)
        return self._cast

    @property
    def tokenizer(self) -> Tokenizer:
        if isinstance(self._tokenizer, FrosterError):
            raise self._tokenizer
        return self._tokenizer

    def bank(self, labels: Sequence[str], truncate: bool = False) -> PromptBank:
        context = self.clip.config.text.context
        context -= self.model.reserved_tokens
        return PromptBank(self.tokenizer, labels, context, self.config.prompting, truncate=truncate)

    @torch.no_grad()
    def class_embeddings(self, labels: Sequence[str], truncate: bool = False) -> Tensor:
        """Labels ("Name" or "Name: description") -> what the network compares videos with, over all
        prompts.

        For most networks that is unit class embeddings (K, E). The last label sets are remembered
        (`remembered` of them), so that many videos cost one pass over the text, as long as weights,
        prompts and tokenizer are the same; but none of weights that are being trained.
        """
        check_texts(labels)
        remembers = self._remembers()
        key: tuple[object, ...] = (truncate, *labels)
        found, version = self._classes.pop(key, (None, 0))
        if found is None or found._version != version:  # whoever got it before has written to it
            found = finite(self.model.classes(self.prompts(labels, truncate)), "class embeddings")
        if remembers and not found.is_inference():
            self._classes[key] = found, found._version
        while len(self._classes) > self.remembered:
            del self._classes[next(iter(self._classes))]
        return found

    def prompts(self, labels: Sequence[str], truncate: bool = False) -> Tensor:
        """The raw embeddings of all prompts of all labels, (P, K, E). Raises UsageError on empty or
        repeated labels."""
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
    def embed_text(self, texts: Sequence[str], truncate: bool = False) -> Tensor:
        """Labels -> unit embeddings (K, E), each the mean over the model's prompt templates."""
        return finite(class_embeddings(self.prompts(texts, truncate)).cpu(), "text embeddings")

    def embed_video(
        self, video: str | Path | Tensor | np.ndarray, views: int | None = None
    ) -> Tensor:
        """A video file, or its sampled frames (T, H, W, 3) uint8, -> one unit embedding (E,).

        Its product with `embed_text` ranks labels as `classify` does, where the network compares
        videos with one embedding a class (not X-CLIP, ActionCLIP). Raises VideoError, or UsageError
        on a wrong T.
        """
        return finite(unit(self._views(video, views).video.mean(0)).cpu(), "video embeddings")

    @torch.no_grad()
    def embed_clips(self, clips: Tensor) -> Tensor:
        """Clips (B, T, 3, S, S) uint8, as `froster.video` makes them, -> unit embeddings (B, E)."""
        return finite(
            unit(self._encode(given_clips(clips, self.image_size)).video).cpu(), "video embeddings"
        )

    def classify(
        self,
        video: str | Path | Tensor | np.ndarray,
        labels: Sequence[str],
        *,
        views: int | None = None,
        truncate: bool = False,
    ) -> Classification:
        """Which of `labels` fits the video (a file, or sampled frames (T, H, W, 3) uint8).

        Raises VideoError when no frame can be had, UsageError on an empty or repeated label or a
        wrong T.
        """
        classes = self.class_embeddings(labels, truncate)
        with torch.no_grad():
            seen = self._views(video, views)
            judged = self.judge(self._logits(seen, classes, 1))
        scores, order = judged.scores[0].sort(descending=True)
        none, cosine = (
            None if each is None else float(each[0]) for each in (judged.none, judged.cosine)
        )
        return Classification([labels[i] for i in order.tolist()], scores.tolist(), none, cosine)

    @torch.no_grad()
    def judge_clips(self, clips: Tensor, classes: Tensor) -> Judgement:
        """The views of B videos, uint8 (B, V, T, 3, S, S), and the result of `class_embeddings` ->
        scores, on the CPU."""
        clips = given_clips(clips, self.image_size, "B, V, T")
        return self.judge(
            self._logits(self._encode(clips.flatten(0, 1)), classes, len(clips)).cpu()
        )

    def judge(self, views: Tensor) -> Judgement:
        """Logits of the views of n videos (n, V, K) -> scores and, where there is a rule, how
        likely it is that no label fits."""
        return self.calibration.judge(views, self.logit_scale, self.config.fusion)

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with to give logits; None where logits are no cosines."""
        return self.model.logit_scale

    def _logits(self, seen: Features, classes: Tensor, videos: int) -> Tensor:
        """(videos, V, K)"""
        logits = self.model.logits(seen.video, classes, seen.context).float()
        return finite(logits, "logits").unflatten(0, (videos, -1))

    def read_views(self, video: str | Path, views: int | None = None) -> Tensor:
        """A video file -> uint8 frames (views, T, 3, S, S), all from one decode."""
        refuse_address(video)
        (found,) = ReadViews(
            self.config.sampling, views or self.config.views, self.image_size, self.preprocessing
        )(str(video))
        return torch.from_numpy(found.clips)

    @torch.no_grad()
    def _views(self, video: str | Path | Tensor | np.ndarray, views: int | None) -> Features:
        """What the network makes of each view; the views are its clips."""
        if isinstance(video, (Tensor, np.ndarray)):
            given = given_frames(video, self.config.sampling.frames)
            frames = inference_transform(given, self.image_size, self.preprocessing)[None]
        elif isinstance(video, (str, PathLike)):
            frames = self.read_views(video, views)
        else:
            raise UsageError(
                f"a video is a path or uint8 frames (T, H, W, 3), not {described(video)}"
            )
        return self._encode(frames)

    def _encode(self, clips: Tensor) -> Features:
        """uint8 (B, T, 3, S, S) -> what the network makes of each."""
        with autocast(self.device, self.dtype):
            return self.inference.encode(normalise(clips.to(self.device), self.preprocessing))

    def save(self, folder: str | Path, report: dict[str, Any] | None = None) -> Path:
        """Write a model folder: weights, config, tokenizer and report. It appears whole or not at
        all."""
        refuse_address(folder)
        folder = Path(folder)
        if (
            folder.exists()
            and not is_model_folder(folder)
            and (folder.is_file() or any(folder.iterdir()))
        ):
            raise UsageError(f"{folder} exists and is no model folder: it is not overwritten")
        self.check_network()
        about = {
            "architecture": self.clip.architecture(),
            "preprocessing": self.preprocessing.to_dict(),
        }
        config = {"format": "froster", "version": VERSION, **about, **self.config.to_dict()}
        with atomic_folder(folder) as part:
            state = cpu_state(self.model)
            save_tensors(
                {name: state[own] for name, own in saved_names(self.model).items()},
                part / "model.safetensors",
            )
            (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            self.tokenizer.save(part / "tokenizer.json")
            if self.calibration.fitted is not None:
                self.calibration.save(part)
            (part / "report.json").write_text(json.dumps(report or {}, indent=2) + "\n")
        return folder

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
    device: str | None = None,
    precision: str | torch.dtype = "auto",
) -> Recognizer:
    """A model from a froster or Hugging Face CLIP folder, here or on the hub, a checkpoint file, or
    `"nano"`.

    Released checkpoints of the methods are recognised by the names of their weights; `origin` of
    the result says what a file was taken for. Some hold an image tower or a head alone: `clip`, of
    the same width, gives what they lack. Raises CheckpointError when the weights do not fit,
    FrosterError when the hub cannot be reached.
    """
    refuse_address(source)
    place, precision = pick_device(device), parse_precision(precision)
    path = NANO if str(source) == "nano" else resolve(source)
    try:
        return _load(path, clip, place, precision)
    except FrosterError as error:
        if path == NANO or os.path.exists(os.path.expanduser(source)):
            raise
        # Of a hub id the user does not know the folder.
        raise type(error)(str(error).replace(str(path), str(source))) from error


def _load(
    path: Path, clip: str | Path | None, place: torch.device, precision: Precision
) -> Recognizer:
    origin = "froster"
    calibration = None
    tokenizer: Tokenizer | FrosterError
    checkpoint = Checkpoint(path)
    if is_model_folder(path):
        model, tokenizer, config = load_folder(path)
        calibration = read_calibration(path)
    elif (found := find_released(checkpoint)) is not None:
        lacking = missing_parts(found.state)
        base = base_of(found, path, clip) if lacking else None
        model, config = (
            complete(found, path, base.clip if base else None),
            preset_config(found.method),
        )
        origin = "; ".join(
            [found.format, *(f"ignored {name}" for name in found.ignored), *found.notes]
        )
        if lacking:
            origin += f"; {', '.join(lacking)} of the CLIP"
        borrowed = base is not None and "text tower" in lacking
        tokenizer = base._tokenizer if base and borrowed else tokenizer_beside(path, model.clip)
    else:
        plain, report = load_clip(checkpoint)
        config = ModelConfig(VCLIP() if report.method == "vclip" else Frozen())
        model = config.method.build(plain)
        origin = "; ".join(
            [report.format, *(f"ignored {name}" for name in report.ignored), *report.notes]
        )
        tokenizer = tokenizer_beside(path, plain)
    if isinstance(tokenizer, FrosterError):
        origin += "; no tokenizer: labels cannot be read"
    return Recognizer(
        model,
        tokenizer,
        config,
        device=place,
        precision=precision,
        origin=origin,
        calibration=calibration,
    )


def base_of(found: Official, path: Path, clip: str | Path | None) -> Recognizer:
    """The CLIP that gives what a release lacks."""
    try:
        return load(clip or DEFAULT_MODEL, device="cpu")
    except FrosterError as error:
        raise CheckpointError(
            f"{path}: taken for {found.format}, which holds no"
            f" {', '.join(missing_parts(found.state))}: pass clip=…, the CLIP it was trained from"
            f" ({error})"
        ) from None


def preset_config(method: Method) -> ModelConfig:
    """How a method's own paper tests: its prompts, sampling and views."""
    preset = method.preset()
    frames = getattr(method, "frames", 0) or preset.sampling.frames
    sampling = dataclasses.replace(preset.sampling, frames=frames)
    return ModelConfig(method, sampling, preset.views, preset.prompting, preset.fusion)


def tokenizer_beside(path: Path, clip: CLIP) -> Tokenizer | FrosterError:
    """The tokenizer of a checkpoint, or why there is none."""
    try:
        tokenizer = Tokenizer.find(path)
    except FrosterError as error:
        return error
    if tokenizer.vocab_size == clip.config.text.vocab:
        return tokenizer
    return CheckpointError(
        f"{path}: the model has {clip.config.text.vocab} token embeddings, its tokenizer"
        f" {tokenizer.vocab_size} tokens"
    )
