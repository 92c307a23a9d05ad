"""The report page: one HTML file that needs nothing but the figures in the folder beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, Template
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
    look: str = ""
    source: str = ""
    caption: str = ""
    cards: Sequence[Card] = ()
    figures: Sequence[Part] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    main: Sequence[int] = field(default=())
    """Indices of the rows that are set in bold."""


Section = tuple[str, Sequence[Part]]
"""A heading and what stands under it; an empty heading continues the top of the page."""


def paragraph(text: str, look: str = "") -> Part:
    """`look`: "note", "warning" or nothing."""
    return Part("paragraph", text, look)


def code(text: str) -> Part:
    return Part("code", text)


def figure(path: Path, page: Path, caption: str) -> Part:
    """A picture in a file below the folder of the page."""
    return Part("figure", source=path.relative_to(page.parent).as_posix(), caption=caption)


def embedded(picture: bytes, caption: str, kind: str = "png") -> Part:
    """A picture inside the page itself, so that the page can be sent alone."""
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return Part("figure", source=source, caption=caption)


def cards(values: Sequence[Card]) -> Part:
    return Part("cards", cards=values)


def strips(figures: Sequence[Part]) -> Part:
    return Part("strips", figures=figures)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], main: Sequence[int] = ()) -> Part:
    """Cells as text, those of the first two columns flush left."""
    return Part("table", columns=columns, rows=rows, main=main)


def write_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Raises WriteError where the page cannot be written; an older one stays then."""
    page = template("page.html")
    write_text(path, page.render(title=title, style=style(), sections=sections))
    return path


def style() -> Markup:
    """The style sheet of a page."""
    return Markup(template("page.css").render())


@cache
def template(name: str) -> Template:
    """A template of this room. All values are escaped, and what would be hidden or turn the
    direction of the text is written out."""
    environment = Environment(
        loader=PackageLoader("froster.report"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _shown(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(map(printable, value.split("\n")))
