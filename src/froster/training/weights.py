"""Weights after training: their mean, and interpolation with CLIP (WiSE-FT)."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable

from froster.errors import CheckpointError
from froster.inference.recognizer import Recognizer
from froster.utils.tensors import StateDict, cpu_state


def check_same_keys(first: StateDict, other: StateDict) -> None:
    difference = sorted(first.keys() ^ other.keys())
    if difference:
        raise CheckpointError(
            f"the weights do not match, e.g. {', '.join(difference[:3])} ({len(difference)} keys)"
        )


def interpolate(clip: StateDict, tuned: StateDict, ratio: float) -> StateDict:
    """ratio * CLIP + (1 - ratio) * tuned, Open-VCLIP's patching (0.5 there). PAINT counts the other
    way round."""
    check_same_keys(clip, tuned)
    return {name: ratio * clip[name] + (1 - ratio) * tuned[name] for name in tuned}


def towards(clip: StateDict, tuned: StateDict, ratio: float, output_layers: str = "") -> StateDict:
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


def halfway(
    base: Recognizer, student: Recognizer, tuned: StateDict, ratio: float = 0.5
) -> StateDict:
    """ratio * the starting weights + (1 - ratio) * the tuned ones, new parts scaled
    (`towards`)."""
    start = {f"clip.{name}": tensor for name, tensor in cpu_state(base.clip).items()}
    return towards(start, tuned, ratio, student.config.method.output_layers)


def with_weights(student: Recognizer, state: StateDict | None) -> Recognizer:
    """The same network with other weights of it, or as it is."""
    model = copy.deepcopy(student.model)
    if state is not None:
        model.load_state_dict(state)
    return student.with_network(model, student.config)


class RunningMean:
    """The mean of the weights it was shown, without keeping them all: uniform (FROSTER: epochs 2 to
    the last), or with a factor for the first, the second and so on (`factor_of`,
    from 1), of which ratios matter."""

    def __init__(self, factor_of: Callable[[int], float] = lambda number: 1.0) -> None:
        self.count = 0
        self.mean: StateDict = {}
        self.factor_of = factor_of

    def add(self, state: StateDict) -> None:
        self.count += 1
        factor = self.factor_of(self.count)
        total = sum(self.factor_of(number) for number in range(1, self.count + 1))
        # Far from the middle of a steep curve a factor is too small for a number, and zero.
        share = total / factor if factor else math.inf if total else 1.0
        for name, tensor in state.items():
            old = self.mean.get(name)
            new = tensor.float()
            self.mean[name] = new if old is None else old + (new - old) / share

    def weights(self, like: StateDict) -> StateDict:
        return {name: tensor.to(like[name].dtype) for name, tensor in self.mean.items()}
