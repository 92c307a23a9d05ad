"""`froster methods`: what `froster train` can build and distil."""

import dataclasses
from typing import Any

from froster.cli import options
from froster.cli.common import start_torch
from froster.training.distill_options import Distill
from froster.utils import strict_json as json
from froster.utils.progress import output, print_table


def methods(*, as_json: options.Json = False) -> None:
    """The video networks and the kinds of distillation that there are."""
    start_torch()
    from froster.methods.recipe import FROSTER
    from froster.methods.trainings import TRAININGS
    from froster.report.methods import listing, preset_line
    from froster.training.distill_options import PRESETS

    networks, trainings = listing(), {"froster": FROSTER, **TRAININGS}
    if as_json:
        presets, distill = (
            {name: dataclasses.asdict(preset) for name, preset in known.items()}
            for known in (trainings, PRESETS)
        )
        print(json.dumps({"methods": networks, "presets": presets, "distill": distill}))
        return
    output.print(
        "froster train --method NAME --variant NAME    (weights trained on CLIP B/16; where"
        " distillation attaches; another command where one is named)"
    )
    output.print()
    for network in networks:
        show(network)
    output.print(
        "After training, for every method: mean of the epochs' weights, interpolation with CLIP"
        " (WiSE-FT, PAINT), and the mean of its outputs with frozen CLIP's, as logits or"
        " probabilities; train reports all of them."
    )
    output.print(
        "A second task: froster train --remember, then --model RUN --hold si (synaptic"
        " intelligence). Without training: classify and evaluate --transport (OST's match)."
    )
    output.print()
    output.print("froster train --preset: a method inside another training than its paper's")
    for name, preset in trainings.items():
        output.print(f"    {name:16} {preset_line(preset)}", soft_wrap=True)
    output.print()
    output.print("froster train --distill")
    print_table(
        ("distill", "target", "through", "teacher", "compared", "level", "features", "weights"),
        [(name, *cells_of(preset)) for name, preset in PRESETS.items()],
    )


def cells_of(preset: Distill) -> tuple[str, ...]:
    """The row of a preset of the distillation, after its name."""
    if preset.kind == "none":
        return ("–",) * 7
    compared = {
        "features": f"{preset.distance}, {preset.reduction}",
        "logits": f"temperature {preset.temperature:g}",
        "anchors": f"{preset.anchors} anchors",
    }
    weights = [preset.joint_weight] if preset.joint else [preset.beta_v, preset.beta_t]
    return (
        preset.target,
        preset.kind,
        f"EMA {preset.ema_beta:g}" if preset.teacher == "ema" else "frozen",
        compared.get(preset.target, "relations"),
        preset.level,
        "unit" if preset.unit else "raw",
        ", ".join(f"{weight:g}" for weight in weights),
    )


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
        if network["command"] == "froster rehearse":
            place = f"froster rehearse --fusion {name}"
        output.print(f"    {name or '(no variants)':16} {trained}  {place}", soft_wrap=True)
    output.print()
