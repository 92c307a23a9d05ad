"""Captions, tokenizer and the making of the nano CLIP."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from froster.encoders.config import CLIPConfig
from froster.encoders.model import CLIP, unit
from froster.text.prompts import FROSTER_PROMPTS
from froster.text.sentences import with_descriptions
from froster.world.sets import SETS, sentences
from froster.world.vocabulary import ALL_VERBS, COLOURS, MOTIONS, NOUNS, SCENES
from tools.nano import pretrain
from tools.nano.bpe import build_tokenizer, learn_merges
from tools.nano.captions import CONTENT, DESCRIBED, TEMPLATES, caption, content
from tools.nano.stills import Still, draw_stills


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_captions_say_nothing_that_the_still_does_not_show():
    rng = np.random.default_rng(0)
    for still in draw_stills(1500, 3):
        true = {
            still.noun,
            still.colour,
            still.scene,
            *(still.verb or "").split(),
            *(still.other or ()),
        }
        said = [CONTENT[index] for index in content(caption(still, rng))]
        assert said and set(said) <= true


def test_the_templates_of_action_recognition_are_in_the_captions():
    rng = np.random.default_rng(0)
    captions = [caption(still, rng) for still in draw_stills(3000, 0)]
    wrapped = [
        text
        for text in captions
        if "person" in text or text.split()[1:2] in (["example"], ["demonstration"])
    ]
    assert len(TEMPLATES) == 28
    assert 0.25 < len(wrapped) / len(captions) < 0.45
    still = Still("cat", "red", "snow", "spinning")
    some = {caption(still, rng) for _ in range(3000)}
    assert (
        "a photo of cat spinning. cat spinning" in some and "a red cat spinning in the snow" in some
    )


def test_sentences_are_in_the_captions_as_described_labels_are_asked_for():
    actions = [action for members in SETS.values() for action in members.actions]
    labels = with_descriptions([action.name for action in actions], sentences())
    prompts = {text for row in FROSTER_PROMPTS.prompts(labels) for text in row}
    rng = np.random.default_rng(0)
    stills = [Still(a.noun, a.colour or "red", "snow", a.verb) for a in actions]
    captions = [caption(still, rng) for still in stills for _ in range(40)]
    assert len(prompts & set(captions)) > 100
    held = [text for text in captions if any(text.endswith(end) for end in MOTIONS.values())]
    assert abs(len(held) / len(captions) - DESCRIBED) < 0.1  # some end in a full stop
    words = [CONTENT[i] for i in content("the cat goes up and down as a ball does")]
    assert words == ["cat", "bouncing"]


def test_words_of_the_world_are_one_token_and_others_are_spelt(tokenizer):
    words = [
        *NOUNS,
        *COLOURS,
        *SCENES,
        *" ".join(ALL_VERBS).split(),
        "person",
        "performing",
        "demonstration",
        "video",
    ]
    assert all(len(tokenizer.encode(word)) == 1 for word in words)
    assert tokenizer.end == tokenizer.vocab_size - 1 == tokenizer.start + 1
    strange = "Xylophone qué 東?"
    assert tokenizer.decode(tokenizer.encode(strange)).strip() == "xylophone qué 東 ?"


def test_merges_are_learnt_in_order_of_frequency():
    assert learn_merges(["aab", "aac"]) == [("a", "a"), ("aa", "b</w>"), ("aa", "c</w>")]


def test_a_caption_that_is_also_true_is_not_pushed_away():
    bags = pretrain.bag_of_words(["a red cat", "a cat", "a blue fish"])
    embeddings = unit(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    images, texts = (
        embeddings.clone().requires_grad_(),
        embeddings.roll(1, 0).clone().requires_grad_(),
    )
    logits = 10 * images @ texts.T
    masked = logits.clone()
    masked[0, 1] = -math.inf  # "a cat" is true of the still of a red cat, not the other way round
    target = torch.arange(3)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(masked, target) + cross_entropy(masked.T, target)) / 2
    torch.testing.assert_close(pretrain.contrast(images, texts, bags, 10.0), expected)


def test_a_few_steps_lower_the_loss_and_leave_a_model_folder(tmp_path: Path):
    recipe = pretrain.Recipe(steps=6, stills=128, batch=32, warmup=2, exam=20, snapshot=4)
    scores = pretrain.pretrain(recipe, tmp_path / "nano", quiet=True)
    assert scores["logit_scale"] == pytest.approx(60, abs=0.01)
    state = load_file(tmp_path / "nano" / "model.safetensors")
    config = json.loads((tmp_path / "nano" / "config.json").read_text())
    CLIP(CLIPConfig.from_dict(config["architecture"])).load_state_dict(
        {k: v.float() for k, v in state.items()}
    )
    report = json.loads((tmp_path / "nano" / "report.json").read_text())
    assert report["steps_done"] == 6 and report["recipe"]["seed"] == 0

    again = pretrain.pretrain(recipe, tmp_path / "again", quiet=True, workers=2)
    assert again == scores
    other = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_the_command_can_be_interrupted(monkeypatch, tmp_path: Path):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "pretrain", stop)
    with pytest.raises(SystemExit) as leaving:
        pretrain.main(["--out", str(tmp_path), "--steps", "5"])
    assert leaving.value.code == 130
