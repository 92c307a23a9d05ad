"""The shipped sentences: every class of the data sets, one sentence, short enough for CLIP."""

from __future__ import annotations

import json
import re

import pytest

from froster.encoders.tokenizer import Tokenizer
from froster.text.prompts import KINETICS_28
from froster.text.sentences import SHIPPED, read_descriptions, with_descriptions
from golden import shared


@pytest.mark.parametrize("name", SHIPPED)
def test_every_class_has_one_sentence(name: str) -> None:
    classes = json.loads(shared("facts", "datasets.json").read_text(encoding="utf-8"))[name]
    sentences = read_descriptions(name)
    assert list(sentences) == classes
    assert len(set(sentences.values())) == len(sentences)
    for label, sentence in sentences.items():
        assert re.fullmatch(r"[^.:\"]{20,}\.", sentence), (label, sentence)
        assert label.casefold() not in sentence.casefold() or len(label) < 6, (label, sentence)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_longest_prompt_fits(name: str) -> None:
    """At most 64 tokens in the longest template, the name before and in it included."""
    tokenizer = Tokenizer.find(shared("vocab"))
    sentences = read_descriptions(name)
    readable = {
        re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", label): text for label, text in sentences.items()
    }
    template = max(KINETICS_28, key=lambda t: len(tokenizer.encode(t)))
    for label, text in readable.items():
        assert len(tokenizer.encode(f"{label}: {text}")) + 2 <= 64, label
        assert (
            len(tokenizer.encode(f"{template.replace('{}', label)} {label}: {text}")) + 2 <= 77
        ), label


def test_labels_take_their_sentence_by_name() -> None:
    labels = with_descriptions(["Apply Eye Makeup", "no such class"], read_descriptions("ucf101"))
    assert labels[0].startswith("Apply Eye Makeup: ") and labels[1] == "no such class"
