"""The HTTP API: right answers, every limit, every kind of bad request, and nothing that is left
behind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
import torch

from server import post, refused, serving, wait_for  # isort: skip  # skips this file where there is no fastapi

from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.recognizer import Recognizer, load
from froster.inference.timeline import timeline
from froster.serve import Refusal
from froster.serve.jobs import Steps
from froster.serve.service import Service
from froster.world.files import write_video
from froster.world.sets import render_video
from video_files import make_video

LABELS = ["cat spinning", "fish bouncing", "moon, glowing"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = torch.cat([render_video("base", label, 0, split="val") for label in (0, 5)])
    return write_video(tmp_path_factory.mktemp("serve") / "clip.mp4", frames)


@pytest.fixture(scope="module")
def api(nano: Recognizer):
    with serving(nano, seconds=60, upload=1_000_000) as (client, service):
        yield client, service


def test_classify_answers_as_the_recognizer_does(api, nano: Recognizer, video: Path) -> None:
    client, service = api
    expected = nano.classify(video, LABELS)
    for labels in (json.dumps(LABELS), json.dumps(LABELS, ensure_ascii=False)):
        answer = post(client, "classify", video, labels=labels)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["label"] == expected.label
        assert [each["label"] for each in found["scores"]] == expected.labels
        assert [each["score"] for each in found["scores"]] == pytest.approx(
            expected.scores, abs=1e-6
        )
        assert found["video"] == {"seconds": 4.0, "width": 60, "height": 60}
        assert [each["probability"] for each in found["scores"]] == pytest.approx(
            expected.probabilities, abs=1e-6
        )
        assert (found["answer"], found["none"]) == (expected.label, None)
        assert found["cosine"] == pytest.approx(expected.cosine, abs=1e-6)
        assert (found["model"], found["calibrated"]) == ("nano", False)
    found = post(
        client, "classify", video, labels="cat spinning, fish bouncing", top=1, views=2
    ).json()
    expected = nano.classify(video, ["cat spinning", "fish bouncing"], views=2)
    assert found["scores"] == [
        {
            "label": expected.label,
            "score": pytest.approx(expected.scores[0], abs=1e-6),
            "probability": pytest.approx(expected.probabilities[0], abs=1e-6),
        }
    ]
    assert list(service.folder.iterdir()) == []


@pytest.mark.parametrize(
    "labels",
    [
        "cat spinning\nfish bouncing",
        "cat spinning; fish bouncing,",
        ["cat spinning", "fish bouncing"],
    ],
)
def test_labels_as_people_send_them(api, video: Path, labels: str | list[str]) -> None:
    """In a text, or a field each."""
    files = {"video": ("a.mp4", video.read_bytes())}
    answer = api[0].post("/v1/timeline", files=files, data={"labels": labels, "min_segment": "0"})
    assert answer.json().get("labels") == ["cat spinning", "fish bouncing"], answer.text
    files = {"video": ("a.mp4", video.read_bytes())}
    refused(
        api,
        api[0].post("/v1/classify", files=files, data={"labels": "a", "top": ["1", "1"]}),
        422,
        "one too many",
    )
    refused(
        api,
        api[0].post("/v1/classify", files=files, data={"labels": ["x" * 600_000] * 2}),
        413,
        "too long",
    )
    refused(
        api,
        api[0].post("/v1/classify", files=files, data={"labels": ["x"] * 1001}),
        422,
        "one too many",
    )


def test_a_calibrated_model_may_answer_none(video: Path) -> None:
    nano = load("nano", device="cpu")
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    with serving(nano) as (client, _):
        found = post(client, "classify", video, labels="moon glowing, clock circling").json()
        assert found["calibrated"] and found["answer"] is None and found["none"] > 0.5
        assert found["none"] + sum(
            each["probability"] for each in found["scores"]
        ) == pytest.approx(1)
        line = post(client, "timeline", video, labels="moon glowing, clock circling").json()
        assert line["calibrated"] and {each["label"] for each in line["segments"]} == {NONE}
        assert all(none > 0.5 for none in line["none"]) and len(line["cosine"]) == len(
            line["times"]
        )


def test_timeline_answers_as_the_engine_does(api, nano: Recognizer, video: Path) -> None:
    found = post(
        api[0], "timeline", video, labels=json.dumps(LABELS), window=1, stride=0.5, min_segment=0.6
    ).json()
    expected = timeline(nano, video, LABELS, window=1, stride=0.5, min_segment=0.6).to_dict()
    assert {name: found[name] for name in expected} == expected


def test_embed_answers_as_the_recognizer_does(api, nano: Recognizer, video: Path) -> None:
    found = post(api[0], "embed", video, labels=json.dumps(LABELS)).json()
    assert torch.allclose(torch.tensor(found["video"]), nano.embed_video(video), atol=1e-6)
    assert torch.allclose(torch.tensor(found["labels"]), nano.embed_text(LABELS), atol=1e-6)
    assert post(api[0], "embed", None, labels="cat").json()["video"] is None
    assert post(api[0], "embed", video).json()["labels"] is None
    refused(api, post(api[0], "embed", None, truncate="true"), 422, "a video, labels, or both")


def test_two_models_have_names(nano: Recognizer, video: Path) -> None:
    with serving(nano, load("nano", device="cpu")) as (client, _):
        assert (
            post(client, "classify", video, labels="a,b", model="second").json()["model"]
            == "second"
        )
        assert post(client, "classify", video, labels="a,b").json()["model"] == "nano"
        assert (
            "nano, second"
            in post(client, "classify", video, labels="a,b", model="/etc").json()["error"]
        )
        assert [each["name"] for each in client.get("/healthz").json()["models"]] == [
            "nano",
            "second",
        ]


def test_the_token(nano: Recognizer, video: Path) -> None:
    with serving(nano, token="secret-token") as api:
        client, _ = api
        assert (
            client.get("/healthz").status_code == client.get("/static/page.css").status_code == 200
        )
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret-token"},
            {"Cookie": "froster=x"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer \xe9".encode("latin-1")},
        ):
            for path in ("/v1/classify", "/openapi.json", "/docs"):
                answer = client.request("POST" if "v1" in path else "GET", path, headers=headers)  # type: ignore[arg-type]
                refused(api, answer, 401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
        client.headers["Authorization"] = "Bearer secret-token"
        assert post(client, "classify", video, labels="a,b").status_code == 200
        del client.headers["Authorization"]
        assert "asks for its token" in client.get("/docs", headers={"Accept": "text/html"}).text
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        assert (
            client.post(
                "/login", data={"token": "secret-token"}, follow_redirects=False
            ).status_code
            == 303
        )
        assert client.get("/docs").status_code == 200  # by the cookie
        assert "secret" not in client.cookies["froster"]


def test_other_sites_and_names_are_kept_out(api, video: Path) -> None:
    client, _ = api
    for name in ("evil.example", "evil.example:7860", "localhost.evil.example", "[", ""):
        refused(api, client.get("/docs", headers={"Host": name}), 403, "not this machine")
    files = {"video": ("a", b"")}
    answer = client.post("/v1/classify", files=files, headers={"Origin": "https://evil.example"})
    refused(api, answer, 403, "another site")
    assert (
        client.post("/v1/classify", files=files, headers={"Origin": "http://localhost"}).status_code
        == 422
    )
    for name in ("127.0.0.1:7860", "[::1]:7860", "localhost:1"):
        assert client.get("/healthz", headers={"Host": name}).status_code == 200


def occupy(service: Service, until: threading.Event) -> threading.Thread:
    """Somebody else's work, in the queue."""

    def others() -> None:
        with service.jobs.place() as place:
            asyncio.run(service.jobs.do(Steps.of(until.wait), place))

    thread = threading.Thread(target=others)
    thread.start()
    return thread


