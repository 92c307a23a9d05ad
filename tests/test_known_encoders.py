"""Encoders that have a short name: what the table states is what the architectures are, and a
wrong name gets the nearest."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch

import froster
import quick
from froster.encoders.blank import blank
from froster.encoders.config import TextConfig, VisionConfig
from froster.encoders.hf_config import config_from_hf
from froster.encoders.known import DEFAULT_MODEL, KNOWN, KnownEncoder, hub_id_of, known_encoder
from froster.encoders.licence import restriction, stated_licence
from froster.encoders.text import TextTower
from froster.encoders.vision import VisionTower
from froster.errors import CheckpointError
from froster.inference.speeds import measured
from froster.inference.tower_speed import architecture

ONE_OF_EACH = {(k.family, k.size, k.pixels): k for k in KNOWN}.values()


def test_names_and_hub_ids_are_unique_and_typable() -> None:
    assert len({known.name for known in KNOWN}) == len({k.hub_id for k in KNOWN}) == len(KNOWN)
    for known in KNOWN:
        assert known.name == known.name.lower() and "/" not in known.name and "." not in known.name
        assert known.hub_id.count("/") == 1
        assert all(0 < figure.percent < 100 and figure.source for figure in known.figures)


def test_no_default_that_may_not_be_used() -> None:
    known = known_encoder(DEFAULT_MODEL)
    assert known is not None and not restriction(known.licence)


@pytest.mark.parametrize("known", ONE_OF_EACH, ids=lambda known: known.name)
def test_the_image_tower_has_so_many_weights(known: KnownEncoder) -> None:
    config, embed_dim, activation = architecture(known)
    with blank():
        tower = VisionTower(config, embed_dim, activation)
    millions = sum(weight.numel() for weight in tower.parameters()) / 1e6
    # EVA02's keys have no bias; ours have one of zeros.
    without = config.layers * config.width / 1e6 if known.family == "EVA02" else 0
    assert millions - without == pytest.approx(known.image_millions, abs=0.006)


def text_config(known: KnownEncoder) -> TextConfig:
    """The sizes of the text tower, as the family's authors have them."""
    width, layers = {"B": (512, 12), "L": (768, 12), "H": (1024, 24), "g": (1024, 24)}.get(
        known.size[0], (1280, 32)
    )
    size, more = known.size.split("/")[0], {}
    if known.family.startswith("SigLIP"):
        width, layers = {"B": (768, 12), "L": (1024, 24)}.get(size, (1152, 27))
        more = {"context": 64, "vocab": 32000 if known.family == "SigLIP" else 256000}
        more |= {"projection_bias": True, "mlp_width": 4304 if width == 1152 else 0}
        if (known.family, known.size, known.pixels) == ("SigLIP", "So400m/14", 224):
            more["context"] = 16
    elif known.family == "PE-Core":
        width, layers = {"T": (512, 12), "S": (512, 12), "G": (1280, 24)}.get(size, (1024, 24))
        more = {"context": 72 if size == "G" else 32}
    elif known.family == "MetaCLIP 2":
        more = {"vocab": 901629}
    elif known.family == "CLIPA":
        more = {"vocab": 32000, "context": 32}
    elif size == "bigG":
        width, layers = 1280, 32
    return TextConfig(width=width, layers=layers, heads=width // 64, **more)


@pytest.mark.parametrize("known", ONE_OF_EACH, ids=lambda known: known.name)
def test_the_text_tower_has_so_many_weights(known: KnownEncoder) -> None:
    with blank():
        tower = TextTower(text_config(known), architecture(known)[1], "gelu")
    millions = sum(weight.numel() for weight in tower.parameters()) / 1e6
    assert millions == pytest.approx(known.text_millions, abs=0.006)


def test_what_is_timed_is_what_is_loaded() -> None:
    """A SigLIP of Hugging Face's has a loader of its own."""
    for known in KNOWN:
        config, embed_dim, activation = architecture(known)
        if known.family.startswith("SigLIP"):
            heads = {"num_attention_heads": config.heads, "num_hidden_layers": config.layers}
            sizes = {"image_size": known.pixels, "patch_size": config.patch_size}
            width = {"hidden_size": config.width, "intermediate_size": config.mlp_width or None}
            if not config.mlp_width:
                width["intermediate_size"] = 4 * config.width
            loaded = config_from_hf(
                {
                    "model_type": "siglip",
                    "vision_config": {**heads, **sizes, **width},
                    "text_config": {"projection_size": embed_dim},
                }
            )
            assert dataclasses.replace(loaded.vision, mlp_width=config.mlp_width) == config
            assert (loaded.embed_dim, loaded.activation) == (embed_dim, activation)


def test_short_names_and_the_nearest() -> None:
    assert hub_id_of("clip-b16") == hub_id_of("CLIP-B16") == "openai/clip-vit-base-patch16"
    assert hub_id_of("anybody/anything") == "anybody/anything"
    for wrong, near in (
        ("pecore-b16", "pe-core-b16"),
        ("siglip2-b61", "siglip2-b16"),
        ("nan", "nano"),
    ):
        with pytest.raises(
            CheckpointError, match=rf"{wrong}: .*did you mean {near}\?.*froster models"
        ):
            froster.load(wrong, device="cpu")
    with pytest.raises(CheckpointError, match=r"no encoder of that name .froster models lists"):
        froster.load("qqqq", device="cpu")


def test_a_folder_of_that_name_comes_first(nano, tmp_path, monkeypatch) -> None:
    nano.save(tmp_path / "clip-b16")
    monkeypatch.chdir(tmp_path)
    assert froster.load("clip-b16", device="cpu").provenance == "froster"


def test_licences_in_words(tmp_path: Path) -> None:
    forbidden = ("cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "apple-amlr", "fair-noncommercial-research")
    assert all("not for commercial use" in restriction(licence) for licence in forbidden)
    assert not any(map(restriction, ("mit", "apache-2.0", "cc-by-4.0", "openrail", "cc-by-sa-4.0")))
    for text, licence in (
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: x-y\n---\n", "x-y"),
        ("---\ntags:\n- a\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("---\nlicense: mit\n", ""),
        ("", ""),
    ):
        (tmp_path / "README.md").write_text(text)
        assert stated_licence(tmp_path) == licence, text
    assert stated_licence(tmp_path / "none") == ""


def test_the_table(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FROSTER_CACHE", str(tmp_path))
    shown = run("models")
    assert shown.code == 0
    lines = {line.split()[0]: line for line in shown.out.splitlines() if line.strip()}
    assert "65.6" in lines["pe-core-b16"] and "timm/PE-Core-B-16" in lines["pe-core-b16"]
    assert "cc-by-nc-4.0*" in lines["metaclip-b16"]
    assert "* apple-amlr: for research only" in shown.out
    facts = json.loads(run("models", "--json").out)
    assert [each["name"] for each in facts["encoders"]] == [known.name for known in KNOWN]
    assert facts["default"] == DEFAULT_MODEL
    one = run("models", "siglip2-b16")
    assert "google/siglip2-base-patch16-224" in one.out and "2504.13181" in one.out
    wrong = run("models", "siglip2-b61")
    assert wrong.code == 1 and "siglip2-b16" in wrong.err and wrong.err.count("\n") == 1
    for name in ("anybody/anything", "nano", ""):
        for option in ((), ("--measure",)):
            other = run("models", *option, name)
            assert other.code in (1, 2) and other.err.count("\n") == 1 and not other.out
            assert "did you mean" not in other.err


def test_what_is_measured_is_kept_and_shown(run, monkeypatch, tmp_path) -> None:
    """On towers that are tiny here: what is timed is not the test's business."""
    from froster.inference import tower_speed

    monkeypatch.setenv("FROSTER_CACHE", str(tmp_path))
    small = VisionConfig(32, 16, 64, 2, 1)
    monkeypatch.setattr(tower_speed, "architecture", lambda known: (small, 32, "gelu"))
    monkeypatch.setattr(tower_speed, "_SECONDS", 0.05)
    assert run("models", "--measure", "clip-b16", "--device", "cpu").code == 0
    assert (
        run("models", "--measure", "clip-l14", "--precision", "bf16", "--device", "cpu").code == 0
    )
    speeds = measured()
    assert set(speeds) == {"clip-b16", "clip-l14"}
    assert speeds["clip-l14"].precision == "bfloat16"
    assert speeds["clip-b16"].threads == torch.get_num_threads()
    number = f"{speeds['clip-b16'].frames_per_second:.3g}"
    (line,) = [line for line in run("models").out.splitlines() if line.startswith("clip-b16 ")]
    assert number in line.split()
    facts = {e["name"]: e for e in json.loads(run("models", "--json").out)["encoders"]}
    assert facts["clip-b16"]["measured"]["frames_per_second"] > 0
    assert facts["clip-b32"]["measured"] is None
    (file,) = (tmp_path / "speed").glob("*.json")
    file.write_text("[{]")
    assert measured() == {}


def test_what_lies_in_the_hubs_cache(tmp_path) -> None:
    """Asked in a process of its own, as the hub's client reads its settings when it is imported."""

    def repo(name: str, file: str) -> None:
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        (folder / "snapshots" / ("a" * 40) / file).write_bytes(b"x")

    repo("timm/PE-Core-B-16", "open_clip_model.safetensors")
    repo("openai/clip-vit-base-patch16", "config.json")
    code = "from froster.cli.models import cached_repositories as c; print(*sorted(c()))"
    done = quick.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["timm/PE-Core-B-16"], done.stderr


def test_a_narrow_terminal_has_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from froster.cli import models

    rows = [models.row(known, {}, ()) for known in KNOWN]
    for width in (70, 90, 120, 400):
        monkeypatch.setattr(models, "output", Console(force_terminal=True, width=width))
        columns, cells = models.fitting(list(models.COLUMNS), rows)
        widths = [max(map(len, map(str, column))) for column in zip(columns, *cells, strict=True)]
        assert sum(widths) + 2 * len(widths) <= width
        assert {"name", "K400", "licence"} <= set(columns)
    assert columns == list(models.COLUMNS)
