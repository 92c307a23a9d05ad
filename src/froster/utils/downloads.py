"""Files at addresses that are needed whole and again and again (models): copied once, as long as
they stay the same, to the user's cache."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from froster.utils.address import Address
from froster.utils.caches import cache_folder
from froster.utils.remote import MOST_BYTES, source_of


def downloaded(*addresses: Address) -> Path:
    """A folder of this machine that holds these files by their names: in the cache, or where it is
    switched off, and where a server does not say which version of a file it has, until the process
    ends. Raises OSError."""
    sources = [source_of(address) for address in addresses]
    states = [source.state() for source in sources]
    parts = [f"{a} {s.size} {s.version}" for a, s in zip(addresses, states, strict=True)]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    kept = cache_folder() if all(state.version for state in states) else None
    folder = (kept / "addresses" if kept is not None else _passing()) / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for address, source in zip(addresses, sources, strict=True):
            with open(part / address.name, "w+b") as file:
                source.copy(file, MOST_BYTES)
        _put(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _put(part: Path, folder: Path) -> None:
    """Under its name, unless another process was faster."""
    try:
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():
            raise


@cache
def _passing() -> Path:
    folder = tempfile.mkdtemp(prefix="froster-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def hub_cause(error: BaseException) -> str:
    """Why the Hugging Face hub did not give a file. Its library says of each cause that nothing is
    in the cache, and names the cause within."""
    from huggingface_hub import errors

    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the cache has it not"
    if isinstance(error, errors.GatedRepoError):
        return "its owner gives access: ask for it on its page, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    if isinstance(error, errors.HfHubHTTPError) and (answer := error.response) is not None:
        more = f": {error.server_message}" if error.server_message else ""
        return f"the server says {answer.status_code} {answer.reason_phrase}".strip() + more
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def directly_below(folder: Address, files: Iterable[Address]) -> dict[str, Address]:
    """Those in the folder itself, by their names."""
    base = folder.text.rstrip("/")
    return {file.name: file for file in files if file.parent.text.rstrip("/") == base}
