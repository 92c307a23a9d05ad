"""A small server of files, with parts of them or without, that behaves badly where a test asks it
to, and counts what it was asked for."""

from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site(ThreadingHTTPServer):
    """`files`: name -> content; `moods`: name -> how it is served, by `Handler.MOODS`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.moods: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.asked: list[str] = []
        self.sent = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self) -> None:
        """Counts anew."""
        self.asked.clear()
        self.sent = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of a client that has gone: no concern of the server's."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        mood, server = self.server.moods.get(name, ""), self.server
        earlier = sum(asked == name for asked in server.asked)
        server.asked.append(name)
        if mood.isdecimal():
            return self.say(int(mood))
        if mood.startswith("to "):
            return self.say(302, Location=mood.removeprefix("to "))
        if mood == "busy once" and not earlier:
            return self.say(503)
        if mood == "silent" or (mood == "silent once" and not earlier):
            time.sleep(2)
            self.close_connection = True
            return None
        if name not in server.files:
            return self.say(404)
        return self.send(name, mood, earlier)

    def send(self, name: str, mood: str, earlier: int) -> None:
        content = self.server.files[name]
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, after = 0, len(content)
        if part and mood not in ("whole", "lies whole"):
            first = int(part[1])
            after = min(len(content), int(part[2]) + 1) if part[2] else after
            if first >= len(content):
                return self.say(416, Content_Range=f"bytes */{len(content)}")
            self.send_response(206)
            begin = first + 1 if mood == "another part" else first
            total: Any = len(content) * (2 if mood == "lies" else 1)
            if mood == "total unknown":
                total = "*"
            self.send_header("Content-Range", f"bytes {begin}-{after - 1}/{total}")
        else:
            self.send_response(200)
        if mood == "changes":
            self.server.versions[name] = self.server.versions.get(name, 0) + 1
        self.send_header("ETag", f'"{self.server.versions.get(name, 0)}"')
        data = content[first:after]
        stated = len(data) * (2 if mood == "lies whole" else 1)
        self.send_header("Content-Length", str(stated))
        self.end_headers()
        if mood == "cut" or (mood == "cut once" and not earlier):
            data = data[: len(data) // 2]
        if stated > len(data):
            self.close_connection = True
        self.server.sent += len(data)
        if mood == "drips":
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
            return None
        self.wfile.write(data)
        return None

    def say(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()
