"""What the licence of weights allows, in words, and where the hub states it."""

from __future__ import annotations

import re
from pathlib import Path

from froster.encoders.known import known_encoder
from froster.utils.progress import console

_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_ENTRY = re.compile(r"^(license|license_name):\s*(.+?)\s*$", re.MULTILINE)
_LONGEST = 1 << 16
"""Characters of a README that are read."""
RESEARCH_ONLY = "for research only, not for commercial use"
NOT_COMMERCIAL = "not for commercial use"
_RESEARCH = ("apple-amlr", "research")
_NC = re.compile(r"(^|[^a-z])nc([^a-z]|$)|non-?commercial")


def restriction(licence: str) -> str:
    """What a licence forbids, in words, by the hub's tag; "" where it names no such limit."""
    tag = licence.lower()
    if any(word in tag for word in _RESEARCH):
        return RESEARCH_ONLY
    return NOT_COMMERCIAL if _NC.search(tag) else ""


def stated_licence(folder: Path) -> str:
    """The licence in the front matter of a repository's README; "" where it states none."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST)
    except OSError:
        return ""
    matter = _FRONT_MATTER.match(text)
    entries = {
        name: value.strip("\"'") for name, value in _ENTRY.findall(matter[1] if matter else "")
    }
    licence = entries.get("license", "")
    named = entries.get("license_name", "")
    return (named if licence in ("", "other") and named else licence)[:80]


def tell_licence(repo: str, folder: Path) -> None:
    """One line on standard error on the licence of weights that are about to be downloaded."""
    known = known_encoder(repo)
    licence = known.licence if known else stated_licence(folder)
    words = licence or "none is stated: ask its authors before you use it"
    limit = restriction(licence)
    console.tell(f"{repo}: licence {words}{f' ({limit})' if limit else ''}")
