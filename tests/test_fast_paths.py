"""Every faster way gives the numbers of the plain one: float32 to 1e-5 relative, bfloat16 as near
as PyTorch's own."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from froster.encoders import kernels
from froster.encoders.block import Attention, Block
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.kernels import NeighbourFrames, dot_product_attention
from froster.encoders.mlp import MLP, GatedMLP
from froster.encoders.model import CLIP
from froster.encoders.precision import with_cast_weights
from froster.encoders.rope import Rotary
from froster.encoders.vision import VisionTower
from froster.inference.recognizer import load
from froster.methods.lora import LoRAAttention
from froster.methods.openvclip import InterpolatedWeights
from froster.methods.recipe import Recipe
from froster.methods.vclip import VCLIP, VCLIPBlock, neighbours
from froster.text.bank import PromptBank
from froster.training.distill_options import Distill
from froster.training.optim import adamw
from froster.training.task import Task, Teacher

SHAPES = [(5, 3, 7, 19, 8), (1, 2, 33, 33, 16), (40, 2, 6, 6, 8), (3, 2, 1, 11, 8)]


def relative(found: Tensor, expected: Tensor) -> float:
    return float(
        (found.double() - expected.double()).detach().norm() / expected.double().detach().norm()
    )


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape and relative(found, expected) < tolerance


def qkv(shape: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    N, h, L, M, d = shape
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, h, n, d, generator=generator) for n in (L, M, M)]


def run(function, inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The result and the gradients of the inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad((out * upstream.to(out.dtype)).sum(), leaves)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["all", "causal", "mask", "row mask"])
@pytest.mark.parametrize("scores", [1, 1 << 21])
def test_attention_in_parts_is_as_near_as_the_fused_kernel(
    shape: tuple[int, ...], kind: str, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.encoders.kernels._SCORES", scores)
    torch.manual_seed(0)
    N, _, L, M, _ = shape
    causal, mask = kind == "causal", None
    if causal and L != M:
        return  # a causal mask is square
    if kind == "mask":
        mask = torch.ones(L, M, dtype=torch.bool).tril(2)
    if kind == "row mask":
        mask = (torch.arange(M) <= torch.randint(0, M, (N, 1)))[:, None, None]
    *inputs, upstream = *qkv(shape), qkv(shape, seed=1)[0]

    def plain(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    ours = lambda q, k, v: dot_product_attention(q, k, v, mask, causal)  # noqa: E731
    exact = run(plain, [x.double() for x in inputs], upstream)
    half = [x.bfloat16() for x in inputs]
    for mine, fused, truth in zip(
        run(ours, half, upstream), run(plain, half, upstream), exact, strict=True
    ):
        if float(truth.norm()):
            assert (
                relative(mine, truth) < 2.5 * relative(fused, truth) + 4e-3
            )  # one rounding of bfloat16
    for mine, truth in zip(run(ours, inputs, upstream), exact, strict=True):
        assert not float(truth.norm()) or relative(mine, truth) < 1e-5
    close(dot_product_attention(*half, mask, causal), run(ours, half, upstream)[0])


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_windows_are_the_copied_neighbours(radius: int, frames: int) -> None:
    torch.manual_seed(0)
    x, upstream = torch.randn(frames, 2, 4, 8), torch.randn(frames, 2, (2 * radius + 1) * 4, 8)
    expected = run(lambda x: neighbours(x, frames, radius), [x], upstream)
    for mine, truth in zip(
        run(lambda x: NeighbourFrames.apply(x, radius), [x], upstream), expected, strict=True
    ):
        torch.testing.assert_close(mine, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_over_windows_is_the_block_over_copies(
    radius: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.methods.vclip.SMALL_CLIP", 0)
    torch.manual_seed(0)
    block = VCLIPBlock(Block(32, 4, "quick_gelu"), radius, "zero")
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    q, k, v = (x.flatten(0, 1) for x in torch.randn(3, 2, 4, 4, 5, 8))
    upstream = torch.randn(8, 4, 5, 8)
    exact = run(lambda q, k, v: Block.attention(block, q, k, v, 4), [q, k, v], upstream)
    found = run(
        lambda q, k, v: block.attention(q, k, v, 4), [x.to(dtype) for x in (q, k, v)], upstream
    )
    for mine, truth in zip(found, exact, strict=True):
        close(mine, truth, 1e-5 if dtype == torch.float32 else 1.5e-2)


def plain_mlp(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.c_proj(mlp.gelu(mlp.c_fc(x)))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize(
    "frozen", [(), ("c_fc.weight", "c_proj.weight", "c_proj.bias"), ("c_fc.bias",)]
)
def test_the_perceptron_is_the_plain_one(activation: str, frozen: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    mlp = MLP(24, activation)
    for name, parameter in mlp.named_parameters():
        parameter.requires_grad_(name not in frozen)
    trained = [p for p in mlp.parameters() if p.requires_grad]
    x, upstream = torch.randn(3, 5, 24, requires_grad=True), torch.randn(3, 5, 24)
    ours, theirs = mlp(x), plain_mlp(mlp, x)
    close(ours, theirs)
    expected = torch.autograd.grad((theirs * upstream).sum(), [x, *trained])
    for mine, truth in zip(
        torch.autograd.grad((ours * upstream).sum(), [x, *trained]), expected, strict=True
    ):
        close(mine, truth)
    with torch.autocast("cpu", torch.bfloat16):
        half = [
            run(lambda x, way=way: way(x), [x.detach()], upstream)
            for way in (mlp, lambda x: plain_mlp(mlp, x))
        ]
    exact = run(lambda x: plain_mlp(mlp, x), [x.detach()], upstream)
    assert half[0][0].dtype == half[1][0].dtype == torch.bfloat16
    for mine, fused, truth in zip(*half, exact, strict=True):
        assert relative(mine, truth) < 1.5 * relative(fused, truth) + 1e-3


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused where it can be", "apart"])
def test_the_perceptron_in_use_is_the_plain_one(
    activation: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without gradients the activation may be made within the matrix product."""
    if not fused:
        monkeypatch.setattr(kernels, "_fuses", lambda: False)
    torch.manual_seed(0)
    mlp = MLP(64, activation).requires_grad_(False)
    x = 3 * torch.randn(3, 5, 64)
    truth = plain_mlp(copy.deepcopy(mlp).double(), x.double())
    with torch.no_grad():
        close(mlp(x), truth)
        with torch.autocast("cpu", torch.bfloat16):
            mine, theirs = mlp(x), plain_mlp(mlp, x)
            assert mlp(x[:0]).shape == (0, 5, 64)
    assert mine.dtype == theirs.dtype == torch.bfloat16
    assert relative(mine, truth) < 1.5 * relative(theirs, truth) + 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gated_perceptron_in_use_is_the_plain_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mlp, x = GatedMLP(24, 40, 1e-6), torch.randn(3, 5, 24)
    before = x.clone()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = mlp(x)
        monkeypatch.setattr(kernels, "ENABLED", False)
        assert torch.equal(found, mlp(x)) and torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [5, 17, 20], ids=["few", "all", "more than have a place"])
