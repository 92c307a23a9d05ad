"""Tokenizers of other families: a `tokenizer.json` gives the rows that transformers gives, in the
form that the text tower wants."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

import ftfy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Backend
from torch import Tensor

from froster.encoders import cleaning
from froster.encoders.config import TextConfig
from froster.encoders.pipelines import FilePipeline
from froster.encoders.tokenizer import DeferredTokenizer, Tokenizer, opened, tokenizer_of
from froster.errors import CheckpointError, UsageError
from froster.text.bank import PromptBank
from froster.text.prompts import Prompting
from golden import shared
from test_tokenizer import small_vocabulary

TEXTS = [
    "archery", "Playing_Guitar.", "a video of a person doing tai-chi (slow)", "déjà vu", "你好",
    "", "a person plays the guitar and the drums in the wood of the archery club again and again",
]  # fmt: skip
CORPUS = [
    "a photo of a person doing archery in the wood", "a video of a person playing guitar",
    "playing the drums and the guitar", "tai chi in the park again and again", "a slow dance club",
]  # fmt: skip


def unigram(special: list[str], post: str | None) -> Backend:
    """A SentencePiece model of the unigram kind, as SigLIP's and XLM-V's."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    backend.train_from_iterator(CORPUS * 4, trainer)
    return framed(backend, special, post)


def gemma(special: list[str], post: str | None) -> Backend:
    """Byte-pair encoding over blanks written out, bytes for what is unknown, as SigLIP 2's."""
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    )
    backend.train_from_iterator([line.replace(" ", "▁") for line in CORPUS * 4], trainer)
    return framed(backend, special, post)


def bert(special: list[str], post: str | None) -> Backend:
    """BERT's uncased word pieces, as CLIPA's."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special)
    backend.train_from_iterator(CORPUS * 4, trainer)
    return framed(backend, special, post)


def framed(backend: Backend, special: list[str], post: str | None) -> Backend:
    if post is not None:
        ids = [(token, backend.token_to_id(token)) for token in post.split() if token != "$A"]
        backend.post_processor = processors.TemplateProcessing(single=post, special_tokens=ids)
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    return backend


Family = tuple[Callable[[list[str], str | None], Backend], list[str], str | None, dict[str, object]]
SIGLIP: dict[str, object] = {"causal": False, "pool": "last", "clean": "canonical"}
FAMILIES: dict[str, Family] = {
    "siglip": (unigram, ["<pad>", "</s>", "<unk>"], "$A </s>", {**SIGLIP, "end": 1, "pad": 1}),
    "siglip2": (gemma, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], "$A <eos>", {**SIGLIP, "end": 1}),
    "metaclip2": (
        unigram, ["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>",
        {"end": 2, "pad": 1, "clean": "spaces"},
    ),
    "clipa": (
        bert, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]",
        {"causal": False, "pool": "last", "end": 0, "clean": "spaces"},
    ),
}  # fmt: skip
CONTEXT = 16


def tower(backend: Backend, options: dict[str, object]) -> TextConfig:
    return TextConfig(CONTEXT, backend.get_vocab_size(), 32, 1, 1, **options)  # type: ignore[arg-type]


def reference(name: str, backend: Backend, text: TextConfig, texts: list[str]) -> Tensor:
    """Rows by the family's published rule, by transformers from the same file."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(backend.to_str()), padding_side="right"
    )
    theirs.pad_token = theirs.convert_ids_to_tokens(text.pad)
    rule = cleaning.canonical if text.clean == "canonical" else cleaning.spaces
    rows: list[list[int]] = [
        theirs(rule(one), truncation=True, max_length=CONTEXT)["input_ids"] for one in texts
    ]
    if name == "clipa":  # open_clip writes 0 where [SEP] stands
        rows = [[0 if token == 3 else token for token in row] for row in rows]
    return torch.tensor([row + [text.pad] * (CONTEXT - len(row)) for row in rows])


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    make, special, post, options = FAMILIES[name]
    backend = make(special, post)
    text = tower(backend, options)
    expected = reference(name, backend, text, TEXTS)
    (tmp_path / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json", text)
    rows = tokenizer(TEXTS, CONTEXT, truncate=True)
    assert rows.equal(expected[:, : rows.shape[1]])
    assert rows.shape[1] == CONTEXT  # one text is cut; SigLIP's and CLIPA's rows always are so long
    short = tokenizer(TEXTS[:1], CONTEXT)
    assert (short.shape[1] == CONTEXT) == text.full_length
    with pytest.raises(UsageError, match=rf"at most {CONTEXT} .*--truncate"):
        tokenizer(TEXTS, CONTEXT)

    tokenizer.save(tmp_path / "saved.json")
    again = Tokenizer.from_file(tmp_path / "saved.json", text)
    assert again(TEXTS, CONTEXT, truncate=True).equal(rows)


def test_gemma_lowers_case_by_the_cleaning_alone() -> None:
    """transformers before 2026 did not, and its class pads on the left: neither matters here."""
    transformers = pytest.importorskip("transformers")
    make, special, _, options = FAMILIES["siglip2"]
    backend = make(special, None)
    text = tower(backend, options)
    model = json.loads(backend.to_str())["model"]
    theirs = transformers.Siglip2Tokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], add_eos_token=True
    )
    ours = Tokenizer(Backend.from_str(theirs._tokenizer.to_str()), text)
    texts = ["Playing Guitar", "Tai CHI", "archery"]
    expected = theirs(
        texts, padding="max_length", max_length=CONTEXT, padding_side="right", truncation=True
    )
    assert ours(texts, CONTEXT).tolist() == expected["input_ids"]


