"""A model as mteb takes one, through mteb's own evaluation, on local files: with the embeddings that
the model gives by itself."""

import csv
import dataclasses
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from froster.errors import DataError
from froster.inference.mteb import AS_GIVEN, MTEBModel
from froster.inference.recognizer import Recognizer
from golden import shared

mteb = pytest.importorskip("mteb", reason="needs mteb: pip install -e '.[mteb]'")
pytestmark = pytest.mark.filterwarnings("default")  # those of mteb and what it brings
EACH = 4
"""Videos of a class."""


def files() -> list[tuple[str, str]]:
    """(path, label) of two classes."""
    with shared("videos", "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [(str(shared("videos", row["path"])), row["label"]) for row in csv.DictReader(file)]
    labels = sorted({label for _, label in rows})[:2]
    return [row for label in labels for row in [r for r in rows if r[1] == label][:EACH]]


def table(as_bytes: bool = False) -> Any:
    from datasets import ClassLabel, Dataset, Features, Video

    rows = files()
    names = sorted({label for _, label in rows})
    videos: list[Any] = [
        {"path": Path(path).name, "bytes": Path(path).read_bytes()} if as_bytes else path
        for path, _ in rows
    ]
    return Dataset.from_dict(
        {"video": videos, "label": [names.index(label) for _, label in rows]},
        features=Features({"video": Video(), "label": ClassLabel(names=names)}),
    )


def metadata(kind: str, name: str, category: str, modalities: list[str], score: str) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description="Local videos.",
        reference=None,
        dataset={"path": "local/videos", "revision": "0" * 40},
        type=kind,
        category=category,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        modalities=modalities,
        sample_creation=None,
        bibtex_citation=None,
    )


def tasks() -> dict[str, Any]:
    """One of each kind: zero-shot and linear classification, clustering, retrieval."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.clustering import AbsTaskClustering
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    class ZeroShot(AbsTaskZeroShotClassification):
        metadata = metadata(
            "VideoZeroshotClassification", "LocalZeroShot", "v2t", ["video", "text"], "accuracy"
        )
        input_column_name = "video"

        def load_data(self, **_: Any) -> None:
            self.dataset, self.data_loaded = DatasetDict({"test": table(as_bytes=True)}), True

        def get_candidate_labels(self) -> list[str]:
            return [f"a video of {name}" for name in table().features["label"].names]

    class Linear(AbsTaskClassification):
        metadata = metadata("VideoClassification", "LocalLinear", "v2c", ["video"], "accuracy")
        input_column_name = "video"
        samples_per_label = 2
        n_experiments = 2

        def load_data(self, **_: Any) -> None:
            self.dataset = DatasetDict({"train": table(), "test": table()})
            self.data_loaded = True

    class Clusters(AbsTaskClustering):
        metadata = metadata("VideoClustering", "LocalClusters", "v2c", ["video"], "v_measure")
        input_column_name = "video"
        label_column_name = "label"
        max_fraction_of_documents_to_embed = None

        def load_data(self, **_: Any) -> None:
            self.dataset, self.data_loaded = DatasetDict({"test": table()}), True

    class Retrieval(AbsTaskRetrieval):
        metadata = metadata(
            "Any2AnyRetrieval", "LocalRetrieval", "t2v", ["text", "video"], "ndcg_at_10"
        )

        def load_data(self, **_: Any) -> None:
            rows = table().remove_columns("label")
            corpus = rows.add_column("id", [f"d{number}" for number in range(len(rows))])
            names = table().features["label"].names
            queries = Dataset.from_dict({"id": ["q0", "q1"], "text": names})
            relevant = {f"q{q}": {f"d{EACH * q + i}": 1 for i in range(EACH)} for q in (0, 1)}
            split = RetrievalSplitData(
                queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None
            )
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return {each.__name__: each for each in (ZeroShot, Linear, Clusters, Retrieval)}


@pytest.fixture(scope="module")
def model(nano):

    return MTEBModel(nano, workers=0)


@pytest.mark.parametrize("kind", ["ZeroShot", "Linear", "Clusters", "Retrieval"])
def test_mteb_evaluates_it(kind: str, model) -> None:
    task = tasks()[kind]()
    result = mteb.evaluate(
        model, task, cache=None, encode_kwargs={"batch_size": 3}, show_progress_bar=False
    )
    (scores,) = result.task_results[0].scores["test"]
    assert 0 <= scores["main_score"] <= 1
    assert result.model_name == "froster/nano"


def test_embeddings_are_the_models_own(nano, model) -> None:

    rows = table(as_bytes=True)
    embeddings = model.encode(DataLoader(rows, batch_size=3), batch_size=3)
    own = torch.stack([nano.embed_video(path) for path, _ in files()])
    torch.testing.assert_close(embeddings, own, atol=2e-6, rtol=0)
    from datasets import Dataset

    texts = ["a video of archery", "a video of archery", "surfing. " * 100]
    loader = DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)

    plain = dataclasses.replace(nano.config, prompting=AS_GIVEN)
    as_given = Recognizer(nano.model, nano.tokenizer, plain, device=nano.device)
    torch.testing.assert_close(
        model.encode(loader), as_given.embed_text([*texts[:1], texts[2]], True)[[0, 0, 1]]
    )
    with_templates = MTEBModel(nano, workers=0, templates=True).encode(loader)
    torch.testing.assert_close(with_templates[0], nano.embed_text(texts[:1])[0])


def test_processes_read_as_well(nano, model) -> None:

    loader = DataLoader(table(), batch_size=2)
    embeddings = MTEBModel(nano, workers=1).encode(loader)
    torch.testing.assert_close(embeddings, model.encode(loader))


def test_a_video_that_cannot_be_read_is_named(model) -> None:
    from datasets import Dataset, Features, Video

    broken = Dataset.from_dict(
        {"video": [{"path": "x.mp4", "bytes": b"nothing"}]}, features=Features({"video": Video()})
    )
    with pytest.raises(DataError, match=r"row 0 of mteb's data: "):
        model.encode(DataLoader(broken, batch_size=1))


def test_needs_neither_torchvision_nor_torchcodec() -> None:

    always = [line for line in requires("mteb") or [] if "extra ==" not in line]
    assert not any(line.startswith(("torchvision", "torchcodec")) for line in always)