@pytest.mark.parametrize("kind", ["columns-1", "rows-16"])
def test_pairs_as_complex_numbers_turn_as_pairs_do(
    kind: str, tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Rotary(kind, 4, 1, 16)  # type: ignore[arg-type]
    x = torch.randn(3, tokens, 2, 16).to(dtype).transpose(1, 2)  # heads of a fused projection
    upstream, before = torch.randn(3, 2, tokens, 16), x.clone()
    with torch.no_grad():
        used = turn(x)
    trained = run(turn, [x], upstream)
    monkeypatch.setattr(kernels, "ENABLED", False)
    plain = run(turn, [x], upstream)
    assert torch.equal(x, before) and used.dtype == dtype
    for mine, truth in zip([used, *trained], [plain[0], *plain], strict=True):
        close(mine, truth, 1e-6 if dtype == torch.float32 else 1e-3)


def test_the_perceptron_keeps_no_activation_for_the_backward_pass() -> None:
    def kept(function) -> int:
        held: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = function(x)
        weights = {p.untyped_storage().data_ptr() for p in mlp.parameters()}
        del out
        return sum(size for pointer, size in held.items() if pointer not in weights) // (
            x.numel() * 4
        )

    mlp, x = MLP(32, "quick_gelu"), torch.randn(64, 32, requires_grad=True)
    assert kept(mlp) == 5  # the input, and the hidden layer before its activation
    assert kept(lambda x: plain_mlp(mlp, x)) >= 13


