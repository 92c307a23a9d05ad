"""What a file of results was made with, beside it: rows made otherwise do not come into the same
file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.files import write_text

_SHOWN = 60


def check_origin(out: Path, made: dict[str, Any], begun: bool) -> None:
    """Writes `<out>.run.json` at the first run; later raises UsageError where something differs
    from what it says.

    `begun` says whether there are results: without their origin they are somebody else's.
    """
    path = out.with_name(f"{out.name}.run.json")
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(earlier, dict):
            raise ValueError
    except FileNotFoundError:
        if begun:
            raise UsageError(
                f"{out} exists, and no {path.name} says what it was made with: choose another --out"
            ) from None
        write_text(path, json.dumps(made, indent=1) + "\n")
        return
    except (OSError, ValueError):
        raise UsageError(f"{path}: cannot be read; choose another --out") from None
    for name, value in json.loads(json.dumps(made)).items():
        if earlier.get(name) != value:
            before, now = (_short(x) for x in (earlier.get(name), value))
            hint = "" if before != now else " (another one of that length)"
            raise UsageError(
                f"{out} was begun with {name} {before}, now it is {now}{hint}: take the same, or"
                " choose another --out"
            )


def _short(value: object) -> str:
    """Of a long list, how long it is."""
    if isinstance(value, list):
        return f"list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
