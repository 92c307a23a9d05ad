"""The report page: one HTML file that needs nothing but the figures in the folder beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from froster.utils.files import write_text
from froster.utils.text import printable

Card = tuple[str, str, str, str]
"""Title, number, explanation, and what it is: good, bad or ""."""


@dataclass(frozen=True)
class Part:
    """One element of a page, as `templates/page.html` draws its kind."""

    kind: str
    text: str = ""
    style: str = ""
    source: str = ""
    caption: str = ""
    cards: Sequence[Card] = ()
    figures: Sequence[Part] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    main: Sequence[int] = ()
    """Indices of the rows that are set in bold."""


Section = tuple[str, Sequence[Part]]
"""A heading and what stands under it; an empty heading continues the top of the page."""


paragraph = partial(Part, "paragraph")
"""Of a text and a style: "note", "warning" or nothing."""
code = partial(Part, "code")


def figure(path: Path, page: Path, caption: str) -> Part:
    """A picture in a file below the folder of the page."""
    return Part("figure", source=path.relative_to(page.parent).as_posix(), caption=caption)


def embedded(picture: Path | bytes, caption: str) -> Part:
    """A picture (a .png, or the bytes of a JPEG) inside the page, which can be sent alone."""
    kind, data = ("jpeg", picture) if isinstance(picture, bytes) else ("png", picture.read_bytes())
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Part("figure", source=source, caption=caption)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], main: Sequence[int] = ()) -> Part:
    """Cells as text, those of the first two columns flush left."""
    return Part("table", columns=columns, rows=rows, main=main)


def write_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Raises WriteError where the page cannot be written; an older one stays then."""
    # All values are escaped, and what would be hidden or turn the direction of the text is written
    # out.
    templates = Environment(
        loader=PackageLoader("froster.report"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    page = templates.get_template("page.html")
    write_text(path, page.render(title=title, sections=sections))
    return path


def _shown(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Markup):  # what a macro has made
        return value
    return "\n".join(map(printable, value.split("\n")))
