"""The files that ER-ZASR is made of, tiny and random, as their authors would release them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import BertModel

CONCEPTS = 40
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a thing of kind to move hand : wave jump red blue green"


def normal(*shape: int) -> Tensor:
    fan = torch.Size(shape[1:]).numel()
    return torch.randn(shape) / max(1, fan) ** 0.5


def tsm_state(base: int = 8) -> dict[str, Tensor]:
    """Of one bottleneck a layer, under the release's names, with the counters of batch norms."""
    state = {"base_model.conv1.weight": normal(base, 3, 7, 7)}
    norms = {"base_model.bn1": base}
    inputs = base
    for layer in range(1, 5):
        start, width = f"base_model.layer{layer}.0", base * 2 ** (layer - 1)
        state |= {
            f"{start}.conv1.net.weight": normal(width, inputs, 1, 1),
            f"{start}.conv2.weight": normal(width, width, 3, 3),
            f"{start}.conv3.weight": normal(4 * width, width, 1, 1),
            f"{start}.downsample.0.weight": normal(4 * width, inputs, 1, 1),
        }
        norms |= {f"{start}.bn1": width, f"{start}.bn2": width}
        norms |= {f"{start}.bn3": 4 * width, f"{start}.downsample.1": 4 * width}
        inputs = 4 * width
    for name, width in norms.items():
        state |= {
            f"{name}.weight": torch.ones(width),
            f"{name}.bias": torch.zeros(width),
            f"{name}.running_mean": torch.zeros(width),
            f"{name}.running_var": torch.ones(width),
            f"{name}.num_batches_tracked": torch.tensor(7),
        }
    return state | {"new_fc.weight": normal(5, inputs), "new_fc.bias": torch.zeros(5)}


def bit_state() -> dict[str, Tensor]:
    """Of two units, under the names of the authors' PyTorch code."""
    state = {"root.conv.weight": normal(32, 3, 7, 7)}
    for block, unit in ((1, 1), (2, 1)):
        start = f"body.block{block}.unit{unit:02d}"
        state |= {
            f"{start}.conv1.weight": normal(32, 32 * block, 1, 1),
            f"{start}.conv2.weight": normal(32, 32, 3, 3),
            f"{start}.conv3.weight": normal(64, 32, 1, 1),
            f"{start}.downsample.weight": normal(64, 32 * block, 1, 1),
        }
        for number, width in ((1, 32 * block), (2, 32), (3, 32)):
            state[f"{start}.gn{number}.weight"] = torch.rand(width) + 0.5
            state[f"{start}.gn{number}.bias"] = normal(width)
    return state | {
        "head.gn.weight": torch.rand(64) + 0.5,
        "head.gn.bias": normal(64),
        "head.conv.weight": normal(CONCEPTS, 64, 1, 1),
        "head.conv.bias": normal(CONCEPTS),
    }


def timm_name(name: str) -> str:
    """What timm calls a weight of `bit_state`."""
    parts = name.split(".")
    if parts[0] == "body":
        module = parts[3].replace("gn", "norm").replace("downsample", "downsample.conv")
        block, unit = int(parts[1].removeprefix("block")), int(parts[2].removeprefix("unit"))
        return f"stages.{block - 1}.blocks.{unit - 1}.{module}.{parts[4]}"
    return {"root": "stem.conv", "gn": "norm", "conv": "head.fc"}[
        parts[1] if parts[0] == "head" else parts[0]
    ] + f".{parts[-1]}"


def npz_name(name: str) -> str:
    """What the authors' npz calls it."""
    parts, conv = name.split("."), "standardized_conv2d/kernel"
    kind = {"weight": "gamma", "bias": "beta"}[parts[-1]]
    if name.startswith("head.gn"):
        return f"resnet/group_norm/{kind}"
    if parts[0] == "head":
        return f"resnet/head/conv2d/{'kernel' if kind == 'gamma' else 'bias'}"
    if parts[0] == "root":
        return f"resnet/root_block/{conv}"
    start = f"resnet/{parts[1]}/{parts[2]}/"
    if parts[3] == "downsample":
        return f"{start}a/proj/{conv}"
    letter = "abc"[int(parts[3][-1]) - 1]
    return f"{start}{letter}/" + (conv if parts[3][:-1] == "conv" else f"group_norm/{kind}")


def bert_folder(folder: Path, layers: int = 3) -> BertModel:
    """As Hugging Face saves one, with a vocabulary."""
    from transformers import BertConfig, BertModel  # takes seconds

    words = [*WORDS.split(), *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words += list("bcdefghijklmnopqrstuvwxyz")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=60,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return model


def write_parts(folder: Path, classes: dict[str, str]) -> list[object]:
    """All files below a folder, as options of `froster rehearse`."""
    torch.manual_seed(0)
    state = {f"module.{name}": tensor for name, tensor in tsm_state().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "tsm.pth")
    torch.save(bit_state(), folder / "bit.pth")
    bert_folder(folder / "bert")
    lines = [f"thing {'abcdefghij'[i % 10]}: a kind {'abcd'[i // 10]}" for i in range(CONCEPTS)]
    (folder / "concepts.txt").write_text("\n".join(lines) + "\n")
    (folder / "classes.json").write_text(json.dumps(classes))
    return [
        *("--tsm", folder / "tsm.pth", "--bit", folder / "bit.pth", "--bert", folder / "bert"),
        *("--concepts", folder / "concepts.txt", "--definitions", folder / "classes.json"),
    ]
