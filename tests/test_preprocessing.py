"""What a model's files say of its pictures is what every way into the network does."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import froster
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import (
    CLIP_PREPROCESSING,
    Preprocessing,
    from_hf,
    from_open_clip,
    normalise,
)
from froster.errors import CheckpointError, UsageError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import VCLIP, Frozen
from froster.text.prompts import Prompting
from froster.video.augment import FROSTER_AUGMENT, augment
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform
from hf_folder import save_hf_folder, to_hf
from video_files import make_video

NANO = froster.load("nano", device="cpu")
SIZE = 32
SQUASHED = Preprocessing((0.5, 0.4, 0.3), (0.5, 0.25, 0.2), "squash", "bilinear")


def noise(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


# What is computed

PROCESSORS: list[dict[str, Any]] = [
    {"size": {"shortest_edge": 64}, "crop_size": 64},
    {
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
    {
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
    },
    {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
        "resample": 2,
        "do_normalize": False,
    },
    {"size": {"shortest_edge": 74}, "crop_size": 64, "resample": 2},
    {"size": {"height": 80, "width": 80}, "crop_size": 64, "image_std": [0.1, 0.2, 0.3]},
]


@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (64, 64), (30, 40), (240, 64)])
@pytest.mark.parametrize("said", PROCESSORS)
def test_the_same_pixels_as_transformers_gives(
    said: dict[str, Any], shape: tuple[int, int]
) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessor(**said)
    how = from_hf(json.loads(processor.to_json_string()), 64)
    frames = noise(2, *shape)
    theirs = processor(
        images=[Image.fromarray(frame.numpy()) for frame in frames], return_tensors="pt"
    )["pixel_values"]
    mine = normalise(inference_transform(frames, 64, how), how)
    levels = (mine - theirs).abs() * 255 * torch.tensor(how.std).view(3, 1, 1)
    assert levels.max() <= 2.01 and levels.mean() < 0.05


def test_clips_own_is_bit_identical_to_what_it_was() -> None:
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    frames = noise(2, 60, 80)
    plain = inference_transform(frames, 32)
    assert torch.equal(plain, inference_transform(frames, 32, CLIP_PREPROCESSING))
    assert torch.equal(normalise(plain), (plain.float() / 255 - mean) / std)
    resized = torch.nn.functional.interpolate(
        frames.permute(0, 3, 1, 2), (32, 42), mode="bicubic", antialias=True
    )
    assert torch.equal(plain, resized[..., 5:37])


@pytest.mark.parametrize("shape", [(96, 128), (128, 90), (2, 1000), (64, 64), (1, 1)])
def test_longest_is_open_clips_letterbox(shape: tuple[int, int]) -> None:
    """By PIL: the long side to the size, the picture in the middle of a square of the fill colour."""
    frames = noise(1, *shape)
    how = from_open_clip(
        {"resize_mode": "longest", "fill_color": [10, 20, 30], "interpolation": "bicubic"}, 64
    )
    height, width = shape
    ratio = max(shape) / 64
    new = max(1, round(height / ratio)), max(1, round(width / ratio))
    square = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    top, left = (64 - new[0]) // 2, (64 - new[1]) // 2
    image = Image.fromarray(frames[0].numpy()).resize(new[::-1], Image.Resampling.BICUBIC)
    square[top : top + new[0], left : left + new[1]] = np.asarray(image)
    difference = (
        inference_transform(frames, 64, how)[0].permute(1, 2, 0).int()
        - torch.from_numpy(square).int()
    )
    assert difference.abs().max() <= 2


@pytest.mark.parametrize(
    "how",
    [
        SQUASHED,
        Preprocessing(resize="longest"),
        Preprocessing(scale=256 / 224, interpolation="bilinear"),
    ],
)
@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (1, 1), (31, 33)])
def test_no_shape_is_too_strange(shape: tuple[int, int], how: Preprocessing) -> None:
    assert inference_transform(noise(2, *shape), 224, how).shape == (2, 3, 224, 224)


# What is read


def test_what_files_say() -> None:
    assert (
        from_open_clip({}, 224)
        == CLIP_PREPROCESSING
        == from_hf({}, 224)
        == Preprocessing.from_dict({})
    )
    stated = {
        "size": 224,
        "mode": "RGB",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    pe = Preprocessing((0.5,) * 3, (0.5,) * 3, "squash", "bilinear")
    assert from_open_clip(stated, 224) == pe == Preprocessing.from_dict(pe.to_dict())
    legacy = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 224,
        "crop_size": 224,
        "resample": 3,
        "do_resize": True,
        "do_center_crop": True,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
    }
    assert from_hf(legacy, 224) == Preprocessing(mean=(0.5,) * 3)
    assert from_hf({"image_processor_type": "SiglipImageProcessorFast"}, 224).resize == "squash"
    assert from_hf({"size": {"shortest_edge": 256}}, 224).scale == 256 / 224
    assert from_hf({"size": 224, "default_to_square": True}, 224).resize == "squash"
    for how in (
        pe,
        CLIP_PREPROCESSING,
        Preprocessing(scale=256 / 224),
        Preprocessing(resize="squash", scale=1.25),
    ):
        assert from_hf(to_hf(how, 224), 224) == how
    with pytest.raises(UsageError, match="cannot fill"):
        to_hf(Preprocessing(resize="longest"), 224)


@pytest.mark.parametrize(
    ("read", "said", "named"),
    [
        (from_hf, {"do_flip": True}, "do_flip is True"),
        (from_hf, {"crop_pct": 0.9}, r"crop_pct is 0\.9"),
        (from_hf, {"do_resize": False}, "do_resize is False"),
        (from_hf, {"do_rescale": False}, "do_rescale is False"),
        (from_hf, {"rescale_factor": 1.0}, r"rescale_factor is 1\.0"),
        (from_hf, {"resample": 0}, "resample is 0"),
        (from_hf, {"resample": [3]}, r"resample is \[3\]"),
        (from_hf, {"size": 336, "crop_size": 336}, "crop_size 336 does not fit.*224 x 224"),
        (
            from_hf,
            {"size": {"height": 384, "width": 384}, "do_center_crop": False},
            "size .*384.* does not fit",
        ),
        (from_hf, {"size": {"height": 224, "width": 448}}, "does not give the square"),
        (from_hf, {"size": {"longest_edge": 224}}, "does not give the square"),
        (from_hf, {"size": "large"}, "does not give the square"),
        (from_hf, {"size": 200}, "size 200 does not fit"),
        (from_hf, {"do_center_crop": False}, "do_center_crop false does not give the square"),
        (
            from_hf,
            {"image_processor_type": "LevitImageProcessor"},
            "image_processor_type is 'LevitImageProcessor'",
        ),
        (from_hf, {"image_mean": [0.5]}, r"mean is \[0\.5\]"),
        (from_hf, {"image_std": [0, 1, 1]}, "std is"),
        (from_hf, {"image_std": [float("nan")] * 3}, "std is"),
        (from_open_clip, {"size": 336}, "preprocess_cfg.size is 336"),
        (from_open_clip, {"mode": "L"}, "preprocess_cfg.mode is 'L'"),
        (from_open_clip, {"resize_mode": "tiles"}, "resize is 'tiles'"),
        (from_open_clip, {"interpolation": "lanczos"}, "interpolation is 'lanczos'"),
        (from_open_clip, {"simclr": True}, "preprocess_cfg.simclr is True"),
    ],
)
def test_what_is_not_known_is_named(read: Any, said: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named) as caught:
        read(said, 224)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"fill": [300, 0, 0]}, r"fill is \(300, 0, 0\)"),
        ({"fill": [0, -1, 0]}, "fill is"),
        ({"fill": [0.5, 0, 0]}, "fill is"),
        ({"fill": 128.0}, "fill is"),
        ({"std": [1e-300, 1, 1]}, r"std is \(1e-300, 1, 1\)"),
        ({"std": [58.4, 57.1, 57.4]}, "std is"),
        ({"mean": [123.7, 116.8, 103.9]}, "mean is .123.7.*between 0 and 1"),
        ({"mean": [10**400, 0, 0]}, "mean is"),
        ({"scale": True}, "scale is True"),
        ({"scale": 0.9}, r"scale is 0\.9"),
        ({"scale": 10**400}, "scale is 1000"),
    ],
)
def test_numbers_that_no_pixel_survives_are_named(said: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        Preprocessing.from_dict(said)


def test_numbers_of_models_that_there_are() -> None:
    """MobileCLIP's mean is 0 and its deviation 1; a fill may be one number for all channels."""
    how = Preprocessing.from_dict(
        {"mean": 0, "std": 1, "fill": 255, "resize": "longest", "scale": 1}
    )
    assert (how.mean, how.std, how.fill, how.scale) == ((0, 0, 0), (1, 1, 1), (255, 255, 255), 1)


