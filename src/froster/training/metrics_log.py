"""`metrics.jsonl`: what a run says of each of its steps and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from froster.utils import strict_json as json
from froster.utils.files import cannot_write, write_text


def epoch_of(line: str) -> float | None:
    """A line's epoch; None for a line that cannot be read."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None
    return epoch if isinstance(epoch, (int, float)) else None


class MetricsLog:
    """`metrics.jsonl`: one object a line. Lines of epochs that a resumed run will repeat are
    dropped, and what cannot be read: a last line that a kill has cut off, which is written again,
    and others, which are counted in `lost`."""

    def __init__(self, path: Path, epochs_done: int, active: bool):
        self.path, self.epochs_done, self.active = path, epochs_done, active
        self.lost = 0
        if active:
            text = path.read_text(errors="replace") if path.exists() and epochs_done else ""
            lines = [line for line in text.split("\n") if line]
            epochs = [epoch_of(line) for line in lines]
            self.lost = epochs[:-1].count(None)
            kept = [
                line
                for line, epoch in zip(lines, epochs, strict=True)
                if epoch is not None and epoch <= epochs_done
            ]
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        """Raises WriteError where the disk is full."""
        if not self.active:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def damage(self, passed_over: Sequence[str]) -> list[str]:
        """What cannot be read, in lines. `passed_over`: what is wrong with newer checkpoints than
        the one that the run goes on from."""
        lines = [
            f"{line}: going on from epoch {self.epochs_done}, the newest whole checkpoint"
            for line in passed_over
        ]
        if self.lost:
            lines.append(f"{self.path}: {self.lost} lines cannot be read and are left out")
        return lines
