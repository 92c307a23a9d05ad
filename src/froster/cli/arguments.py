"""What is checked of every command's arguments before the command begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from froster.errors import FrosterError
from froster.utils.address import refuse_address
from froster.utils.text import printable

NO_FILES = ("labels", "text", "source", "endpoint")
"""Arguments in which an address may stand. Every other one that is a text names a file, or is
nothing like an address."""

FILES = (("describe", "labels"),)
"""Command and argument: a file after all."""


class _Escaped:
    """Usage errors quote what was typed; nothing in it is obeyed by the terminal."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)  # type: ignore[misc]
        except Exception as error:
            if isinstance(getattr(error, "message", None), str):
                error.message = printable(error.message)  # type: ignore[attr-defined]
            raise


class Command(_Escaped, TyperCommand):
    """Refuses addresses where files are meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        given, _, _ = self.make_parser(ctx).parse_args(
            list(args)
        )  # as typed: a Path would be "s3:/" already
        for name, value in given.items():
            if name not in NO_FILES or (self.name, name) in FILES:
                refuse_address(*(part for text in texts(value) for part in text.split(",")))
        return super().parse_args(ctx, args)


class Group(_Escaped, TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Of which click would say "Aborted." alone: it takes the end of a file or of a process for
        that of a dialogue."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise FrosterError(
                f"what was being read ended too early{f': {error}' if str(error) else ''}"
            ) from error


class App(typer.Typer):
    """All commands are of the kind above."""

    def command(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return super().command(*args, **{"cls": Command, **options})


def texts(value: Any) -> Iterator[str]:
    """Of an argument that may be repeated, or left out, all texts that were given."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value
