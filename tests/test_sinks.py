"""Where `froster watch` sends its answers: files, and a real server on this machine."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from froster.errors import UsageError
from froster.inference.sinks import COLUMNS, AnswerLog, Webhook, check_log, entry_of, signature
from froster.inference.watch import WatchResult
from known_clips import Known
from typed import one_line

ANSWER = WatchResult(1.25, ["a", 'b, "c"'], [0.25, 0.75], 0.01, 0, 0)
LABELS = "cat spinning, star bouncing"


class Receiver:
    """A server that answers with `codes`, and then 204."""

    def __init__(self, codes: tuple[int, ...] = ()) -> None:
        self.codes, self.requests = list(codes), []  # type: ignore[var-annotated]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((dict(self.headers), body))
                code = receiver.codes.pop(0) if receiver.codes else 204
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Any]:
    made: list[Receiver] = []

    def make(*codes: int) -> Receiver:
        made.append(Receiver(codes))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_requests_are_signed_and_in_order(receiver: Any) -> None:
    server, notes = receiver(), []
    hook = Webhook(server.address, notes.append, "key")
    for number in range(20):
        hook.send({"number": number})
    hook.close()
    assert [json.loads(body)["number"] for _, body in server.requests] == list(range(20))
    assert (hook.sent, hook.lost, notes) == (20, 0, [])
    for headers, body in server.requests:
        stamp = headers["X-Froster-Timestamp"]
        expected = hmac.new(b"key", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert headers["X-Froster-Signature"] == f"sha256={expected}"
        assert headers["Content-Type"] == "application/json" and abs(int(stamp) - time.time()) < 60
    assert len({headers["X-Froster-Delivery"] for headers, _ in server.requests}) == 20
    # RFC 4231's way, with a value that openssl gives: printf '5.{}' | openssl dgst -sha256 -hmac key
    assert signature("key", "5", b"{}") == hmac.new(b"key", b"5.{}", "sha256").hexdigest()


def test_what_may_pass_is_tried_again(receiver: Any) -> None:
    server, notes = receiver(503, 429, 200), []
    hook = Webhook(server.address, notes.append, "", pauses=(0.01, 0.01, 0.01))
    hook.send({"a": 1})
    hook.close()
    assert (len(server.requests), hook.sent, hook.lost, notes) == (3, 1, 0, [])
    assert len({headers["X-Froster-Delivery"] for headers, _ in server.requests}) == 1
    assert "X-Froster-Signature" not in server.requests[0][0]


@pytest.mark.parametrize(("codes", "tries"), [((400,), 1), ((302,), 1), ((500,) * 9, 3)])
def test_what_is_refused_is_told(receiver: Any, codes: tuple[int, ...], tries: int) -> None:
    server, notes = receiver(*codes), []
    hook = Webhook(server.address, notes.append, "", pauses=(0.01, 0.01))
    hook.send({"a": 1})
    hook.close()
    assert len(server.requests) == tries and (hook.sent, hook.lost) == (0, 1)
    assert notes == [
        f"webhook: not delivered (the server says {codes[0]})",
        "webhook: 1 answers were not delivered, 0 were",
    ]


def test_a_server_that_is_not_there_holds_nothing_up() -> None:
    notes: list[str] = []
    hook = Webhook("http://127.0.0.1:9/", notes.append, "", pauses=(60.0,))
    began = time.monotonic()
    for number in range(1500):
        hook.send({"number": number})
    assert time.monotonic() - began < 5
    hook.close(patience=0.2)
    assert hook.lost == 1500 and "1500 answers were not delivered" in notes[-1]
    with pytest.raises(UsageError, match="--webhook takes http"):
        Webhook("ftp://x/", notes.append)


def test_passwords_stay_here() -> None:
    for source, expected in (
        ("rtsp://me:p@ss@cam/live", "rtsp://cam/live"),
        ("rtsp://me:secret@cam.local:554/live?x=a@b", "rtsp://cam.local:554/live?x=a@b"),
        ("/dev/video0", "/dev/video0"),
    ):
        assert entry_of(ANSWER, source)["source"] == expected


def test_files_are_added_to(tmp_path: Path) -> None:
    entry = entry_of(ANSWER, "camera")
    for name in ("a.jsonl", "a.csv"):
        for _ in range(2):
            log = AnswerLog(tmp_path / name)
            log.send(entry)
            log.close()
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        entry
    ] * 2
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and list(rows[0]) == COLUMNS
    assert rows[0]["label"] == 'b, "c"' and rows[0]["none"] == "" and rows[0]["score"] == "0.75"
    with pytest.raises(UsageError, match="--out ends in"):
        check_log(tmp_path / "a.txt")


def test_watch_writes_and_sends(
    run, known: Known, receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTER_WEBHOOK_SECRET", "key")
    server, out = receiver(), tmp_path / "log.jsonl"
    result = run(
        *("watch", known.path, "--labels", LABELS, "--model", "nano", "--json", "--limit", 2),
        *("--out", out, "--webhook", server.address),
    )
    assert result.code == 0, result.err
    printed = [json.loads(line) for line in result.out.splitlines() if "score" in line]
    logged = [json.loads(line) for line in out.read_text().splitlines()]
    sent = [json.loads(body) for _, body in server.requests]
    assert len(logged) == 2 and logged == sent
    keys = ("at", "source")
    assert [{k: v for k, v in row.items() if k not in keys} for row in logged] == printed
    assert "key" not in result.out + result.err
    bad = ("watch", known.path, "--labels", "a, b", "--model", "nano")
    one_line(run(*bad, "--out", "x.txt"), 2, "--out ends in")
    one_line(run(*bad, "--webhook", "x"), 2, "--webhook takes http")
