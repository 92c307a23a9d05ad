"""`froster attend`: where models look in a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from froster.cli import options
from froster.cli.common import check_exists, load_model, short_name
from froster.cli.options import number, option
from froster.cli.output import print_table
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.files import cannot_write
from froster.utils.progress import console, progress

if TYPE_CHECKING:
    from torch import Tensor

    from froster.inference.recognizer import Recognizer
    from froster.report.attention import CLSAttention
    from froster.video.sampling import Sampling

SHOWN = 224
"""Pixels of a frame in the picture, at least: a small network's own input is too coarse to look at.
"""


class Sampled(NamedTuple):
    frames: Tensor
    """(T, H, W, 3) uint8."""
    seconds: list[float]


def attend(
    video: Annotated[Path, option("A video file.")],
    /,
    *,
    models: Annotated[
        str, option("Between commas: frozen (the CLIP of --model), nano, model folders, hub ids.")
    ],
    out: Annotated[Path, option("The picture, a .png: one row a model, one column a frame.")],
    layer: Annotated[int, option("Block of the image tower; -1 is the last one.")] = -1,
    rollout: Annotated[bool, option("Through all blocks up to that one.")] = False,
    animate: Annotated[Path | None, option("Also as a moving picture, a .gif or .mp4.")] = None,
    model: options.Model = None,
    sampling: Annotated[
        options.Sampling, option("Frames; default: as the first video network takes them.")
    ] = None,
    frames: Annotated[int | None, number("Frames shown.", 1)] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Where models look: the attention of [CLS] to the patches of each frame, drawn over the
    frames.

    Example: froster attend holiday.mp4 --models frozen,runs/first --model nano --out attention.png
    """
    from froster.report.attention import check_film

    names = [name.strip() for name in models.split(",")]
    if not all(names):
        raise UsageError("--models takes names between commas: frozen, nano, or model folders")
    check_exists(video)
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out is a .png, not {out.name}")
    if animate is not None:
        check_film(animate)
    for path in (out, *([animate] if animate else [])):
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(21, "it is a folder"))
    recognizers = [load_named(name, model, device, sampling, frames) for name in names]
    clip = read_clip(video, common_sampling(recognizers), recognizers[0].config.views)
    attentions = []
    with progress(quiet=len(names) == 1) as bars:
        bar = bars.add_task("attend", total=len(names), note="")
        for recognizer in recognizers:
            attentions.append(attended(recognizer, clip.frames, layer, rollout))
            bars.update(bar, advance=1)
    what = (
        f"attention rollout to layer {layer}"
        if rollout
        else f"attention in layer {layer}, mean over heads"
    )
    draw(clip, names, recognizers, attentions, what, out, animate)
    if as_json:
        print(json.dumps(report(video, clip, names, attentions)))
    else:
        show(names, attentions)
        console.print(f"drawn: {out}" + (f"   {animate}" if animate else ""))


def load_named(
    name: str, base: str | None, device: str | None, sampling: str | None, frames: int | None
) -> Recognizer:
    """A model by its place in `--models`: `frozen` is the plain CLIP that `--model` gives."""
    from froster.methods import Frozen

    source = base if name == "frozen" else name
    recognizer = load_model(source, device, "float32", sampling=sampling, frames=frames)
    if name == "frozen" and not isinstance(recognizer.config.method, Frozen):
        raise UsageError(
            f"frozen is a plain CLIP, but --model {base} is a {recognizer.config.method.name}"
            " network"
        )
    return recognizer


def common_sampling(recognizers: list[Recognizer]) -> Sampling:
    """All models see the same frames: those of the first video network, as its number of frames may
    be fixed."""
    from froster.methods import Frozen

    networks = [
        model.config.sampling
        for model in recognizers
        if not isinstance(model.config.method, Frozen)
    ]
    return (networks or [recognizers[0].config.sampling])[0]


def read_clip(video: Path, sampling: Sampling, views: int) -> Sampled:
    """The middle one of a test's views."""
    from froster.video.reader import Video

    with Video(video) as source:
        clips = sampling.view_indices(source.timing, views)
        indices = clips[len(clips) // 2]
        frames, times = source.read(indices), source.times()
        return Sampled(
            frames, [times[min(index, len(times) - 1)] for index in indices]
        )  # reading may find fewer frames


def attended(recognizer: Recognizer, frames: Tensor, layer: int, rollout: bool) -> CLSAttention:
    from froster.encoders.preprocessing import normalise
    from froster.report.attention import cls_attention
    from froster.video.transforms import inference_transform

    how = recognizer.preprocessing
    pixels = inference_transform(frames, recognizer.image_size, how)
    return cls_attention(
        recognizer.model, normalise(pixels.to(recognizer.device), how), layer, rollout
    )


def draw(
    clip: Sampled,
    names: list[str],
    recognizers: list[Recognizer],
    attentions: list[CLSAttention],
    what: str,
    out: Path,
    animate: Path | None,
) -> None:
    from froster.report.attention import Row, attention_animation, attention_strip
    from froster.video.transforms import inference_transform

    size = max(SHOWN, *(model.clip.config.vision.image_size for model in recognizers))
    shown = [inference_transform(clip.frames, size, model.preprocessing) for model in recognizers]
    labels = [label_of(name, model) for name, model in zip(names, recognizers, strict=True)]
    rows = [
        Row("frames", shown[0]),
        *(
            Row(label, seen, each.patches)
            for label, seen, each in zip(labels, shown, attentions, strict=True)
        ),
    ]
    columns = [f"{second:.1f} s" for second in clip.seconds]
    note = (
        f"{what}; a patch is as bright as what it gets from the class tokens of all frames that see"
        " it; one scale a row"
    )
    attention_strip(rows, columns, note, out)
    if animate is not None:
        attention_animation(rows, columns, animate)


def label_of(name: str, recognizer: Recognizer) -> str:
    """A short name and the method: `runs/first/model` -> "first (vclip)"."""
    short = short_name(name)
    method = recognizer.config.method.name
    return short if short == method else f"{short}\n({method})"


def report(
    video: Path, clip: Sampled, names: list[str], attentions: list[CLSAttention]
) -> dict[str, Any]:
    rows = [
        {"model": name, "shares": each.shares, "patches": each.patches.round(decimals=6).tolist()}
        for name, each in zip(names, attentions, strict=True)
    ]
    seconds = [round(second, 3) for second in clip.seconds]
    return {"video": str(video), "seconds": seconds, "models": rows}


def show(names: list[str], attentions: list[CLSAttention]) -> None:
    """What the class tokens give to what a picture does not show."""
    rows = [
        [name, *(f"{100 * share:.1f}" for share in each.shares.values())]
        for name, each in zip(names, attentions, strict=True)
    ]
    print_table(["attention of [CLS], per cent", *attentions[0].shares], rows)
