"""What requests and answers look like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from froster.errors import UsageError
from froster.serve.refusal import Refusal
from froster.text.labels import split_labels


def read_labels(text: object) -> object:
    try:
        return split_labels(text) if isinstance(text, str) else text
    except UsageError as error:
        raise ValueError(str(error)) from None


Labels = Annotated[
    list[str],
    BeforeValidator(read_labels, json_schema_input_type=str),
    Field(
        description=(
            'Names between commas or semicolons or one a line, or a JSON list, `["surfing",'
            ' "skiing"]`.'
        )
    ),
]


class Asked(BaseModel):
    """Fields of every request beside the file."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="One of the models that /healthz names; default: the first."
    )
    truncate: bool = Field(False, description="Cut labels that are too long for the text tower.")


class AskedToClassify(Asked):
    labels: Labels
    views: int | None = Field(
        None, ge=1, description="Clips taken from the video; the model says how many."
    )
    top: int | None = Field(None, ge=1, description="Labels in the answer; default: all.")


class AskedForTimeline(Asked):
    labels: Labels
    window: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds seen at once."
    )
    stride: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds from window to window."
    )
    min_segment: float = Field(
        0, ge=0, allow_inf_nan=False, description="Shorter segments become part of a neighbour."
    )


class AskedToEmbed(Asked):
    labels: Labels | None = None
    views: int | None = Field(
        None, ge=1, description="Clips taken from the video; the model says how many."
    )


class Problem(BaseModel):
    error: str


class Score(BaseModel):
    label: str
    score: float = Field(description="How likely the label is if one of them fits.")
    probability: float = Field(
        description=(
            "How likely it is, with the possibility that none fits; without that, the score."
        )
    )


class VideoFacts(BaseModel):
    seconds: float
    width: int
    height: int


class Classified(BaseModel):
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
    calibrated: bool = Field(
        description="Were temperature and none fitted to held-out videos, by froster calibrate?"
    )
    scores: list[Score] = Field(description="Best first.")
    video: VideoFacts


class Span(BaseModel):
    start: float
    end: float
    label: str
    score: float


class TimelineFound(BaseModel):
    model: str
    labels: list[str]
    start: float
    end: float
    window: float
    stride: float
    frames: int = Field(description="Frames of a window.")
    calibrated: bool = Field(
        description="Were temperature and none fitted to held-out videos, by froster calibrate?"
    )
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


class Embedded(BaseModel):
    model: str
    video: list[float] | None = Field(
        description="The unit embedding of the video, if one was sent."
    )
    labels: list[list[float]] | None = Field(
        description="The unit embedding of each label, if any were sent."
    )


class ServedModel(BaseModel):
    name: str
    method: str
    device: str
    dtype: str
    image_size: int
    frames: int
    views: int


class Health(BaseModel):
    status: str
    version: str
    models: list[ServedModel]
    waiting: int = Field(description="Requests that are being uploaded or wait.")
    room: int = Field(
        description="Requests that may be here at a time, the one in hand among them."
    )
    busy: float = Field(
        description="Seconds since the work in hand was asked for; 0: there is none."
    )


def parsed(kind: type[Any], fields: dict[str, str]) -> Any:
    """The fields of a form as they should be. Raises Refusal, which names the fields that are not."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, each['loc'])) or 'form'}: {each['msg']}"
            for each in error.errors()[:5]
        ]
        raise Refusal(422, "; ".join(found).replace("Value error, ", "")) from None


def form_schema(kind: type[BaseModel], video: str) -> dict[str, Any]:
    """OpenAPI's description of such a form; `video`: "needed", "optional"."""
    schema = kind.model_json_schema(mode="validation")
    properties = {name: _plain(value) for name, value in schema["properties"].items()}
    file = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "format": "binary",
        "description": "A video file.",
    }
    required = [*(["video"] if video == "needed" else []), *schema.get("required", [])]
    form = {
        "type": "object",
        "properties": {"video": file, **properties},
        "additionalProperties": False,
    }
    if required:
        form["required"] = required
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out is one of its own type: a form has no null."""
    kinds = [kind for kind in value.pop("anyOf", []) if kind.get("type") != "null"]
    return {
        key: each
        for key, each in {**value, **(kinds[0] if kinds else {})}.items()
        if key != "default" or each is not None
    }
