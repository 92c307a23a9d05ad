"""Who may come in, and what browsers may do with the answers. Around everything that is served."""

import hmac
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from froster.serve import PAGES, Refusal, problem
from froster.serve.upload import read_body

_COOKIE = "froster"
_HOST = re.compile(r"(([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?)?", re.ASCII | re.IGNORECASE)
_LONGEST_LOGIN = 10_000
_OPEN = ("/healthz", "/static/page.css")
"""What needs no token: the page that asks for it looks like the others."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; media-src blob:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none, a form would not say that it is ours
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Guard:
    """With a token: it comes as `Authorization: Bearer …`, or, from a browser, once through a form
    that gives a cookie. Without one only requests for this machine itself are taken: another's host
    name could be made to lead here. Answers may load nothing from elsewhere, and run no script that
    is not one of our files."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = await self._refuse(Request(scope, receive))

            async def send_guarded(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(_HEADERS)
                await send(message)

            await (answer or self.app)(scope, receive, send_guarded)

    async def _refuse(self, request: Request) -> Response | None:
        """The answer, where the request goes no further."""
        headers, host = request.headers, request.headers.get("host", "")
        if self.token is None and not is_loopback(name_of(host)):
            return problem(
                403, f"{host[:100]!r} is not this machine: without a token only localhost is served"
            )
        reading = request.method in ("GET", "HEAD")
        sender = headers.get("origin")
        if sender is not None and not reading and urlsplit(sender).netloc != host:
            return problem(403, "sent by a page of another site")
        # The one that is routed: that of `request.url` is put together from the Host header.
        path = request.scope["path"]
        if self.token is not None and path not in _OPEN:
            if path == "/login" and request.method == "POST":
                return await self._login(request)
            if not self._knows(headers):
                if reading and "text/html" in headers.get("accept", ""):
                    return login_page(request, "")
                message = "the token is missing or wrong: Authorization: Bearer …"
                return problem(401, message, {"WWW-Authenticate": "Bearer"})
        if _HOST.fullmatch(host):
            return None
        return problem(400, "the Host header is no name of a host")

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._equal(given.strip(), self.token or ""):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._equal(cookie.value, self._session)

    @staticmethod
    def _equal(given: str, expected: str) -> bool:
        """In a time that does not tell how much of it is right."""
        return hmac.compare_digest(
            given.encode("utf-8", "replace"), expected.encode("utf-8", "replace")
        )

    async def _login(self, request: Request) -> Response:
        try:
            body = await read_body(request, _LONGEST_LOGIN)
        except Refusal as error:
            return problem(error.status, str(error), error.headers)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._equal(given.strip(), self.token or ""):
            return login_page(request, "That is not the token.")
        answer = RedirectResponse("/", 303)
        secure = request.scope["scheme"] == "https"
        answer.set_cookie(_COOKIE, self._session, httponly=True, samesite="strict", secure=secure)
        return answer


def is_loopback(name: str) -> bool:
    return name in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None


def name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def login_page(request: Request, complaint: str) -> Response:
    return PAGES.TemplateResponse(request, "login.html", {"complaint": complaint}, 401)
