"""The label tools that take XML: ELAN (EAF 2.8) and CVAT (for video, 1.1)."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from froster.data.spans import LabelledSpan, Rate, SegmentedVideo, ToolVideo, seconds_of
from froster.errors import DataError
from froster.utils.address import is_address
from froster.utils.files import NAME_ERRORS
from froster.utils.text import printable

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_EAF = "http://www.mpi.nl/tools/elan/EAFv2.8.xsd"
_TIER, _TYPE = "froster", "default-lt"
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Signs of names that XML cannot hold, in no form."""


def write_eaf(videos: Sequence[SegmentedVideo]) -> str:
    (video,) = videos
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "froster",
            "DATE": "1970-01-01T00:00:00+00:00",
            "FORMAT": "2.8",
            "VERSION": "2.8",
            "xmlns:xsi": _XSI,
            "xsi:noNamespaceSchemaLocation": _EAF,
        },
    )
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    kind = {"MIME_TYPE": mimetypes.guess_type(video.path)[0] or "video/unknown"}
    kind["MEDIA_URL"] = video.url or video.path
    if not is_address(video.path) and not _NO_XML.search(video.path):
        kind["RELATIVE_MEDIA_URL"] = video.path
    SubElement(header, "MEDIA_DESCRIPTOR", kind)
    order = SubElement(root, "TIME_ORDER")
    spans = sorted(video.spans, key=lambda span: span.start)
    times = [round(1000 * time) for span in spans for time in (span.start, span.end)]
    for number, time in enumerate(times, 1):
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
    tiers: list[Element] = []
    ends: list[int] = []
    for number, span in enumerate(spans):
        # In a tier nothing overlaps, as segments of `timeline --multi-label` may.
        place = next((i for i, end in enumerate(ends) if times[2 * number] >= end), len(tiers))
        if place == len(tiers):
            name = f"{_TIER} {place + 1}" if place else _TIER
            tiers.append(SubElement(root, "TIER", LINGUISTIC_TYPE_REF=_TYPE, TIER_ID=name))
            ends.append(0)
        ends[place] = times[2 * number + 1]
        annotation = SubElement(
            SubElement(tiers[place], "ANNOTATION"),
            "ALIGNABLE_ANNOTATION",
            ANNOTATION_ID=f"a{number + 1}",
            TIME_SLOT_REF1=f"ts{2 * number + 1}",
            TIME_SLOT_REF2=f"ts{2 * number + 2}",
        )
        SubElement(annotation, "ANNOTATION_VALUE").text = printable(span.label)
    SubElement(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=_TYPE,
        TIME_ALIGNABLE="true",
    )
    return _text(root)


def read_eaf(root: Element, rate: Rate) -> list[ToolVideo]:
    """The annotations of all tiers that are bound to time."""
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    if media is None:
        raise DataError("it names no media file (MEDIA_DESCRIPTOR)")
    relative, url = media.get("RELATIVE_MEDIA_URL") or "", media.get("MEDIA_URL") or ""
    is_local = url.startswith("file:") or not is_address(url)
    name = relative.removeprefix("./") or (_path(url) if is_local else url)
    if not name:
        raise DataError("its MEDIA_DESCRIPTOR names no file")
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    spans = []
    for annotation in root.iter("ALIGNABLE_ANNOTATION"):
        place = f"annotation {annotation.get('ANNOTATION_ID')}"
        pair = [slots.get(annotation.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)]
        times = seconds_of([_number(text) for text in pair], place)
        label = (annotation.findtext("ANNOTATION_VALUE") or "").strip()
        if not label:
            raise DataError(f"{place} has no text")
        spans.append(LabelledSpan(times[0] / 1000, times[1] / 1000, label))
    return [ToolVideo(name, spans)]


def write_cvat(videos: Sequence[SegmentedVideo]) -> str:
    (video,) = videos
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    facts = {"name": Path(video.path).name, "size": video.frames, "mode": "interpolation"}
    for key, value in facts.items():
        SubElement(task, key).text = printable(str(value))
    labels = SubElement(task, "labels")
    for name in sorted({span.label for span in video.spans}):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = printable(name)
        SubElement(label, "type").text = "any"
        SubElement(label, "attributes")
    size = SubElement(task, "original_size")
    SubElement(size, "width").text = str(video.width)
    SubElement(size, "height").text = str(video.height)
    SubElement(task, "source").text = video.url if _NO_XML.search(video.path) else video.path
    for number, span in enumerate(video.spans):
        first, last = video.frames_of(span)
        track = SubElement(
            root,
            "track",
            id=str(number),
            label=printable(span.label),
            source="auto",
            seconds=f"{span.start:.3f} {span.end:.3f}",
        )
        # A track is shown until a box that lies outside.
        ends = [(first, "0"), *([(last + 1, "1")] if last + 1 < video.frames else [])]
        for frame, outside in ends:
            SubElement(
                track,
                "box",
                frame=str(frame),
                outside=outside,
                occluded="0",
                keyframe="1",
                xtl="0.00",
                ytl="0.00",
                xbr=f"{video.width:.2f}",
                ybr=f"{video.height:.2f}",
                z_order="0",
            )
    return _text(root)


def read_cvat(root: Element, rate: Rate) -> list[ToolVideo]:
    """Tracks, from their first shape to the one that lies outside."""
    task = root.find("meta/task")
    names = [] if task is None else [task.findtext("source"), task.findtext("name")]
    name = next((text for text in names if text), None)
    if task is None or name is None:
        raise DataError("it names no video (meta/task/source)")
    if name.startswith("file:"):
        name = _path(name)
    size, spans, fps = _number(task.findtext("size")), [], 0.0
    for track in root.iter("track"):
        place, label = f"track {track.get('id')}", (track.get("label") or "").strip()
        if not label:
            raise DataError(f"{place} has no label")
        shapes = [(_number(shape.get("frame")), shape.get("outside")) for shape in track]
        shapes = [(frame, outside) for frame, outside in shapes if frame is not None]
        if not shapes:
            raise DataError(f"{place} has no shape with a frame")
        fps = fps or rate(name)
        seconds = (track.get("seconds") or "").split()
        start: float | None = None
        for frame, outside in sorted(shapes, key=lambda shape: shape[0] or 0.0):
            if outside == "1" and start is not None:
                spans.append(
                    LabelledSpan(start / fps, (frame or 0.0) / fps, label).exactly(seconds, fps)
                )
                start = None
            elif outside != "1" and start is None:
                start = frame
        if start is not None:
            last = size if size is not None else (shapes[-1][0] or 0.0) + 1
            spans.append(LabelledSpan(start / fps, last / fps, label).exactly(seconds, fps))
    return [ToolVideo(name, spans)]


def _path(url: str) -> str:
    return unquote(urlsplit(url).path, errors=NAME_ERRORS)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _text(root: Element) -> str:
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"