@pytest.mark.parametrize(("image", "patch"), [(32, 8), (35, 8), (28, 14)])
def test_patches_are_those_of_the_convolution(image: int, patch: int) -> None:
    torch.manual_seed(0)
    tower = VisionTower(VisionConfig(image, patch, 24, 1, 2), 16, "quick_gelu")
    images = torch.randn(3, 3, image, image)
    close(tower.patches(images), tower.conv1(images).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("lora", [False, True])
def test_queries_of_some_tokens_are_those_of_all(lora: bool) -> None:
    torch.manual_seed(0)
    attend = Attention(16, 2)
    torch.nn.init.normal_(attend.in_proj_weight)
    if lora:
        attend = LoRAAttention(attend, "qv", 2, 1.0, 0.0)
        torch.nn.init.normal_(attend.lora_in.b)
    x = torch.randn(3, 5, 16)
    q, k, v = attend.project(x)
    some = attend.project(x, x[:, 2:4])
    for mine, truth in zip(some, (q[:, :, 2:4], k, v), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-5, atol=1e-5)


def test_weights_that_are_cast_once_give_what_autocast_gives() -> None:
    torch.manual_seed(0)
    network = VCLIP().build(
        CLIP(CLIPConfig(VisionConfig(32, 8, 64, 2, 2), TextConfig(40, 100, 64, 2, 2), 32))
    )
    frames, tokens = torch.randn(2, 3, 3, 32, 32), torch.randint(1, 100, (4, 9))
    cast = with_cast_weights(network, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.encode_frames(frames), cast.encode_frames(frames))
        assert torch.equal(network.encode_text(tokens), cast.encode_text(tokens))
    own = dict(network.named_parameters())
    shared = [name for name, p in cast.named_parameters() if p is own[name]]
    assert "clip.text.token_embedding.weight" in shared and "clip.visual.ln_pre.weight" in shared
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_a_recognizer_infers_with_the_weights_that_it_has_now() -> None:
    model = load("nano", precision="bfloat16")
    frames = torch.randint(0, 256, (8, 60, 60, 3), dtype=torch.uint8)
    before = model.embed_video(frames)
    assert model.inference is model.inference is not model.model
    with torch.no_grad():
        model.model.clip.visual.proj.neg_()
        model.model.clip.visual.transformer.resblocks[0].attn.in_proj_weight.mul_(0.5)
    after = model.embed_video(frames)
    assert not torch.allclose(before, -after, atol=1e-3) and not torch.allclose(
        before, after, atol=1e-3
    )
    model.model.requires_grad_(True)
    optimizer = adamw(model.model, 0.01, 0.0)
    for parameter in model.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    asked = model.class_embeddings(["cat", "boat"])
    optimizer.step()  # fused: no weight says that it was changed
    model.model.requires_grad_(False)
    assert not torch.allclose(model.class_embeddings(["cat", "boat"]), asked, atol=1e-3)
    model.model.requires_grad_(True)
    assert not torch.allclose(model.embed_video(frames), after, atol=1e-3)
    with torch.inference_mode():
        load("nano", precision="bfloat16").embed_video(frames)
    assert (
        load("nano", precision="float32").inference.clip.visual.conv1[0].weight.dtype
        == torch.float32
    )


def small_task(iwr: bool = False, layers: tuple[int, int] = (3, 3), **recipe: bool) -> Task:
    """`layers`: of the image and of the text tower."""
    torch.manual_seed(0)
    config = CLIPConfig(
        VisionConfig(32, 8, 64, layers[0], 2),
        TextConfig(256, load("nano").clip.config.text.vocab, 64, layers[1], 2),
        32,
    )
    student, teacher = CLIP(config), CLIP(config)
    network = VCLIP().build(student)
    bank = PromptBank(load("nano").tokenizer, ["cat spinning", "boat pacing", "bird hopping"], 256)
    towards = (
        InterpolatedWeights(teacher, weight=0.5, reach=0.6, exact_factor=True) if iwr else None
    )
    return Task(
        network,
        bank,
        Recipe(tune="both", **recipe),
        teacher=Teacher(teacher, Distill()),
        regulariser=towards,
    )


def gradients(task: Task) -> list[Tensor]:
    frames = torch.randint(
        0, 256, (2, 4, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    losses, _ = task(frames, torch.tensor([0, 2]), [3, 28], random.Random(0))
    total = sum(losses.values())
    weights = [p for p in task.parameters() if p.requires_grad]
    return [total.detach(), *torch.autograd.grad(total, weights, allow_unused=True)]


@pytest.mark.parametrize("iwr", [False, True], ids=["", "interpolated weights"])
def test_checkpointing_keeps_less_and_changes_nothing(iwr: bool) -> None:
    def kept(task: Task) -> tuple[list[Tensor], int]:
        sizes: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            return gradients(task), sum(sizes.values())

    (plain, much), (again, little) = (
        kept(small_task(iwr)),
        kept(small_task(iwr, checkpointing=True)),
    )
    for mine, truth in zip(again, plain, strict=True):
        assert mine is truth is None or torch.equal(mine, truth)
    assert little < 0.6 * much
