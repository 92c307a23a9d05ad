"""Where the answers to a watched source go beside the terminal: a file, and an address."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from froster.errors import UsageError
from froster.inference.watch import WatchResult
from froster.utils import strict_json as json
from froster.utils.files import Appender, csv_text, json_line
from froster.utils.interrupt import check

LINES, CSV = (".jsonl", ".ndjson"), ".csv"
COLUMNS = [
    "at",
    "source",
    "time",
    "label",
    "answer",
    "score",
    "none",
    "cosine",
    "lag",
    "dropped",
    "skipped",
]
SECRET = "FROSTER_WEBHOOK_SECRET"
"""The environment variable with the key that requests are signed with."""
PAUSES = (1.0, 4.0, 15.0)
"""Seconds before the second, third and fourth try."""
_TIMEOUT = 10.0
_MOST_WAITING = 1000
_AGAIN = {408, 425, 429}
"""Refusals that may pass, as those from 500 on may."""


def entry_of(answer: WatchResult, source: str) -> dict[str, Any]:
    """What is written and sent of an answer; `at` is the time of day, in UTC. A name and password
    in the source's address stay here."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    source = re.sub(r"(?<=://)[^/?#]*@", "", source)
    return {"at": at, "source": source, **answer.to_dict()}


def check_log(path: Path) -> None:
    """Raises UsageError on a file of another kind."""
    if path.suffix.lower() not in (*LINES, CSV):
        raise UsageError(f"--out ends in {', '.join((*LINES, CSV))}, not {path.name!r}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; --out needs a file")


class AnswerLog:
    """Answers added to a file, each at once; what it holds stays."""

    def __init__(self, path: Path) -> None:
        self._csv = path.suffix.lower() == CSV
        begun = path.exists() and path.stat().st_size > 0
        self._appender = Appender(path)
        if self._csv and not begun:
            self._appender.add(csv_text([COLUMNS]))

    def send(self, entry: dict[str, Any]) -> None:
        if self._csv:
            cells = ["" if entry[name] is None else entry[name] for name in COLUMNS]
            self._appender.add(csv_text([cells]))
        else:
            self._appender.add(json_line(entry))

    def close(self) -> None:
        self._appender.close()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Of a request: HMAC-SHA256 of its time, a full stop and its body."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


class Webhook:
    """Entries sent to an address by POST, one after the other and in order, by a thread.

    Each is tried again after `pauses` where the server does not answer, or says that it cannot now.
    What is refused, or is still refused after the last pause, is told to `note` and counted in
    `lost`; so are the oldest where `_MOST_WAITING` wait.
    """

    def __init__(
        self,
        address: str,
        note: Callable[[str], None],
        secret: str | None = None,
        pauses: Iterable[float] = PAUSES,
    ) -> None:
        if not address.lower().startswith(("http://", "https://")):
            raise UsageError(f"--webhook takes http://… or https://…, not {address!r:.200}")
        self.address, self.note, self.pauses = address, note, tuple(pauses)
        self.secret = os.environ.get(SECRET, "") if secret is None else secret
        self.sent = self.lost = 0
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._stop = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def send(self, entry: dict[str, Any]) -> None:
        while True:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(entry)
                return
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
                self.lost += 1

    def close(self, patience: float = 30.0) -> None:
        """Waits until all has been sent, for so many seconds at most, and tells what was not."""
        end = time.monotonic() + patience
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=patience)
        try:
            while self._thread.is_alive() and time.monotonic() < end:
                self._thread.join(0.1)
                check()
        finally:
            self._stop.set()
            self._thread.join(_TIMEOUT if self._thread.is_alive() else 0)
            self.lost += sum(entry is not None for entry in list(self._queue.queue))
            if self.lost:
                self.note(f"webhook: {self.lost} answers were not delivered, {self.sent} were")

    def _run(self) -> None:
        before = ""
        while not self._stop.is_set() and (entry := self._queue.get()) is not None:
            cause = self._deliver(entry)
            self.lost += bool(cause)
            self.sent += not cause
            if cause and cause != before:  # once for all that fail alike
                self.note(f"webhook: not delivered ({cause})")
            before = cause

    def _deliver(self, entry: dict[str, Any]) -> str:
        """Why it was not; empty where it was."""
        body, cause = json.dumps(entry).encode(), ""
        delivery = uuid.uuid4().hex
        for pause in (0.0, *self.pauses):
            if self._stop.wait(pause):
                return cause or "stopped"
            cause, again = self._post(body, delivery)
            if not again:
                break
        return cause

    def _post(self, body: bytes, delivery: str) -> tuple[str, bool]:
        """Why it failed, and whether another try may not."""
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "froster",
            "X-Froster-Delivery": delivery,
            "X-Froster-Timestamp": timestamp,
        }
        if self.secret:
            headers["X-Froster-Signature"] = f"sha256={signature(self.secret, timestamp, body)}"
        request = urllib.request.Request(self.address, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT):
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"the server says {error.code}", error.code in _AGAIN or error.code >= 500
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            return str(getattr(error, "reason", None) or error), not isinstance(error, ValueError)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that moves is told, not followed with what was meant for another."""

    def redirect_request(self, *arguments: Any) -> None:
        return None
