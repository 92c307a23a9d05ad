"""What is done with a video that was sent: the recognizers, by name."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from froster.encoders.tokenizer import opened
from froster.errors import UsageError
from froster.inference.classification import Classification
from froster.inference.recognizer import Recognizer
from froster.inference.timeline import timeline
from froster.report.attention import video_attention
from froster.serve import Refusal, schemas
from froster.serve.jobs import Steps
from froster.serve.limits import Limits, Measured
from froster.serve.preview import jpeg
from froster.text.label_set import as_labels
from froster.utils.interrupt import check
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.video.windows import WindowPlan

# Label sets whose embeddings are kept for each model: people ask again with the same labels, and
# take turns.
_REMEMBERED = 8
# Pixels of a frame in a picture, at least: a small network's own input is too coarse to look at.
_SHOWN = 160


_SMALL = 256
"""Width of an image tower that is faster on a CPU too when it sees several videos at once."""


class Room:
    """Memory that several threads share: who needs more than is left waits."""

    def __init__(self, size: int):
        self.size = self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        size = min(size, self.size)
        with self._changed:
            while size > self._left:
                self._changed.wait(0.1)
                check()
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


@dataclass(frozen=True)
class Shown:
    """A request to classify, its video and what the model is to see of it."""

    asked: schemas.ClassifyRequest
    labels: Sequence[str]
    "with what the model is asked for each"
    video: Measured
    clips: Tensor
    "uint8 (V, T, 3, S, S)"


@dataclass(frozen=True)
class Models:
    """Recognizers by the names that clients know them by; the first is the default. One thread
    alone computes with them. Raises FrosterError where one has no tokenizer: every request would.
    """

    named: dict[str, Recognizer]
    limits: Limits
    room: Room = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", Room(self.limits.memory))
        for recognizer in self.named.values():
            recognizer.remembered = _REMEMBERED
            opened(recognizer.tokenizer_source)

    def get(self, name: str | None) -> tuple[str, Recognizer]:
        name = next(iter(self.named)) if name is None else name
        if name not in self.named:
            raise Refusal(422, f"there is no model {name[:100]!r}: {', '.join(self.named)}")
        return name, self.named[name]

    def rendered_only(self) -> list[str]:
        """The models that know the rendered world alone: the nano, and what was trained from it."""
        return [name for name, model in self.named.items() if model.tokenizer.vocab_size < 1000]

    def describe(self) -> list[schemas.ServedModel]:
        return [
            schemas.ServedModel(
                name=name,
                method=model.config.method.name,
                device=str(model.device),
                dtype=str(model.dtype).removeprefix("torch."),
                image_size=model.clip.config.vision.image_size,
                frames=model.config.sampling.frames,
                views=model.config.views,
                merge_tokens=model.merge_tokens,
                int8=model.runtime is not None,
            )
            for name, model in self.named.items()
        ]

    def classify(self, asked: schemas.ClassifyRequest, path: Path) -> Steps[schemas.ClassifyAnswer]:
        name, model = self.get(asked.model)
        self.limits.check_labels(asked.labels)
        labels = as_labels(asked.labels)

        def prepare() -> Shown:
            video = self._measure(model, path, asked.views)
            views = asked.views or model.config.views
            with self.room.hold(self.limits.frame_bytes(video, model.config.sampling, views)):
                return Shown(asked, labels, video, model.read_views(path, views))

        def answer(several: Sequence[Shown]) -> list[schemas.ClassifyAnswer]:
            if model.model.clips_apart:
                answers = model.classify_together(
                    [shown.clips for shown in several],
                    [shown.labels for shown in several],
                    [shown.asked.truncate for shown in several],
                )
            else:
                (shown,) = several
                classes = model.class_embeddings(labels, asked.truncate)
                answers = model.classify_clips(shown.clips[None], labels, classes)
            return [
                _classified(name, model, shown, best)
                for shown, best in zip(several, answers, strict=True)
            ]

        return Steps(prepare, answer, kind=(name, asked.views), together=videos_at_once(model))

    def timeline(self, asked: schemas.TimelineRequest, path: Path) -> schemas.TimelineAnswer:
        name, model = self.get(asked.model)
        self.limits.check_labels(asked.labels)
        plan = WindowPlan.of(model.config.sampling, asked.window, asked.stride)
        self.limits.check_plan(self.limits.measure(path), plan, len(asked.labels))
        options = asked.model_dump(include={"window", "stride", "min_segment", "truncate"})
        answer = timeline(model, path, asked.labels, **options)
        return schemas.TimelineAnswer.model_validate({"model": name, **answer.to_dict()})

    def embed(self, asked: schemas.EmbedRequest, path: Path | None) -> schemas.EmbedAnswer:
        name, model = self.get(asked.model)
        if path is None and asked.labels is None:
            raise Refusal(422, "send a video, labels, or both")
        video = labels = None
        if asked.labels is not None:
            self.limits.check_labels(asked.labels)
            labels = model.embed_text(asked.labels, asked.truncate).tolist()
        if path is not None:
            self._measure(model, path, asked.views)
            video = model.embed_video(path, asked.views).tolist()
        return schemas.EmbedAnswer(model=name, video=video, labels=labels)

    def attention(self, asked: schemas.AttentionRequest, path: Path) -> schemas.AttentionAnswer:
        """The frames of the model's window around a moment, and its attention in them."""
        name, model = self.get(asked.model)
        plan = WindowPlan.of(model.config.sampling)
        self._measure(model, path, views=1)
        with Video(path) as video:
            start = max(0.0, min(asked.at - plan.window / 2, video.seconds - plan.window))
            step = min(plan.window, video.seconds) / plan.frames
            seconds = [start + (i + 0.5) * step for i in range(plan.frames)]
            frames = video.read([video.index_at(second) for second in seconds])
        check()
        try:
            attention = video_attention(model, frames).patches.tolist()
        except UsageError:  # a method that attends in a way of its own
            attention = None
        shown = inference_transform(frames, max(_SHOWN, model.image_size), model.preprocessing)
        return schemas.AttentionAnswer(
            model=name,
            seconds=[round(second, 3) for second in seconds],
            frames=[jpeg(frame) for frame in shown],
            attention=attention,
        )

    def _measure(self, recognizer: Recognizer, path: Path, views: int | None) -> Measured:
        """Raises Refusal where the video, or what is asked of it, is too much."""
        if views is not None and views > self.limits.views:
            raise Refusal(422, f"{views} views: at most {self.limits.views} are taken")
        video = self.limits.measure(path)
        self.limits.check_views(video, recognizer.config.sampling, views or recognizer.config.views)
        return video


def videos_at_once(model: Recognizer) -> int:
    """How many videos a network is shown together."""
    if not model.model.clips_apart:
        return 1
    if model.device.type == "cuda":
        return 8
    return 4 if model.clip.config.vision.width <= _SMALL else 1


def _classified(
    name: str, model: Recognizer, shown: Shown, answer: Classification
) -> schemas.ClassifyAnswer:
    rows = zip(answer.labels, answer.scores, answer.probabilities, strict=True)
    scores = [schemas.Score(label=label, score=score, probability=p) for label, score, p in rows]
    return schemas.ClassifyAnswer(
        model=name,
        label=answer.label,
        answer=answer.answer,
        none=answer.none,
        cosine=answer.cosine,
        calibrated=model.calibration.fitted is not None,
        scores=scores[: shown.asked.top],
        video=schemas.VideoFacts.of(shown.video),
    )
