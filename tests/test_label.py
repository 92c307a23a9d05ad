"""`froster label`: what is asked is what teaches most, every answer is on the disk at once, and the
keyboard is enough."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from server import in_thread, wait_for  # isort: skip  # skips this file where there is no fastapi

from fastapi.testclient import TestClient

import quick
from froster.data.manifest import read_rows
from froster.errors import DataError, UsageError
from froster.inference.recognizer import Recognizer
from froster.inference.store import IndexEntry, Store
from froster.serve.guard import Guard
from froster.serve.labelling import create_label_app
from froster.training.asking import MOST, choose, fit_answers, uncertainty
from froster.training.labelling import AnswerFile, AskedSegment, Labelling
from froster.training.lp_plus import START, fit_lp
from froster.video.reader import Video
from shared_files import World
from test_serve_page import CONTRAST, FOCUS, UNNAMED, browser, until  # noqa: F401
from typed import one_line
from video_files import make_video, numbers

NAMES = ["cat", "boat", "moon"]


@pytest.fixture(scope="module")
def index(nano: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of the world, of two segments each."""
    import froster

    root, world = tmp_path_factory.mktemp("label") / "videos", World("base", 1)
    for i in range(6):
        world.write(i, root / f"{i}.mp4")
    out = root.with_name("index")
    froster.index(nano, root, out, settings=froster.inference.index.IndexSettings(segment=1.0))
    return out


@pytest.fixture
def labelling(index: Path, nano: Recognizer, tmp_path: Path) -> Labelling:
    return Labelling(Store(index), nano, tmp_path / "a.jsonl", NAMES)


# What is asked


def test_worth_is_doubt_times_distance_by_hand() -> None:
    """Plain Python in float64, rows picked one by one."""
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(
        torch.randn(40, 6, generator=draw, dtype=torch.float64), dim=-1
    )
    scores = 3 * torch.randn(40, 4, generator=draw, dtype=torch.float64)
    known = torch.zeros(40, dtype=torch.bool)
    known[[3, 17, 30]] = True
    rows, shares = features.tolist(), scores.softmax(-1).tolist()
    seen, expected = [3, 17, 30], []
    for _ in range(5):
        worth = {}
        for i in range(40):
            if i in seen:
                continue
            first, second = sorted(shares[i], reverse=True)[:2]
            nearest = max(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) for j in seen)
            worth[i] = (1 - (first - second)) * (1 - nearest)
        expected.append(max(worth, key=lambda i: worth[i]))
        seen.append(expected[-1])
    assert choose(features, scores, known, 5) == expected


def test_what_is_known_is_never_asked_and_nothing_is_asked_twice() -> None:
    features = torch.nn.functional.normalize(torch.ones(6, 3), dim=-1)  # all alike
    scores = torch.zeros(6, 2)
    known = torch.tensor([True, False, True, False, False, True])
    assert sorted(choose(features, scores, known, 9)) == [1, 3, 4]
    assert choose(features, scores, torch.ones(6, dtype=torch.bool)) == []
    scores[3] = torch.tensor([9.0, 0.0])
    first = choose(features, scores, torch.zeros(6, dtype=torch.bool))
    assert first != [3]  # where nothing is known, by doubt alone


@pytest.mark.parametrize("classes", [0, 1])
def test_without_two_labels_what_is_far_is_asked(classes: int) -> None:
    features = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=-1
    )
    assert uncertainty(torch.zeros(3, classes)).tolist() == [1.0] * 3
    assert choose(features, torch.zeros(3, classes), torch.tensor([True, False, False])) == [2]


def test_a_large_index_is_answered_at_once() -> None:
    features = torch.nn.functional.normalize(torch.randn(3 * MOST, 8), dim=-1)
    scores = torch.zeros(3 * MOST, 2)
    scores[:, 0] = torch.arange(3 * MOST) / MOST
    (row,) = choose(features, scores, torch.zeros(3 * MOST, dtype=torch.bool))
    assert row == 0


