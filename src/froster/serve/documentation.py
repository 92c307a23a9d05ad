"""The page of documentation, made from the OpenAPI description, without a script and without the
internet."""

from __future__ import annotations

import html
from typing import Any

from froster.report.page import style
from froster.utils import strict_json as json

_MORE = "th, td { text-align: left !important } pre { white-space: pre-wrap }"
_CURL = {
    "/v1/classify": "-F video=@holiday.mp4 -F 'labels=surfing, skiing, cooking' -F top=2",
    "/v1/timeline": "-F video=@holiday.mp4 -F 'labels=surfing, skiing, cooking' -F min_segment=2",
    "/v1/embed": '-F video=@holiday.mp4 -F \'labels=["surfing", "skiing"]\'',
    "/healthz": "",
}


def documentation(api: dict[str, Any], address: str) -> str:
    """`api`: what /openapi.json says. One section a route: what it does, a call by curl, its
    fields, its answers."""
    sections = [
        _route(path, method, about, api, address)
        for path, methods in api["paths"].items()
        for method, about in methods.items()
    ]
    title = html.escape(f"{api['info']['title']} {api['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: the'
        ' API</title><meta name="viewport"'
        f' content="width=device-width"><style>{style()}{_MORE}</style></head><body><h1>{title}: the'
        " API</h1><p>Every error is <code>{&quot;error&quot;: …}</code> with its status. The"
        " same in a form for programs: <a"
        f' href="openapi.json">openapi.json</a>.</p>{"".join(sections)}</body></html>'
    )


def _route(path: str, method: str, about: dict[str, Any], api: dict[str, Any], address: str) -> str:
    fields = ""
    if body := about.get("requestBody"):
        ((_, content),) = body["content"].items()
        form = content["schema"]
        rows = [
            _field(name, each, name in form.get("required", []))
            for name, each in form["properties"].items()
        ]
        fields = _table(("field", "", "what it is"), rows)
    answers = [
        (status, each.get("description", ""))
        for status, each in about["responses"].items()
        if status != "200"
    ]
    schema = about["responses"]["200"]["content"]["application/json"]["schema"]
    answer = json.dumps(_example(schema, api), indent=2)
    curl = f"curl {_CURL.get(path, '')} {address}{path}".replace("  ", " ")
    return (
        f"<h2>{method.upper()}"
        f" {html.escape(path)}</h2><p>{html.escape(about.get('description', ''))}</p><pre>{html.escape(curl)}</pre>{fields}<p>The"
        f" answer:</p><pre>{html.escape(answer)}</pre>"
        + (_table(("status", "when"), answers) if answers else "")
    )


def _field(name: str, field: dict[str, Any], required: bool) -> tuple[str, str, str]:
    bounds = [
        f"{word} {field[key]:g}"
        for key, word in (("minimum", "at least"), ("exclusiveMinimum", "above"))
        if key in field
    ]
    kind = ", ".join(
        [field.get("format", field.get("type", "")), *bounds, *(["needed"] if required else [])]
    )
    return name, kind, field.get("description", "")


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [
        f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _example(schema: dict[str, Any], api: dict[str, Any]) -> Any:
    """What an answer looks like: its names, with the types for values."""
    if "$ref" in schema:
        return _example(api["components"]["schemas"][schema["$ref"].rpartition("/")[2]], api)
    if "anyOf" in schema:
        return " or ".join(
            str(_example(kind, api)) if kind.get("type") != "array" else "list"
            for kind in schema["anyOf"]
        )
    if schema.get("type") == "object":
        return {name: _example(each, api) for name, each in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_example(schema["items"], api)]
    return schema.get("type", "")