def test_a_full_queue_says_so_and_recovers(nano: Recognizer, video: Path) -> None:
    with serving(nano, waiting=1) as (client, service):
        until = threading.Event()
        others = [occupy(service, until) for _ in range(2)]
        wait_for(lambda: service.jobs.inside == 2 and service.jobs.running)
        health = client.get("/healthz").json()
        assert (health["waiting"], health["room"], health["busy"] > 0) == (1, 2, True)
        answer = post(client, "classify", video, labels="a,b")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        until.set()
        for thread in others:
            thread.join()
        assert post(client, "classify", video, labels="a,b").status_code == 200


def test_what_takes_too_long_stops(nano: Recognizer, tmp_path: Path) -> None:
    long = make_video(tmp_path / "long.mp4", 4000, "mpeg4", fps=100, size=(32, 32))
    with serving(nano, timeout=0.4) as (client, service):
        began = time.monotonic()
        answer = post(client, "timeline", long, labels="a,b", window=0.5, stride=0.02)
        assert answer.status_code == 504, answer.text
        assert time.monotonic() - began < 2
        wait_for(lambda: service.jobs.running is None, 1.0)  # it does not only look so
        assert list(service.folder.iterdir()) == []


def test_waiting_counts_and_shutting_down_is_said(nano: Recognizer, video: Path) -> None:
    with serving(nano, timeout=0.3) as (client, service):
        until = threading.Event()
        service.jobs.seconds = 60
        other = occupy(service, until)
        wait_for(lambda: service.jobs.running)
        service.jobs.seconds = 0.3
        assert post(client, "classify", video, labels="a,b").status_code == 504
        assert service.jobs.inside == 1  # what was given up has left the queue
        waiting: list[Refusal] = []

        def wait() -> None:
            with service.jobs.place() as place:
                try:
                    asyncio.run(service.jobs.do(Steps.of(lambda: None), place))
                except Refusal as error:
                    waiting.append(error)

        service.jobs.seconds = 60
        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: service.jobs.queue)
        service.jobs.close()
        thread.join()
        assert [error.status for error in waiting] == [503]
        assert post(client, "classify", video, labels="a,b").status_code == 503
        assert client.get("/healthz").json()["status"] == "shutting down"
        until.set()
        other.join()  # it finished


