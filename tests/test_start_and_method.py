"""What is loaded is what was trained, for every method from every start; and a model survives being
copied and sent."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
import torch
from torch import Tensor

import froster
import quick
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import FrosterError, UsageError
from froster.inference.export import Deployed
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Classification, Recognizer
from froster.inference.released import recognise
from froster.methods import METHODS, Frozen, Method
from froster.methods.weight_names import new_weights
from froster.text.prompts import Prompting
from froster.training.fine_tune import student_of
from froster.training.weights import halfway, with_weights
from golden import golden, part
from parity import stand_in

LABELS = ["cat spinning", "boat pacing"]
EVERY = [(name, variant) for name, method in METHODS.items() for variant in method.variants or [""]]
TO_DISK = [("frozen", ""), ("vclip", "step1"), ("actionclip", "tsm")]
"""Starts that a student of every method is saved from. The first of them is quick; students of the
others are saved by `test_the_ways_on_from_a_student` and `test_a_released_checkpoint_as_a_start`."""
PROMPTS = Prompting(("a {}.",), "plain")


@cache
def plain() -> Recognizer:
    tokenizer = froster.load("nano", device="cpu").tokenizer
    torch.manual_seed(0)
    clip = CLIP(
        CLIPConfig(
            VisionConfig(32, 16, 64, 2, 2), TextConfig(64, tokenizer.vocab_size, 64, 2, 1), 64
        )
    )
    return Recognizer(
        Frozen().build(clip),
        tokenizer,
        ModelConfig(Frozen(), prompting=PROMPTS),
        device=torch.device("cpu"),
    )


def moved(model: Recognizer, seed: int = 1) -> Recognizer:
    """As after a training: every weight is another, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return model


def made(name: str, variant: str) -> Method:
    return METHODS[name].make(variant or None).for_classes(LABELS)


def first_variant(name: str) -> str:
    return next(iter(METHODS[name].variants), "")


def start(name: str, variant: str) -> Recognizer:
    return moved(student_of(plain(), made(name, variant)), 2)


def outputs(model: Recognizer) -> Iterator[Tensor]:
    """Embeddings of a clip and of texts, what the clip says to the text, the classes, and the
    logits."""
    frames = getattr(model.config.method, "frames", 0) or 4
    generator = torch.Generator().manual_seed(3)
    clips = torch.randint(0, 256, (1, frames, 3, 32, 32), dtype=torch.uint8, generator=generator)
    classes = model.class_embeddings(LABELS)
    yield model.embed_clips(clips)
    if not model.config.method.closed:
        yield model.embed_text(LABELS)
    with torch.no_grad():
        seen = model.encode_clips(clips)
    yield seen.context if seen.context is not None else torch.zeros(1)
    yield classes
    yield model.model.logits(seen.video, classes, seen.context).float()[None]


def same(one: Recognizer, other: Recognizer) -> None:
    for mine, theirs in zip(outputs(one), outputs(other), strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        one
        if one[1] == first_variant(one[0]) and one not in TO_DISK[1:]
        else pytest.param(*one, marks=pytest.mark.slow)
        for one in EVERY
    ],
)
def test_every_method_from_this_start(name: str, variant: str, tmp_path: Path) -> None:
    """The start as it is made, and as it is loaded again: both give the same network, or are
    refused in a line."""
    first = start(name, variant)
    first.save(tmp_path / "start")
    again = froster.load(tmp_path / "start", device="cpu")
    same(first, again)
    for other, kind in EVERY:
        if new_weights(first.model):
            if made(other, kind) == again.config.method:  # training goes on
                same(student_of(again, made(other, kind)), again)
                continue
            with pytest.raises(UsageError, match=f"is {name} already"):
                student_of(again, made(other, kind))
            continue
        if (name, variant) not in TO_DISK and kind != first_variant(other):
            continue  # every variant from the networks that differ; the other starts have those networks too
        student = student_of(again, made(other, kind))
        if (name, variant) not in TO_DISK or kind != first_variant(other):
            student.check_network()  # what saving asks
            continue
        moved(student)
        student.save(tmp_path / "model")
        same(student, froster.load(tmp_path / "model", device="cpu"))


def test_a_student_starts_from_the_weights_of_its_start() -> None:
    base = start("vclip", "step2")
    student = student_of(base, made("finetuned", "both"))
    assert all(
        torch.equal(weight, student.clip.state_dict()[name])
        for name, weight in base.clip.state_dict().items()
    )
    assert {type(block).__name__ for block in student.clip.visual.transformer.resblocks} == {
        "Block"
    }
    own = {weight.data_ptr() for weight in student.model.parameters()}
    assert not own & {
        weight.data_ptr() for weight in base.model.parameters()
    }  # training it leaves the start alone


