"""A small server that speaks the Hugging Face hub's protocol: repositories, commits, large files,
downloads.

It keeps everything in memory, asks for a token, and writes down each request: enough for `froster
push` and for the loading of what was pushed, through the very client that talks to the real hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"
LARGE = (".safetensors", ".png")
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """`repos`: name -> file -> content. `private`: names of repositories that were made private."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, code: int, content: bytes | dict | list = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        sent = self.body()
        may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for pattern, action in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                if self.command in ("POST", "PUT") and "/objects/" not in path and not may_write:
                    return self.reply(401, {"error": "Invalid username or password."})
                return action(self, sent, *found.groups())
        return self.reply(404, {"error": "Not found"}, X_Error_Code="EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def create(self, sent: bytes) -> None:
        asked = json.loads(sent)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.server.repos:
            return self.reply(
                409,
                {
                    "error": "You already created this model repo",
                    "url": f"{self.server.url}/{repo}",
                },
            )
        self.server.repos[repo] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repo)
        return self.reply(200, {"url": f"{self.server.url}/{repo}"})

    def validate(self, sent: bytes) -> None:
        self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, sent: bytes, repo: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(sent)["files"]
        ]
        self.reply(200, {"files": modes})

    def batch(self, sent: bytes, repo: str) -> None:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.server.url}/objects/{asked['oid']}"}}}
            for asked in json.loads(sent)["objects"]
        ]
        self.reply(200, {"transfer": "basic", "objects": objects})

    def put(self, sent: bytes, oid: str) -> None:
        if hashlib.sha256(sent).hexdigest() != oid:
            return self.reply(400, {"error": "the hash is another"})
        self.server.objects[oid] = sent
        return self.reply(200)

    def commit(self, sent: bytes, repo: str) -> None:
        for line in sent.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.repos[repo][value["path"]] = self.server.objects[value["oid"]]
        self.reply(
            200,
            {
                "commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}",
                "commitOid": COMMIT,
                "success": True,
            },
        )

    def info(self, sent: bytes, repo: str) -> None:
        if repo not in self.server.repos:
            return self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": name} for name in self.server.repos[repo]]
        return self.reply(
            200,
            {
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "private": False,
                "siblings": siblings,
                "tags": [],
            },
        )

    def tree(self, sent: bytes, repo: str) -> None:
        listed = [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            for name, content in self.server.repos[repo].items()
        ]
        self.reply(200, listed)

    def resolve(self, sent: bytes, repo: str, name: str) -> None:
        content = self.server.repos.get(repo, {}).get(name)
        if content is None:
            return self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        return self.reply(
            200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT
        )


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{REPO}/preupload/main", Handler.preupload),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /objects/(\w+)", Handler.put),
    (rf"POST /api/models/{REPO}/commit/main", Handler.commit),
    (rf"GET /api/models/{REPO}(?:/revision/\w+)?", Handler.info),
    (rf"GET /api/models/{REPO}/tree/\w+", Handler.tree),
    (rf"(?:GET|HEAD) /{REPO}/resolve/\w+/(.+)", Handler.resolve),
]
