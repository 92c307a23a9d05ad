"""Requests that are not carried out."""

from __future__ import annotations

from froster.errors import FrosterError


class Refusal(FrosterError):
    """An HTTP status, what the client is told, and headers."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
