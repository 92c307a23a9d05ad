"""What the worker does with a video that was sent: the recognizers, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from froster.encoders.model import normalise
from froster.errors import UsageError
from froster.inference.recognizer import Classification, Recognizer
from froster.inference.timeline import Scan, Timeline
from froster.methods import Frozen
from froster.report.attention import cls_attention
from froster.serve.limits import Limits, Measured
from froster.serve.refusal import Refusal
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
    """The frames around a moment, and what each model looks at in them."""

    seconds: list[float]
    frames: Tensor
    """(T, 3, S, S) uint8, as shown: what the first model sees, larger."""
    seen: dict[str, Tensor]
    """The same as each model sees it, which its heat lies over."""
    heats: dict[str, Tensor | None]
    """Of each model, (T, rows, columns); None where its attention cannot be told."""


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

    def classify(
        self,
        recognizer: Recognizer,
        path: Path,
        labels: list[str],
        views: int | None = None,
        truncate: bool = False,
    ) -> tuple[Classification, Measured]:
        self.limits.check_labels(labels)
        video = self.video(recognizer, path, views)
        return recognizer.classify(path, labels, views=views, truncate=truncate), video

    def timeline(
        self,
        recognizer: Recognizer,
        path: Path,
        labels: list[str],
        window: float | None = None,
        stride: float | None = None,
        min_segment: float = 0.0,
        truncate: bool = False,
    ) -> Timeline:
        self.limits.check_labels(labels)
        video = self.limits.measure(path)
        self.limits.check_plan(
            video, WindowPlan.of(recognizer.config.sampling, window, stride), len(labels)
        )
        scan = Scan(
            recognizer,
            labels,
            window=window,
            stride=stride,
            shortest=min_segment,
            truncate=truncate,
        )
        for _ in scan.run(path):
            pass
        return scan.result()

    def embed(
        self,
        recognizer: Recognizer,
        path: Path | None,
        labels: list[str] | None,
        views: int | None,
        truncate: bool,
    ) -> tuple[list[float] | None, list[list[float]] | None]:
        texts = None
        if labels is not None:
            self.limits.check_labels(labels)
            texts = recognizer.embed_text(labels, truncate).tolist()
        if path is None:
            return None, texts
        self.video(recognizer, path, views)
        return recognizer.embed_video(path, views).tolist(), texts

    def look(self, path: Path, at: float) -> Look:
        """A window around the second `at`. All models see the frames of the first video network, as
        their number may be fixed."""
        samplings = [
            each.config.sampling
            for each in self.named.values()
            if not isinstance(each.config.method, Frozen)
        ]
        plan = WindowPlan.of((samplings or [next(iter(self.named.values())).config.sampling])[0])
        self.limits.measure(path)
        with Video(path) as video:
            start = max(0.0, min(at - plan.window / 2, video.seconds - plan.window))
            step = min(plan.window, video.seconds) / plan.frames
            wanted = [start + (i + 0.5) * step for i in range(plan.frames)]
            frames = video.read([video.index_at(second) for second in wanted])
        size = max(_SHOWN, *(each.clip.config.vision.image_size for each in self.named.values()))
        heats = {name: self.heat(each, frames) for name, each in self.named.items()}
        shown = {
            name: inference_transform(frames, size, each.preprocessing)
            for name, each in self.named.items()
        }
        return Look(wanted, next(iter(shown.values())), shown, heats)

    def heat(self, recognizer: Recognizer, frames: Tensor) -> Tensor | None:
        check()
        how = recognizer.preprocessing
        pixels = inference_transform(frames, recognizer.image_size, how)
        try:
            return cls_attention(
                recognizer.model, normalise(pixels.to(recognizer.device), how)
            ).patches
        except UsageError:
            return None

    def video(self, recognizer: Recognizer, path: Path, views: int | None) -> Measured:
        """Raises Refusal where the video, or what is asked of it, is too much."""
        if views is not None and views > self.limits.views:
            raise Refusal(422, f"{views} views: at most {self.limits.views} are taken")
        video = self.limits.measure(path)
        self.limits.check_views(video, recognizer.config.sampling, views or recognizer.config.views)
        return video
