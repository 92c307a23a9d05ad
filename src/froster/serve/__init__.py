"""The web server: an HTTP API around recognizers, and a page that uses it. Needs
froster-video[web].

A request goes guard -> app -> upload -> limits -> jobs -> models, and nothing that a client sends
is taken for a path.
"""

from pathlib import Path

from starlette.responses import JSONResponse
from starlette.templating import Jinja2Templates

from froster.errors import FrosterError

STATIC = Path(__file__).parent / "static"
"""The pages with their style and scripts."""
PAGES = Jinja2Templates(STATIC)


class Refusal(FrosterError):
    """An HTTP status, what the client is told, and headers."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The form of every error; none tells anything about the server."""
    return JSONResponse({"error": " ".join(message.split())}, status, headers)
