"""What can be done with weights after training: averaging, and interpolation with CLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from froster.errors import CheckpointError

State = dict[str, Tensor]


def check_same_keys(first: State, other: State) -> None:
    difference = sorted(first.keys() ^ other.keys())
    if difference:
        raise CheckpointError(
            f"the weights do not match, e.g. {', '.join(difference[:3])} ({len(difference)} keys)"
        )


def average(states: Sequence[State]) -> State:
    """The uniform mean of several states with equal keys (FROSTER averages its epochs 2 to the
    last)."""
    for state in states[1:]:
        check_same_keys(states[0], state)
    return {
        name: sum(state[name].double() for state in states).div(len(states)).to(like.dtype)  # type: ignore[union-attr]
        for name, like in states[0].items()
    }


def interpolate(clip: State, tuned: State, ratio: float) -> State:
    """ratio * CLIP + (1 - ratio) * tuned, Open-VCLIP's patching (0.5 there). PAINT counts the other
    way round."""
    check_same_keys(clip, tuned)
    return {name: ratio * clip[name] + (1 - ratio) * tuned[name] for name in tuned}


def towards(clip: State, tuned: State, ratio: float, output_layers: str = "") -> State:
    """`interpolate` for a network with weights that CLIP does not have.

    Of new parts that end in a linear layer (`output_layers`, a regular expression on the names)
    that layer is scaled by 1 - ratio, so that the part's output is; other new weights stay, as in
    Open-VCLIP's code. Ratio 1 is CLIP where every new part can be scaled. Raises CheckpointError
    where a weight of CLIP is missing in `tuned`.
    """
    missing = sorted(clip.keys() - tuned.keys())
    if missing:
        raise CheckpointError(
            f"the tuned weights lack {', '.join(missing[:3])} ({len(missing)} keys)"
        )
    mixed = interpolate(clip, {name: tuned[name] for name in clip}, ratio)
    for name in tuned.keys() - clip.keys():
        scaled = output_layers and re.search(output_layers, name)
        mixed[name] = (1 - ratio) * tuned[name] if scaled else tuned[name]
    return {name: mixed[name] for name in tuned}
