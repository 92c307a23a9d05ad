"""Segments of videos in the files of label tools: written, and read again.

| format | ending | times | source |
|---|---|---|---|
| ActivityNet | .activitynet.json | seconds | the challenge's ground truth |
| Label Studio | .labelstudio.json | frames from 1 | its tag TimelineLabels, as predictions |
| FiftyOne | .fiftyone.json | seconds | `FiftyOneTemporalDetectionDataset` |
| ELAN | .eaf | milliseconds | EAF 2.8 |
| CVAT | .cvat.xml | frames from 0 | CVAT for video 1.1, a box of all of the picture |

Where a format counts frames, what froster writes also has the seconds, in a place that the tool
leaves alone; they count as long as they lie on the frames.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

from froster.data.label_tools_xml import read_cvat, read_eaf, write_cvat, write_eaf
from froster.data.spans import LabelledSpan, Rate, SegmentedVideo, ToolVideo, needed, seconds_of
from froster.errors import DataError
from froster.utils import strict_json as json
from froster.utils.address import is_address
from froster.utils.files import NAME_ERRORS

__all__ = ["ENDINGS", "LabelledSpan", "SegmentedVideo", "read_segments", "tool_of"]


def write_activitynet(videos: Sequence[SegmentedVideo]) -> str:
    database = {
        video.path: {
            "duration": round(video.seconds, 3),
            "subset": "unlabeled",
            "resolution": f"{video.width}x{video.height}",
            "url": "",
            "annotations": [
                {"segment": [round(span.start, 3), round(span.end, 3)], "label": span.label}
                for span in video.spans
            ],
        }
        for video in videos
    }
    return _json({"version": "froster", "taxonomy": [], "database": database})


def read_activitynet(data: Any, rate: Rate) -> list[ToolVideo]:
    """The ground truth (`database`), or results (`results`)."""
    table = data["database"] if "database" in data else data["results"]
    listed = []
    for name, entry in needed(table, dict, "its videos").items():
        rows = entry if isinstance(entry, list) else needed(entry, dict, name).get("annotations")
        spans = [
            LabelledSpan(
                *seconds_of(needed(row, dict, name).get("segment"), name), _text(row, "label", name)
            )
            for row in needed(rows, list, f"the annotations of {name}")
        ]
        subset = entry.get("subset") if isinstance(entry, dict) else None
        listed.append(ToolVideo(name, spans, subset if isinstance(subset, str) else None))
    return listed


def write_labelstudio(videos: Sequence[SegmentedVideo]) -> str:
    return _json([_task(video) for video in videos])


def _task(video: SegmentedVideo) -> dict[str, Any]:
    result = []
    for number, span in enumerate(video.spans):
        first, last = video.frames_of(span)
        result.append(
            {
                "id": f"froster-{number}",
                "type": "timelinelabels",
                "from_name": "label",
                "to_name": "video",
                "origin": "prediction",
                "value": {
                    "ranges": [{"start": first + 1, "end": last + 1}],
                    "timelinelabels": [span.label],
                },
                "meta": {"seconds": [round(span.start, 3), round(span.end, 3)]},
                **({} if span.score is None else {"score": round(span.score, 4)}),
            }
        )
    prediction = {"model_version": "froster", "result": result}
    # An address, as Label Studio takes it, also where it is a name from the folder of the file.
    place = video.path if is_address(video.path) else quote(os.fsencode(video.path))
    return {"data": {"video": place, "fps": video.fps}, "predictions": [prediction]}


def read_labelstudio(data: Any, rate: Rate) -> list[ToolVideo]:
    """What people labelled; where they did not, the predictions."""
    listed = []
    for number, task in enumerate(data):
        place = f"task {number + 1}"
        about = needed(needed(task, dict, place).get("data"), dict, f"the data of {place}")
        address = next((about[key] for key in ("video", "video_url", "url") if key in about), None)
        if not isinstance(address, str):
            raise DataError(f"{place} names no video")
        parts = urlsplit(address)
        plain = unquote(parts.path, errors=NAME_ERRORS)
        name = parse_qs(parts.query).get("d", [plain])[0].lstrip("/")
        served = "d" in parse_qs(parts.query)
        remote = is_address(address) and not served
        name = address if remote or (Path(address).is_absolute() and not parts.query) else name
        stated = about.get("fps")
        fps = float(stated) if isinstance(stated, (int, float)) and stated > 0 else 0.0
        labelled = task.get("annotations") or task.get("predictions") or []
        spans: list[LabelledSpan] = []
        for one in needed(labelled, list, f"the annotations of {place}")[:1]:
            for row in needed(
                needed(one, dict, place).get("result"), list, f"the result of {place}"
            ):
                if needed(row, dict, place).get("type") == "timelinelabels":
                    spans += _ranges(row, place, fps or rate(name))
        listed.append(ToolVideo(name, spans))
    return listed


def _ranges(row: Mapping[str, Any], place: str, fps: float) -> list[LabelledSpan]:
    value = needed(row.get("value"), dict, f"a value of {place}")
    labels = needed(value.get("timelinelabels"), list, f"the labels of {place}")
    ranges = needed(value.get("ranges"), list, f"the ranges of {place}")
    meta = row.get("meta")
    exact = meta.get("seconds") if isinstance(meta, dict) and len(ranges) == 1 else None
    spans = []
    for one in ranges:
        first, last = seconds_of([needed(one, dict, place).get(k) for k in ("start", "end")], place)
        for label in labels:
            span = LabelledSpan((first - 1) / fps, last / fps, _label(label, place))
            spans.append(span.exactly(exact, fps))
    return spans


def write_fiftyone(videos: Sequence[SegmentedVideo]) -> str:
    """Videos go by the name of their file without its ending, or with it where two have one name,
    or by their whole address."""
    classes = sorted({span.label for video in videos for span in video.spans})
    count = Counter(_without_ending(video.path) for video in videos)
    names = [
        short if count[short := _without_ending(video.path)] == 1 else video.path
        for video in videos
    ]
    labels = {
        name: [
            {
                "label": classes.index(span.label),
                "timestamps": [round(span.start, 3), round(span.end, 3)],
                **({} if span.score is None else {"confidence": round(span.score, 4)}),
            }
            for span in video.spans
        ]
        for name, video in zip(names, videos, strict=True)
    }
    return _json({"classes": classes, "labels": labels})


def _without_ending(path: str) -> str:
    return path if is_address(path) else str(PurePosixPath(path).with_suffix(""))


def read_fiftyone(data: Any, rate: Rate) -> list[ToolVideo]:
    classes = data.get("classes")
    listed = []
    for name, rows in needed(data["labels"], dict, "its labels").items():
        spans = []
        for row in needed(rows or [], list, f"the labels of {name}"):
            label = needed(row, dict, name).get("label")
            if isinstance(label, int) and isinstance(classes, list):
                label = classes[label] if 0 <= label < len(classes) else None
            if "timestamps" in row:
                times = seconds_of(row["timestamps"], name)
            else:
                first, last = seconds_of(row.get("support"), name)
                times = (first - 1) / rate(name), last / rate(name)
            spans.append(LabelledSpan(*times, _label(label, name)))
        listed.append(ToolVideo(name, spans))
    return listed


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    return _label(row.get(key), place)


def _label(label: Any, place: str) -> str:
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{place}: a segment has no label")
    return label


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


@dataclass(frozen=True)
class LabelTool:
    name: str
    ending: str
    several: bool
    """A file may be about several videos."""
    write: Callable[[Sequence[SegmentedVideo]], str]


TOOLS = (
    LabelTool("ActivityNet", ".activitynet.json", True, write_activitynet),
    LabelTool("Label Studio", ".labelstudio.json", True, write_labelstudio),
    LabelTool("FiftyOne", ".fiftyone.json", True, write_fiftyone),
    LabelTool("ELAN", ".eaf", False, write_eaf),
    LabelTool("CVAT", ".cvat.xml", False, write_cvat),
)
ENDINGS = tuple(tool.ending for tool in TOOLS)
READ = (".json", ".eaf", ".xml")
"""Endings of files that are read as those of a label tool, by what they hold."""


def tool_of(path: Path) -> LabelTool | None:
    """By the file's name."""
    name = path.name.lower()
    return next((tool for tool in TOOLS if name.endswith(tool.ending)), None)


