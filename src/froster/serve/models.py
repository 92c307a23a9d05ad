"""What the worker does with a video that was sent: the recognizers, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.inference.recognizer import Classification, Recognizer
from froster.inference.timeline import Scan, Timeline
from froster.report.attention import cls_attention
from froster.serve.limits import Limits, Measured
from froster.serve.refusal import Refusal
from froster.serve.schemas import ClassifyRequest, EmbedRequest, TimelineRequest
from froster.utils.interrupt import check
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.video.windows import WindowPlan

# Label sets whose embeddings are kept for each model: people ask again with the same labels, and
# take turns.
_REMEMBERED = 8
# Pixels of a frame in a picture, at least: a small network's own input is too coarse to look at.
_SHOWN = 160


@dataclass(frozen=True)
class Look:
    """The frames around a moment, and how a model divides its attention in them."""

    seconds: list[float]
    frames: Tensor
    """(T, 3, S, S) uint8: what the model sees, larger."""
    attention: Tensor | None
    """(T, rows, columns); None where the model's attention cannot be told."""


@dataclass(frozen=True)
class Models:
    """Recognizers by the names that clients know them by; the first is the default. Used by one
    thread alone."""

    named: dict[str, Recognizer]
    limits: Limits

    def __post_init__(self) -> None:
        for recognizer in self.named.values():
            recognizer.remembered = _REMEMBERED

    def get(self, name: str | None) -> tuple[str, Recognizer]:
        name = next(iter(self.named)) if name is None else name
        if name not in self.named:
            raise Refusal(422, f"there is no model {name[:100]!r}: {', '.join(self.named)}")
        return name, self.named[name]

    def rendered_only(self) -> list[str]:
        """The models that know the rendered world alone: the nano, and what was trained from it."""
        return [name for name, each in self.named.items() if each.tokenizer.vocab_size < 1000]

    def classify(
        self, recognizer: Recognizer, path: Path, request: ClassifyRequest
    ) -> tuple[Classification, Measured]:
        self.limits.check_labels(request.labels)
        video = self._measure(recognizer, path, request.views)
        answer = recognizer.classify(
            path, request.labels, views=request.views, truncate=request.truncate
        )
        return answer, video

    def timeline(self, recognizer: Recognizer, path: Path, request: TimelineRequest) -> Timeline:
        self.limits.check_labels(request.labels)
        video = self.limits.measure(path)
        plan = WindowPlan.of(recognizer.config.sampling, request.window, request.stride)
        self.limits.check_plan(video, plan, len(request.labels))
        scan = Scan(
            recognizer,
            request.labels,
            window=request.window,
            stride=request.stride,
            shortest=request.min_segment,
            truncate=request.truncate,
        )
        for _ in scan.run(path):
            pass
        return scan.result()

    def embed(
        self, recognizer: Recognizer, path: Path | None, request: EmbedRequest
    ) -> tuple[list[float] | None, list[list[float]] | None]:
        texts = None
        if request.labels is not None:
            self.limits.check_labels(request.labels)
            texts = recognizer.embed_text(request.labels, request.truncate).tolist()
        if path is None:
            return None, texts
        self._measure(recognizer, path, request.views)
        return recognizer.embed_video(path, request.views).tolist(), texts

    def look(self, recognizer: Recognizer, path: Path, at: float) -> Look:
        """The frames of the model's window around the second `at`, and its attention in them."""
        plan = WindowPlan.of(recognizer.config.sampling)
        self._measure(recognizer, path, views=1)
        with Video(path) as video:
            start = max(0.0, min(at - plan.window / 2, video.seconds - plan.window))
            step = min(plan.window, video.seconds) / plan.frames
            seconds = [start + (i + 0.5) * step for i in range(plan.frames)]
            frames = video.read([video.index_at(second) for second in seconds])
        check()
        how, size = recognizer.preprocessing, recognizer.image_size
        shown = inference_transform(frames, max(_SHOWN, size), how)
        pixels = inference_transform(frames, size, how).to(recognizer.device)
        try:
            attention = cls_attention(recognizer.model, normalise(pixels, how)).patches
        except UsageError:  # a method that attends in a way of its own
            attention = None
        return Look(seconds, shown, attention)

    def _measure(self, recognizer: Recognizer, path: Path, views: int | None) -> Measured:
        """Raises Refusal where the video, or what is asked of it, is too much."""
        if views is not None and views > self.limits.views:
            raise Refusal(422, f"{views} views: at most {self.limits.views} are taken")
        video = self.limits.measure(path)
        self.limits.check_views(video, recognizer.config.sampling, views or recognizer.config.views)
        return video
