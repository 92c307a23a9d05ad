"""`froster push`: a model folder, with a card, to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from froster.errors import FrosterError, UsageError
from froster.inference.card import HUB_ID, files
from froster.inference.model_folder import folder_of
from froster.utils import strict_json as json
from froster.utils.progress import console, output
from froster.utils.text import printable


def run(
    folder: Path, repo: str, licence: str | None, *, private: bool, dry_run: bool, as_json: bool
) -> None:
    """Everything `froster push` does; the options are described there."""
    if not HUB_ID.fullmatch(repo):
        raise UsageError(f"a repository is USER/NAME, not {repo!r}")
    if licence is not None and not re.fullmatch(r"[a-z0-9.-]+", licence):
        raise UsageError(
            "--license takes the hub's short name, such as apache-2.0 or cc-by-4.0, not"
            f" {licence!r}"
        )
    sent = files(model_folder(folder), repo, licence)
    if licence is None:
        console.print(
            "no --license: the card says that none was given, so nobody may use the model without"
            " asking"
        )
    result: dict[str, Any] = {
        "repo": repo,
        "private": private,
        "files": {name: size(content) for name, content in sent.items()},
    }
    if not dry_run:
        result["url"] = upload(sent, repo, private)
    if as_json:
        print(json.dumps({**result, "card": bytes(sent["README.md"]).decode()}))  # type: ignore[arg-type]
        return
    if dry_run:
        for text in bytes(sent["README.md"]).decode().splitlines():  # type: ignore[arg-type]
            print(printable(text), flush=True)
    for name, length in result["files"].items():
        console.print(f"{'would send' if dry_run else 'sent'} {name} ({length:,} bytes)")
    if not dry_run:
        output.print(result["url"])
        console.print(f'froster.load("{repo}") reads it')


def model_folder(folder: Path) -> Path:
    """The model in a folder of a run, or the folder itself. Raises UsageError where it is none."""
    found = folder_of(
        os.path.abspath(os.path.expanduser(folder))
    )  # a folder that is called nano is no name here
    if found is None:
        raise UsageError(
            f"{folder} is neither a model folder of froster nor an output folder of froster train"
        )
    return found


def size(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    if not content.is_file():
        raise UsageError(f"{content} does not exist: the model folder is not whole")
    return content.stat().st_size


def upload(sent: dict[str, bytes | Path], repo: str, private: bool) -> str:
    """One commit with all files; the repository's address. Raises UsageError without a token,
    FrosterError on refusal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub  # slow to import

    if huggingface_hub.get_token() is None:
        raise UsageError(
            "the hub wants to know you: run `hf auth login`, or set HF_TOKEN to a token that may"
            " write"
        )
    api = huggingface_hub.HfApi(library_name="froster")
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        operations = [
            huggingface_hub.CommitOperationAdd(
                name, content if isinstance(content, bytes) else str(content)
            )
            for name, content in sent.items()
        ]
        api.create_commit(repo, operations, commit_message="Model pushed by froster")
    except Exception as error:  # every transport has its own family of errors
        first = next(iter(str(error).splitlines()), "")
        raise FrosterError(
            f"{repo} could not be pushed to {api.endpoint} ({type(error).__name__}: {first})"
        ) from None
    return str(url)
