"""`froster methods`: what `froster train` can build and distil."""

import dataclasses
from typing import Any

from froster.cli import options
from froster.cli.common import print_table
from froster.utils import strict_json as json
from froster.utils.progress import output


def methods(*, as_json: options.Json = False) -> None:
    """The video networks and the kinds of distillation that train knows."""
    from froster.report.methods import listing
    from froster.training.distill import PRESETS

    networks = listing()
    if as_json:
        distill = {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()}
        print(json.dumps({"methods": networks, "distill": distill}))
        return
    output.print(
        "froster train --method NAME --variant NAME    (weights trained on CLIP B/16; where"
        " distillation attaches)"
    )
    output.print()
    for network in networks:
        show(network)
    output.print(
        "After training, for every method: mean of the epochs' weights, interpolation with CLIP"
        " (WiSE-FT, PAINT), and the mean of its outputs with frozen CLIP's, as logits or"
        " probabilities; train reports all of them."
    )
    output.print()
    output.print("froster train --distill")
    kinds = [
        (name, kind.kind, kind.distance, kind.level, kind.reduction, "unit" if kind.unit else "raw")
        for name, kind in PRESETS.items()
    ]
    print_table(("distill", "projector", "distance", "level", "reduction", "features"), kinds)


def show(network: dict[str, Any]) -> None:
    from froster.report.methods import millions

    output.print(
        f"[bold]{network['name']}[/bold]  {network['summary']}", markup=True, soft_wrap=True
    )
    output.print(f"    {network['reference']}", style="dim", soft_wrap=True)
    for name, facts in network["variants"].items():
        places = " and ".join(facts["distils"])
        place = f"distils {places}" if places else "nothing to distil"
        trained = f"{millions(facts['trained']):>9}"
        output.print(f"    {name or '(no variants)':16} {trained}  {place}", soft_wrap=True)
    output.print()
