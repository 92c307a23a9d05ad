"""`froster attend`: where models look in a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from froster.cli import options
from froster.cli.common import (
    check_exists,
    check_png,
    load_model,
    short_name,
    show_result,
    start_torch,
)
from froster.cli.options import number, option
from froster.errors import UsageError
from froster.utils.files import cannot_write
from froster.utils.progress import console, print_table, progress

if TYPE_CHECKING:
    from torch import Tensor

    from froster.inference.recognizer import Recognizer
    from froster.report.attention import CLSAttention
    from froster.video.sampling import Sampling

SHOWN = 224
"""Pixels of a frame in the picture, at least: a small network's own input is too coarse to look at.
"""


class SampledClip(NamedTuple):
    frames: Tensor
    """(T, H, W, 3) uint8."""
    seconds: list[float]


def attend(
    video: Annotated[Path, options.ADDRESS, option("A video file.")],
    /,
    *,
    models: Annotated[
        str, option("Between commas: frozen (the CLIP of --model), nano, model folders, hub ids.")
    ],
    out: Annotated[Path, option("The picture, a .png: one row a model, one column a frame.")],
    layer: Annotated[
        int, option("Block of the image tower; -1 is the last one, or its attention pool.")
    ] = -1,
    rollout: Annotated[bool, option("Through all blocks up to that one.")] = False,
    animate: Annotated[Path | None, option("Also as a moving picture, a .gif or .mp4.")] = None,
    model: options.Model = None,
    sampling: Annotated[options.Sampling, option("Default: the first video network's.")] = None,
    frames: Annotated[int | None, number("Frames shown.", 1)] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Where models look: the attention of [CLS], or of an attention pool, to the patches of each
    frame, drawn over the frames.

    Example: froster attend holiday.mp4 --models frozen,runs/first --model nano --out attention.png
    """
    start_torch()
    from froster.report.attention import check_film, video_attention

    names = [name.strip() for name in models.split(",")]
    if not all(names):
        raise UsageError("--models takes names between commas: frozen, nano, or model folders")
    check_exists(video)
    check_png(out)
    if animate is not None:
        check_film(animate)
    for path in filter(None, (out, animate)):
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(21, "it is a folder"))
    recognizers = {name: load_named(name, model, device, sampling, frames) for name in names}
    clip = read_clip(video, *common_sampling(list(recognizers.values())))
    attentions = {}
    with progress(quiet=len(names) == 1) as bars:
        bar = bars.add_task("attend", total=len(names), note="")
        for name, recognizer in recognizers.items():
            attentions[name] = video_attention(recognizer, clip.frames, layer, rollout)
            bars.update(bar, advance=1)
    what = f"rollout to layer {layer}" if rollout else f"in layer {layer}, mean over heads"
    draw(clip, recognizers, attentions, f"attention {what}", out, animate)
    rows = [
        {"model": name, "shares": a.shares, "patches": a.patches.round(decimals=6).tolist()}
        for name, a in attentions.items()
    ]
    times = [round(second, 3) for second in clip.seconds]
    show_result({"video": str(video), "seconds": times, "models": rows}, as_json, show)
    if not as_json:
        console.print(f"drawn: {out}" + (f"   {animate}" if animate else ""))


def load_named(
    name: str, base: str | None, device: str | None, sampling: str | None, frames: int | None
) -> Recognizer:
    """A model by its place in `--models`: `frozen` is the plain CLIP that `--model` gives."""
    from froster.methods import Frozen

    source = base if name == "frozen" else name
    recognizer = load_model(source, device, "float32", kind=sampling, frames=frames)
    if name == "frozen" and not isinstance(recognizer.config.method, Frozen):
        method = recognizer.config.method.name
        raise UsageError(f"frozen is a plain CLIP, but --model {base} is a {method} network")
    return recognizer


def common_sampling(recognizers: list[Recognizer]) -> tuple[Sampling, int]:
    """All models see the same frames: those of the first video network, as its number of frames may
    be fixed. The views are the first model's."""
    from froster.methods import Frozen

    configs = [recognizer.config for recognizer in recognizers]
    networks = [config for config in configs if not isinstance(config.method, Frozen)]
    return (networks or configs)[0].sampling, configs[0].views


def read_clip(video: Path, sampling: Sampling, views: int) -> SampledClip:
    """The middle one of a test's views."""
    from froster.video.reader import Video

    with Video(video) as source:
        clips = sampling.view_indices(source.timing, views)
        indices = clips[len(clips) // 2]
        frames, times = source.read(indices), source.times()
        # Reading may find fewer frames.
        return SampledClip(frames, [times[min(index, len(times) - 1)] for index in indices])


def draw(
    clip: SampledClip,
    recognizers: dict[str, Recognizer],
    attentions: dict[str, CLSAttention],
    what: str,
    out: Path,
    animate: Path | None,
) -> None:
    from froster.report.attention import StripRow, attention_animation, attention_strip
    from froster.video.transforms import inference_transform

    size = max(SHOWN, *(model.clip.config.vision.image_size for model in recognizers.values()))
    rows = []
    for name, model in recognizers.items():
        frames = inference_transform(clip.frames, size, model.preprocessing)
        rows.append(StripRow(label_of(name, model), frames, attentions[name].patches))
    rows.insert(0, StripRow("frames", rows[0].frames))
    columns = [f"{second:.1f} s" for second in clip.seconds]
    note = (
        f"{what}; a patch is as bright as what it gets from all frames that see it; one scale a row"
    )
    attention_strip(rows, columns, note, out)
    if animate is not None:
        attention_animation(rows, columns, animate)


def label_of(name: str, recognizer: Recognizer) -> str:
    """A short name and the method: `runs/first/model` -> "first (vclip)"."""
    short = short_name(name)
    method = recognizer.config.method.name
    return short if short == method else f"{short}\n({method})"


def show(report: dict[str, Any]) -> None:
    """What the frames give to what a picture does not show."""
    rows = [
        [row["model"], *(f"{100 * share:.1f}" for share in row["shares"].values())]
        for row in report["models"]
    ]
    print_table(["attention, per cent", *report["models"][0]["shares"]], rows)