def test_a_spelt_out_end_token_ends_nothing() -> None:
    make, special, post, options = FAMILIES["metaclip2"]
    backend = make(special, post)
    text = tower(backend, options)
    row = Tokenizer(backend, text)(["archery </s> guitar"], CONTEXT)
    assert int((row == 2).sum()) == 1 and int(text.ends(row)) == row.shape[1] - 1


@pytest.mark.parametrize("rule", ["clip", "canonical", "spaces"])
def test_texts_are_cleaned_as_the_families_were_trained(rule: str) -> None:
    facts = json.loads(shared("fixtures", "facts_text_cleaning.json").read_text(encoding="utf-8"))
    key = {"canonical": "canonicalize", "spaces": "whitespace"}.get(rule, rule)
    assert len(facts["rows"]) > 10
    for row in facts["rows"]:
        assert cleaning.RULES[rule](row["text"]) == row[key], row["text"]


def clip_backend() -> Backend:
    return Backend.from_str(Tokenizer.build(*small_vocabulary())._pipeline.saved())


def test_a_clip_tokenizer_serves_towers_with_other_options() -> None:
    """PE's short context, MobileCLIP2-L's padding that counts."""
    backend = clip_backend()
    vocab = backend.get_vocab_size()
    text = TextConfig(8, vocab, 32, 1, 1, causal=False)
    rows = Tokenizer(backend, text)(["in", "arc"], 8)
    plain = Tokenizer(clip_backend())(["in", "arc"], 8)
    assert rows.shape == (2, 8) and rows[:, : plain.shape[1]].equal(plain)
    assert not rows[:, plain.shape[1] :].any()


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("siglip", {"vocab": 20}, "20 token embeddings, its tokenizer .* another model's"),
        ("siglip", {"vocab": 400}, "400 token embeddings"),
        ("clip", {"vocab": 600}, "600 token embeddings"),
        (
            "metaclip2",
            {"end": -1, "pool": "end"},
            "ends a text with token .*, its tokenizer with 2",
        ),
        ("siglip", {"end": 2}, "ends a text with token 2, its tokenizer with 1"),
        ("clip", {"end": 1, "clean": "canonical"}, "ends a text with token 1, its tokenizer with"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(
    backend: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    if backend == "clip":
        made, given = clip_backend(), {}
    else:
        make, special, post, given = FAMILIES[backend]
        made = make(special, post)
    values = {"vocab": made.get_vocab_size(), **given, **options}
    text = TextConfig(CONTEXT, width=32, layers=1, heads=1, **values)  # type: ignore[arg-type]
    (tmp_path / "tokenizer.json").write_text(made.to_str(), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(tokenizer_of(tmp_path, text))
    assert "tokenizer.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_large_vocabulary_is_read_when_a_label_is(tmp_path: Path) -> None:
    make, special, post, options = FAMILIES["siglip2"]
    backend = make(special, post)
    text = tower(backend, options)
    (tmp_path / "tokenizer.json").write_text("{}")
    source = tokenizer_of(tmp_path, text)
    assert isinstance(source, DeferredTokenizer)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable"):
        opened(source)
    (tmp_path / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    assert opened(source) is opened(source)


def test_without_a_tokenizer_json_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTER_BPE", str(tmp_path / "nowhere"))  # CLIP's would be a wrong one
    text = TextConfig(CONTEXT, 320, 32, 1, 1, clean="canonical", end=1)
    (tmp_path / "spiece.model").write_bytes(b"")
    error = tokenizer_of(tmp_path / "weights.safetensors", text)
    assert isinstance(error, CheckpointError)
    assert "no tokenizer.json beside it" in str(error) and "spiece.model alone" in str(error)


def test_a_file_that_frames_texts_in_another_way_is_refused() -> None:
    make, special, _, _ = FAMILIES["metaclip2"]
    backend = make(special, "<s> <s> $A </s>")
    with pytest.raises(CheckpointError, match=r"puts the tokens \[0, 0\] before"):
        FilePipeline(backend)


@pytest.fixture
def canonical() -> Tokenizer:
    make, special, post, options = FAMILIES["siglip"]
    backend = make(special, post)
    return Tokenizer(backend, tower(backend, options))


def test_labels_that_cleaning_makes_empty_or_equal_are_one_line(canonical: Tokenizer) -> None:
    plain = Prompting(("a photo of {}.",), "plain")
    with pytest.raises(UsageError, match="the label '!!!' is empty for this encoder"):
        PromptBank(canonical, ["archery", "!!!"], CONTEXT, plain)
    with pytest.raises(UsageError, match="'!!!: shouting' is empty for this encoder"):
        PromptBank(canonical, ["archery", "!!!: shouting"], CONTEXT, plain)
    with pytest.raises(
        UsageError, match=r"'tai-chi' and 'taichi' are the same .* 'taichi' in both"
    ):
        PromptBank(canonical, ["tai-chi", "archery", "taichi"], CONTEXT, plain)
    bank = PromptBank(canonical, ["tai_chi", "taichi"], CONTEXT, plain)
    assert bank.tokens(0).shape == (1, 2, CONTEXT)


def test_a_template_is_filled_before_it_is_cleaned(canonical: Tokenizer) -> None:
    bank = PromptBank(canonical, ["archery"], CONTEXT, Prompting(("a photo of {}.",), "plain"))
    assert bank.tokens(0)[0].equal(canonical(["A photo of archery"], CONTEXT))


@given(st.text(st.characters(max_codepoint=0x90)))
def test_plain_texts_need_no_repair(text: str) -> None:
    """They are passed by, and come out as the repair would leave them."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert cleaning.spaces(text) == " ".join(repaired.split())