# Every way into the network


def model_that_wants(
    how: Preprocessing, method: Any = None, sampling: Sampling | None = None
) -> Recognizer:
    torch.manual_seed(3)
    vision, text = (
        VisionConfig(SIZE, 8, 64, 2, 1),
        TextConfig(64, NANO.tokenizer.vocab_size, 64, 2, 1),
    )
    clip = CLIP(CLIPConfig(vision, text, 48, preprocessing=how))
    method = method or Frozen()
    config = ModelConfig(method, sampling or Sampling("uniform", 4), 1, Prompting(("{}",), "plain"))
    return Recognizer(method.build(clip), NANO.tokenizer, config, device=torch.device("cpu"))


def by_hand(model: Recognizer, frames: Tensor) -> Tensor:
    """(T, H, W, 3) uint8 -> the embedding, by PIL's squash and the mean and deviation of
    `SQUASHED`."""
    images = [
        Image.fromarray(f.numpy()).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for f in frames
    ]
    pixels = (
        torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        / 255
    )
    mean, std = (
        torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1),
        torch.tensor([0.5, 0.25, 0.2]).view(3, 1, 1),
    )
    with torch.no_grad():
        return model.model.encode(((pixels - mean) / std)[None]).video[0]


def same(found: Tensor, expected: Tensor) -> None:
    assert (unit(found.float()) @ unit(expected)).min() > 0.9998


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "a.mp4", 40, size=(128, 48))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_that_wants(SQUASHED).save(tmp_path_factory.mktemp("m") / "model")


