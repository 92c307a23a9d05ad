"""What lies on the hub, in every layout that CLIPs are published in, through a server that speaks
the hub's protocol."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import froster
import quick
from froster.encoders.checkpoints import to_official
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.known import known_encoder
from froster.encoders.layouts import download
from froster.encoders.model import CLIP
from froster.errors import FrosterError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.inference.tower_speed import architecture
from froster.methods import VCLIP
from froster.text.prompts import Prompting
from golden import shared, write_checkpoint
from hf_folder import save_hf_folder
from hub_server import Hub
from parity import Golden

NANO = froster.load("nano", device="cpu")
CONFIG = CLIPConfig(
    VisionConfig(32, 8, 64, 2, 1), TextConfig(64, NANO.tokenizer.vocab_size, 64, 2, 1), 48
)
SAYS = {
    "model_cfg": {
        "embed_dim": 48,
        "quick_gelu": True,
        "vision_cfg": {"width": 64, "layers": 2, "patch_size": 8, "image_size": 32},
        "text_cfg": {
            "width": 64,
            "heads": 1,
            "layers": 2,
            "context_length": 64,
            "vocab_size": NANO.tokenizer.vocab_size,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize_mode": "squash",
        "interpolation": "bilinear",
    },
}
TIMM = {
    "architecture": "vit_base_patch16_clip_224",
    "num_features": 768,
    "pretrained_cfg": {"tag": "openai"},
}

SCRIPT = """
import json, os, sys, torch
import froster
from froster.errors import FrosterError
found = {}
for name in sys.argv[1:]:
    try:
        model = froster.load(name, device="cpu")
        frames = torch.arange(8 * 32 * 32 * 3).view(8, 32, 32, 3).mul(37).remainder(256).to(torch.uint8)
        found[name] = {"origin": model.provenance, "video": model.embed_video(frames).tolist(),
                       "resize": model.preprocessing.resize,
                       "text": model.embed_text(["a cat"])[0].tolist(), "method": model.config.method.name}
    except FrosterError as error:
        found[name] = {"error": str(error)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(CONFIG)


def official(clip: CLIP) -> dict[str, torch.Tensor]:
    return {
        to_official(name): tensor.detach().contiguous()
        for name, tensor in clip.state_dict().items()
    }


def binary(state: dict[str, torch.Tensor]) -> bytes:
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def repos(clip: CLIP, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("repos")
    save_hf_folder(clip, NANO.tokenizer, folder / "hf")
    plain = files_of(folder / "hf")
    weights = load(plain["model.safetensors"])
    names = sorted(weights)
    halves = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    shards = {file: save({name: weights[name] for name in part}) for file, part in halves.items()}
    config_only = {name: content for name, content in plain.items() if name != "model.safetensors"}
    tokenizer = {"tokenizer.json": plain["tokenizer.json"]}
    says, tower = json.dumps(SAYS).encode(), save({"cls_token": torch.zeros(1, 1, 64)})
    timm = {"config.json": json.dumps(TIMM).encode(), "model.safetensors": tower}
    method = VCLIP()
    ours = Recognizer(
        method.build(CLIP(CONFIG)),
        NANO.tokenizer,
        ModelConfig(method, prompting=Prompting(("{}",), "plain")),
    )
    ours.save(folder / "ours")
    elsewhere = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocab=700))
    torch.manual_seed(1)
    save_hf_folder(CLIP(elsewhere), NANO.tokenizer, folder / "words")
    return {
        "a/hf": plain,
        "a/hf-bin": {**config_only, "pytorch_model.bin": binary(weights)},
        "a/hf-shards": {
            **config_only,
            **shards,
            "model.safetensors.index.json": json.dumps(index).encode(),
        },
        "a/bin": {
            "open_clip_config.json": says,
            "open_clip_pytorch_model.bin": binary(official(clip)),
            **tokenizer,
        },
        "a/double": {
            **timm,
            "open_clip_config.json": says,
            "open_clip_model.safetensors": save(official(clip)),
            "open_clip_pytorch_model.bin": binary(official(clip)),
            **tokenizer,
        },
        "a/both": {
            **plain,
            "open_clip_config.json": says,
            "open_clip_model.safetensors": save(official(clip)),
            "onnx/model.onnx": b"x",
            "onnx/config.json": b"{}",
        },
        "a/ours": files_of(folder / "ours"),
        "a/words": files_of(folder / "words"),
        "a/half": timm,
        "a/half-pair": {**timm, "open_clip_config.json": says},
        "a/adapter": {
            "adapter_config.json": b'{"base_model_name_or_path": "openai/clip-vit-base-patch16"}',
            "adapter_model.safetensors": tower,
        },
        "a/diffusers": {
            "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
            "unet/config.json": b"{}",
        },
        "a/sentences": {
            "modules.json": b"{}",
            "config.json": b'{"model_type": "bert"}',
            "model.safetensors": tower,
        },
        "a/siglip": {"config.json": b'{"model_type": "siglip2"}', "model.safetensors": tower},
        "a/gguf": {"model.gguf": b"GGUF", "README.md": b"# hi"},
        "a/readme": {"README.md": b"# hi"},
    }


