"""What requests and answers look like."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from froster.errors import UsageError
from froster.serve import Refusal
from froster.serve.limits import Measured
from froster.text.labels import split_labels


def read_labels(text: object) -> object:
    try:
        return split_labels(text) if isinstance(text, str) else text
    except UsageError as error:
        raise ValueError(str(error)) from None


Asked = TypeVar("Asked", bound=BaseModel)

Labels = Annotated[
    list[str],
    BeforeValidator(read_labels, json_schema_input_type=str),
    Field(
        examples=["surfing, skiing, cooking"],
        description="Names between commas or semicolons or one a line, or a JSON list of them.",
    ),
]


Views = Annotated[
    int | None, Field(ge=1, description="Clips taken from the video; the model says how many.")
]
Seconds = Annotated[float, Field(allow_inf_nan=False)]
Calibrated = Annotated[
    bool,
    Field(description="Were temperature and none fitted to held-out videos, by froster calibrate?"),
]


class VideoRequest(BaseModel):
    """Fields of every request beside the file."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        None, description="In place of the file: the id of a video that /v1/videos keeps."
    )
    model: str | None = Field(
        None, description="One of the models that /healthz names; default: the first."
    )


class LabelsRequest(VideoRequest):
    truncate: bool = Field(False, description="Cut labels that are too long for the text tower.")


class ClassifyRequest(LabelsRequest):
    labels: Labels
    views: Views = None
    top: int | None = Field(None, ge=1, description="Labels in the answer; default: all.")


class TimelineRequest(LabelsRequest):
    labels: Labels
    window: Seconds | None = Field(None, gt=0, description="Seconds seen at once.")
    stride: Seconds | None = Field(None, gt=0, description="Seconds from window to window.")
    min_segment: Seconds = Field(0, ge=0, description="Shorter ones become part of a neighbour.")


class EmbedRequest(LabelsRequest):
    labels: Labels | None = None
    views: Views = None


class AttentionRequest(VideoRequest):
    at: Seconds = Field(0, ge=0, description="Second of the video.")


class Problem(BaseModel):
    error: str


class Score(BaseModel):
    label: str
    score: float = Field(description="How likely the label is if one of them fits.")
    probability: float = Field(
        description="How likely it is, with the possibility that none fits, or else the score."
    )


class VideoFacts(BaseModel):
    seconds: float
    width: int
    height: int

    @classmethod
    def of(cls, video: Measured) -> VideoFacts:
        return cls(seconds=round(video.seconds, 2), width=video.width, height=video.height)


class KeptVideo(VideoFacts):
    id: str = Field(description="For the field `id` of other requests, and for /v1/videos/{id}.")


class ClassifyAnswer(BaseModel):
    model: str
    label: str = Field(description="The best one.")
    answer: str | None = Field(
        description="The best one, or null where it is more likely that none fits."
    )
    none: float | None = Field(
        description="How likely it is that none of the labels fits; null of an uncalibrated model."
    )
    cosine: float | None = Field(
        description="Of the best label; null where the network's logits are no cosines."
    )
    calibrated: Calibrated
    scores: list[Score] = Field(description="Best first.")
    video: VideoFacts


class Span(BaseModel):
    start: float
    end: float
    label: str
    score: float


class TimelineAnswer(BaseModel):
    model: str
    labels: list[str]
    start: float
    end: float
    window: float
    stride: float
    frames: int = Field(description="Frames of a window.")
    calibrated: Calibrated
    complete: bool
    damaged: int = Field(description="Packets and frames that could not be decoded.")
    stated: float | None = Field(description="The length that the file states.")
    segments: list[Span]
    times: list[float] = Field(description="When each moment begins.")
    none: list[float] | None = Field(
        description="For each moment, how likely it is that no label fits; null if uncalibrated."
    )
    cosine: list[float] | None = Field(
        description="For each moment, that of the best label; null where there are none."
    )
    scores: list[list[float]] = Field(description="For each moment, the score of each label.")


class EmbedAnswer(BaseModel):
    model: str
    video: list[float] | None = Field(description="Its unit embedding, if one was sent.")
    labels: list[list[float]] | None = Field(description="Their unit embeddings, if any were sent.")


class AttentionAnswer(BaseModel):
    model: str
    seconds: list[float] = Field(description="When each frame is shown.")
    frames: list[str] = Field(
        description="Each frame as the model sees it, larger: a JPEG as a data: address."
    )
    attention: list[list[list[float]]] | None = Field(
        description="For each frame, rows of what each patch gets of the class tokens' attention; "
        "null where it cannot be told."
    )


class ServedModel(BaseModel):
    name: str
    method: str
    device: str
    dtype: str
    image_size: int
    frames: int
    views: int
    merge_tokens: int = Field(description="Of a frame, in every block; 0: all are computed.")
    int8: bool = Field(description="Are the image tower's largest products in int8, by --runtime?")


class Health(BaseModel):
    status: str
    version: str
    models: list[ServedModel]
    waiting: int = Field(description="Requests that are being uploaded or wait.")
    room: int = Field(description="Requests that may be here at a time, with the one in hand.")
    busy: float = Field(description="Seconds since the work in hand was asked for; 0: none.")


def parsed(kind: type[Asked], fields: dict[str, str]) -> Asked:
    """The fields of a form as they should be. Raises Refusal, which names the wrong ones."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'form'}: {e['msg']}" for e in error.errors()[:5]
        ]
        raise Refusal(422, "; ".join(wrong).replace("Value error, ", "")) from None


def form_schema(kind: type[BaseModel] | None) -> dict[str, Any]:
    """OpenAPI's description of such a form; None: the file alone."""
    alone: dict[str, Any] = {"properties": {}, "required": ["video"]}
    schema = kind.model_json_schema() if kind else alone
    file = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "format": "binary",
        "description": "A video file.",
    }
    fields = {name: _plain(value) for name, value in schema["properties"].items()}
    form = {
        "type": "object",
        "properties": {"video": file, **fields},
        "additionalProperties": False,
    }
    if schema.get("required"):
        form["required"] = schema["required"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out is one of its own type: a form has no null."""
    kinds = [kind for kind in value.pop("anyOf", []) if kind.get("type") != "null"]
    merged = {**value, **(kinds[0] if kinds else {})}
    if merged.get("default", 0) is None:
        del merged["default"]
    return merged
