"""A sentence about each class, which tells a text tower more than its name does: those that come
with the package, those of a file, and new ones from a language model.

A language model answers at any endpoint that speaks OpenAI's chat protocol. The `openai` package
waits for a server that is busy or breaks off and asks again; an answer that is no usable sentence
is asked for again with the complaint, and what still does not fit is refused, never repaired.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from froster.errors import FrosterError, UsageError, install
from froster.text.labels import parse_json, read_labels, read_utf8
from froster.text.prompts import KINETICS_28
from froster.utils import strict_json as json
from froster.utils.interrupt import check

if TYPE_CHECKING:  # it loads torch
    from froster.encoders.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
SHIPPED = ("kinetics400", "kinetics600", "ucf101", "hmdb51", "ssv2")
"""Data sets whose classes have a sentence each in this package."""


def with_descriptions(names: Sequence[str], descriptions: Mapping[str, str]) -> list[str]:
    """Class names -> labels: "Name: description" where there is a description, else the plain name.

    Names match whatever their case, spaces and underscores: folders call a class `brush_hair` or
    `BrushHair`. Raises UsageError when two descriptions are meant for the same name.
    """
    by_key = _unique((_key(name), text) for name, text in descriptions.items())
    return [
        f"{name}: {' '.join(by_key[_key(name)].splitlines())}" if _key(name) in by_key else name
        for name in names
    ]


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Read {name: description} from a `.json` object, or from "Name: description" entries, one a
    line.

    The released label files, `{"0": "Name: description", …}`, are such entries too; a name in
    `SHIPPED` stands for the sentences that come with the package. Raises UsageError naming the
    file.
    """
    path = DATA / f"{path}.json" if str(path) in SHIPPED and not Path(path).exists() else Path(path)
    if path.suffix.lower() == ".json":
        table = parse_json(read_utf8(path), path)
        if isinstance(table, dict) and not all(key.isdecimal() for key in table):
            if not all(isinstance(text, str) for text in table.values()):
                raise UsageError(f"{path}: expected a JSON object of class names and sentences")
            return table
    entries = [entry.partition(":") for entry in read_labels(path)]
    for name, colon, text in entries:
        if not (name.strip() and colon and text.strip()):
            raise UsageError(f'{path}: expected "Name: description", found {name + colon + text!r}')
    try:
        return _unique((name.strip(), text.strip()) for name, _, text in entries)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _key(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").split())


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    table: dict[str, str] = {}
    for name, text in pairs:
        if table.setdefault(name, text) != text:
            raise UsageError(f"there are two descriptions for {name!r}")
    return table


PROMPT = """\
You write the label texts of a video classifier, which compares short videos with sentences.
Write one English sentence of 10 to 25 words on what a camera sees in a typical video of the class \
"{name}": who or what moves, in which way, with which objects and where. Name only what is \
visible; no opinions, no comparison with other classes.
Do not repeat the name of the class, and use no colon, no quotation marks and no abbreviations. \
Answer with the sentence alone."""

OPENAI = "https://api.openai.com/v1"
MAX_TOKENS = 64
"""Of the longest prompt that is made from a name and its sentence, start and end included."""
MAX_WORDS = 40
"""Of a sentence, where there is no tokenizer to count with."""
ANSWERS = 3
"""Unusable answers after which a class is given up."""
GIVE_UP = 10
"""Classes given up in a row, after which the endpoint is."""

Complaint = Callable[[str, str], "str | None"]
"""A class name and its sentence -> what is wrong with the sentence, or None."""


class UnusableAnswer(Exception):
    """An answer that holds no sentence for a class; `text` is what it says instead."""

    def __init__(self, cause: str, text: str = ""):
        super().__init__(cause)
        self.text = text


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. Raises UsageError on an address or key that cannot be used; the key is in no
    message."""

    url: str
    """Up to and without `/chat/completions`."""
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds without a byte."""
    tries: int = 6
    """Requests that may fail in a row before the run ends; the pauses between them grow."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a bad port, or brackets that do not close
            fits = False
        if not fits or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", self.url):
            raise UsageError(
                "--endpoint takes an address such as https://api.openai.com/v1 or"
                " http://localhost:8000/v1"
            )
        if self.key is not None and not re.fullmatch(r"[!-~]+", self.key):
            raise UsageError("the key holds blanks or characters that a request cannot carry")

    @cached_property
    def client(self) -> Any:
        """An `openai.OpenAI`. Raises UsageError where the package is not installed."""
        try:
            import openai
        except ImportError as error:
            raise UsageError(
                f"the package openai, which asks language models, is not installed:"
                f" {install('describe')}"
            ) from error
        return openai.OpenAI(
            api_key=self.key or "none",
            base_url=self.url.rstrip("/").removesuffix("/chat/completions"),
            timeout=self.timeout,
            max_retries=self.tries - 1,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,  # a redirect would carry the key to another host
                event_hooks={"response": [_no_retry_without_money]},
            ),
        )

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, int]:
        """The body of the answer, and how often the request was repeated.

        Raises FrosterError where the endpoint refuses, or keeps failing.
        """
        import openai

        try:
            answer = self.client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=list(messages),
                extra_headers=None if self.key else {"Authorization": openai.Omit()},
            )
        except openai.APIStatusError as error:
            response = error.response
            detail = error.body.get("message") if isinstance(error.body, dict) else None
            cause = f"HTTP {error.status_code} {response.reason_phrase}: {detail or response.text}"
            cause = self.readable(cause.rstrip(": "))
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                raise self._failed(cause) from None
            raise FrosterError(f"{self.url} refuses the request: {cause}") from None
        except openai.APIConnectionError as error:
            raise self._failed(self.readable(str(error.__cause__ or error))) from None
        return answer.text, answer.retries_taken

    def _failed(self, cause: str) -> FrosterError:
        return FrosterError(
            f"{self.url} failed {self.tries} times in a row, the last time with {cause}"
        )

    def readable(self, text: str) -> str:
        """What a server says, short, on one line, and never with the key, which some servers
        repeat."""
        text = text.replace(self.key, "***") if self.key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _no_retry_without_money(response: Any) -> None:
    """Marks a response of `insufficient_quota`, which looks like one of a busy server, as final."""
    if response.status_code == 429 and "insufficient_quota" in response.read().decode(
        "utf-8", "replace"
    ):
        response.headers["x-should-retry"] = "false"


@dataclass
class Outcome:
    """What became of one class."""

    name: str
    sentence: str | None = None
    unusable: list[str] = field(default_factory=list)
    """Why answers were turned down; the class has no sentence after `ANSWERS` of them."""
    retries: int = 0


def ask(name: str, endpoint: Endpoint, complaint: Complaint) -> Outcome:
    """The sentence of one class. Raises FrosterError where the endpoint cannot be used."""
    outcome = Outcome(name)
    request = {"role": "user", "content": PROMPT.replace("{name}", name)}
    messages = [request]
    while len(outcome.unusable) < ANSWERS:
        body, retries = endpoint.chat(messages)
        outcome.retries += retries
        try:
            outcome.sentence = _sentence(name, body, complaint)
            return outcome
        except UnusableAnswer as error:
            outcome.unusable.append(endpoint.readable(str(error)))
            again = f"That cannot be used ({error}). Answer with one better sentence alone."
            messages = [request]
            if error.text:
                messages.append({"role": "assistant", "content": error.text})
                messages.append({"role": "user", "content": again})
    return outcome


def _sentence(name: str, body: str, complaint: Complaint) -> str:
    """The sentence in the body of an answer. Raises UnusableAnswer."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise UnusableAnswer(f"the answer is not of the chat protocol: {body[:200]!r}") from None
    if not isinstance(text, str) or not text.strip():
        raise UnusableAnswer("the answer holds no text")
    sentence = tidy(name, text)
    if cause := complaint(name, sentence):
        raise UnusableAnswer(f"{cause}: {sentence[:80]!r}", text)
    return sentence


def ask_all(
    names: Sequence[str], endpoint: Endpoint, complaint: Complaint, concurrency: int
) -> Iterator[Outcome]:
    """Outcomes as they come, from several requests at a time.

    Raises FrosterError where the endpoint cannot be used, after the outcomes of all requests that
    were under way; UsageError where the package openai is not installed.
    """
    _ = endpoint.client
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    for name in names:
        todo.put(name)

    def work() -> None:
        while not stop.is_set():
            try:
                done.put(ask(todo.get_nowait(), endpoint, complaint))
            except queue.Empty:
                return
            except Exception as error:
                stop.set()
                done.put(error)

    # Daemons: a Ctrl-C need not wait for a server that does not answer.
    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(concurrency, len(names)))
    ]
    for thread in threads:
        thread.start()
    failure: Exception | None = None
    in_a_row = 0
    try:
        while any(thread.is_alive() for thread in threads) or not done.empty():
            try:
                item = done.get(timeout=0.1)
            except queue.Empty:
                check()
                continue
            if isinstance(item, Outcome):
                in_a_row = 0 if item.sentence is not None else in_a_row + 1
                yield item
                if in_a_row == GIVE_UP and failure is None:
                    item = FrosterError(
                        f"{endpoint.url} gave no usable sentence for {GIVE_UP} classes in a row"
                    )
            if isinstance(item, Exception):
                failure = failure or item
                stop.set()
    finally:
        stop.set()
    if failure is not None:
        raise failure


