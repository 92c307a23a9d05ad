"""Sentences for new classes from a language model: any endpoint that speaks OpenAI's chat protocol.

A server may be busy, break off or answer nonsense; an answer may be no usable sentence. The first
is waited for and tried again, the second is asked for again with the complaint, and what still does
not fit is refused, never repaired.
"""

from __future__ import annotations

import http.client
import queue
import random
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from froster.encoders.tokenizer import Tokenizer
from froster.errors import FrosterError, UsageError
from froster.text.prompts import KINETICS_28
from froster.utils import strict_json as json
from froster.utils.interrupt import check

PROMPT = """\
You write the label texts of a video classifier, which compares short videos with sentences.
Write one English sentence of 10 to 25 words on what a camera sees in a typical video of the class "{name}": who or what \
moves, in which way, with which objects and where. Name only what is visible; no opinions, no comparison with other classes.
Do not repeat the name of the class, and use no colon, no quotation marks and no abbreviations. Answer with the sentence \
alone."""

OPENAI = "https://api.openai.com/v1"
MAX_TOKENS = 64
"""Of the longest prompt that is made from a name and its sentence, start and end included."""
MAX_WORDS = 40
"""Of a sentence, where there is no tokenizer to count with."""
ANSWERS = 3
"""Unusable answers after which a class is given up."""
GIVE_UP = 10
"""Classes given up in a row, after which the endpoint is."""
LONGEST_PAUSE = 60.0

Complaint = Callable[[str, str], "str | None"]
"""A class name and its sentence -> what is wrong with the sentence, or None."""


class Busy(Exception):
    """A failure that may pass. `after`: seconds that the server asks to wait."""

    def __init__(self, cause: str, after: float | None = None):
        super().__init__(cause)
        self.after = after


class Unusable(Exception):
    """An answer that holds no sentence for a class."""

    def __init__(self, cause: str, text: str = ""):
        super().__init__(cause)
        self.text = text


class Stopped(Exception):
    """Others have ended the run."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


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
    """Requests that may fail in a row before the run ends."""
    pause: float = 1.0
    """Seconds before the second try; they double with every other one."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = (
                parts.scheme in ("http", "https")
                and parts.hostname
                and "@" not in parts.netloc
                and parts.port != 0
            )
        except ValueError:  # a bad port, or brackets that do not close
            fits = False
        if not fits or not re.fullmatch(r"[!-~]+", self.url):
            raise UsageError(
                "--endpoint takes an address such as https://api.openai.com/v1 or"
                " http://localhost:8000/v1"
            )
        # http.client would show the whole header.
        if self.key is not None and not re.fullmatch(r"[!-~]+", self.key):
            raise UsageError("the key holds blanks or characters that a request cannot carry")

    def chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of the model's answer. Raises Busy, Unusable, or FrosterError where asking again
        is no use."""
        address = self.url.rstrip("/")
        address = (
            address if address.endswith("/chat/completions") else f"{address}/chat/completions"
        )
        headers = {"Content-Type": "application/json", "User-Agent": "froster"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = json.dumps({"model": self.model, "messages": list(messages)}).encode()
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(
                urllib.request.Request(address, body, headers), timeout=self.timeout
            ) as response:
                data = response.read()
        except urllib.error.HTTPError as error:
            raise self.failure(error) from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise Busy(self.readable(str(cause))) from None
        try:
            text = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            said = self.readable(data.decode("utf-8", "replace"))
            raise Unusable(f"the answer is not of the chat protocol: {said!r}") from None
        if not isinstance(text, str) or not text.strip():
            raise Unusable("the answer holds no text")
        return text

    def failure(self, error: urllib.error.HTTPError) -> Exception:
        """What an HTTP status means for us."""
        try:
            body = error.read(4000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            body = ""
        try:
            said = str(json.loads(body)["error"]["message"])
        except (ValueError, LookupError, TypeError):
            said = body
        cause = self.readable(f"HTTP {error.code} {error.reason}: {said}".rstrip(": "))
        passing = error.code in (408, 425, 429) or error.code >= 500
        if passing and "insufficient_quota" not in body:
            after = error.headers.get("Retry-After", "")
            return Busy(cause, float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else None)
        return FrosterError(f"{self.url} refuses the request: {cause}")

    def readable(self, text: str) -> str:
        """What a server said, short, on one line, and never with the key, which some servers
        repeat."""
        text = text.replace(self.key, "***") if self.key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


@dataclass
class Outcome:
    """What became of one class."""

    name: str
    sentence: str | None = None
    unusable: list[str] = field(default_factory=list)
    """Why answers were turned down; the class has no sentence after `ANSWERS` of them."""
    retries: int = 0


def ask(name: str, endpoint: Endpoint, complaint: Complaint, stop: threading.Event) -> Outcome:
    """One class. Raises FrosterError where the endpoint cannot be used, Stopped where others have
    given up."""
    found = Outcome(name)
    request = {"role": "user", "content": PROMPT.replace("{name}", name)}
    messages = [request]
    failures = 0
    while len(found.unusable) < ANSWERS:
        if stop.is_set():
            raise Stopped
        try:
            text = endpoint.chat(messages)
            sentence = tidy(name, text)
            if cause := complaint(name, sentence):
                raise Unusable(f"{cause}: {sentence[:80]!r}", text)
            found.sentence = sentence
            return found
        except Unusable as error:
            failures = 0
            found.unusable.append(endpoint.readable(str(error)))
            again = {
                "role": "user",
                "content": f"That cannot be used ({error}). Answer with one better sentence alone.",
            }
            messages = (
                [request, {"role": "assistant", "content": error.text}, again]
                if error.text
                else [request]
            )
        except Busy as error:
            failures += 1
            if failures == endpoint.tries:
                raise FrosterError(
                    f"{endpoint.url} failed {failures} times in a row, the last time with {error}"
                ) from None
            found.retries += 1
            wait = (
                error.after
                if error.after is not None
                else endpoint.pause * 2 ** (failures - 1) * random.uniform(0.7, 1.3)
            )
            stop.wait(min(wait, LONGEST_PAUSE))
    return found


def ask_all(
    names: Sequence[str], endpoint: Endpoint, complaint: Complaint, concurrency: int
) -> Iterator[Outcome]:
    """Outcomes as they come, from several requests at a time.

    Raises FrosterError where the endpoint cannot be used, after all that was still under way has
    been handed out.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    for name in names:
        todo.put(name)

    def work() -> None:
        while not stop.is_set():
            try:
                done.put(ask(todo.get_nowait(), endpoint, complaint, stop))
            except (queue.Empty, Stopped):
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
        return (
            f"it makes a prompt of {tokens} tokens, more than {MAX_TOKENS}"
            if tokens > MAX_TOKENS
            else None
        )

    return complaint
