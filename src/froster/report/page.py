"""The report page: one HTML file that needs nothing but the figures in the folder beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from froster.utils.files import write_text
from froster.utils.printable import printable

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2.5rem auto;
       padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
figure { margin: 1rem 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e4e4e4 }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left } td { white-space: nowrap } tr.main td { font-weight: 600 }
img { max-width: 100%; height: auto } code, pre { background: #f5f5f5; border-radius: 4px; padding: .1rem .3rem }
pre { padding: .8rem; overflow-x: auto } .note { color: #555 }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 }
.card { flex: 1 1 13rem; border: 1px solid #e4e4e4; border-left: .4rem solid #8c8c8c; border-radius: 6px; padding: .7rem 1rem }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums } .card span { color: #555; font-size: .9rem }
.card.good { border-left-color: #009e73 } .card.good b { color: #00795a }
.card.bad { border-left-color: #d55e00 } .card.bad b { color: #b34f00 }
.warning { background: #fff6e0; border-left: .3rem solid #e69f00; padding: .4rem .8rem; margin: .5rem 0 }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1.2rem }
.strips figure { margin: 0 } .strips img { width: 100%; border-radius: 4px } .strips figcaption { font-size: .9rem }
"""


def escaped(text: str) -> str:
    """As text of HTML, with what would be hidden or turn the direction written out."""
    return html.escape("\n".join(map(printable, text.split("\n"))))


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def code(text: str) -> str:
    return f"<pre>{escaped(text)}</pre>"


def figure(path: Path, page: Path, caption: str) -> str:
    source = escaped(path.relative_to(page.parent).as_posix())
    text = escaped(caption)
    return (
        f'<figure><img src="{source}" alt="{text}"><figcaption'
        f' class="note">{text}</figcaption></figure>'
    )


def embedded(picture: bytes, caption: str, kind: str = "png") -> str:
    """A picture inside the page itself, so that the page can be sent alone."""
    text = escaped(caption)
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return (
        f'<figure><img src="{source}" alt="{text}"><figcaption'
        f' class="note">{text}</figcaption></figure>'
    )


def cards(values: Sequence[tuple[str, str, str, str]]) -> str:
    """Large numbers: (title, number, explanation, good | bad | "")."""
    return (
        '<div class="cards">'
        + "".join(
            '<div class="card'
            f' {kind}">{escaped(title)}<b>{escaped(number)}</b><span>{escaped(text)}</span></div>'
            for title, number, text, kind in values
        )
        + "</div>"
    )


def strips(figures: Sequence[str]) -> str:
    return f'<div class="strips">{"".join(figures)}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], main: Sequence[int] = ()) -> str:
    """Cells as text, those of the first two columns flush left; the rows whose index is in `main`
    are set in bold."""
    head = "".join(f"<th>{escaped(c)}</th>" for c in columns)
    body = "".join(
        f"<tr{' class=main' if i in main else ''}>"
        + "".join(f"<td>{escaped(c)}</td>" for c in row)
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return (
        "<div"
        f' class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def write_page(path: Path, title: str, sections: Sequence[tuple[str, Sequence[str]]]) -> Path:
    """`sections`: (heading, HTML parts); an empty heading continues the top of the page."""
    parts = [f"<h1>{escaped(title)}</h1>"]
    for heading, content in sections:
        parts += [f"<h2>{escaped(heading)}</h2>"] if heading else []
        parts += content
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta'
        f' charset="utf-8"><title>{escaped(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{chr(10).join(parts)}</body></html>\n",
    )
    return path