def tidy(name: str, text: str) -> str:
    """An answer without the wrapping that models like to add: thoughts, quotation marks, the
    class's name in front."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).strip().strip("\"'`*“”").strip()
    return re.sub(rf"^{re.escape(name)}\s*:\s*", "", text, flags=re.IGNORECASE)


def complaints(tokenizer: Tokenizer | None) -> Complaint:
    """The rule for sentences; with a tokenizer they are measured in CLIP's tokens, in the longest
    prompt."""

    def complaint(name: str, sentence: str) -> str | None:
        words = len(sentence.split())
        if "\n" in sentence:
            return "it has more than one line"
        if not sentence.isprintable():
            return "it holds characters that cannot be printed"
        if ":" in sentence:
            return "it holds a colon, which divides names from sentences"
        if not re.search(r"[.!?。！？][\"'”’)]?$", sentence) or words < 4:
            return "it is no whole sentence"
        if re.search(r"[.!?。！？][\"'”’)]?\s+\S", sentence):
            return "it is more than one sentence"
        if tokenizer is None:
            return f"it has {words} words, more than {MAX_WORDS}" if words > MAX_WORDS else None
        prompts = [f"{template.replace('{}', name)} {name}: {sentence}" for template in KINETICS_28]
        tokens = 2 + max(len(tokenizer.encode(prompt)) for prompt in prompts)
        if tokens > MAX_TOKENS:
            return f"it makes a prompt of {tokens} tokens, more than {MAX_TOKENS}"
        return None

    return complaint
