"""What could not be done and why, in a file of its own: a line for each file, kept from run to run."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from froster.utils.files import Appender, json_line, read_lines, write_text


class Failures:
    """`{"path": …, "error": …}` a line. `causes` is what is known of each path; what is `done` has
    not failed."""

    def __init__(self, path: Path, done: Container[str]) -> None:
        self.path = path
        entries, length = read_lines(path)
        self.causes = {
            str(entry["path"]): str(entry.get("error", "")) for entry in entries if "path" in entry
        }
        for key in [key for key in self.causes if key in done]:
            del self.causes[key]
        if len(self.causes) < len(entries):
            length = self.write()
        self._keep = length
        self._file: Appender | None = None

    def add(self, key: str, cause: str) -> None:
        if self._file is None:
            self._file = Appender(self.path, keep=self._keep)
        self._file.add(json_line({"path": key, "error": cause}))
        self.causes[key] = cause

    def write(self) -> int:
        """One line for each that has failed, and no file where none has. Returns the length in
        bytes."""
        text = "".join(
            json_line({"path": key, "error": cause}) for key, cause in self.causes.items()
        )
        if text:
            write_text(self.path, text)
        else:
            self.path.unlink(missing_ok=True)
        return len(text.encode())

    def close(self, done: Container[str]) -> None:
        if self._file is not None:
            self._file.close()
        if any(key in done for key in self.causes):
            self.causes = {key: cause for key, cause in self.causes.items() if key not in done}
            self.write()