def test_a_failure_is_no_crash_and_tells_nothing(
    nano: Recognizer, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(nano) as api:
        for error, status in (
            (RuntimeError("/srv/secret"), 500),
            (MemoryError(), 503),
            (torch.OutOfMemoryError("CUDA out of memory"), 503),
            (None, 503),
        ):

            def fail(*_: object, error: Exception | None = error, **__: object) -> None:
                if error is not None:
                    raise error
                torch.empty(1 << 50)  # PyTorch's own words

            monkeypatch.setattr(Recognizer, "classify_together", fail)
            refused(api, post(api[0], "classify", video, labels="a,b"), status, "the server")
        monkeypatch.undo()
        assert post(api[0], "classify", video, labels="a,b").status_code == 200


def test_the_description_is_true(api, video: Path) -> None:
    client, _ = api
    described = client.get("/openapi.json").json()
    questions = {f"/v1/{name}" for name in ("classify", "timeline", "embed", "attention")}
    kept = {"/v1/videos", "/v1/videos/{name}", "/v1/videos/{name}/preview"}
    assert set(described["paths"]) == {*questions, *kept, "/healthz"}
    text = json.dumps(described)
    for name in set(described["components"]["schemas"]):
        assert f"#/components/schemas/{name}" in text
    for route in ("classify", "timeline", "embed", "attention"):
        about = described["paths"][f"/v1/{route}"]["post"]
        form = about["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert {"video", "id", "model"} <= set(form["properties"]) and not form[
            "additionalProperties"
        ]
        fields = {"labels": "a,b"} if "labels" in form["properties"] else {}
        assert {"400", "401", "413", "415", "422", "429", "503", "504"} <= set(about["responses"])
        schema = described["components"]["schemas"][
            about["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition(
                "/"
            )[2]
        ]
        answer = post(client, route, video, **fields).json()
        assert set(schema["required"]) <= set(answer) <= set(schema["properties"])
    page = client.get("/docs").text
    assert "/static/docs.js" in page and "https://" not in page
