"""Addresses where a local path belongs (s3://…, https://…): named and refused, before `Path` makes
"s3:/" of them."""

from __future__ import annotations

import os
import re
from os import PathLike

from froster.errors import UsageError

# A scheme has two letters at least: C:\\videos is a path.
_ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# What `Path` has left of one. A folder may be called "notes:", so only these are taken for
# addresses.
_MANGLED = re.compile(
    r"(s3[an]?|gc?s|hf|https?|s?ftps?|file|rt[sm]ps?|az|abfss?|wasbs?|hdfs|ssh):/", re.IGNORECASE
)


def is_address(path: str | PathLike[str]) -> bool:
    if isinstance(path, str):
        return _ADDRESS.match(path) is not None
    name = os.fspath(path)
    return _MANGLED.match(name) is not None and not os.path.exists(name)


def refusal(address: str | PathLike[str]) -> str:
    """What is said of it, with what to do."""
    name = os.fspath(address)
    scheme = name.strip().partition(":")[0].lower()
    if scheme == "file":
        what = "give the path alone, without file://"
    elif scheme == "hf":
        what = "a model of the hub is named by its id, USER/NAME"
    elif scheme in ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "tcp", "udp"):
        what = "download it and give its path (froster watch reads streams)"
    else:
        what = "copy to or from it yourself, and give a path"
    return f"{name} is an address; froster reads and writes local files: {what}"


def refuse_address(*paths: str | PathLike[str] | None) -> None:
    """Raises UsageError where one of them is an address."""
    for path in paths:
        if path is not None and is_address(path):
            raise UsageError(refusal(path))
