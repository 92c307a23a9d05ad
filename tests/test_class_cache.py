"""Class embeddings on disk: found again by who asks the same, by nobody else, whatever happens to
the files."""

import errno
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import quick
from froster.encoders.model import CLIP
from froster.encoders.tokenizer import DeferredTokenizer
from froster.errors import CheckpointError
from froster.inference.class_cache import ClassCache, code_of, key_of, text_fingerprint
from froster.inference.recognizer import Recognizer, load
from froster.inference.weight_files import state_of_files
from froster.methods import Frozen, VideoCLIP
from froster.text.prompts import Prompting
from froster.utils.caches import cache_folder

LABELS = ["a red circle", "a blue square"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of entries in a cache that is this test's alone."""
    monkeypatch.setenv("FROSTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classes"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts of every pass through a text tower."""
    from froster.encoders.text import TextTower

    seen: list[int] = []
    forward = TextTower.forward

    def counted(self: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(len(tokens))
        return forward(self, tokens)

    monkeypatch.setattr(TextTower, "forward", counted)
    return seen


def fresh() -> Recognizer:
    return load("nano", device="cpu")


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_a_second_process_makes_no_pass_over_the_text(kept: Path, passes: list[int]) -> None:
    first = fresh().class_embeddings(LABELS)
    assert passes
    passes.clear()
    assert torch.equal(fresh().class_embeddings(LABELS), first)
    assert not passes
    assert len(entries(kept)) == 1


def test_a_vocabulary_is_not_opened_for_labels_that_are_kept(kept: Path, tmp_path: Path) -> None:
    """But its file is read: a change of one letter asks for another entry."""
    fresh().save(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"

    def deferred() -> tuple[Recognizer, DeferredTokenizer]:
        model = load(tmp_path / "model", device="cpu")
        source = model.tokenizer_source
        assert isinstance(source, DeferredTokenizer)
        return model, source

    first = deferred()[0].class_embeddings(LABELS)
    model, source = deferred()
    assert torch.equal(model.class_embeddings(LABELS), first)
    assert "tokenizer" not in vars(source)
    file.write_text(file.read_text() + " ")
    model, source = deferred()
    assert torch.equal(model.class_embeddings(LABELS), first)
    assert "tokenizer" in vars(source)
    model, _ = deferred()
    file.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable"):
        model.class_embeddings(LABELS)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable"):
        deferred()


def test_the_second_command_with_many_labels(
    run, known, kept: Path, passes: list[int], tmp_path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"a thing of kind {number}" for number in range(60)))
    command = ("classify", known.path, "--labels-file", labels, "--model", "nano", "--json")
    began = time.perf_counter()
    first = run(*command)
    between = time.perf_counter()
    assert first.code == 0 and sum(passes) >= 60
    passes.clear()
    second = run(*command)
    ended = time.perf_counter()
    assert second.out == first.out
    assert not passes
    assert ended - between < between - began


def test_whatever_changes_asks_for_another_entry(kept: Path) -> None:
    model = fresh()
    keys = {key_of(model, LABELS, False)}
    keys.add(key_of(model, LABELS[::-1], False))
    keys.add(key_of(model, LABELS[:1], False))
    keys.add(key_of(model, LABELS, True))
    model.dtype = torch.bfloat16
    keys.add(key_of(model, LABELS, False))
    model.dtype = torch.float32
    model.config = replace(model.config, prompting=Prompting(("a {}",), "plain"))
    keys.add(key_of(model, LABELS, False))
    model.model.clip.text.token_embedding.weight.data[7, 3] += 1e-6
    keys.add(key_of(model, LABELS, False))
    assert len(keys) == 7


def test_one_bit_anywhere_shows_and_the_image_tower_does_not_count() -> None:
    model = fresh().model
    before = text_fingerprint(model)
    for name, weight in model.named_parameters():
        flat = weight.data.view(-1)
        for place in (0, len(flat) // 2, len(flat) - 1):
            old = flat[place].clone()
            flat[place] = torch.nextafter(old, old + 1)
            assert (text_fingerprint(model) == before) == name.startswith("clip.visual."), name
            flat[place] = old
    with torch.no_grad():  # the same numbers at other places
        rows = model.clip.text.token_embedding.weight
        rows[[3, 4]] = rows[[4, 3]]
    assert text_fingerprint(model) != before


def test_weights_changed_behind_pytorchs_back_are_no_wrong_hit(kept: Path) -> None:
    """A write through `.data` is not counted, and the model in memory cannot know of it; the disk
    must not pass its results on."""
    model = fresh()
    model.class_embeddings(LABELS)
    model.model.clip.text.ln_final.weight.data.mul_(-1)
    other = model.class_embeddings([*LABELS, "a star"])
    assert not torch.equal(other, fresh().class_embeddings([*LABELS, "a star"]))


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "foreign", "another's"])
def test_a_damaged_entry_is_made_again(kept: Path, passes: list[int], harm: str) -> None:
    first = fresh().class_embeddings(LABELS)
    (path,) = entries(kept)
    whole = path.read_bytes()
    if harm == "cut":
        path.write_bytes(whole[:-5])
    elif harm == "flipped":
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "foreign":
        path.write_bytes(b"\x80\x04]\x94.")  # a pickle
    else:
        fresh().class_embeddings(LABELS[::-1])
        (other,) = [entry for entry in entries(kept) if entry != path]
        path.write_bytes(other.read_bytes())
    passes.clear()
    assert torch.equal(fresh().class_embeddings(LABELS), first)
    assert passes
    assert path.read_bytes() == whole


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    store = ClassCache(tmp_path, most_bytes=40_000)
    one = torch.zeros(2000)  # 8 kB
    for number in range(4):
        store.put(f"k{number}", one + number)
        time.sleep(0.02)
    assert store.get("k0") is not None  # used now, so k1 is the oldest
    time.sleep(0.02)
    store.put("k4", one + 4)
    left = {path.stem for path in entries(tmp_path)}
    assert left == {"k0", "k2", "k3", "k4"}
    store.put("large", torch.zeros(5000))  # would push out all others
    assert {path.stem for path in entries(tmp_path)} == left


def test_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path;"
        "from froster.inference.class_cache import ClassCache;"
        "s = ClassCache(Path(sys.argv[1]), 60_000);"
        "[(s.put(f'k{i % 9}', torch.full((2000,), float(i % 9))), s.get(f'k{(i + 4) % 9}'))"
        " for i in range(40)]"
    )
    workers = [
        quick.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=quick.PIPE)
        for _ in range(2)
    ]
    assert [worker.communicate()[1] for worker in workers] == [b""] * 2
    store = ClassCache(tmp_path, 60_000)
    assert 0 < sum(path.stat().st_size for path in entries(tmp_path)) <= 60_000
    assert not list(tmp_path.glob("*.part"))
    for path in entries(tmp_path):
        kept = store.get(path.stem)
        assert kept is not None and set(kept.tolist()) == {float(path.stem[1:])}


def test_switched_off_and_unwritable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passes: list[int]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FROSTER_CACHE", "off")
    assert cache_folder() is None
    fresh().class_embeddings(LABELS)
    assert not (tmp_path / "xdg").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FROSTER_CACHE", str(tmp_path / "file"))
    passes.clear()
    fresh().class_embeddings(LABELS)
    assert passes


def test_a_cache_that_can_only_be_read_is_read(
    kept: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's, or one that is mounted so: what it holds serves, and stays."""
    first = fresh().class_embeddings(LABELS)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    passes.clear()
    assert torch.equal(fresh().class_embeddings(LABELS), first)
    assert not passes and len(entries(kept)) == 1


def test_weights_in_training_are_not_kept(kept: Path) -> None:
    model = fresh()
    model.model.requires_grad_(True)
    model.class_embeddings(LABELS)
    assert not entries(kept)


def test_a_network_whose_code_is_in_no_file_is_not_kept(kept: Path) -> None:
    model = fresh()
    network = type("Typed", (VideoCLIP,), {"__module__": "typed_in"})(model.clip)
    assert code_of(model.model) == []
    assert code_of(network) is None
    typed = Recognizer(network.eval(), model.tokenizer, model.config, device=torch.device("cpu"))
    typed.class_embeddings(LABELS)
    assert not entries(kept)


def test_a_method_of_ones_own_is_known_by_its_file() -> None:
    """Defined in this very file."""

    class Own(VideoCLIP):
        pass

    network = Own(CLIP(fresh().clip.config))
    (state,) = code_of(network) or []
    assert __name__ in state and Frozen().name not in state


def test_a_command_reads_no_weight_of_the_text_tower_for_labels_that_are_kept(
    run, known, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the files stands for the weights: their sums are not taken."""
    command = ("classify", known.path, "--labels", "a star, a circle", "--model", "nano", "--json")
    first = run(*command)
    monkeypatch.setattr("froster.inference.class_cache.text_fingerprint", None)  # if called: fails
    second = run(*command)
    assert (first.code, second.code) == (0, 0) and first.out == second.out


def test_a_command_sees_that_the_files_of_a_model_are_others(
    run, known, kept: Path, tmp_path: Path
) -> None:
    model = fresh()
    folder = model.save(tmp_path / "model")
    labels = "a star, a circle, a bus"
    command = ("classify", known.path, "--labels", labels, "--model", folder, "--json")
    first = run(*command).out
    model.model.clip.text.ln_final.weight.data.mul_(-1)
    rows = tmp_path / "rows.jsonl"
    asked = ("classify", known.path, "--labels", labels, "--model", folder, "--out", rows)
    assert run(*asked).code == 0
    model.save(folder)
    assert run(*command).out != first
    assert "begun with model" in run(*asked).err


def test_weights_that_were_copied_over_others_with_their_time_are_others(
    kept: Path, tmp_path: Path
) -> None:
    """Of one size, as models of one kind are, and of one time, as out of an archive."""
    files = [tmp_path / name / "model.safetensors" for name in ("one", "other")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_bytes(bytes([number]) * 8)
        os.utime(file, (1, 1))
    before = state_of_files(files[0])
    assert before is not None and before == state_of_files(files[0])
    shutil.copy2(files[1], files[0])
    assert before != state_of_files(files[0])