def test_answers_are_taught_by_lp_and_other_labels_keep_their_text() -> None:
    f, text = (torch.nn.functional.normalize(torch.randn(n, 8), dim=-1) for n in (12, 4))
    labels = torch.tensor([0, 2] * 6)
    weight = fit_answers(f, labels, text, 60.0)
    torch.testing.assert_close(weight[[0, 2]], fit_lp(f, labels // 2, text[[0, 2]]))
    a = START * (f[0::2] @ text[0]).mean() / 2 + START * (f[1::2] @ text[2]).mean() / 2
    torch.testing.assert_close(weight[[1, 3]], a * text[[1, 3]])
    torch.testing.assert_close(fit_answers(f[:0], labels[:0], text, 60.0), 60 * text)


# The answers on the disk


def test_an_answer_is_on_the_disk_taught_and_can_be_undone(labelling: Labelling) -> None:
    first = labelling.question()
    assert first["left"] == 12 and [label["name"] for label in first["labels"]] == NAMES
    before = labelling.scores.clone()
    second = labelling.answer(first["segment"]["id"], "  BOAT ")
    (row,) = labelling.labelled.rows
    assert (row["path"], row["label"]) == (first["segment"]["video"], "boat")
    assert (row["start"], row["end"]) == (first["segment"]["start"], first["segment"]["end"])
    assert not torch.equal(labelling.scores, before)
    assert [label["count"] for label in second["labels"]] == [0, 1, 0]
    third = labelling.answer(second["segment"]["id"], None)
    fourth = labelling.answer(third["segment"]["id"], "a new   one")
    assert [label["name"] for label in fourth["labels"]] == [*NAMES, "a new one"]
    assert (fourth["labelled"], fourth["skipped"], fourth["left"]) == (2, 1, 9)
    with pytest.raises(UsageError, match="answered already"):
        labelling.answer(first["segment"]["id"], "cat")

    again = labelling.undo()
    assert again["segment"] == third["segment"]
    assert [label["name"] for label in again["labels"]] == NAMES
    assert labelling.undo()["segment"] == second["segment"]
    last = labelling.undo()
    assert last["segment"] == first["segment"] and last["left"] == 12
    torch.testing.assert_close(labelling.scores, before)
    assert labelling.out.read_text() == labelling.skipped.path.read_text() == ""
    with pytest.raises(UsageError, match="nothing to undo"):
        labelling.undo()


def test_it_goes_on_where_it_stopped(labelling: Labelling, index: Path, nano: Recognizer) -> None:
    question = labelling.question()
    for label in ("cat", "walking dog", None, "cat"):
        question = labelling.answer(question["segment"]["id"], label)
    other = Labelling(Store(index), nano, labelling.out)
    now = other.question()
    assert (now["labelled"], now["skipped"], now["left"]) == (3, 1, 8)
    assert {label["name"]: label["count"] for label in now["labels"]} == {
        "cat": 2,
        "walking dog": 1,
    }
    assert other.answers.keys() == labelling.answers.keys()
    with pytest.raises(UsageError, match="earlier start"):
        other.answer(question["segment"]["id"], "cat")
    other.undo()
    assert len(read_rows(labelling.out)) == 2


def test_what_a_kill_cut_off_goes_and_what_an_editor_left_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"path": "a.mp4", "label": "cat", "start": 0.0, "end": 1.0}
    AnswerFile(path).add(row)
    complete = path.read_bytes()
    path.write_bytes(complete + complete[:20])
    AnswerFile(path).add(row)
    assert path.read_bytes() == 2 * complete
    path.write_bytes(complete + complete[:-1])
    file = AnswerFile(path)
    assert file.rows == [row, row]
    file.add(row)
    assert path.read_bytes() == 3 * complete
    path.write_text('{"video": "a"}\n')
    with pytest.raises(DataError, match="line 1: not a labelled segment"):
        AnswerFile(path)


def test_labels_of_other_segments_stay_in_the_file(
    index: Path, nano: Recognizer, tmp_path: Path
) -> None:
    file = AnswerFile(tmp_path / "a.jsonl")
    file.add({"path": "gone.mp4", "label": "dog", "start": 0.0, "end": 1.0})
    labelling = Labelling(Store(index), nano, file.path, NAMES)
    assert labelling.elsewhere == 1 and labelling.question()["left"] == 12
    with pytest.raises(UsageError, match="does not have"):
        labelling.undo()
    assert len(AnswerFile(file.path).rows) == 1


def test_a_segment_that_stands_twice_has_the_label_before_again(
    index: Path, nano: Recognizer, tmp_path: Path
) -> None:
    file = AnswerFile(tmp_path / "a.jsonl")
    for label in ("cat", "boat"):
        file.add({"path": "0.mp4", "label": label, "start": 0.0, "end": 1.0})
    labelling = Labelling(Store(index), nano, file.path, NAMES)
    counts = lambda asked: [label["count"] for label in asked["labels"]]  # noqa: E731
    assert counts(labelling.question()) == [0, 1, 0]
    question = labelling.undo()
    assert counts(question) == [1, 0, 0] and question["left"] == 11
    assert counts(labelling.answer(question["segment"]["id"], "moon")) == [1, 0, 1]
    for _ in range(2):
        question = labelling.undo()
    assert question["left"] == 12 and file.path.read_text() == ""
    file.path.write_text('{"path": "0.mp4", "start": 0.0, "end": 1.0}\n')
    with pytest.raises(DataError, match="line 1: not a labelled segment"):
        Labelling(Store(index), nano, file.path, NAMES)


def test_the_labels_teach_a_model(
    run, labelling: Labelling, index: Path, nano: Recognizer, tmp_path: Path
) -> None:
    question = labelling.question()
    while question["segment"]:  # the two segments of a video have labels of their own
        name = NAMES[int(question["segment"]["start"] > 0)]
        question = labelling.answer(question["segment"]["id"], name)
    assert question["left"] == 0 and question["labelled"] == 12
    ran = run(
        *("teach", index, "--labels", labelling.out, "--method", "lp++"),
        *("--out", tmp_path / "taught", "--holdout", 0),
    )
    assert ran.code == 0 and "12 videos of 2 classes" in ran.err, ran.err
    from froster.data.manifest import read_items

    items = read_items(labelling.out, root=Store(index).root)
    assert len({item.path for item in items}) == 6 and all(item.span for item in items)
    with pytest.raises(DataError, match="all 12 segments are in"):
        Labelling(Store(index), nano, labelling.out)


# What the server says


@pytest.fixture
def client(labelling: Labelling) -> Iterator[TestClient]:
    app = Guard(create_label_app(labelling), None)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client


def said(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert "\n" not in error
    return error


def test_routes_say_what_is_wrong_in_one_line(client: TestClient, labelling: Labelling) -> None:
    asked = client.get("/label/question").json()["segment"]["id"]

    def answer(**fields: Any) -> Any:
        return client.post("/label/answer", json=fields)

    assert "not an answer" in said(answer(action="shout"), 422)
    assert "not an answer" in said(client.post("/label/answer", content=b"{"), 422)
    assert "too long" in said(client.post("/label/answer", content=b"x" * 30_000), 413)
    assert "earlier start" in said(answer(action="skip", segment="../../etc-1"), 422)
    assert "earlier start" in said(answer(action="skip", segment=f"{labelling.token}-99"), 422)
    for label in ("", "  ", "none of these", "a\0b", "x" * 1001):
        said(answer(action="label", segment=asked, label=label), 422)
    assert "nothing to undo" in said(answer(action="undo"), 422)
    assert "earlier start" in said(client.get("/label/clip/x-1"), 404)
    assert client.get("/label/clip/..%2F..%2Fetc").status_code == 404
    foreign = {"Origin": "http://evil.example"}
    said(client.post("/label/answer", json={"action": "undo"}, headers=foreign), 403)
    said(client.get("/label/question", headers={"Host": "evil.example"}), 403)
    assert not labelling.answers and labelling.question()["segment"]["id"] == asked
    assert [label["name"] for label in labelling.question()["labels"]] == NAMES


def test_a_video_that_is_gone_can_be_skipped(index: Path, nano: Recognizer, tmp_path: Path) -> None:
    labelling = Labelling(Store(index, tmp_path / "nowhere"), nano, tmp_path / "a.jsonl", NAMES)
    client = TestClient(create_label_app(labelling), base_url="http://localhost")
    asked = labelling.question()["segment"]["id"]
    words = said(client.get(f"/label/clip/{asked}"), 422)
    assert "cannot be shown" in words and "no such file" in words and "nowhere" not in words
    answer = client.post("/label/answer", json={"action": "skip", "segment": asked})
    assert answer.json()["skipped"] == 1


def test_the_clip_of_a_video_at_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an index whose other videos lie on this machine."""
    shown = []

    def write(path: Path, start: float, end: float, target: Path) -> None:
        shown.append(str(path))
        target.write_bytes(b"clip")

    monkeypatch.setattr("froster.serve.labelling.write_segment", write)
    segment = AskedSegment(0, "https://host/a b.mp4", 0.0, 1.0)
    labelling: Any = SimpleNamespace(
        store=SimpleNamespace(root=tmp_path), segment=lambda name: segment
    )
    client = TestClient(create_label_app(labelling), base_url="http://localhost")
    assert client.get("/label/clip/x").content == b"clip" and shown == [segment.key]


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("minute") / "a.mp4", 1500, fps=25, size=(160, 96))


@pytest.mark.parametrize("start", [0.0, 3.0, 52.0])
def test_the_clip_shows_its_segment_alone(minute: Path, tmp_path: Path, start: float) -> None:
    """Bar codes name the frames; a late segment is jumped to."""
    from froster.serve.preview import write_segment

    write_segment(minute, start, start + 2, tmp_path / "clip")
    with Video(tmp_path / "clip") as clip:
        shown = numbers(clip.read(range(clip.num_frames)))
    first = round(25 * start)
    assert list(shown) == [number % 1024 for number in range(first, first + 50)]


# The command


def command(*options: object, folder: Path) -> tuple[Any, str]:
    """`froster label` as a process, and its address."""
    log = folder / "log"
    with log.open("w") as file:
        process = quick.Popen(
            [sys.executable, "-m", "froster", "label", *map(str, options), "--port", "0"],
            stdout=file,
            stderr=file,
            env={**os.environ, "COLUMNS": "200"},
        )
    wait_for(lambda: "labelling at" in log.read_text() or process.poll() is not None, 60)
    match = re.search(r"labelling at (http://\S+) ", log.read_text())
    assert match, log.read_text()
    return process, match[1]


def sent(address: str, **fields: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/label/answer", json.dumps(fields).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_lost_however_it_ends(
    run, index: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    out = tmp_path / "a.jsonl"
    process, address = command(index, "--labels", "cat, boat", "--out", out, folder=tmp_path)
    with urllib.request.urlopen(f"{address}/label/question", timeout=30) as answer:
        question = json.load(answer)
    for label in ("cat", "boat", "a third"):
        segment = question["segment"]["id"]
        question = sent(address, action="label", segment=segment, label=label)
    one_line(run("label", index, "--out", out, "--port", 0), 2, "another froster is writing")
    process.send_signal(ending)
    assert process.wait(30) == (0 if ending == signal.SIGINT else -signal.SIGKILL)
    assert [row["label"] for _, row in read_rows(out)] == ["cat", "boat", "a third"]
    if ending == signal.SIGINT:
        words = (tmp_path / "log").read_text()
        assert f"{out}: 3 labels" in words and "--method lp++" in words

    process, address = command(index, "--out", out, folder=tmp_path)
    with urllib.request.urlopen(f"{address}/label/question", timeout=30) as answer:
        question = json.load(answer)
    assert (question["labelled"], question["left"]) == (3, 9)
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def test_mistakes_are_one_line(run, index: Path, tmp_path: Path) -> None:
    one_line(run("label", tmp_path), 1, "not an index of froster index")
    one_line(run("label", index, "--out", tmp_path / "a.csv"), 2, "--out is a .jsonl")
    one_line(run("label", index, "--labels", "cat, Cat", "--out", tmp_path / "a.jsonl"), 2, "cat")
    other = tmp_path / "other"
    shutil.copytree(index, other)
    about = Store(other).about
    shutil.rmtree(other)
    made = Store.create(other, {**about, "model": "another"}, 4)
    one_line(run("label", other), 1, "there is no video in this index yet")
    made.add([(IndexEntry("a.mp4", 1, 1, 1.0, 1, 0, [0.0], [1.0]), torch.eye(1, 4))])
    one_line(run("label", other), 2, "was made by another model")


# In a browser, by the keyboard alone


@pytest.fixture
def page(labelling: Labelling, browser: Any):  # noqa: F811
    wrong: list[str] = []
    with in_thread(None, Guard(create_label_app(labelling), None)) as address:  # type: ignore[arg-type]
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else 0)
        tab.goto(address)
        until(tab, "document.querySelectorAll('#labels li').length === 3")
        yield tab
        context.close()
    assert wrong == []


def labels_on_disk(labelling: Labelling) -> list[str]:
    path = labelling.out
    return (
        [row["label"] for _, row in read_rows(path)] if path.exists() and path.read_text() else []
    )


def test_by_the_keyboard_alone(page: Any, labelling: Labelling) -> None:
    def status(words: str) -> None:
        wait_for(lambda: page.inner_text("#status").startswith(words))

    until(page, "document.querySelector('#player').videoWidth > 0")
    status("0 labelled, 0 skipped, 12 left")
    bars = page.locator("#labels .rail")
    full, shares = bars.first.bounding_box()["width"], labelling.scores[labelling.asked].softmax(-1)
    widths = [bar.locator("i").bounding_box()["width"] / full for bar in bars.all()]
    assert widths == pytest.approx(shares.tolist(), abs=0.01)
    page.keyboard.press("2")
    status("1 labelled")
    page.keyboard.press("s")
    status("1 labelled, 1 skipped, 10 left")
    page.keyboard.press("n")
    page.keyboard.type("s1 surfing")  # keys that mean something elsewhere
    page.keyboard.press("Enter")
    status("2 labelled, 1 skipped, 9 left")
    page.keyboard.press("4")
    status("3 labelled")
    assert labels_on_disk(labelling) == ["boat", "s1 surfing", "s1 surfing"]
    page.keyboard.press("u")
    status("2 labelled")
    page.keyboard.press("n")
    page.keyboard.type("wrong")
    page.keyboard.press("Escape")
    page.keyboard.press("9")  # no such label
    page.keyboard.press("1")
    status("3 labelled")
    assert labels_on_disk(labelling) == ["boat", "s1 surfing", "cat"]

    until(page, "document.querySelector('#player').ended")
    page.keyboard.press("Space")
    until(page, "!document.querySelector('#player').ended")
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#labels') !== null"):
            break
    assert page.evaluate(FOCUS) == "solid"
    page.keyboard.press("Space")  # on a button: the button
    status("4 labelled")
    for left in range(6, -1, -1):
        page.keyboard.press("1")
        wait_for(lambda left=left: labelling.question()["left"] == left)
        until(
            page,
            f"document.querySelector('#status').textContent.includes('{left} left') || {left} === 0",
        )
    status("No segment is left: 11 are labelled, 1 skipped.")
    page.keyboard.press("u")
    status("10 labelled, 1 skipped, 1 left")


def test_everybody_can_use_it(page: Any) -> None:
    assert page.evaluate(UNNAMED) == []
    assert min(page.evaluate(CONTRAST)) >= 4.5
    assert page.locator("#status").get_attribute("role") == "status"
    assert page.locator("#error").get_attribute("role") == "alert"
    assert page.locator("main").count() == page.locator("h1").count() == 1
    page.keyboard.press("n")
    page.keyboard.type("a label that is a good deal longer than a phone is wide, without a doubt")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#labels li').length === 4")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    right = (
        "Array.from(document.querySelectorAll('main *'), (e) => e.getBoundingClientRect().right)"
    )
    assert max(page.evaluate(right)) <= 361