@pytest.mark.parametrize("name", ["finetuned", "vclip", "actionclip", "lora", "xclip"])
def test_the_ways_on_from_a_student(name: str, tmp_path: Path) -> None:
    """Other weights of it, half of its start's, and what is exported, each after saving and
    loading."""
    base = start("vclip", "step1")
    student = moved(student_of(base, made(name, first_variant(name))))
    state = {key: 0.9 * weight for key, weight in student.model.state_dict().items()}
    for weights in (state, halfway(base, student, state)):
        model = with_weights(student, weights)
        model.save(tmp_path / "model")
        again = froster.load(tmp_path / "model", device="cpu")
        same(model, again)
        frames = torch.randint(
            0,
            256,
            (1, getattr(model.config.method, "frames", 0) or 4, 3, 32, 32),
            dtype=torch.uint8,
        )
        classes = model.class_embeddings(LABELS)
        with torch.no_grad():
            for mine, theirs in zip(
                Deployed(model.model, classes)(frames),
                Deployed(again.model, classes)(frames),
                strict=True,
            ):
                torch.testing.assert_close(theirs, mine, atol=1e-6, rtol=0)


def test_a_network_that_its_config_does_not_describe_is_not_saved(tmp_path: Path) -> None:
    vclip = start("vclip", "step1")
    wrong = [
        (Frozen().build(copy.deepcopy(vclip.clip)), Frozen()),
        (vclip.model, made("vclip", "step2")),
        (vclip.model, made("vclip", "mask")),
        (start("adaptformer", "official").model, METHODS["adaptformer"].make(scale=0.2)),
        (start("frozen", "").model, Frozen("mean_then_unit")),
    ]
    for network, method in wrong:
        model = Recognizer(
            network, plain().tokenizer, ModelConfig(method), device=torch.device("cpu")
        )
        with pytest.raises(UsageError, match="not what its config says") as caught:
            model.save(tmp_path / "model")
        assert "\n" not in str(caught.value) and not (tmp_path / "model").exists()


RELEASED = [
    "aim_froster",
    "stadapter_froster",
    "adaptformer_froster",
    "xclip_message_froster",
    "actionclip_tsm",
]


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_checkpoint_as_a_start(name: str, tmp_path: Path) -> None:
    """ActionCLIP's shift has no weights of its own, and is not taken over; what has some is
    refused."""
    weights = part(golden(name), "weights/")
    torch.save(weights, tmp_path / "released.pth")
    found = recognise(weights)
    assert found is not None
    other = Recognizer(
        Frozen().build(stand_in(found.state)),
        plain().tokenizer,
        ModelConfig(),
        device=torch.device("cpu"),
    )
    other.save(tmp_path / "clip")
    base = froster.load(tmp_path / "released.pth", clip=tmp_path / "clip", device="cpu")
    for method in ("finetuned", "vclip", "lora", "stan", "text4vis"):
        if name != "actionclip_tsm":
            with pytest.raises(UsageError, match="already"):
                student_of(base, made(method, first_variant(method)))
            continue
        base.tokenizer_source = plain().tokenizer
        student = moved(student_of(base, made(method, first_variant(method))))
        student.save(tmp_path / "model")
        again = froster.load(tmp_path / "model", device="cpu")
        clips = torch.randint(
            0, 256, (1, 4, 3, base.image_size, base.image_size), dtype=torch.uint8
        )
        torch.testing.assert_close(
            again.embed_clips(clips), student.embed_clips(clips), atol=1e-6, rtol=0
        )


def video(model: Recognizer) -> Tensor:
    frames = model.config.sampling.frames
    return torch.randint(
        0, 256, (frames, 40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize(
    "method",
    [name for name in METHODS if not getattr(METHODS[name], "frames", 0) or name != "vita-clip"],
)
def test_a_model_can_be_pickled_and_copied(method: str) -> None:
    model = start(method, first_variant(method))
    model.config = copy.copy(model.config)
    frames = getattr(model.config.method, "frames", 0) or 8
    object.__setattr__(model.config, "sampling", model.config.sampling.changed(frames=frames))
    found = model.classify(video(model), LABELS)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        torch.load(file, weights_only=False),
    ):
        assert other.classify(video(model), LABELS) == found
    assert pickle.loads(pickle.dumps(found)) == found == copy.deepcopy(found)


RECEIVES = """
import multiprocessing, sys
from multiprocessing.connection import Client
address, key, *labels = sys.argv[1:]
multiprocessing.current_process().authkey = bytes.fromhex(key)
with Client(address) as pipe:
    model, frames = pipe.recv()
    pipe.send(model.classify(frames, labels))
"""


def test_a_model_goes_to_another_process() -> None:
    """As multiprocessing sends it, with the tokenizer; the nano, as its file is the shared one."""
    model = froster.load("nano", device="cpu")
    key = multiprocessing.current_process().authkey.hex()
    with Listener(family="AF_UNIX") as listener:
        program = [sys.executable, "-c", RECEIVES, listener.address, key, *LABELS]
        with quick.Popen(program) as process, listener.accept() as pipe:
            pipe.send((model, video(model)))
            found: Classification = pipe.recv()
            assert process.wait(60) == 0
    assert found.labels == model.classify(video(model), LABELS).labels


def test_a_model_without_a_tokenizer_can_be_pickled() -> None:
    model = Recognizer(
        plain().model, FrosterError("no vocabulary"), plain().config, device=torch.device("cpu")
    )
    with pytest.raises(FrosterError, match="no vocabulary"):
        pickle.loads(pickle.dumps(model)).embed_text(LABELS)