def seen(model: Recognizer, video: Path) -> Tensor:
    with Video(video) as source:
        (view,) = model.config.sampling.view_indices(source.timing, 1)
        return source.read(view)


def test_it_is_kept_with_the_weights(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["preprocessing"] == {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.25, 0.2],
        "resize": "squash",
        "interpolation": "bilinear",
        "scale": 1.0,
        "fill": [0, 0, 0],
    }
    assert froster.load(saved, device="cpu").preprocessing == SQUASHED
    del config["preprocessing"]
    (saved / "config.json").write_text(json.dumps(config))
    assert froster.load(saved, device="cpu").preprocessing == CLIP_PREPROCESSING, (
        "older folders are CLIP's"
    )
    for change, named in (
        ({"gamma": 2}, "preprocessing.gamma is 2"),
        ({"std": [0, 1, 1]}, "std is"),
    ):
        (saved / "config.json").write_text(json.dumps({**config, "preprocessing": change}))
        with pytest.raises(CheckpointError, match=rf"config\.json: .*{named}"):
            froster.load(saved, device="cpu")
    model_that_wants(SQUASHED).save(saved)


def test_through_files_of_hugging_face_and_back(tmp_path: Path) -> None:
    model = model_that_wants(SQUASHED)
    save_hf_folder(model.clip, model.tokenizer, tmp_path / "hf")
    again = froster.load(tmp_path / "hf", device="cpu")
    assert again.preprocessing == SQUASHED and again.provenance == "huggingface"
    values = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    assert (
        "CLIP's own preprocessing assumed" in froster.load(tmp_path / "hf", device="cpu").provenance
    )
    (tmp_path / "hf" / "processor_config.json").write_text(
        json.dumps({"image_processor": values, "processor_class": "CLIPProcessor"})
    )
    assert froster.load(tmp_path / "hf", device="cpu").preprocessing == SQUASHED, (
        "where transformers 5 puts it"
    )
    (tmp_path / "hf" / "processor_config.json").write_text(
        json.dumps({"image_processor": {**values, "do_flip": True}})
    )
    with pytest.raises(CheckpointError, match=r"processor_config\.json: .*do_flip is True"):
        froster.load(tmp_path / "hf", device="cpu")


