"""Class embeddings from a file take the place of the text tower: the same answers from the same
embeddings, and one line where the file does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import froster
from froster.cli.classify import classify
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.inference.loading import NANO
from froster.inference.recognizer import Recognizer
from froster.methods import method_from_dict
from froster.training.options import TrainOptions
from froster.training.plan import make_plan
from shared_files import World

LABELS = ["a red ball", "a blue box", "a green cone"]


def written(path: Path, names: object, table: Tensor | None, **others: Tensor) -> Path:
    tensors = others if table is None else {"embeddings": table, **others}
    metadata = {} if names is None else {"names": json.dumps(names)}
    save_file(tensors, path, metadata)
    return path


@pytest.fixture(scope="module")
def nano() -> Recognizer:
    return froster.load("nano")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of each of two classes."""
    root, world = tmp_path_factory.mktemp("videos"), World("base", 4)
    for i in range(8):
        world.write(i, root / world.label(i) / f"{i}.mp4")
    return root


@pytest.fixture
def file(tmp_path: Path, nano: Recognizer) -> Path:
    return written(tmp_path / "classes.safetensors", LABELS, nano.embed_text(LABELS))


def test_the_same_embeddings_give_the_same_answers(file: Path, nano: Recognizer) -> None:
    given = froster.load("nano", classes=file)
    frames = torch.randint(0, 255, (8, 60, 60, 3), dtype=torch.uint8)
    chosen = [LABELS[2], LABELS[0]]
    expected, found = nano.classify(frames, chosen), given.classify(frames, chosen)
    assert found.labels == expected.labels
    torch.testing.assert_close(
        torch.tensor(found.scores), torch.tensor(expected.scores), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(given.embed_text(chosen), nano.embed_text(chosen))
    with pytest.raises(UsageError, match="it has no embedding of 'a dog'"):
        given.classify(frames, ["a dog", LABELS[0]])


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_what_a_model_writes_other_tools_and_models_read(
    tmp_path: Path, nano: Recognizer, suffix: str
) -> None:
    pandas = pytest.importorskip("pandas")
    lance = pytest.importorskip("lance")
    path, table = tmp_path / f"classes.{suffix}", nano.embed_text(LABELS)
    nano.save_classes(LABELS, path)
    given = froster.load("nano", classes=path)
    assert given.class_file is not None and given.class_file.names == LABELS
    torch.testing.assert_close(given.embed_text(LABELS), table)
    if suffix == "parquet":
        frame = pandas.read_parquet(path)
        assert list(frame["label"]) == LABELS
        torch.testing.assert_close(torch.tensor([list(x) for x in frame["embedding"]]), table)
        made = tmp_path / "made.parquet"  # as DuckDB or pandas writes it: doubles, another order
        frame.assign(embedding=[[float(x) for x in row] for row in frame["embedding"]])[
            ["embedding", "label"]
        ].to_parquet(made)
        torch.testing.assert_close(froster.load("nano", classes=made).embed_text(LABELS), table)
        import pyarrow.parquet

        rows = lance.write_dataset(pyarrow.parquet.read_table(path), tmp_path / "c.lance")
        assert rows.count_rows("label = 'a blue box'") == 1
    with pytest.raises(UsageError, match=r"a \.parquet or \.safetensors, not 'c\.csv'"):
        nano.save_classes(LABELS, tmp_path / "c.csv")


def test_a_table_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "wrong.parquet"
    for columns, words in (
        ({"label": LABELS}, "needs the columns label"),
        ({"label": LABELS, "embedding": [[1.0], [1.0, 2.0], [1.0]]}, "of one length"),
        ({"label": LABELS, "embedding": [1.0, 2.0, 3.0]}, "holds no lists of numbers"),
        ({"label": LABELS, "embedding": [[1.0], None, [1.0]]}, "needs the columns label"),
        ({"label": LABELS, "embedding": [["a"], ["b"], ["c"]]}, "needs the columns label"),
        ({"label": ["a", None, "b"], "embedding": [[1.0] * 128] * 3}, "label 2 of 3 is no text"),
        ({"label": LABELS, "embedding": [[1.0] * 64] * 3}, "embeddings of width 64"),
    ):
        pa.parquet.write_table(pa.table(columns), path)
        with pytest.raises(UsageError, match=words) as caught:
            froster.load("nano", classes=path)
        assert "wrong.parquet" in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(UsageError, match="needs the columns label"):
        froster.load("nano", classes=path)


def test_no_tokenizer_is_needed(file: Path, nano: Recognizer) -> None:
    given = froster.load(NANO, classes=file)
    model = Recognizer(
        given.model, CheckpointError("none"), given.config, class_file=given.class_file
    )
    assert model.class_embeddings(LABELS).shape == (3, nano.clip.config.embed_dim)


@pytest.mark.parametrize(
    ("names", "table", "message"),
    [
        (LABELS, torch.ones(3, 64), "embeddings of width 64, the model's have 128"),
        (LABELS, torch.ones(2, 128), "3 names for 2 embeddings"),
        (None, torch.ones(3, 128), "its metadata has no 'names'"),
        ("a red ball", torch.ones(3, 128), "its metadata has no 'names'"),
        (LABELS, torch.ones(3), r"needs a tensor 'embeddings' of \(classes, width\)"),
        (LABELS, torch.ones(3, 128, dtype=torch.int64), "needs a tensor 'embeddings'"),
        (LABELS, None, r"needs a tensor 'embeddings' .* has other \(1,\)"),
        (["a", "a", "b"], torch.ones(3, 128), "labels given more than once: 'a'"),
        (["a", 3, "b"], torch.ones(3, 128), "label 2 of 3 is no text: 3"),
        (LABELS, torch.tensor([1.0, float("nan"), 1.0])[:, None].expand(3, 128).contiguous(),
         "1 embeddings are zero or not finite, such as that of 'a blue box'"),
        (LABELS, torch.zeros(3, 128), "3 embeddings are zero or not finite"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_line(
    names: Any, table: Tensor | None, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "wrong.safetensors", names, table, other=torch.ones(1))
    with pytest.raises(UsageError, match=message) as caught:
        froster.load("nano", classes=path)
    assert "wrong.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_such_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file of class embeddings"):
        froster.load("nano", classes=tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("a red ball\n")
    with pytest.raises(FrosterError, match="not a whole safetensors file"):
        froster.load("nano", classes=tmp_path / "text.safetensors")


def test_training_leaves_the_text_side(file: Path) -> None:
    base = froster.load("nano", classes=file)
    plan = make_plan(base, method_from_dict({"name": "vclip"}), LABELS, TrainOptions())
    assert plan.preset.recipe.tune == "image"
    assert any("come from a file" in note for note in plan.notes)
    for method, recipe in (("vclip", {"tune": "both"}), ("finetuned", {"tune": "text"})):
        with pytest.raises(UsageError, match="trains the text side, whose place the file"):
            make_plan(base, method_from_dict({"name": method}), LABELS, TrainOptions(**recipe))


def test_descriptions_have_nobody_to_read_them(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="descriptions are for the text tower"):
        froster.evaluate(tmp_path, "nano", classes=file, descriptions=Path("ucf101"))


def test_a_bank_of_given_embeddings_has_no_texts(file: Path) -> None:
    bank = froster.load("nano", classes=file).bank(LABELS[:2])
    assert bank.rows == [0] and bank.num_templates == 1
    assert bank.embed(lambda tokens: tokens, [0, 0]).shape == (2, 2, 128)
    with pytest.raises(UsageError, match="have no texts: train the image tower alone"):
        bank.tokens(0)


def test_the_tokenizer_of_the_model_is_kept(file: Path, tmp_path: Path) -> None:
    """A model that was made with a file is an ordinary one without it."""
    froster.load("nano", classes=file).save(tmp_path / "model")
    assert isinstance(froster.load(tmp_path / "model").tokenizer, Tokenizer)


def test_a_tokenizer_that_cannot_be_saved_is_found_before_the_training(
    videos: Path, tmp_path: Path, nano: Recognizer
) -> None:
    names = sorted(folder.name for folder in videos.iterdir())
    file = written(tmp_path / "classes.safetensors", names, nano.embed_text(names))
    nano.save(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable"):
        froster.train(videos, tmp_path / "run", str(tmp_path / "m"), classes=file, device="cpu")
    assert not (tmp_path / "run").exists()


def test_train_evaluate_and_classify_with_a_file(
    videos: Path, tmp_path: Path, nano: Recognizer, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(folder.name for folder in videos.iterdir())
    file = written(tmp_path / "classes.safetensors", names, nano.embed_text(names))
    out = tmp_path / "run"
    options: dict[str, Any] = {"classes": file, "device": "cpu"}
    trained = froster.train(videos, out, "nano", epochs=1, blend_points=0, look=False, **options)
    assert trained is not None
    student = trained.model.clip
    for name, weight in nano.clip.text.named_parameters():
        assert weight.equal(dict(student.text.named_parameters())[name]), name
    assert not student.visual.proj.equal(nano.clip.visual.proj)
    tested = froster.evaluate(videos, str(out), part="all", **options)
    assert tested.report["splits"]["all"]["top1"] is not None

    video = next((videos / names[0]).iterdir())
    classify([video], classes=file, model="nano", as_json=True)
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert {entry["label"] for entry in result["scores"]} == set(names)
    with pytest.raises(UsageError, match="no embedding of 'a dog'"):
        classify([video], labels="a dog, a cat", classes=file, model="nano")


def test_teach_with_a_file(videos: Path, tmp_path: Path, nano: Recognizer) -> None:
    """Other labels than those that are taught are the file's."""
    names = [*sorted(folder.name for folder in videos.iterdir()), "a dog", "a cat"]
    file = written(tmp_path / "classes.safetensors", names, nano.embed_text(names))
    taught = froster.teach(videos, None, "nano", classes=file, steps=2, views=0, device="cpu")
    assert taught.report["kept"]["labels"] == 2
