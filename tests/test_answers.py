"""Results as Python, tables and notebooks take them."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import itertools
import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import froster
from froster.errors import UsageError
from froster.inference.notebook import MOST_PICTURES, Album
from froster.inference.recognizer import Classification, Recognizer
from froster.inference.timeline import Timeline
from known_clips import Known
from shared_files import World

LABELS = ["cat spinning", "boat pacing", "key hopping"]
NASTY = ["<script>alert(1)</script>", 'a "b" & \x1b[31m', "$x^2$"]
ANSWER = Classification(["a", "b"], [0.75, 0.25], 0.25, 0.3)
PANDAS = importlib.util.find_spec("pandas") is not None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World("base", 1).write(0, tmp_path_factory.mktemp("answers") / "clip.mp4")


@pytest.fixture(scope="module")
def when(nano: Recognizer, known: Known) -> Timeline:
    return nano.timeline(known.path, [*LABELS, *NASTY])


class Tags(HTMLParser):
    """The tags of a page and its sources of pictures; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_an_answer_is_asked_by_label() -> None:
    assert ANSWER["a"] == 0.5625 and ANSWER["none of these"] == 0.25
    assert dict(ANSWER) == {"a": 0.5625, "b": 0.1875}
    assert [label for label, _ in ANSWER] == ["a", "b"] and len(ANSWER) == 2
    assert "a" in ANSWER and "c" not in ANSWER
    with pytest.raises(UsageError, match="'c' is none of the labels; the nearest"):
        ANSWER["c"]
    with pytest.raises(UsageError, match="'none of these' is none of the labels"):
        Classification(["a"], [1.0])["none of these"]


def test_an_answer_is_short_and_survives(nano: Recognizer, file: Path) -> None:
    assert repr(ANSWER) == "Classification('a': 0.562, 'none of these': 0.250, 'b': 0.188)"
    answer = nano.classify(file, LABELS)
    assert len(repr(answer)) < 200
    assert pickle.loads(pickle.dumps(answer)) == answer
    assert dataclasses.asdict(answer)["labels"] == answer.labels
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_json_of_python_is_that_of_the_command(run, nano: Recognizer, file: Path) -> None:
    result = run("classify", file, "--labels", ", ".join(LABELS), "--model", "nano", "--json")
    (printed,) = result.json["results"]
    assert printed == {"video": str(file), **nano.classify(file, LABELS).to_dict()}


def test_a_notebook_shows_bars_and_small_frames(nano: Recognizer, file: Path) -> None:
    answer = nano.classify(file, [*LABELS, *NASTY])
    page = answer._repr_html_()
    tags = Tags(page)
    assert not {"script", "b>"} & set(tags.names) and "&lt;script&gt;" in page
    assert "\x1b" not in page and len(tags.sources) == 4
    for data in answer.pictures:
        picture = Image.open(io.BytesIO(data))
        assert picture.format == "JPEG" and max(picture.size) <= 96 and len(data) < 10_000
    widths = [int(width) for width in re.findall(r"width:(\d+)px", page)]
    assert len(widths) == 6 and widths == sorted(widths, reverse=True) and widths[0] <= 160
    many = Classification([f"label {i}" for i in range(400)], [1 / 400] * 400)
    assert "380 more" in many._repr_html_() and not Tags(many._repr_html_()).sources


def test_a_timeline_is_asked_by_label(when: Timeline, known: Known) -> None:
    assert list(when) == when.segments and len(when) == len(when.segments)
    for segment in when:
        assert segment in when[segment.label]
    assert when[NASTY[0]] == [s for s in when.segments if s.label == NASTY[0]]
    with pytest.raises(UsageError, match="none of the labels"):
        when["surfing"]
    assert len(repr(when)) < 500


def test_a_notebook_shows_a_timeline(when: Timeline) -> None:
    page = when._repr_html_()
    tags = Tags(page)
    assert len(tags.sources) == len(when) and "script" not in tags.names
    figure = when.plot("<title> $")
    assert isinstance(figure, Figure)
    picture = Image.open(io.BytesIO(figure._repr_png_()))  # type: ignore[attr-defined]
    assert picture.format == "PNG" and picture.width > 500


def test_pictures_of_a_long_video_are_few_and_spread() -> None:
    album = Album()
    for second in range(5000):
        album.add(second / 2, torch.full((3, 60, 60), second % 256, dtype=torch.uint8))
    times = list(album.pictures)
    assert MOST_PICTURES / 3 < len(times) <= MOST_PICTURES and times[-1] > 2400
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps) < 3 * 2500 / len(times)


@pytest.mark.skipif(PANDAS, reason="is about its absence")
def test_without_pandas_one_sentence(when: Timeline) -> None:
    for result in (ANSWER, when):
        with pytest.raises(UsageError, match="a data frame needs pandas: pip install pandas"):
            result.to_df()


@pytest.mark.skipif(not PANDAS, reason="needs pandas")
def test_data_frames(when: Timeline) -> None:
    table = ANSWER.to_df()
    assert list(table.columns) == ["label", "score", "probability"]
    assert table.score.tolist() == [0.75, 0.25]
    segments = when.to_df()
    assert list(segments.columns) == ["start", "end", "label", "score"] and len(segments) == len(
        when
    )


def test_a_model_says_what_it_is(nano: Recognizer) -> None:
    for word in ("frozen", "nano", "3 layers of 128", "60 px", "8 frames", "cpu", "float32"):
        assert word in repr(nano)
    assert "bfloat16" in repr(froster.load("nano", device="cpu", precision="bf16"))
