"""The report page: one HTML file that needs nothing but the figures in the folder beside it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from froster.files import write_text

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2.5rem auto;
       padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e4e4e4 }
th:first-child, td:first-child { text-align: left } tr.main td { font-weight: 600 }
img { max-width: 100%; height: auto } code, pre { background: #f5f5f5; border-radius: 4px; padding: .1rem .3rem }
pre { padding: .8rem; overflow-x: auto } .note { color: #555 }
"""


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def code(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def figure(path: Path, page: Path, caption: str) -> str:
    source = html.escape(path.relative_to(page.parent).as_posix())
    text = html.escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption class="note">{text}</figcaption></figure>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], main: Sequence[int] = ()) -> str:
    """Cells as text; the rows whose index is in `main` are set in bold."""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        f'<tr{" class=main" if i in main else ""}>' + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
        for i, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_page(path: Path, title: str, sections: Sequence[tuple[str, Sequence[str]]]) -> Path:
    """`sections`: (heading, HTML parts); an empty heading continues the top of the page."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, content in sections:
        parts += [f"<h2>{html.escape(heading)}</h2>"] if heading else []
        parts += content
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{chr(10).join(parts)}</body></html>\n",
    )
    return path
