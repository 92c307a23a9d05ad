"""`froster label`: a page that asks for the labels that teach most, a key for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import announce, given_labels, load_model, start_torch
from froster.cli.options import number, option
from froster.cli.serve import address, bound, check_web
from froster.errors import UsageError
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console, output
from froster.utils.text import shell_command

if TYPE_CHECKING:
    import socket

    from froster.training.labelling import Labelling


def label(
    index: Annotated[str, option("Folder that froster index wrote, or its address (s3://…).")],
    /,
    *,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    out: Annotated[
        Path | None, option("Manifest of the labels, .jsonl; default: INDEX.labels.jsonl.")
    ] = None,
    model: Annotated[options.Model, option("The index's model, if it lies elsewhere now.")] = None,
    root: Annotated[Path | None, option("Folder of the videos, if they lie elsewhere now.")] = None,
    port: Annotated[int, number("0: any that is free.", 0, 65535)] = 7861,
    device: options.Device = None,
    precision: options.Precision = "auto",
) -> None:
    """Label the segments of an index on a page of this machine, those first that teach most. It
    goes on where it stopped.

    Example: froster label index --labels "walking, running"
    """
    check_web("label")
    start_torch()
    from froster.inference.index import check_not_empty
    from froster.inference.store import Store
    from froster.training.labelling import Labelling
    from froster.utils.files import sole_maker

    names = [] if labels is None and labels_file is None else given_labels(labels, labels_file)
    store = Store(index, root)
    check_not_empty(store)
    if out is None:
        if not isinstance(store.folder, Path):
            raise UsageError("--out: say to which file of this machine the labels of this index go")
        folder = store.folder.absolute()
        out = folder.with_name(f"{folder.name}.labels.jsonl")
    with sole_maker(out), bound("127.0.0.1", port) as listening:
        recognizer = load_model(
            model or store.source, device, precision, merge_tokens=store.merge_tokens
        )
        announce(recognizer, model or store.source)
        labelling = Labelling(store, recognizer, out, names)
        if labelling.elsewhere:
            console.tell(f"{labelling.elsewhere} labels in {out} are of no segment of this index")
        try:
            serve_page(labelling, listening)
        except Interrupted:
            pass
        finally:
            show(labelling, index)


def serve_page(labelling: Labelling, listening: socket.socket) -> None:
    """Until Ctrl-C."""
    import uvicorn

    from froster.serve.connections import MOST_CONNECTIONS, Connection
    from froster.serve.guard import Guard
    from froster.serve.labelling import create_label_app

    config = uvicorn.Config(
        Guard(create_label_app(labelling), None),
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=MOST_CONNECTIONS,
    )
    listening.listen()  # whoever reads the line may come at once
    console.print(f"labelling at {address(listening)} (Ctrl-C ends it, and loses nothing)")
    uvicorn.Server(config).run(sockets=[listening])


def show(labelling: Labelling, index: str) -> None:
    labelled = len(labelling.labelled.rows)
    output.tell(f"{labelling.out}: {labelled} labels")
    if labelled:
        words = ("--labels", labelling.out, "--method", "lp++", "--out", "taught")
        console.tell(f"teach a model: {shell_command('teach', index, *words)}")
