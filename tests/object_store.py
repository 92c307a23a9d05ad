"""An object store of this machine, moto's server, in a process of its own; buckets are filled by
plain requests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

ACCESS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_START = 60.0


class Store:
    """`environment` is what a client of it needs."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {**ACCESS, "AWS_ENDPOINT_URL": self.url}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | ACCESS
        )
        end = time.monotonic() + _START
        while True:
            try:
                self.request("GET", "/moto-api/data.json")
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.2)

    def request(self, method: str, path: str, data: bytes | None = None) -> None:
        kind = {"Content-Type": "application/octet-stream"}
        asked = urllib.request.Request(self.url + path, data, kind, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            answer.read()

    def bucket(self, name: str) -> None:
        self.request("PUT", f"/{name}")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.request("PUT", f"/{bucket}/{key}", content)

    def lock(self) -> None:
        """From here on nobody has any right."""
        self.request("POST", "/moto-api/reset-auth", b"0")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
