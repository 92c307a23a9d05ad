"""Videos and labels to embeddings: a network with its tokenizer, its device and what it keeps."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from froster.data.dataset import ReadViews
from froster.encoders.merging import with_merging
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
from froster.errors import CheckpointError, FrosterWarning, UsageError
from froster.evaluation.calibration import Calibration
from froster.inference.class_cache import kept_or_computed
from froster.inference.model_folder import MOST_VIEWS, ModelConfig
from froster.inference.weight_cache import WeightCache
from froster.methods import Features, VideoCLIP, class_embeddings
from froster.text.bank import PromptBank
from froster.text.class_file import ClassFile, GivenBank, write_classes
from froster.text.label_set import Labels, LabelSet, label_set
from froster.text.labels import check_labels, check_texts
from froster.text.prompts import CLIP_CONTEXT
from froster.utils.address import as_path
from froster.utils.progress import Working, silently
from froster.utils.tensors import finite
from froster.video.transforms import given_clips

if TYPE_CHECKING:
    from froster.inference.int8 import Int8

NOT_TOGETHER = "--runtime and --merge-tokens do not go together: int8 was compared with all tokens"
CPU_ALONE = "--runtime is for the CPU: leave it out, or pass --device cpu"


class Embedder:
    """A video network with its tokenizer.

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
        merge_tokens: int = 0,
    ):
        """`class_file`: embeddings of the labels, in place of those of the text tower.
        `merge_tokens`: those of a frame that every block merges, in what is computed of videos and
        not in what is taught, saved or exported. Raises UsageError where the network cannot."""
        self.provenance, self.precision = provenance, parse_precision(precision)
        "`provenance`: what the weights were taken for"
        self.source: str | None = None
        "what `load` was given, a path made absolute"
        self.device = device or pick_device()
        self.files: str | None = None
        "state of the files that the weights were read from, set by who lets nobody change these"
        self.runtime: Int8 | None = None
        "how the image tower is computed in int8"
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer_source = tokenizer
        self.class_file = None if class_file is None else class_file.to(self.device)
        self.merge_tokens = check_merging(model, config, merge_tokens)
        self.config = config
        self.calibration = calibration or Calibration()
        self.dtype = pick_dtype(self.device, model.clip.config.vision.width, precision)
        self.working: Working = silently
        "says what takes long; commands set it"
        self.remembered = 1
        "label sets whose class embeddings are kept"
        self._cache = WeightCache()
        self._warned = False

    def on(self, device: torch.device) -> Self:
        """The same on another device, in the same precision and with weights of its own, for
        another process: it says nothing while it works. Raises UsageError where int8 would have to
        be computed on another device than a CPU."""
        if self.runtime is not None and device.type != "cpu":
            raise UsageError(CPU_ALONE)
        other = copy.copy(self)
        other.device, other.working, other._cache = device, silently, WeightCache()
        if device != self.device:
            other.model = copy.deepcopy(self.model).to(device)
            other.class_file = self.class_file and self.class_file.to(device)
        return other

    def use_runtime(self, folder: str | Path) -> None:
        """From now on the image tower is computed in int8, by what `froster export --to int8` wrote
        to this folder. Raises UsageError where this machine cannot or tokens are merged,
        CheckpointError where the folder is damaged or another model's."""
        from froster.inference.int8 import read_int8

        if self.merge_tokens:
            raise UsageError(NOT_TOGETHER)
        self.runtime = read_int8(self, folder)
        try:
            assert self.inference is not self.model  # made now, and kept
        except CheckpointError as error:
            self.runtime = None
            raise CheckpointError(f"{folder}: {error}") from None

    def summary(self, name: str) -> str:
        """One line on what runs where; `name` is what people call the model by."""
        vision, config = self.clip.config.vision, self.config
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"model {name} ({self.provenance}; {config.method.name}, {vision.image_size} px,"
            f" {config.sampling.frames} frames {config.sampling.kind}) on {self.device} in"
            f" {'int8 and ' if self.runtime else ''}{dtype}"
            + (f", {self.merge_tokens} tokens merged a block" if self.merge_tokens else "")
        )

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
        """The network as it is computed: `model`, or one that shares its weights, with the towers'
        matrices cast to `self.dtype`, in int8 or with tokens merged. Weights that are trained are
        never cast ahead, and made int8 anew at each call."""
        may_keep = self._may_keep()
        if may_keep and self._cache.cast is not None:
            return self._cache.cast
        network = self.model
        if self.runtime is not None:
            network = self.runtime.network(network, self.dtype)
        elif may_keep and self.dtype != torch.float32:
            network = with_cast_weights(network, self.dtype)
        if self.merge_tokens:
            if self.runtime is not None:
                raise UsageError(NOT_TOGETHER)
            network = with_merging(network, self.merge_tokens)
        self._cache.cast = network if may_keep and network is not self.model else None
        return network

    def _may_keep(self) -> bool:
        how = (self.config.prompting, self.dtype, self.runtime, self.merge_tokens)
        return self._cache.holds(self.model, (*how, self.tokenizer_source, self.class_file))

    @property
    def cuts_texts(self) -> bool:
        """Are too long texts cut unasked? For a shorter context than CLIP's, and by TC-CLIP."""
        return self.model.cuts_texts or self.clip.config.text.context < CLIP_CONTEXT

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
            self._warn_of_cuts([text for row in prompting.prompts(labels) for text in row], context)
        return bank

    def _warn_of_cuts(self, prompts: list[str], context: int) -> None:
        lengths = [len(row) for row in self.tokenizer.rows(prompts)]
        if max(lengths) <= context:
            return
        self._warned = True
        share = sum(length > context for length in lengths) / len(lengths)
        warnings.warn(
            f"{100 * share:.0f} % of the prompts are longer than the {context} tokens that this"
            " text tower reads, and are cut",
            FrosterWarning,
            stacklevel=3,
        )

    @torch.no_grad()
    def class_embeddings(self, labels: Labels, truncate: bool = False) -> Tensor:
        """Labels ("Name" or "Name: description"), or a mapping of them to lists of prompts -> what
        the network compares videos with, over all prompts; for most networks unit class embeddings
        (K, E).

        The last `remembered` label sets are kept, as long as weights, prompts and tokenizer are the
        same, so that many videos cost one pass over the text; on disk, in the user's cache, all
        that fit are (`class_cache`). Nothing is kept of weights in training. Raises UsageError on
        empty or repeated labels. A label with several prompts is the mean of their class
        embeddings, made unit.
        """
        if not isinstance(labels, (LabelSet, Mapping)):
            return self._embedded(labels, truncate)
        labels = label_set(labels)
        if self.class_file is not None or self.config.method.closed:  # which know names alone
            return self._embedded(labels.names, truncate)
        if len(labels.texts) == len(labels):
            return self._embedded(labels.texts, truncate)
        if type(self.model).classes is not VideoCLIP.classes:
            raise UsageError(
                f"{self.config.method.name} compares a video with more than an embedding of each"
                " class: give one prompt a label"
            )
        texts = self._embedded(labels.texts, truncate).split([*map(len, labels.prompts)])
        return unit(torch.stack([part.mean(0) for part in texts]))

    def _embedded(self, labels: Sequence[str], truncate: bool) -> Tensor:
        """Of labels that are asked as they are."""
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

    def save_classes(self, labels: Sequence[str], path: str | Path) -> None:
        """Write `embed_text(labels)` to a .parquet, a row a label with the columns `label` and
        `embedding`, or to a .safetensors. Other tools read it, and `froster.load(classes=)`. Raises
        UsageError, WriteError."""
        check_labels(labels)
        write_classes(Path(path), list(labels), self.embed_text(labels))

    @torch.no_grad()
    def embed_clips(self, clips: Tensor) -> Float[Tensor, "batch embed"]:
        """Clips (B, T, 3, S, S) uint8, as `froster.video` makes them, -> unit embeddings."""
        embeddings = self.encode_clips(given_clips(clips, self.image_size)).video
        return finite(unit(embeddings).cpu(), "video embeddings")

    def view_reader(self, views: int | None = None) -> ReadViews:
        """What reads a video file as this model wants it, `views` clips or the model's number."""
        views = self.config.views if views is None else views
        if type(views) is not int or not 1 <= views <= MOST_VIEWS:
            raise UsageError(f"views is a whole number from 1 to {MOST_VIEWS}, not {views!r:.100}")
        return ReadViews(self.config.sampling, views, self.image_size, self.preprocessing)

    def read_views(
        self, video: str | Path, views: int | None = None
    ) -> UInt8[Tensor, "views time 3 size size"]:
        """The clips of a video file, all from one decode."""
        (result,) = self.view_reader(views)(str(as_path(video)))
        return torch.from_numpy(result.clips)

    def encode_clips(self, clips: Tensor) -> Features:
        """uint8 (B, T, 3, S, S) -> what the network makes of each."""
        with autocast(self.device, self.dtype):
            return self.inference.encode(normalise(clips.to(self.device), self.preprocessing))


def check_merging(network: VideoCLIP, config: ModelConfig, count: int) -> int:
    """`count`. Raises UsageError where that many tokens of a frame cannot be merged in a block."""
    if type(count) is not int or count < 0:
        raise UsageError(f"merge_tokens is a whole number from 0, not {count!r:.100}")
    if count and not network.merges_tokens:
        rotary = "an image tower with rotary positions" if network.clip.config.vision.rope else ""
        raise UsageError(
            f"{rotary or config.method.name} needs every token of a frame in its place: leave"
            " merge_tokens out"
        )
    return count