@pytest.fixture(scope="module")
def hub(repos: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    server = Hub()
    server.repos = repos
    yield server
    server.shutdown()
    server.server_close()


def environment(hub: Hub, home: Path, offline: bool = False) -> dict[str, str]:
    """For a process of its own, as the hub's client reads its settings when it is imported, which
    `quick` leaves to the process."""
    settings = {
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "FROSTER_BPE"))
    }
    return {**others, **settings}


def ask(hub: Hub, home: Path, *names: str, offline: bool = False) -> dict[str, Any]:
    """The models, loaded in a process of their own."""
    done = quick.run(
        [sys.executable, "-c", SCRIPT, *names],
        env=environment(hub, home, offline),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "No files matched" not in done.stderr
    return json.loads(done.stdout)


def downloads(hub: Hub, repo: str) -> list[str]:
    return sorted(
        line.split("/")[-1] for line in hub.requests if line.startswith(f"GET /{repo}/resolve/")
    )


LOADS = {
    "a/hf": "model.safetensors",
    "a/hf-bin": "pytorch_model.bin",
    "a/bin": "open_clip_pytorch_model.bin",
    "a/double": "open_clip_model.safetensors",
    "a/both": "model.safetensors",
    "a/ours": "model.safetensors",
    "a/words": "model.safetensors",
}


@pytest.mark.usefixtures("few_templates")
def test_every_layout_that_holds_a_clip(hub: Hub, clip: CLIP, tmp_path: Path) -> None:
    """The right weights and no others come down, the model is what was published, and without a
    network it is so again."""
    hub.requests.clear()
    names = [*LOADS, "a/hf-shards"]
    found = ask(hub, tmp_path, *names)
    for repo, weights in LOADS.items():
        large = [
            name
            for name in downloads(hub, repo)
            if name.endswith((".bin", ".safetensors", ".onnx"))
        ]
        assert large == [weights], repo
        asked = [
            line
            for line in hub.requests
            if line.startswith(f"GET /api/models/{repo}/") or line == f"GET /api/models/{repo}"
        ]
        assert len(asked) == 2, "one look at the repository, one at its files"
        assert len(downloads(hub, repo)) == len(set(downloads(hub, repo))), "nothing comes twice"
    assert not any("openai/" in line for line in hub.requests), "the model's own tokenizer is used"
    same = Recognizer(VCLIP().build(clip), NANO.tokenizer, ModelConfig()).embed_text(["a cat"])[0]
    for repo in ("a/hf", "a/hf-bin", "a/bin", "a/double", "a/both", "a/hf-shards"):
        torch.testing.assert_close(torch.tensor(found[repo]["text"]), same, atol=1e-5, rtol=0)
        assert found[repo]["origin"].split(";")[0] == (
            "open_clip" if repo in ("a/bin", "a/double") else "huggingface"
        )
        assert found[repo]["resize"] == ("squash" if repo in ("a/bin", "a/double") else "shortest")
    assert (
        found["a/hf"]["video"]
        == found["a/hf-bin"]["video"]
        == found["a/hf-shards"]["video"]
        == found["a/both"]["video"]
    )
    assert found["a/bin"]["video"] == found["a/double"]["video"] != found["a/hf"]["video"]
    assert found["a/ours"]["method"] == "vclip" and found["a/hf"]["method"] == "frozen"
    assert (
        "700 token embeddings" in found["a/words"]["error"]
        and "\n" not in found["a/words"]["error"]
    )
    before = len(hub.requests)
    assert ask(hub, tmp_path, *names, offline=True) == found
    assert len(hub.requests) == before


def test_er_zasrs_networks_come_by_their_id(hub: Hub, tmp_path: Path) -> None:
    """Neither a BiT ResNet nor a BERT holds a CLIP."""
    content = {"model.safetensors": save({"x": torch.ones(3)}), "pytorch_model.bin": b"large"}
    hub.repos["a/bit"] = {"config.json": b'{"architecture": "resnetv2_50x1_bit"}', **content}
    script = (
        "import sys; from pathlib import Path; from froster.training.rehearsal import on_disk\n"
        "print(*sorted(file.name for file in on_disk(Path(sys.argv[1])).iterdir()))"
    )
    command = [sys.executable, "-c", script]
    settings: dict[str, Any] = {"env": environment(hub, tmp_path), "text": True}
    done = quick.run([*command, "a/bit"], capture_output=True, timeout=300, **settings)
    assert done.stdout.split() == ["config.json", "model.safetensors"], done.stderr
    done = quick.run([*command, "a/nothing"], capture_output=True, timeout=300, **settings)
    assert "a/nothing is no file or folder here and could not be had" in done.stderr


@pytest.mark.parametrize(
    ("offline", "place", "cause"),
    [
        (True, "", "HF_HUB_OFFLINE is set, and the cache has it not"),
        (False, "http://127.0.0.1:9", "Connection refused"),
        (False, "repository", "there is no such repository, or it is private"),
    ],
)
def test_why_a_hub_gives_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, place: str, cause: str
) -> None:
    """Its library says of each that no file is in the cache."""
    constants = "huggingface_hub.constants."
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants + "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants + "ENDPOINT", hub.url if place == "repository" else place)
    with pytest.raises(FrosterError, match="could not be had") as raised:
        download("a/nothing")
    assert cause in str(raised.value) and "\n" not in str(raised.value)


