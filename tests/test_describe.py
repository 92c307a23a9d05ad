"""`froster describe` against a server on this machine that speaks the chat protocol, well and
badly."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import quick
from froster.encoders.tokenizer import Tokenizer
from froster.errors import FrosterError, UsageError
from froster.text import sentences as module
from froster.text.sentences import (
    Endpoint,
    ask_all,
    complaints,
    read_descriptions,
    tidy,
    with_descriptions,
)
from golden import shared
from typed import one_line

KEY = "sk-secret-0123456789"
CLASSES = [
    "archery",
    "brush hair",
    "juggling balls",
    "surfing",
    "yoga",
    "tap dancing",
    "welding",
    "ironing",
]
SENTENCE = "A person in a bright room moves both hands in front of the camera"


class Server(ThreadingHTTPServer):
    """Answers every request by `reply(handler, class name, how often that class was asked for)`."""

    daemon_threads = True

    def __init__(self, reply: Callable[[Handler, str, int], None]):
        self.reply = reply
        self.asked: list[str] = []
        self.requests: list[tuple[dict[str, str], dict]] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send(404, {"error": {"message": f"no such path {self.path}"}})
            return
        found = re.search(r'class "([^"]+)"', body["messages"][0]["content"])
        assert found, body
        with self.server.lock:
            self.server.asked.append(found[1])
            headers = {name.title(): value for name, value in self.headers.items()}
            self.server.requests.append((headers, body))
            times = self.server.asked.count(found[1])
        self.server.reply(self, found[1], times)

    def send(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def say(self, text: object) -> None:
        self.send(
            200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        )

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def sentence(name: str) -> str:
    return f"{SENTENCE} number {CLASSES.index(name)}."


def good(handler: Handler, name: str, times: int) -> None:
    handler.say(sentence(name))


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def start(reply: Callable[[Handler, str, int], None] = good) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, a way to this machine that no proxy is on, and no vocabulary but where a test names
    one."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("FROSTER_BPE", raising=False)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(CLASSES) + "\n")
    return path


def test_every_class_gets_its_sentence(run, serve, labels: Path, tmp_path: Path) -> None:
    server, out = serve(), tmp_path / "sub" / "out.json"
    result = run(
        "describe", labels, "--out", out, "--endpoint", server.url, "--model", "m-1", "--json"
    )
    assert result.code == 0, result.err
    assert result.json["described"] == 8
    assert (
        list(json.loads(out.read_text())) == CLASSES
    )  # in the order of the labels, whatever came first
    assert with_descriptions(CLASSES, read_descriptions(out)) == [
        f"{name}: {sentence(name)}" for name in CLASSES
    ]
    assert sorted(server.asked) == sorted(CLASSES)
    headers, body = server.requests[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert set(body) == {"model", "messages"}
    assert body["model"] == "m-1"
    # The second time there is nothing to ask, also under other spellings of the names.
    labels.write_text("Brush_Hair\nWelding\n")
    result = run("describe", labels, "--out", out, "--endpoint", server.url, "--json")
    assert (result.json["already"], result.json["described"], len(server.asked)) == (2, 0, 8)


def test_a_busy_server_is_asked_again(run, serve, labels: Path, tmp_path: Path) -> None:
    def reply(handler: Handler, name: str, times: int) -> None:
        if name == "archery" and times < 3:
            handler.send(429, {"error": {"message": "slow down"}}, Retry_After="0.2")
        elif name == "surfing" and times == 1:
            handler.send(503, b"<html>overloaded</html>", Retry_After="0")
        elif name == "yoga" and times == 1:  # hangs up in the middle of the answer
            whole = json.dumps({"choices": [{"message": {"content": sentence(name)}}]}).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(whole)))
            handler.end_headers()
            handler.wfile.write(whole[:40])
            handler.close_connection = True
        elif name == "welding" and times == 1:  # says nothing at all
            handler.close_connection = True
        elif name == "ironing" and times == 1:
            time.sleep(3)
        else:
            good(handler, name, times)

    server, out = serve(reply), tmp_path / "out.json"
    began = time.perf_counter()
    common = (
        "describe",
        labels,
        "--out",
        out,
        "--endpoint",
        server.url,
        "--timeout",
        1.5,
        "--concurrency",
        8,
    )
    result = run(*common, "--json")
    assert result.code == 0, result.err
    assert time.perf_counter() - began > 0.4  # what the server asked for
    assert (result.json["described"], result.json["retries"], result.json["answers_refused"]) == (
        8,
        6,
        0,
    )
    assert len(server.asked) == 14
    assert read_descriptions(out)["archery"] == sentence("archery")


def test_the_wait_grows(serve) -> None:
    stamps = []

    def reply(handler: Handler, name: str, times: int) -> None:
        stamps.append(time.perf_counter())
        handler.send(500, {"error": {"message": f"broken, said the server to {KEY}\x1b[31m"}})

    endpoint = Endpoint(serve(reply).url, "m", KEY, tries=4)
    with pytest.raises(
        FrosterError, match=r"failed 4 times in a row.*HTTP 500.*said the server to \*\*\*"
    ) as caught:
        list(ask_all(["archery"], endpoint, complaints(None), 1))
    assert "\x1b" not in str(caught.value)
    gaps = [b - a for a, b in itertools.pairwise(stamps)]
    assert len(gaps) == 3
    assert all(gap >= 0.35 * 2**i for i, gap in enumerate(gaps))


BAD = {
    "two sentences": "A person swims along. The water splashes around them.",
    "two lines": "A person swims\nin a blue pool.",
    "colon": "A pool scene: a person swims in blue water.",
    "no end": "A person swims in a blue pool",
    "too short": "Somebody swims.",
    "too long": "A person " + "very " * 60 + "slowly swims in a pool.",
    "nothing": "   ",
}


def test_unusable_answers_are_asked_for_again_and_counted(
    run, serve, labels: Path, tmp_path: Path
) -> None:
    def reply(handler: Handler, name: str, times: int) -> None:
        kinds = list(BAD.values())
        if name == "tap dancing":
            handler.say(BAD["two sentences"])
        elif name == "yoga" and times == 1:
            handler.send(200, b"<html>welcome</html>")
        elif name == "surfing" and times == 1:
            handler.send(200, {"choices": []})
        elif name in CLASSES[:3] and times < 3:
            handler.say(kinds[2 * CLASSES.index(name) + times])
        elif name == "welding":
            handler.say(f'<think>It is hot.\nVery.</think>\n"Welding: {sentence(name)}"\n')
        else:
            good(handler, name, times)

    server, out = serve(reply), tmp_path / "out.json"
    common = ("describe", labels, "--out", out, "--endpoint", server.url)
    result = run(*common, "--json")
    assert result.code == 1
    report = result.json
    assert (report["described"], report["answers_refused"], report["retries"]) == (7, 6 + 2 + 3, 0)
    (missing,) = report["missing"]
    assert missing["name"] == "tap dancing"
    assert "more than one sentence" in missing["reason"]
    assert read_descriptions(out)["welding"] == sentence("welding")
    assert "tap dancing" not in read_descriptions(out)
    again = [body["messages"] for _, body in server.requests if len(body["messages"]) == 3]
    assert any("more than one sentence" in messages[2]["content"] for messages in again)
    count = len(server.asked)
    assert "tap dancing: it is more than one sentence" in run(*common).err
    assert server.asked[count:] == ["tap dancing"] * 3  # nothing else is asked again


@pytest.mark.parametrize("kind", BAD)
def test_what_a_sentence_must_be(kind: str) -> None:
    complaint = complaints(None)
    assert complaint("swimming", tidy("swimming", BAD[kind])) is not None
    assert (
        complaint(
            "swimming", tidy("swimming", "**Swimming: A person swims in a 2.5 metre deep pool.**")
        )
        is None
    )


def test_length_is_counted_in_the_longest_prompt() -> None:
    tokenizer = Tokenizer.find(shared("vocab"))
    complaint = complaints(tokenizer)
    fits = "A person " + "very " * 47 + "slowly swims."
    prompt = f"a demonstration of a person practicing swimming. swimming: {fits}"
    assert len(tokenizer.encode(prompt)) + 2 == 64
    assert complaint("swimming", fits) is None
    assert (
        complaint("swimming", fits.replace("very", "very very", 1))
        == "it makes a prompt of 65 tokens, more than 64"
    )
    assert "tokens, more than 64" in (
        complaint("pretending to put something behind something", fits) or ""
    )


def test_shipped_sentences_pass_the_same_rules() -> None:
    complaint = complaints(Tokenizer.find(shared("vocab")))
    for name, text in read_descriptions("kinetics400").items():
        assert complaint(name, text) is None, name


def test_a_killed_run_goes_on_where_it_was(serve, labels: Path, tmp_path: Path) -> None:
    gate = threading.Event()

    def reply(handler: Handler, name: str, times: int) -> None:
        if CLASSES.index(name) >= 3 and times == 1:
            gate.wait(60)
        good(handler, name, times)

    server, out = serve(reply), tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "froster",
        "describe",
        labels,
        "--out",
        out,
        "--endpoint",
        server.url,
        "--concurrency",
        "2",
    ]
    process = quick.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        waited = time.perf_counter()
        while len(server.asked) < 5 or not out.exists() or len(json.loads(out.read_text())) < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.perf_counter() - waited < 60
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(json.loads(out.read_text())) == CLASSES[:3]
    assert KEY not in (process.stderr.read() if process.stderr else "")
    gate.set()
    server.asked.clear()
    done = quick.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(server.asked) == sorted(CLASSES[3:])
    assert list(json.loads(out.read_text())) == CLASSES
    assert not list(tmp_path.glob(".*"))


def test_ctrl_c_ends_it_at_once(serve, labels: Path, tmp_path: Path) -> None:
    def reply(handler: Handler, name: str, times: int) -> None:
        if name == "surfing":
            time.sleep(60)
        good(handler, name, times)

    server, out = serve(reply), tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "froster",
        "describe",
        labels,
        "--out",
        out,
        "--endpoint",
        server.url,
    ]
    process = quick.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    began = time.perf_counter()
    while not out.exists() or len(json.loads(out.read_text())) < 7:
        assert time.perf_counter() - began < 60
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "froster: stopped; 7 of 8 sentences are in" in err and "Traceback" not in err


def test_an_endpoint_that_refuses_ends_the_run(run, serve, labels: Path, tmp_path: Path) -> None:
    def reply(handler: Handler, name: str, times: int) -> None:
        if CLASSES.index(name) < 2:
            good(handler, name, times)
        else:
            handler.send(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

    server, out = serve(reply), tmp_path / "out.json"
    result = run("describe", labels, "--out", out, "--endpoint", server.url, "--concurrency", 1)
    one_line(result, 1, "HTTP 401", "***", "2 of 8 sentences are in", "run the same again")
    assert KEY not in result.err + result.out
    assert list(read_descriptions(out)) == CLASSES[:2]
    assert len(server.asked) == 3

    empty = {"error": {"message": "no money", "code": "insufficient_quota"}}
    quota = serve(lambda handler, name, times: handler.send(429, empty))
    one_line(
        run("describe", labels, "--out", out, "--endpoint", quota.url, "--concurrency", 1),
        1,
        "no money",
    )
    assert len(quota.asked) == 1


def test_the_key_goes_nowhere_else(
    run, serve, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serve()
    moved = serve(
        lambda handler, name, times: handler.send(
            302, b"", Location=f"{other.url}/chat/completions"
        )
    )
    out = tmp_path / "out.json"
    one_line(run("describe", labels, "--out", out, "--endpoint", moved.url), 1, "HTTP 302")
    assert other.asked == []
    assert KEY not in repr(Endpoint(other.url, "m", KEY))
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\nX-Other: 1")
    result = run("describe", labels, "--out", out, "--endpoint", other.url)
    one_line(result, 2, "the key holds")
    assert KEY not in result.err
    # A server of one's own needs no key, OpenAI's does; the variable may have another name.
    monkeypatch.delenv("OPENAI_API_KEY")
    one_line(run("describe", labels, "--out", out), 2, "OPENAI_API_KEY is not set")
    assert run("describe", labels, "--out", out, "--endpoint", other.url).code == 0
    assert all("Authorization" not in headers for headers, _ in other.requests)
    monkeypatch.setenv("MY_KEY", "abc")
    out.unlink()
    assert (
        run("describe", labels, "--out", out, "--endpoint", other.url, "--key-env", "MY_KEY").code
        == 0
    )
    assert other.requests[-1][0]["Authorization"] == "Bearer abc"


def test_a_server_that_only_talks_nonsense_is_given_up(
    serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda handler, name, times: handler.say("No."))
    names = [f"class {i}" for i in range(50)]
    outcomes = []
    with pytest.raises(
        FrosterError, match=f"no usable sentence for {module.GIVE_UP} classes in a row"
    ):
        for outcome in ask_all(names, Endpoint(server.url, "m"), complaints(None), 2):
            outcomes.append(outcome)
    assert module.GIVE_UP <= len(outcomes) < 2 * module.GIVE_UP  # some were asked meanwhile
    assert len(server.asked) <= 3 * (module.GIVE_UP + 3)


def test_without_the_package_it_says_how_to_install_it(
    run, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    one_line(run("describe", labels, "--out", tmp_path / "out.json"), 2, "froster-video[describe]")


def test_nobody_listens(labels: Path) -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", tries=2)
    with pytest.raises(FrosterError, match="refused"):
        list(ask_all(["archery"], endpoint, complaints(None), 1))


def test_sentences_from_a_file(run, serve, labels: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "given.txt", tmp_path / "out.json"
    given.write_text(
        "Brush_Hair: Someone pulls a brush through long hair.\nsurfing: Short.\nskiing: A man skis"
        " down a slope.\n"
    )
    result = run("describe", labels, "--out", out, "--from-file", given, "--json")
    assert result.code == 1
    assert (result.json["from_file"], result.json["described"], len(result.json["missing"])) == (
        1,
        0,
        7,
    )
    reasons = {entry["name"]: entry["reason"] for entry in result.json["missing"]}
    assert reasons["surfing"] == "it is no whole sentence"
    assert reasons["yoga"] == "not in the file"
    assert read_descriptions(out) == {"brush hair": "Someone pulls a brush through long hair."}
    # With an endpoint, the rest is asked for.
    server = serve()
    result = run(
        "describe", labels, "--out", out, "--from-file", given, "--endpoint", server.url, "--json"
    )
    assert result.code == 0
    assert (result.json["already"], result.json["described"]) == (1, 7)
    assert "brush hair" not in server.asked


def test_describe_says_what_is_wrong(run, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert '"{name}"' in run("describe", "--show-prompt").out
    one_line(run("describe", "--out", out), 2, "a file of labels")
    one_line(run("describe", labels, "--out", tmp_path / "out.txt"), 2, ".json")
    for address in ("ftp://host/v1", "localhost:8000", "http://user:word@host/v1"):
        one_line(
            run("describe", labels, "--out", out, "--endpoint", address),
            2,
            "--endpoint takes an address",
        )
    with pytest.raises(UsageError):
        Endpoint("file:///etc/passwd", "m")
    out.write_text("{ not json")
    one_line(
        run("describe", labels, "--out", out, "--endpoint", "http://127.0.0.1:9"),
        2,
        "out.json",
        "JSON",
    )
    assert out.read_text() == "{ not json"
    labels.write_text("yoga\nYoga\n")
    one_line(run("describe", labels, "--out", out), 2, "more than once")
