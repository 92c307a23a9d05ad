"""`froster push`: a model folder, with a card, to the Hugging Face hub."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from froster.cli import options
from froster.cli.common import show_result, start_torch
from froster.cli.options import option
from froster.utils.progress import console, output
from froster.utils.text import printable


def push(
    folder: Annotated[
        Path, option("Output folder of froster train, or a model folder.", metavar="DIR")
    ],
    repo: Annotated[
        str, option("Repository on the Hugging Face hub; made if need be.", metavar="USER/NAME")
    ],
    /,
    *,
    licence: Annotated[
        str | None, option("The hub's name of a licence: apache-2.0, cc-by-4.0 …", name="--license")
    ] = None,
    private: Annotated[bool, option("A new repository that only you can see.")] = False,
    dry_run: Annotated[bool, option("Only show the card and what would be sent.")] = False,
    as_json: options.Json = False,
) -> None:
    """Publish a model with a card; froster.load("USER/NAME") reads it anywhere. HF_TOKEN and
    HF_ENDPOINT are honoured.

    Example: froster push runs/first me/my-gestures --license cc-by-4.0 --dry-run
    """
    start_torch()
    from froster.inference import hub

    if licence is None:
        console.print(
            "no --license: the card says that none was given, so nobody may use the model without"
            " asking"
        )
    result = hub.push(folder, repo, licence, private=private, dry_run=dry_run)
    show_result(result, as_json, partial(show, repo, dry_run))


def show(repo: str, dry_run: bool, result: dict[str, Any]) -> None:
    for text in result["card"].splitlines() if dry_run else ():
        print(printable(text), flush=True)
    for name, length in result["files"].items():
        console.print(f"{'would send' if dry_run else 'sent'} {name} ({length:,} bytes)")
    if not dry_run:
        output.print(result["url"])
        console.print(f'froster.load("{repo}") reads it')
