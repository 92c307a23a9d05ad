"""A file of labels that is looked at while something else runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from froster.text.labels import file_and_column, read_label_set
from froster.utils.progress import reason

_EVERY = 0.25  # seconds


class LabelFile:
    """Calls `apply` with the labels of a file whenever its content has changed, in a thread of its
    own, and `note` with what was done. Where the new content is no good, or `apply` refuses it, the
    note says so and nothing else happens."""

    def __init__(
        self,
        path: Path,
        labels: list[str],
        apply: Callable[[list[str]], None],
        note: Callable[[str], None],
    ):
        self.path, self.labels, self.apply, self.note = path, labels, apply, note
        self._stop = threading.Event()
        self._read = self._state()
        threading.Thread(target=self._run, name=f"labels of {path}", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(file_and_column(self.path)[0])
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _run(self) -> None:
        seen = self._read
        while not self._stop.wait(_EVERY):
            state = self._state()
            if (
                state == seen and state != self._read
            ):  # unchanged since the last look: nobody is still writing
                self._read = state
                self._take()
            seen = state

    def _take(self) -> None:
        try:
            labels = read_label_set(self.path)
            if labels == self.labels:
                return
            self.apply(labels)
        except (
            Exception
        ) as error:  # out of memory on the GPU, say: the labels stay, and so does this thread
            self.note(f"labels not changed: {reason(error)}")
            return
        self.labels = labels
        self.note(f"{len(labels)} labels from now on: {', '.join(labels)}")
