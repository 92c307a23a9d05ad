"""What is done with an encoder, done with two that are no CLIPs: one without a class token, whose
texts see ahead (SigLIP's kind), and one with rotary positions and a pool (PE-Core's). Their folders
are froster's own; their words are the nano CLIP's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import froster
from froster.encoders.attention_pool import AttentionPool
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.evaluation.calibration import fit
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS, Frozen
from froster.methods.recipe import Recipe
from froster.report.attention import block_inputs, cls_attention, joint
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.weights import halfway, with_weights
from froster.video.sampling import Sampling
from froster.world.clips import WorldClips
from froster.world.sets import SETS, Videos
from golden import close
from shared_files import World, once
from test_encoder_grid import ENCODERS, WIDTH, clip_of

KINDS = ["siglip", "pe"]
LABELS = ["cat", "dog", "key"]
pytestmark = pytest.mark.usefixtures("few_templates_throughout")


def plain_folder(kind: str, layers: int = 2) -> Path:
    """A folder of an encoder that nobody has trained."""
    nano = load("nano", device="cpu")
    vision, text = ENCODERS[kind]
    torch.manual_seed(0)
    sizes = {"vocab": nano.tokenizer.vocab_size, "width": WIDTH, "layers": 1, "heads": 1}
    config = CLIPConfig(
        VisionConfig(32, 16, WIDTH, layers, 2, **vision),
        TextConfig(**{**text, **sizes, "context": 32, "end": -1}),
        embed_dim=WIDTH,
        activation="gelu",
    )
    about = ModelConfig(Frozen(), Sampling("uniform", 4), views=1)
    model = Recognizer(Frozen().build(CLIP(config)), nano.tokenizer, about)
    return once(f"encoder-{kind}-{layers}", lambda path: model.save(path))


def encoder(kind: str, layers: int = 2) -> Recognizer:
    return load(plain_folder(kind, layers), device="cpu", precision="float32")


def noise(base: Recognizer, count: int) -> WorldClips:
    """Clips with labels: learning them is not the point."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    videos = Videos(frames, torch.arange(count) % 5, SETS["base"].classes[:5])
    return WorldClips(videos, base.config.sampling, train=True)