def test_classify_and_embed(saved: Path, video: Path) -> None:
    from froster.data.listing import ListedVideo
    from froster.inference.batch import answers

    model = froster.load(saved, device="cpu")
    frames = seen(model, video)
    expected = by_hand(model, frames)
    other = model_that_wants(CLIP_PREPROCESSING)
    assert torch.equal(expected, by_hand(other, frames)), "the same network"
    assert other.embed_video(video) @ unit(expected) < 0.998, "the test can tell"
    same(model.embed_video(video), expected)
    same(model.embed_video(frames), expected)
    labels = ["cat", "dog", "a red boat"]
    scores = (model.logit_scale * expected @ model.class_embeddings(labels).T).softmax(-1)
    found = model.classify(video, labels)
    assert (
        torch.tensor([found.scores[found.labels.index(label)] for label in labels])
        .sub(scores)
        .abs()
        .max()
        < 0.02
    )
    ((answer,),) = answers(model, labels, [ListedVideo(str(video), video)])
    assert answer.result is not None and answer.result["scores"] == pytest.approx(
        found.scores, abs=1e-5
    )


@pytest.mark.parametrize("method", [Frozen(), VCLIP()])
def test_timeline_and_index(method: Any, video: Path) -> None:
    """A window of the whole video, and a segment of it."""
    from froster.inference.scorer import WindowScorer
    from froster.video.stream import Stream
    from froster.video.windows import ReadSegments, SlidingWindows, WindowPlan

    model = model_that_wants(SQUASHED, method)
    segment, *_ = ReadSegments(4, model.image_size, 1.6, model.preprocessing)(str(video))
    with Stream.of_file(video) as stream:
        times = [0.2, 0.6, 1.0, 1.4]
        shown = {
            round(frame.time, 2): torch.from_numpy(frame.picture.to_ndarray(format="rgb24").copy())
            for frame in stream
        }
    expected = by_hand(
        model, torch.stack([shown[max(t for t in shown if t <= time)] for time in times])
    )
    same(model.embed_clips(torch.from_numpy(segment.clip)[None])[0], expected)
    scorer, classes = WindowScorer(model), model.class_embeddings(["cat", "dog"])
    with Stream.of_file(video) as stream:
        window, *_ = SlidingWindows(stream, WindowPlan(1.6, 1.6, 4), scorer.keep)
        logits = scorer([window], classes)
    torch.testing.assert_close(
        logits[0], model.logit_scale * expected @ classes.T, atol=0.1, rtol=0
    )


