"""The parts of the page as HTML: scores as bars, the timeline, a moment with what the models looked
at."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from froster.evaluation.calibration import NONE, answers, with_none
from froster.inference.recognizer import Classification
from froster.inference.timeline import Timeline
from froster.report.attention import Row
from froster.report.lanes import clock
from froster.report.plots import COLOURS
from froster.serve.models import Look

SHOWN = 8
"""Labels that are drawn; the others are counted."""
_COLUMNS = 240
_PALETTE = COLOURS[1:]


def text(words: str) -> str:
    """Escaped, also for templates that read braces and dollars."""
    return html.escape(words).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\"})


def empty(words: str) -> str:
    return f'<div class="f-empty">{text(words)}</div>'


def card(title: str, note: str, body: str) -> str:
    caption = f'<p class="f-caption">{text(note)}</p>' if note else ""
    return f'<section class="f-card"><h2>{text(title)}</h2>{caption}{body}</section>'


def bars(
    found: Mapping[str, Classification], first: Sequence[str], uncalibrated: Sequence[str] = ()
) -> str:
    """A column a model; the labels that come `first` have colours, the same in every column and in
    the timeline. Of the models in `uncalibrated`, the scores compare the labels alone."""
    columns = []
    for name, each in found.items():
        rows = with_none(list(zip(each.labels, each.probabilities, strict=True))[:SHOWN], each.none)
        shown = [
            bar(label, share, colour_of(label, first), label == (each.answer or NONE))
            for label, share in rows
        ]
        columns.append(
            "<section"
            f' class="f-column"><h3>{text(name)}</h3>{"".join(shown)}{more(len(each.labels))}{cosine(each)}</section>'
        )
    note = ""
    if uncalibrated:
        note = (
            f"Not calibrated: {', '.join(uncalibrated)}. The scores compare these labels alone;"
            " whether none fits is not told."
        )
    return card("Which label fits", note, f'<div class="f-columns">{"".join(columns)}</div>')


def cosine(found: Classification) -> str:
    """Of the best label, for a model that cannot say more of how well that fits."""
    if found.none is not None or found.cosine is None:
        return ""
    return f'<p class="f-more">cosine of the best label {found.cosine:.3f}</p>'


def bar(label: str, score: float, colour: str, best: bool) -> str:
    return (
        f'<div class="f-bar{" f-best" if best else ""}"><span class="f-name"'
        f' title="{text(label)}">{text(label)}</span><span class="f-value">{100 * score:.1f}'
        ' %</span><span class="f-rail"><i'
        f' style="width:{100 * score:.2f}%;background:{colour}"></i></span></div>'
    )


def more(count: int) -> str:
    return f'<p class="f-more">and {count - SHOWN} more labels</p>' if count > SHOWN else ""


def colour_of(label: str, first: Sequence[str]) -> str:
    """Grey for none of the labels, and where there are no more colours."""
    labels = [each for each in first if each != NONE]
    return dict(zip(labels, _PALETTE, strict=False)).get(label, "#8c8c8c")


def lanes(found: Mapping[str, Timeline], first: Sequence[str], at: float) -> str:
    """For each model a lane a label: the darker, the higher the score; in colour where the label
    wins."""
    parts = []
    for name, timeline in found.items():
        start, end = timeline.start, timeline.end
        share = (at - start) / (end - start) if end > start else 0.0
        rows = [
            lane(timeline, label, colour_of(label, first))
            for label in first
            if label in timeline.labels
        ]
        ticks = [
            f'<span style="left:{25 * i}%">{clock(start + (end - start) * i / 4, end)}</span>'
            for i in range(5)
        ]
        parts.append(
            f'<section class="f-lanes" data-start="{start:.3f}" data-end="{end:.3f}"'
            f' data-stride="{timeline.plan.stride:.3f}" '
            f'style="--at:{share:.5f}" tabindex="0" aria-label="timeline of {text(name)}: arrow'
            ' keys move through it">'
            f"<h3>{text(name)}</h3>{''.join(rows)}"
            '<div class="f-lane"><span></span><span'
            f' class="f-ticks">{"".join(ticks)}</span></div></section>'
        )
    note = (
        "In colour where a label is the best, grey where it is likely. A click, or an arrow key,"
        " goes to that moment."
    )
    return card(
        "When it fits",
        note,
        "".join(parts) + more(max(len({*each.labels} - {NONE}) for each in found.values())),
    )


def lane(timeline: Timeline, label: str, colour: str) -> str:
    start, length = timeline.start, max(timeline.end - timeline.start, 1e-9)
    column = timeline.scores[:, timeline.labels.index(label)]
    edges = torch.tensor(timeline.edges)
    every = -(-len(column) // _COLUMNS)
    shades = []
    for first in range(0, len(column), every):
        score = float(column[first : first + every].mean())
        left = float(edges[first]) - start
        width = float(edges[min(first + every, len(column))]) - start - left
        if score > 0.02:
            shades.append(
                f'<rect x="{left / length:.5f}" width="{width / length:.5f}" height="1"'
                f' opacity="{score * 0.55:.2f}"/>'
            )
    wins = [
        f'<rect x="{(s.start - start) / length:.5f}" width="{(s.end - s.start) / length:.5f}"'
        f' height="1" fill="{colour}"/>'
        for s in timeline.segments
        if s.label == label
    ]
    return (
        f'<div class="f-lane"><span class="f-name" title="{text(label)}">{text(label)}</span><span'
        ' class="f-track"><svg viewBox="0 0 1 1" preserveAspectRatio="none"'
        f' aria-hidden="true">{"".join([*shades, *wins])}</svg></span></div>'
    )


def moment(found: Mapping[str, Timeline], first: Sequence[str], at: float, look: Look) -> str:
    """The scores of one moment, and the frames around it with the attention of each model over
    them."""
    columns = []
    for name, timeline in found.items():
        row = timeline.scores[moment_index(timeline, at)]
        best = int(answers(row, timeline.labels))
        order = [i for i in row.argsort(descending=True).tolist() if timeline.labels[i] != NONE][
            :SHOWN
        ]
        none = None if timeline.none is None else float(row[-1])
        shown = with_none([(timeline.labels[i], float(row[i])) for i in order], none)
        scores = [
            bar(label, share, colour_of(label, first), label == timeline.labels[best])
            for label, share in shown
        ]
        columns.append(
            f'<section class="f-column"><h3>{text(name)}</h3>{"".join(scores)}</section>'
        )
    longest = max(timeline.end for timeline in found.values())
    body = f'<div class="f-columns">{"".join(columns)}</div>{strip(look, longest)}'
    return card(
        f"At {clock(round(at, 2), longest)}",
        "The scores of this moment, and the frames around it.",
        body,
    )


def moment_index(timeline: Timeline, at: float) -> int:
    return max(0, min(int((at - timeline.start) / timeline.plan.stride), len(timeline.scores) - 1))


def strip(look: Look, longest: float) -> str:
    times = [clock(round(second, 2), longest) for second in look.seconds]
    rows = [filmstrip("The frames", Row("", look.frames), times)]
    for name, heat in look.heats.items():
        if heat is None:
            rows.append(
                f'<p class="f-more">{text(name)} attends in a way of its own, which cannot be'
                " shown</p>"
            )
        else:
            rows.append(
                filmstrip(
                    f"Where {name} looks: the brighter, the more",
                    Row("", look.seen[name], heat),
                    times,
                )
            )
    return f'<div class="f-strip">{"".join(rows)}</div>'


def filmstrip(caption: str, row: Row, times: Sequence[str]) -> str:
    cells = [
        f'<figure><img src="{picture(each)}" alt="{text(caption)} at'
        f' {time}"><figcaption>{time}</figcaption></figure>'
        for each, time in zip(row.pictures(), times, strict=True)
    ]
    return f'<p class="f-caption">{text(caption)}</p><div class="f-film">{"".join(cells)}</div>'


def picture(pixels: np.ndarray | Tensor) -> str:
    """(H, W, 3) uint8 as the address of a JPEG that holds it."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
