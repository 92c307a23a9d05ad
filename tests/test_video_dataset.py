"""Every way to say which videos there are, the errors that a person can act on, and clips that are
never replaced."""

import csv
import json
import random

import pytest
import torch
from torch.utils.data import DataLoader

from froster.data.dataset import VideoDataset, collate
from froster.data.loader import batches
from froster.data.manifest import Item, read_items
from froster.errors import DataError
from froster.video.augment import Augment
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform
from video_files import make_video, numbers, shared

UNIFORM = Sampling("uniform", frames=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes with two videos each, a hidden file, a text, and a folder that is no class."""
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(
        ["brush_hair/a.mp4", "brush_hair/b.MP4", "wave/c d.mp4", "wave/e.mp4"]
    ):
        (root / name).parent.mkdir(exist_ok=True)
        made = make_video(root / "made.mp4", 20 + number, gop=5)
        made.rename(root / name)
    (root / "wave" / ".hidden.mp4").touch()
    (root / "wave" / "notes.txt").write_text("no video")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.mp4").touch()
    return root


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_folder_of_class_folders(folder):
    items = read_items(folder)
    assert [(item.path.name, item.label) for item in items] == [
        ("a.mp4", "brush hair"),
        ("b.MP4", "brush hair"),
        ("c d.mp4", "wave"),
        ("e.mp4", "wave"),
    ]
    assert items.ignored == 2


def test_a_csv_manifest(folder):
    text = 'split,extra,label,path\r\ntrain,1,"brush, hair",brush_hair/a.mp4\r\n\r\n'
    text += "test,2,wave,wave\\c d.mp4\r\n,3,wave,wave/e.mp4\r\n"
    items = read_items(write(folder, "m.csv", text, "utf-8-sig"))
    assert items == [
        Item(folder / "brush_hair/a.mp4", "brush, hair", "train"),
        Item(folder / "wave/c d.mp4", "wave", "test"),
        Item(folder / "wave/e.mp4", "wave", None),
    ]
    assert [item.label for item in read_items(folder / "m.csv", where={"extra": "2"})] == ["wave"]
    assert len(read_items(folder / "m.csv", where={"label": "wave", "split": "test"})) == 1


def test_a_jsonl_manifest_and_a_root(folder, tmp_path):
    rows = [
        {"path": "wave/e.mp4", "label": "winken ü", "split": "test"},
        {"path": str(folder / "brush_hair/a.mp4"), "label": "b"},
    ]
    source = write(tmp_path, "m.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert read_items(source, root=folder) == [
        Item(folder / "wave/e.mp4", "winken ü", "test"),
        Item(folder / "brush_hair/a.mp4", "b"),
    ]


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_an_official_list_with_its_label_file(folder, separator):
    source = write(folder, "list.csv", f"brush_hair/a.mp4{separator}1\nwave/c d.mp4{separator}0\n")
    labels = write(
        folder, "labels.json", json.dumps({"0": "wave: a hand, moving", "1": "brush hair: a brush"})
    )
    items = read_items(source, labels_json=labels)
    assert [item.label for item in items] == ["brush hair: a brush", "wave: a hand, moving"]
    assert items[1].path == folder / "wave/c d.mp4"
    with pytest.raises(DataError, match="labels are numbers; give the JSON file"):
        read_items(source)


def test_a_list_with_texts_for_labels(folder):
    source = write(
        folder, "texts.txt", "brush_hair/a.mp4,brush, or comb, hair\nwave/c d.mp4,wave\n"
    )
    assert [item.label for item in read_items(source)] == ["brush, or comb, hair", "wave"]
    source = write(folder, "blanks.txt", "brush_hair/a.mp4 brush hair\nwave/e.mp4 wave\n")
    assert [item.label for item in read_items(source)] == ["brush hair", "wave"]


ROW = "path,label\nwave/e.mp4,wave\n"
WRONG = {
    "empty": ("", {}, "empty manifest"),
    "blank": ("\n \n", {}, "empty manifest"),
    "only a header": ("path,label\n", {}, "only a header"),
    "no label column": (
        "path,class\nwave/e.mp4,wave\n",
        {},
        "line 1: expected a column 'path' and a column 'label'",
    ),
    "too few values": (ROW + "wave/e.mp4\n", {}, "line 3: expected 2 values, found 1"),
    "no label": (ROW + "wave/e.mp4,\n", {}, "line 3: no label"),
    "no path": (ROW + " ,wave\n", {}, "line 3: no path"),
    "missing": (ROW + "wave/x.mp4,wave\n" * 5, {}, "5 of 6 files do not exist"),
    "missing line": (ROW + "wave/x.mp4,wave\n", {}, r"wave/x.mp4 \(line 3\)"),
    "no such column": (
        ROW,
        {"where": {"dataset": "UCF"}},
        r"no column 'dataset' .*columns: label, path",
    ),
    "no such value": (ROW, {"where": {"label": "run"}}, r"no rows with label=run \(found: wave\)"),
    "semicolons": ("path;label\nwave/e.mp4;wave\n", {}, "line 1: expected 'path,label'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_says_what_and_where(folder, name):
    text, options, message = WRONG[name]
    source = write(folder, "wrong.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        read_items(source, **options)
    assert str(source) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_jsonl_and_wrong_encodings(folder):
    with pytest.raises(DataError, match=r"line 2: not JSON"):
        read_items(write(folder, "w.jsonl", '{"path": "wave/e.mp4", "label": "a"}\n{"path"\n'))
    with pytest.raises(DataError, match=r"line 1: expected an object"):
        read_items(write(folder, "w.jsonl", "[1, 2]\n"))
    with pytest.raises(DataError, match=r"line 3: not UTF-8"):
        read_items(write(folder, "w.csv", ROW + "wave/e.mp4,grün\n", "latin-1"))
    with pytest.raises(DataError, match="No such file"):
        read_items(folder / "nowhere.csv")


def test_wrong_label_files(folder):
    source = write(folder, "list.csv", "wave/e.mp4,0\nwave/e.mp4,7\n")
    for content, encoding, message in [
        (json.dumps({"0": "grün"}, ensure_ascii=False), "latin-1", "line 1: not UTF-8"),
        ("{", "utf-8", "not JSON"),
        ('["a", "b"]', "utf-8", 'expected {"0"'),
        ('{"0": "a", "7": "a"}', "utf-8", "two classes have the same name: a"),
        ('{"0": "a", "1": "b"}', "utf-8", "line 2: label '7' is not among the keys"),
    ]:
        with pytest.raises(DataError, match=message):
            read_items(source, labels_json=write(folder, "labels.json", content, encoding))


def test_a_folder_without_videos(tmp_path):
    (tmp_path / "train" / "wave").mkdir(parents=True)
    with pytest.raises(DataError, match="expected one folder for each class"):
        read_items(tmp_path)
    with pytest.raises(DataError, match="a folder has no columns"):
        read_items(tmp_path, where={"a": "b"})


def test_the_real_manifest():
    source = shared("videos", "manifest.csv")
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [item.label for item in read_items(source)] == [row["label"] for row in rows]
    ucf = read_items(source, where={"dataset": "UCF101", "split": "train"})
    assert len(ucf) == sum(row["dataset"] == "UCF101" and row["split"] == "train" for row in rows)
    assert {item.split for item in ucf} == {"train"}


def test_labels_must_be_known(folder):
    items = [Item(folder / "wave/e.mp4", "waves")]
    with pytest.raises(DataError, match=r"unknown label 'waves' .* the nearest of 2: wave, "):
        VideoDataset(items, ["brush hair", "wave"], UNIFORM, 32, train=False)
    with pytest.raises(DataError, match="two classes or more are needed, found 1: wave"):
        VideoDataset([], ["wave"], UNIFORM, 32, train=True)
    with pytest.raises(DataError, match="two of: wave"):
        VideoDataset([], ["wave", "wave"], UNIFORM, 32, train=True)


def test_evaluation_gives_all_views_from_one_decode(folder, monkeypatch):
    opened = []
    original = Video.__init__
    monkeypatch.setattr(
        Video, "__init__", lambda self, path: opened.append(path) or original(self, path)
    )
    items = read_items(folder)
    dataset = VideoDataset(items, ["wave", "brush hair"], UNIFORM, 32, views=3, train=False)
    sample = dataset[3]
    assert sample.label == dataset.label(3) == 0 and sample.error is None and len(opened) == 1
    assert sample.frames.shape == (3, 4, 3, 32, 32) and sample.frames.dtype == torch.uint8
    with Video(items[3].path) as video:
        for view, indices in zip(sample.frames, UNIFORM.view_indices(video.timing, 3), strict=True):
            frames = video.read(indices)
            assert numbers(frames) == indices
            assert torch.equal(view, inference_transform(frames, 32))


def test_training_depends_on_seed_epoch_and_item_only(folder):
    items = read_items(folder)
    classes = ["brush hair", "wave"]

    def epoch(seed, number, workers, order):
        dataset = VideoDataset(items, classes, UNIFORM, 32, train=True, seed=seed)
        dataset.set_epoch(number)
        loader = DataLoader(
            dataset, batch_size=2, sampler=order, num_workers=workers, collate_fn=collate
        )
        frames = {}
        for batch in loader:
            frames |= dict(zip(batch.indices.tolist(), batch.frames, strict=True))
        return torch.stack([frames[index] for index in range(4)])

    first = epoch(0, 0, 0, range(4))
    assert first.shape == (4, 4, 3, 32, 32)
    random.seed(7)
    assert torch.equal(first, epoch(0, 0, 2, [3, 1, 0, 2]))
    assert not torch.equal(first, epoch(1, 0, 0, range(4)))
    assert not torch.equal(first, epoch(0, 1, 0, range(4)))


def test_a_training_clip_is_changed_as_asked(folder):
    items, classes = read_items(folder), ["brush hair", "wave"]
    plain, as_shown, coloured = (
        VideoDataset(items, classes, UNIFORM, 32, train=True, augment=how)
        for how in (Augment(), Augment(flip=False), Augment(color_jitter=1.0))
    )
    assert not torch.equal(plain[0].frames, coloured[0].frames)
    mirrored = 0
    for epoch in range(10):
        plain.set_epoch(epoch)
        as_shown.set_epoch(epoch)
        if not torch.equal(plain[0].frames, as_shown[0].frames):
            assert torch.equal(plain[0].frames, as_shown[0].frames.flip(-1))
            mirrored += 1
    assert 0 < mirrored < 10


def test_processes_hear_of_the_epoch(folder):
    dataset = VideoDataset(read_items(folder), ["brush hair", "wave"], UNIFORM, 32, train=True)
    seen = []
    for number in (0, 1, 0):
        dataset.set_epoch(number)
        seen += [batch.frames for batch in batches(dataset, [range(4)], 1)]
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


def test_an_unreadable_video_is_listed_and_never_replaced(folder, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    items = [
        Item(folder / "wave/e.mp4", "wave"),
        Item(broken, "wave"),
        Item(tmp_path / "gone.mp4", "brush hair"),
    ]
    for train in (True, False):
        dataset = VideoDataset(items, ["brush hair", "wave"], UNIFORM, 32, train=train)
        batch = collate([dataset[index] for index in range(3)])
        assert (
            batch.indices.tolist() == [0]
            and batch.labels.tolist() == [1]
            and len(batch.frames) == 1
        )
        assert [index for index, _ in batch.errors] == [1, 2]
        assert str(broken) in batch.errors[0][1] and "no such file" in batch.errors[1][1]
        nothing = collate([dataset[1], dataset[2]])
        assert (
            len(nothing.frames) == len(nothing.labels) == len(nothing.indices) == 0
            and len(nothing.errors) == 2
        )