@pytest.mark.parametrize("kind", KINDS)
def test_froster_training_and_what_follows_it(kind: str, tmp_path: Path) -> None:
    """A student with neighbour frames and its teacher, distilled on both sides; the mean of the
    epochs and half of it with the encoder; a fit of the temperature."""
    base = encoder(kind)
    clips = noise(base, 12)
    classes, losses = clips.videos.classes, []
    recipe = Recipe(epochs=2, batch_size=6, lr=1e-3, warmup_epochs=0.0, precision="float32")
    hooks = Hooks(on_step=lambda step, metrics: losses.append(metrics))
    how = FineTuning(METHODS["vclip"](), Distill(), recipe)
    student, trained = fine_tune(base, how, clips, classes, tmp_path / "run", hooks)
    assert student.config.method == METHODS["vclip"](pad="mask")  # type: ignore[call-arg]
    assert losses[-1]["distill_v"] > 0 and losses[-1]["distill_t"] > 0
    start, mean = base.clip.state_dict(), trained.average
    moved = [name for name, x in start.items() if not torch.equal(mean[f"clip.{name}"], x)]
    assert any("attn_pool" in name for name in moved)
    assert any(name.startswith("text.") for name in moved)

    half = halfway(base, student, mean)
    for name, tensor in start.items():
        close(half[f"clip.{name}"], (tensor + mean[f"clip.{name}"]) / 2)
    model = with_weights(student, half)
    asked, words = noise(base, 60).videos, model.class_embeddings(classes)
    z = model.encode_clips(asked.frames[:, :4])
    logits = model.model.logits(z.video, words, z.context)
    fitted = fit(logits[:, None], asked.labels, model.logit_scale)
    model.calibration = dataclasses.replace(fitted, fitted={"to": "noise"})
    assert model.calibration.temperature != 1
    again = load(model.save(tmp_path / "model"), device="cpu", precision="float32")
    assert again.clip.config == base.clip.config and again.calibration == model.calibration
    close(again.class_embeddings(classes), words)
    one, other = (m.score_clips(asked.frames[:3, None, :4], words) for m in (again, model))
    close(one.scores, other.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_are_named_and_found(kind: str, tmp_path: Path) -> None:
    folder, video = plain_folder(kind), World("base", 1).write(0, tmp_path / "videos" / "one.mp4")
    model = encoder(kind)
    answer = model.classify(video, LABELS)
    frames = normalise(model.read_views(video), model.preprocessing)
    with torch.no_grad():
        z = unit(model.clip.encode_image(frames)).mean(dim=1)
        cosines = (z @ model.class_embeddings(LABELS).T)[0]
    assert answer.labels == [LABELS[i] for i in cosines.argsort(descending=True)]
    made = froster.index(folder, tmp_path / "videos", tmp_path / "index")
    assert (made["videos"], made["failed"]) == (1, 0)
    hit = froster.search(tmp_path / "index", "a cat", top=1).hits[0]
    assert hit.path(tmp_path / "videos").name == "one.mp4" and -1 <= hit.score <= 1


def pool_weights(pool: AttentionPool, tokens: Tensor) -> Tensor:
    """(frames, tokens), the mean over the heads, head by head from the matrices."""
    width, heads = tokens.shape[-1], pool.attn.heads
    (wq, wk, _), (bq, bk, _) = pool.attn.in_proj_weight.chunk(3), pool.attn.in_proj_bias.chunk(3)
    q, k = pool.probe[0, 0] @ wq.T + bq, tokens @ wk.T + bk
    shares = []
    for some in torch.arange(width).chunk(heads):
        logits = k[..., some] @ q[some] / len(some) ** 0.5
        shares.append(logits.softmax(dim=-1))
    return torch.stack(shares).mean(dim=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_attention_pictures_show_the_pool(kind: str) -> None:
    """By itself, in a block (the tokens' attention by as much as the pool reads of each), and as
    where a roll-out begins."""
    clip = encoder(kind).clip
    visual, prefix = clip.visual, clip.config.vision.prefix
    frames = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    layers: list[Tensor] = []
    visual(frames[None], layers)
    assert visual.attn_pool is not None
    read = pool_weights(visual.attn_pool, visual.ln_post(layers[-1]))  # (4, tokens)
    model = Frozen().build(clip)
    shown = cls_attention(model, frames)
    close(shown.patches, read[:, prefix:].unflatten(1, (2, 2)), atol=1e-6)
    assert shown.shares["class tokens"] == pytest.approx(float(read[:, :prefix].sum()) / 4)
    assert sum(shown.shares.values()) == pytest.approx(1)

    blocks = block_inputs(visual, lambda: model.encode_frames(frames[None]))
    tokens = clip.config.vision.tokens
    A = [torch.stack([joint(b, tokens)[t, :, t] for t in range(4)]) for b in blocks]
    second = (read[:, None] @ A[1])[:, 0]
    close(cls_attention(model, frames, layer=1).patches.flatten(1), second[:, prefix:], atol=1e-6)
    through = read[:, None]
    for a in reversed(A):
        through = through @ (a + torch.eye(tokens)) / 2
    rolled = cls_attention(model, frames, rollout=True)
    close(rolled.patches.flatten(1), through[:, 0, prefix:], atol=1e-6)
    with pytest.raises(UsageError, match="no layer 3: the network has 3"):
        cls_attention(model, frames, layer=3)


@torch.no_grad()
def test_a_mean_of_patches_reads_all_of_them_alike() -> None:
    model = Frozen().build(clip_of("clipa"))
    frames = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    last = block_inputs(model.clip.visual, lambda: model.encode_frames(frames[None]))[-1]
    A = joint(last, 5)
    expected = torch.stack([A[t, 1:, t, 1:].mean(dim=0) for t in range(4)])
    close(cls_attention(model, frames).patches.flatten(1), expected, atol=1e-6)