REFUSED = {
    "a/half": r"timm's, of 'vit_base_patch16_clip_224', an image tower alone",
    "a/half-pair": (
        r"has open_clip_config.json, but neither open_clip_model.safetensors nor"
        r" open_clip_pytorch_model.bin"
    ),
    "a/adapter": r"a PEFT adapter (LoRA or the like) for 'openai/clip-vit-base-patch16'",
    "a/diffusers": r"a diffusers pipeline ('StableDiffusionPipeline')",
    "a/sentences": r"a sentence-transformers model",
    "a/siglip": r"config.json: this is SigLIP 2 NaFlex",
    "a/gguf": r"there is no config.json",
    "a/readme": r"there is no config.json",
}


def test_every_layout_that_holds_none_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.requests.clear()
    found = ask(hub, tmp_path, *REFUSED)
    for repo, words in REFUSED.items():
        message = found[repo]["error"]
        assert words in message and repo in message and "\n" not in message, message
        assert str(tmp_path) not in message, "the hub's name, not the place of its copy"
        assert not any(name.endswith((".safetensors", ".gguf")) for name in downloads(hub, repo)), (
            "refused before the download"
        )


LICENCES = {
    "a/nc": ("license: cc-by-nc-4.0", "a/nc: licence cc-by-nc-4.0 (not for commercial use)"),
    "a/named": (
        "license: other\nlicense_name: acme-research",
        "a/named: licence acme-research (for research only, not for commercial use)",
    ),
    "a/free": ("license: 'apache-2.0'", "a/free: licence apache-2.0"),
    "a/silent": ("tags:\n- x", "a/silent: licence none is stated"),
    "facebook/metaclip-b16-fullcc2.5b": (
        "tags:\n- x",  # its row of the table knows
        "facebook/metaclip-b16-fullcc2.5b: licence cc-by-nc-4.0 (not for commercial use)",
    ),
}


def test_the_licence_is_told_once_when_weights_are_downloaded(
    hub: Hub, repos: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    for repo, (matter, _) in LICENCES.items():
        repos[repo] = {**repos["a/hf"], "README.md": f"---\n{matter}\n---\n# It\n".encode()}
    script = "import sys, froster; [froster.load(name, device='cpu') for name in sys.argv[1:]]"
    names = [*LICENCES, "metaclip-b16"]  # a short name, of what is here by then

    def told(offline: bool = False) -> list[str]:
        done = quick.run(
            [sys.executable, "-c", script, *names],
            env=environment(hub, tmp_path, offline),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stdout
        return [line for line in done.stderr.splitlines() if ": licence " in line]

    first = told()
    assert len(first) == len(LICENCES)
    for line, (_, words) in zip(first, LICENCES.values(), strict=True):
        assert line.startswith(words)
    assert told() == told(offline=True) == []


@pytest.mark.parametrize(
    ("name", "hub_id", "fixture"),
    [
        ("pe-core-b16", "timm/PE-Core-B-16", "pe_core_openclip"),
        ("eva02-b16", "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k", "eva02_clip"),
        ("siglip2-b16", "google/siglip2-base-patch16-224", "siglip"),
        ("metaclip2-b16", "facebook/metaclip-2-worldwide-b16", "metaclip2"),
    ],
)
def test_a_short_name_downloads_an_encoder_of_its_family(
    hub: Hub, repos: dict[str, dict[str, bytes]], tmp_path: Path, name, hub_id, fixture
) -> None:
    g = Golden.read(shared("fixtures", f"backbone_{fixture}.safetensors"))
    (tmp_path / "model").mkdir()
    write_checkpoint(g.config, g.weights, tmp_path / "model")
    repos[hub_id] = files_of(tmp_path / "model")
    script = (
        "import sys; from froster.encoders.checkpoints import load_clip;"
        "clip, report = load_clip(sys.argv[1]); print(clip.config.vision)"
    )
    done = quick.run(
        [sys.executable, "-c", script, name],
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    known = known_encoder(name)
    assert known is not None
    of_family, _, _ = architecture(known)
    for option in ("class_token", "pool", "rope", "gated", "pre_norm"):
        assert f"{option}={getattr(of_family, option)!r}" in done.stdout
