"""The image tower's largest products in int8, for inference on a CPU.

Of every block the projection to queries, keys and values and the two layers of the perceptron, by
oneDNN: weights in int8 with a scale for each output, inputs in uint8 with one scale and zero point,
which were measured beforehand. A few of CLIP's channels are much larger than the others, so those
of the input are divided, and the weights' columns multiplied, by sqrt(max |input| / max |weight|)
(SmoothQuant, Xiao et al., ICML 2023, equation 4). The activation is computed within the first
layer's product, which gives the second one's uint8. The output projection stays as it is, since to
make its input uint8 takes what int8 saves, and so do attention and all that methods add.

What is further off than `LARGEST_ERROR` on measured tokens is not done in int8: where a few tokens
of a trained perceptron are much larger than the others, nothing is left of these.

Sizes in comments: N tokens, K inputs and M outputs of a product.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from froster.encoders.block import Attention
from froster.encoders.kernels import QUICK
from froster.encoders.mlp import MLP
from froster.encoders.vision import VisionTower
from froster.errors import CheckpointError, UsageError

LARGEST_ERROR = 0.05
"""Of what a module gives: the mean over tokens of |error| / |output|."""
Ranges = Mapping[str, Float[Tensor, "2 channels"]]
"""Name of a module of the tower -> the least and the greatest of each channel of its input;
perceptron's name + `.hidden` -> of all that its activation gives."""

_HIDDEN = ".hidden"
_SAMPLED = 256  # tokens a call that errors are measured on
_ROWS = 256  # tokens that are made uint8 at once: they stay in a core's cache
# Of a MLP: oneDNN's names of the activation g, and s of f(x) = g(s x) / s.
_FUSED = {
    "quick_gelu": ("swish", "", QUICK),
    "gelu": ("gelu", "none", 1.0),
    "gelu_tanh": ("gelu", "tanh", 1.0),
}


