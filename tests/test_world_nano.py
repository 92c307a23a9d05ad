"""The nano CLIP that ships: small enough, sharp enough, and it knows its world."""

from __future__ import annotations

import json

import pytest
import torch

import froster
from tools.nano.pretrain import NANO
from tools.nano.zero_shot import Exam, examine

FRESH_SEED = 77_000_001
"""Neither the pretraining's seed nor the one its report was measured with."""


def test_the_weights_are_small_and_in_half_precision():
    assert sum(file.stat().st_size for file in NANO.iterdir()) <= 8 * 2**20
    assert {file.name for file in NANO.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "report.json",
    }


def test_the_nano_knows_the_nouns_of_its_world():
    recognizer = froster.load("nano")
    scores = examine(recognizer.clip, recognizer.tokenizer, Exam.draw(800, FRESH_SEED))
    assert scores["noun"] >= 90 and scores["noun_plain"] >= 90
    assert scores["logit_scale"] >= 50
    report = json.loads((NANO / "report.json").read_text())
    assert report["steps_done"] == report["recipe"]["steps"]
    assert scores["noun"] == pytest.approx(report["zero_shot"]["noun"], abs=4)


def test_the_shipped_recipe_is_the_one_in_the_code():
    from tools.nano.pretrain import Recipe

    recipe = json.loads((NANO / "report.json").read_text())["recipe"]
    assert {**recipe, "scale": tuple(recipe["scale"])} == vars(Recipe())


def test_the_tokenizer_that_ships_is_the_one_that_the_code_builds():
    from tools.nano.bpe import build_tokenizer

    texts = ["a video of cat spinning. cat spinning", "xylophone qué"]
    assert torch.equal(froster.load("nano").tokenizer(texts, 256), build_tokenizer()(texts, 256))
