"""What is compiled gives the numbers of the plain way, as far as a CPU shows it: kernels of a GPU are
not made here, and neighbour frames are looked up by FlexAttention's own reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.backends.registry import lookup_backend
from torch.nn.attention import flex_attention

from froster.encoders import kernels
from froster.encoders.block import Block
from froster.encoders.config import VisionConfig
from froster.methods.vclip import Pad, VCLIPBlock
from froster.training.compiling import worth_compiling
from test_fast_paths import close, gradients, run, small_task


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention on the CPU: PyTorch's reference has gradients there but refuses to give them,
    as its kernels have none."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *inputs: None)
    monkeypatch.setattr(kernels, "WINDOW_DEVICES", {"cpu"})


@pytest.mark.usefixtures("looked_up", "unchecked_shapes")
@pytest.mark.filterwarnings(
    "ignore:flex_attention called without", "ignore:The .grad attribute of a Tensor"
)
@pytest.mark.parametrize("pad", ["zero", "mask"])
@pytest.mark.parametrize(("frames", "radius"), [(1, 1), (4, 1), (5, 2), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_that_are_looked_up_are_the_copied_ones(
    frames: int, radius: int, pad: Pad, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    block = VCLIPBlock(Block(32, 2, "quick_gelu"), radius, pad)
    # 45 tokens: blocks of 128 do not end where frames do.
    inputs = torch.randn(2 * frames, 45, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind()
    upstream = torch.randn(2 * frames, 2, 45, 16)
    exact = run(lambda q, k, v: Block.attention(block, q, k, v, frames), list(inputs), upstream)
    found = run(
        lambda q, k, v: kernels.window_attention(q, k, v, frames, radius, pad == "zero"),
        [x.to(dtype) for x in inputs],
        upstream,
    )
    for mine, truth in zip(found, exact, strict=True):
        close(mine, truth, 1e-5 if dtype == torch.float32 else 1.5e-2)


def test_what_is_not_compiled_for_a_gpu_looks_nothing_up(looked_up: None) -> None:
    assert not kernels.use_window_kernel(torch.ones(1, 1, 1, 16))
    kernels.WINDOW_DEVICES.clear()
    assert not kernels.try_window_kernel(torch.device("cpu")) and not kernels.WINDOW_DEVICES


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(  # where they are looked up, the last block, for one token, copies them
    "neighbours", [pytest.param("copied", marks=pytest.mark.slow), "looked up"]
)
def test_compiled_towers_give_the_same_step(
    neighbours: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Traced whole, without breaks; kernels are not made here, which takes a minute."""
    if neighbours == "looked up":
        request.getfixturevalue("looked_up")
    compile_module, traced = nn.Module.compile, []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        traced.append(sum("flex_attention" in str(node.target) for node in graph.graph.nodes))
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(
        nn.Module, "compile", lambda self: compile_module(self, backend=backend, fullgraph=True)
    )
    torch._dynamo.reset()
    task, plain = small_task(layers=(2, 1), compile=True), small_task(layers=(2, 1))
    for mine, truth in zip(gradients(task), gradients(plain), strict=True):
        assert mine is truth is None or torch.allclose(
            mine, truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max())
        )
    # Of two blocks of the student the last is asked for one token.
    assert max(traced) == (1 if neighbours == "looked up" else 0)


def test_compiling_pays_within_long_runs_on_a_gpu() -> None:
    b16, small = VisionConfig(), VisionConfig(32, 8, 64, 3, 2)
    gpu = torch.device("cuda")
    line = worth_compiling(gpu, b16, 8, 22 * 240_000)
    assert "about 31 s and save about 173 min" in line
    assert worth_compiling(gpu, b16, 8, 40_000) and not worth_compiling(gpu, b16, 8, 20_000)
    assert not worth_compiling(gpu, small, 8, 1_000_000)
    assert not worth_compiling(torch.device("cpu"), b16, 8, 22 * 240_000)