def check_int8() -> None:
    """Raises UsageError where the chip or PyTorch has no products of 8-bit numbers."""
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    if not (has_vnni and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UsageError(
            "int8 needs a processor with AVX512-VNNI or AMX, and a PyTorch with oneDNN, which"
            f" {platform.node() or 'this machine'} lacks: leave --runtime out"
        )


def modules_of(tower: VisionTower) -> Iterator[tuple[str, Attention | MLP]]:
    """What has a form in int8, by name; not what a method put in its place."""
    for name, module in tower.named_modules():
        if type(module) in (Attention, MLP):
            yield name, module  # type: ignore[misc]


def use_int8(tower: VisionTower, ranges: Ranges) -> None:
    """From now on the tower computes by int8 what there are ranges for. Raises CheckpointError
    where they are another tower's."""
    modules = dict(modules_of(tower))
    for name, seen in ranges.items():
        module = modules.get(name.removesuffix(_HIDDEN))
        width = 1 if name.endswith(_HIDDEN) else _width(module)
        if module is None or seen.shape != (2, width):
            raise CheckpointError(f"the ranges of {name} are those of another network")
    for name, module in modules.items():
        if name not in ranges:
            continue
        if isinstance(module, Attention):
            module._heads = _Heads(module, ranges[name])  # type: ignore[method-assign]
        else:
            layers = _Int8Layers(module, ranges[name], ranges.get(name + _HIDDEN))
            module.forward = layers  # type: ignore[method-assign]


def _width(module: Attention | MLP | None) -> int:
    if isinstance(module, Attention):
        return module.in_proj_weight.shape[1]
    return 0 if module is None else module.c_fc.in_features


class Observer:
    """Sees what goes into a tower's products, from now on; the tower computes as before."""

    def __init__(self, tower: VisionTower):
        self._modules = dict(modules_of(tower))
        self._ranges: dict[str, Tensor] = {}
        self._samples: dict[str, list[Tensor]] = {}
        for name, module in self._modules.items():
            step = "_heads" if isinstance(module, Attention) else "forward"
            setattr(module, step, partial(self._see, name, getattr(module, step)))

    def _see(self, name: str, compute: Callable[..., Tensor], x: Tensor, *rest: int) -> Tensor:
        module, rows = self._modules[name], x.flatten(0, -2)
        self._widen(name, rows)
        some = torch.linspace(0, len(rows) - 1, min(_SAMPLED, len(rows))).long()
        self._samples.setdefault(name, []).append(rows[some])
        if isinstance(module, MLP):
            self._widen(name + _HIDDEN, module.gelu(module.c_fc(rows)).view(-1, 1))
        return compute(x, *rest)

    def _widen(self, name: str, rows: Tensor) -> None:
        before = [self._ranges[name]] if name in self._ranges else []
        values = torch.cat([*before, rows])
        self._ranges[name] = torch.stack([values.amin(0), values.amax(0)])

    def ranges(self) -> tuple[Ranges, dict[str, float]]:
        """Of what is near enough in int8, and the error of each module."""
        near: dict[str, Tensor] = {}
        errors: dict[str, float] = {}
        for name, parts in self._samples.items():
            module, seen, rows = self._modules[name], self._ranges[name], torch.cat(parts)
            names = [name]
            if isinstance(module, Attention):
                product = _Heads(module, seen).product
                y = product(product.quantised(rows), torch.float32)
                errors[name] = _error(y, F.linear(rows, module.in_proj_weight, module.bias))
            else:
                hidden, exact = self._ranges[name + _HIDDEN], MLP.forward(module, rows)
                errors[name] = _error(_Int8Layers(module, seen, hidden)(rows), exact)
                if errors[name] <= LARGEST_ERROR:
                    names.append(name + _HIDDEN)
                else:
                    errors[name] = _error(_Int8Layers(module, seen, None)(rows), exact)
            if errors[name] <= LARGEST_ERROR:
                near |= {name: self._ranges[name] for name in names}
        return near, errors


def _error(values: Tensor, exact: Tensor) -> float:
    return float(((values - exact).norm(dim=-1) / exact.norm(dim=-1)).mean())


class _Product:
    """x -> W x + b."""

    def __init__(self, weight: Tensor, bias: Tensor, seen: Tensor):
        weight, (low, high) = weight.float(), seen
        divisor = torch.ones(1)
        if len(low) > 1:
            size, columns = torch.maximum(low.abs(), high.abs()), weight.abs().amax(0)
            divisor = (size / columns.clamp(min=1e-6)).sqrt()
            divisor = divisor.clamp(min=float(divisor.max()) * 1e-4 or 1.0)
        weight = weight * divisor
        least, most = min(0.0, float((low / divisor).min())), float((high / divisor).max())
        self.scale = max(most - least, 1e-6) / 255
        self.zero = round(-least / self.scale)
        self._factor = (1 / (divisor * self.scale)).expand(weight.shape[1]).contiguous()
        self._offset = torch.tensor(self.zero + 0.5)  # to make whole numbers cuts off
        self._scales = weight.abs().amax(1).clamp(min=1e-12) / 127
        rows = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rows, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        self._bias = bias.float()

    def quantised(self, x: Float[Tensor, "*tokens inputs"]) -> UInt8[Tensor, "rows inputs"]:
        rows = x.flatten(0, -2)
        y = torch.empty(rows.shape, dtype=torch.uint8)
        for part, some in zip(y.split(_ROWS), rows.split(_ROWS), strict=True):
            part.copy_(torch.addcmul(self._offset, some.float(), self._factor).clamp_(0, 255))
        return y

    def __call__(
        self,
        x: UInt8[Tensor, "rows inputs"],
        dtype: torch.dtype,
        activation: tuple[str, str] = ("none", ""),
        scale: float = 1.0,
        zero: int = 0,
    ) -> Tensor:
        """What the activation makes of W x + b; `scale` and `zero` are those of a uint8."""
        name, kind = activation
        return torch.ops.onednn.qlinear_pointwise(
            *(x, self.scale, self.zero, self._packed, self._scales, self._zeros, self._bias),
            *(scale, zero, dtype, name, [], kind),
        )


class _Heads:
    """`Attention._heads` by int8."""

    def __init__(self, attention: Attention, seen: Tensor):
        self._of, self._seen = attention, seen
        self.product = _Product(attention.in_proj_weight, attention.bias.detach(), seen)
        self._parts = {(0, 3): self.product}

    def __call__(self, x: Tensor, first: int, end: int) -> Tensor:
        if (first, end) not in self._parts:  # of a last block
            rows = slice(first * x.shape[-1], end * x.shape[-1])
            weight, bias = self._of.in_proj_weight[rows], self._of.bias[rows]
            self._parts[first, end] = _Product(weight, bias, self._seen)
        product = self._parts[first, end]
        some = product(product.quantised(x), _type(x)).unflatten(0, x.shape[:-1])
        return some.unflatten(-1, (end - first, self._of.heads, -1)).permute(2, 0, 3, 1, 4)


class _Int8Layers:
    """`MLP.forward` by int8: of the first layer alone where `hidden` is None."""

    def __init__(self, mlp: MLP, seen: Tensor, hidden: Tensor | None):
        name, kind, self._s = _FUSED[mlp.activation]
        self._activation, self._of = (name, kind), mlp
        self._first = _Product(mlp.c_fc.weight * self._s, mlp.c_fc.bias * self._s, seen)
        self._second = None
        if hidden is not None:
            weight = mlp.c_proj.weight.float() / self._s
            self._second = _Product(weight, mlp.c_proj.bias, hidden * self._s)

    def __call__(self, x: Tensor) -> Tensor:
        dtype, second, given = _type(x), self._second, self._first.quantised(x)
        if second is None:
            y = self._first(given, dtype, self._activation)
            weight, bias = self._of.c_proj.weight, self._of.c_proj.bias
            y = torch.addmm(bias.to(dtype), y, weight.to(dtype).T, alpha=1 / self._s)
        else:
            y = self._first(given, torch.uint8, self._activation, second.scale, second.zero)
            y = second(y, x.dtype)  # float32 in autocast too: what it is added to is
        return y.view(x.shape)


def _type(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
