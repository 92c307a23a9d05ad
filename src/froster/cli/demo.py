"""`froster demo`: the whole job on the rendered world, offline."""

from pathlib import Path
from typing import Annotated

from froster.cli import options
from froster.cli.common import start_torch
from froster.cli.options import option


def demo(
    *,
    out: Annotated[Path, option("Folder for the models, the report page and its figures.")] = Path(
        "demo"
    ),
    seed: Annotated[int, option("Draws the 16 shots a class, their order and the projectors.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Fine-tune the nano CLIP on a rendered world, offline: frozen, fine-tuned and FROSTER side by
    side.

    Example: froster demo --seed 1 --out demo
    """
    start_torch()
    from froster.world.demo import run

    run(seed, out, as_json=as_json)