def test_the_commands(saved: Path, video: Path, tmp_path: Path, run: Any) -> None:
    """What evaluate, index and attend write."""
    from froster.inference.store import Store
    from froster.report.attention import cls_attention

    model = froster.load(saved, device="cpu")
    frames = seen(model, video)
    names = ["a red boat", "cat", "dog"]
    data = tmp_path / "data.csv"
    data.write_text("path,label\n" + "".join(f"{video},{name}\n" for name in names))
    ask = ("--model", saved)
    assert run("evaluate", "--data", data, *ask, "--out", tmp_path / "e", "--workers", 0).code == 0
    right = names[int((model.class_embeddings(names) @ by_hand(model, frames)).argmax())]
    rows = (tmp_path / "e" / "predictions_all.csv").read_text().splitlines()[1:]
    assert len(rows) == 3 and all(right in row for row in rows)

    assert (
        run("index", video, *ask, "--out", tmp_path / "i", "--segment", 1.6, "--workers", 0).code
        == 0
    )
    store = Store(tmp_path / "i")
    (indexed,) = (video.vectors for video in store.videos().values())
    with Video(video) as source:
        same(indexed.float(), by_hand(model, source.read([5, 15, 25, 35])))

    found = run("attend", video, "--models", saved, "--out", tmp_path / "a.png", "--json")
    images = [
        Image.fromarray(f.numpy()).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for f in frames
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    heat = torch.tensor(found.json["models"][0]["patches"])
    torch.testing.assert_close(
        heat, cls_attention(model.model, normalise(pixels, SQUASHED)).patches, atol=1e-3, rtol=0
    )


def test_scoring_and_training(saved: Path, video: Path) -> None:
    """`Scorer`, through the data set of a test; one step of training sees frames with the model's
    mean; the teacher too."""
    from froster.data.dataset import VideoDataset
    from froster.data.manifest import Item
    from froster.evaluation.metrics import Scorer
    from froster.training.attach import freeze
    from froster.training.distill_options import Distill
    from froster.training.task import Task, Teacher

    model = froster.load(saved, device="cpu")
    expected = by_hand(model, seen(model, video))
    classes = model.class_embeddings(["cat", "dog"])
    items = [Item(video, "cat"), Item(video, "dog")]
    dataset = VideoDataset(
        items, ["cat", "dog"], model.config.sampling, SIZE, train=False, how=model.preprocessing
    )
    sample = dataset[0]
    assert sample.frames is not None
    trained = VideoDataset(
        items, ["cat", "dog"], model.config.sampling, SIZE, train=True, how=model.preprocessing
    )
    with Video(video) as source:
        draws = random.Random("0/0/1")
        frames = source.read(model.config.sampling.train_indices(source.timing, draws))
        assert torch.equal(
            trained[1].frames, augment(frames, SIZE, draws, FROSTER_AUGMENT, SQUASHED)
        )  # type: ignore[arg-type]
    logits = Scorer(model.model, classes)(sample.frames[None])[0, 0]
    torch.testing.assert_close(logits, model.logit_scale * expected @ classes.T, atol=0.1, rtol=0)

    teacher = froster.load(saved, device="cpu").clip
    bank = model.bank(["cat", "dog"])
    freeze(model.model, VCLIP(), "both")
    task = Task(model.model, bank, teacher=Teacher(teacher, Distill()))
    met: list[Tensor] = []
    teacher_met: list[Tensor] = []
    model.clip.visual.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))
    assert task.teacher is not None
    task.teacher.visual.register_forward_pre_hook(
        lambda _, inputs: teacher_met.append(inputs[0].detach())
    )
    task(sample.frames, torch.tensor([0]), [0], random.Random(0))
    wanted = normalise(sample.frames, SQUASHED)
    assert torch.equal(met[0], wanted) and torch.equal(teacher_met[0], wanted)
    other = CLIP(dataclasses.replace(teacher.config, preprocessing=CLIP_PREPROCESSING))
    with pytest.raises(UsageError, match="prepared in different ways"):
        Task(model.model, bank, teacher=Teacher(other, Distill()))


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_export_has_it_in_the_graph_and_says_so(
    saved: Path, video: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from froster.inference.export import export, open_file

    model = froster.load(saved, device="cpu")
    about = export(model, tmp_path / "x")
    assert (
        Preprocessing.from_dict(
            json.loads((tmp_path / "x" / "export.json").read_text())["input"]["preprocessing"]
        )
        == SQUASHED
    )
    assert (
        about["input"]["frames"]
        == "RGB, not normalised; resized to 32 x 32 by antialiased bilinear"
    )
    frames = inference_transform(
        seen(model, video), SIZE, Preprocessing.from_dict(about["input"]["preprocessing"])
    )
    (found,) = open_file("onnx", tmp_path / "x" / "model.onnx")(frames[None].numpy())
    same(torch.from_numpy(found)[0], by_hand(model, seen(model, video)))


def test_equal_weights_with_another_preprocessing_are_another_model() -> None:
    from froster.inference.fingerprint import model_fingerprint

    assert model_fingerprint(model_that_wants(SQUASHED)) != model_fingerprint(
        model_that_wants(CLIP_PREPROCESSING)
    )


def test_releases_that_were_trained_with_another_mean(tmp_path: Path) -> None:
    """X-CLIP's own code has ImageNet's; a Hugging Face folder of it says what its processor does."""
    from golden import golden, part

    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.save({"model": part(golden("xclip_official"), "weights/")}, tmp_path / "x.pth")
    found = froster.load(tmp_path / "x.pth", device="cpu")
    assert (found.preprocessing.mean, found.preprocessing.std) == imagenet
    weights = {
        name: tensor.contiguous() for name, tensor in part(golden("xclip_hf"), "weights/").items()
    }
    (tmp_path / "hf").mkdir()
    save_file(weights, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "xclip"}')
    found = froster.load(tmp_path / "hf", device="cpu")
    assert (
        found.preprocessing.mean == imagenet[0]
        and "its authors' own preprocessing assumed" in found.provenance
    )
    size = found.image_size
    said = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": size,
        "resample": 2,
        "image_mean": [0.4, 0.5, 0.6],
    }
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(said))
    found = froster.load(tmp_path / "hf", device="cpu")
    assert found.preprocessing == Preprocessing(
        (0.4, 0.5, 0.6), (0.5, 0.5, 0.5), "shortest", "bilinear"
    )
    assert "assumed" not in found.provenance
