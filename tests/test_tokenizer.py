"""The tokenizer gives OpenAI's ids, whatever file it was read from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import models, pre_tokenizers

from froster.encoders.layouts import BPE_FILE
from froster.encoders.pipelines import END, START
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, UsageError

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_vocabulary = pytest.mark.skipif(
    not (SHARED / "vocab" / BPE_FILE).exists(),
    reason=f"needs CLIP's {BPE_FILE}, which is not part of the repository",
)


@pytest.fixture(scope="module")
def clip_tokenizer() -> Tokenizer:
    return Tokenizer.from_bpe(SHARED / "vocab" / BPE_FILE)


def small_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "r"), ("ar", "c"), ("i", "n"), ("in", "g</w>")]
    words = [
        *alphabet,
        *(char + "</w>" for char in alphabet),
        *(a + b for a, b in merges),
        START,
        END,
    ]
    return {word: index for index, word in enumerate(words)}, merges


@pytest.fixture
def small() -> Tokenizer:
    return Tokenizer.build(*small_vocabulary())


def fact_files() -> list[Path]:
    return sorted((SHARED / "fixtures").glob("facts_bpe_tokens*.json"))


def same_as_the_facts(tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    assert (tokenizer.start, tokenizer.end, tokenizer.vocab_size) == (
        facts["sot"],
        facts["eot"],
        49408,
    )
    for case in facts["cases"]:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded"], case["text"]
    assert tokenizer([facts["long_text"]], 77, truncate=True).tolist() == [facts["long_truncated"]]
    assert tokenizer([facts["text_75_tokens"]], 77).tolist() == [facts["row_75"]]
    for text in (facts["long_text"], facts["text_76_tokens"]):
        with pytest.raises(UsageError, match=r"at most 77.*--truncate"):
            tokenizer([text], 77)


@needs_vocabulary
@pytest.mark.parametrize("path", fact_files(), ids=lambda path: path.stem)
def test_openai_ids_from_every_kind_of_file(
    path: Path, tmp_path: Path, clip_tokenizer: Tokenizer
) -> None:
    facts = json.loads(path.read_text(encoding="utf-8"))
    same_as_the_facts(clip_tokenizer, facts)

    clip_tokenizer.save(tmp_path / "tokenizer.json")
    same_as_the_facts(Tokenizer.from_file(tmp_path / "tokenizer.json"), facts)

    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in saved["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(saved["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8"
    )
    same_as_the_facts(
        Tokenizer.from_vocab_merges(tmp_path / "vocab.json", tmp_path / "merges.txt"), facts
    )

    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer(
        vocab=saved["vocab"], merges=[tuple(pair.split()) for pair in pairs]
    )
    theirs.save_pretrained(tmp_path / "hub")
    same_as_the_facts(Tokenizer.find(tmp_path / "hub"), facts)


@needs_vocabulary
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "?<|endoftext|>",
            ["?<|", "endoftext", "|>"],
        ),  # a special token is one only where a word begins
        ("x<|EndOfText|>y", ["x", END, "y"]),
        ("J\u030c", ["j", "\u030c"]),  # lower-casing comes after composing
        ("don'\u017f", ["don", "'\u017f"]),  # a contraction whatever the case of the s
    ],
)
def test_words_are_split_as_openai_does(
    text: str, words: list[str], clip_tokenizer: Tokenizer
) -> None:
    model = clip_tokenizer._pipeline._backend.model
    alone = [[clip_tokenizer.end] if word == END else byte_level_ids(model, word) for word in words]
    assert clip_tokenizer.encode(text) == [index for ids in alone for index in ids]


def byte_level_ids(model: models.Model, word: str) -> list[int]:
    ((spelt, _),) = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    ).pre_tokenize_str(word)
    return [token.id for token in model.tokenize(spelt)]


def test_a_small_tokenizer_round_trips(small: Tokenizer, tmp_path: Path) -> None:
    vocab, _ = small_vocabulary()
    assert (small.start, small.end, small.vocab_size) == (
        len(vocab) - 2,
        len(vocab) - 1,
        len(vocab),
    )
    small.save(tmp_path / "tokenizer.json")
    again = Tokenizer.find(tmp_path)
    text = "  Archery &amp; diving,\ncafé "
    assert again.encode(text) == small.encode(text)
    assert again.decode(small.encode(text)) == "archery & diving , café "
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_rows_are_padded_to_the_longest(small: Tokenizer) -> None:
    rows = small(["archery", "", "a"], 77)
    assert rows.shape == (3, 2 + len(small.encode("archery")))
    assert rows[1].tolist()[:3] == [small.start, small.end, 0]
    assert (rows.max(dim=1).values == small.end).all()


def test_too_long_a_text_is_named(small: Tokenizer) -> None:
    length = len(small.encode("zebra crossing")) + 2
    with pytest.raises(
        UsageError, match=rf"of {length} tokens.*at most 8.*'zebra crossing'.*--truncate"
    ):
        small(["ok", "zebra crossing"], 8)
    row = small(["zebra crossing"], 8, truncate=True)[0].tolist()
    assert row == [small.start, *small.encode("zebra crossing")[:6], small.end]


def test_find_looks_beside_the_checkpoint_then_at_the_variable(
    small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    small.save(tmp_path / "beside" / "tokenizer.json")
    assert Tokenizer.find(tmp_path / "beside" / "weights.pt").vocab_size == small.vocab_size
    monkeypatch.setenv("FROSTER_BPE", str(tmp_path / "beside"))
    assert Tokenizer.find(tmp_path).vocab_size == small.vocab_size
    monkeypatch.setenv("FROSTER_BPE", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"FROSTER_BPE=.*nowhere"):
        Tokenizer.find(tmp_path)


def test_without_a_vocabulary_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(*_: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.delenv("FROSTER_BPE", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(
        FrosterError, match=r"ConnectionError.*download bpe_simple_vocab.*set FROSTER_BPE"
    ) as caught:
        Tokenizer.find(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a gzip file", gzip.compress(b"#version\na b\n"), gzip.compress(b"\xff\xfe")],
    ids=["empty", "text", "short", "binary"],
)
def test_a_broken_bpe_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / BPE_FILE
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=BPE_FILE):
        Tokenizer.find(tmp_path)


def test_a_broken_tokenizer_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer.find(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match=r"vocab\.json.*not a CLIP tokenizer"):
        Tokenizer.from_vocab_merges(tmp_path / "vocab.json", tmp_path / "merges.txt")
