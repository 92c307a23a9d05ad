"""`froster methods`: what `train` can build and distil."""

from __future__ import annotations

import dataclasses
import json

from rich.table import Table

from froster.distill import PRESETS
from froster.methods import METHODS
from froster.progress import output


def run(as_json: bool) -> None:
    if as_json:
        methods = [
            {
                "name": method.name,
                "summary": method.summary,
                "reference": method.reference,
                "options": {f.name: f.default for f in dataclasses.fields(method)},
            }
            for method in METHODS.values()
        ]
        distill = {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()}
        print(json.dumps({"methods": methods, "distill": distill}))
        return
    table = Table("method", "what it is", "options", "reference", title="froster train --method", title_justify="left")
    for method in METHODS.values():
        options = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(method))
        table.add_row(method.name, method.summary, options, method.reference)
    output.print(table)
    kinds = Table("distill", "projector", "distance", "level", "reduction", "features", title="froster train --distill")
    kinds.title_justify = "left"
    for name, preset in PRESETS.items():
        kinds.add_row(
            name, preset.kind, preset.distance, preset.level, preset.reduction, "unit" if preset.unit else "raw"
        )
    output.print(kinds)