def read_segments(source: Path, text: str, rate: Rate) -> list[ToolVideo]:
    """The videos of a label tool's file with their segments, in its order.

    `rate` gives the frames per second of a video by its name, where a format counts frames. Raises
    DataError, which names the file and what it lacks.
    """
    try:
        listed = _reader(source, text)(rate)
        for video in listed:
            for span in video.spans:
                span.check(video.name)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    if not any(video.spans for video in listed):
        raise DataError(f"{source}: no segment is labelled")
    return [replace(video, spans=sorted(video.spans)) for video in listed]


def _reader(source: Path, text: str) -> Callable[[Rate], list[ToolVideo]]:
    kind = source.suffix.lower()
    if kind in (".eaf", ".xml"):
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise DataError(f"not XML ({error})") from None
        if root.tag == "ANNOTATION_DOCUMENT":
            return lambda rate: read_eaf(root, rate)
        if root.tag == "annotations":
            return lambda rate: read_cvat(root, rate)
        raise DataError(f"XML of another kind (<{root.tag}>) than ELAN's or CVAT's")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DataError(f"not JSON ({error})") from None
    if isinstance(data, list) and data and all(isinstance(x, dict) and "data" in x for x in data):
        return lambda rate: read_labelstudio(data, rate)
    if isinstance(data, dict) and ("database" in data or "results" in data):
        return lambda rate: read_activitynet(data, rate)
    if isinstance(data, dict) and isinstance(data.get("labels"), dict):
        return lambda rate: read_fiftyone(data, rate)
    raise DataError("JSON of another kind than that of ActivityNet, Label Studio or FiftyOne")
