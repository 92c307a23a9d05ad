"""What was measured of encoders on this machine, kept in the user's cache."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from froster.errors import WriteError
from froster.utils import strict_json as json
from froster.utils.caches import cache_folder, cache_lock
from froster.utils.files import write_text


@dataclass(frozen=True)
class Speed:
    """A measurement, with what it depends on."""

    encoder: str
    frames_per_second: float
    device: str
    """The processor or the chip, as it calls itself."""
    precision: str
    threads: int
    date: str

    def stated(self) -> str:
        return f"{self.frames_per_second:.3g} on {self.device}, {self.precision}"


def _file() -> Path | None:
    """Where this machine's measurements are: homes may be shared."""
    folder = cache_folder()
    return None if folder is None else folder / "speed" / f"{platform.node() or 'here'}.json"


def keep(speed: Speed) -> None:
    """In place of an earlier one of the same encoder. What cannot be written is not kept."""
    file = _file()
    if file is None:
        return
    with suppress(OSError, WriteError), cache_lock(file.parent):
        kept = {**measured(), speed.encoder: speed}
        write_text(file, json.dumps([asdict(one) for one in kept.values()], indent=1) + "\n")


def measured() -> dict[str, Speed]:
    """What was measured on this machine, by the encoder's name: the last of each."""
    file = _file()
    try:
        entries = json.loads(file.read_text(encoding="utf-8")) if file else []
        speeds = [Speed(**entry) for entry in entries]
        return {speed.encoder: speed for speed in speeds if speed.frames_per_second > 0}
    except (OSError, ValueError, TypeError):
        return {}
