"""The page: a video and labels in, bars, a timeline to click in and what the models look at out."""

from __future__ import annotations

import asyncio
import html
import math
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI

from froster.errors import FrosterError, UsageError
from froster.inference.recognizer import Classification
from froster.inference.timeline import Timeline
from froster.serve import parts
from froster.serve.app import Service
from froster.serve.gate import KEPT_SECONDS, Gate, keep_swept, new_place
from froster.serve.limits import MB, Limits, nameless
from froster.serve.models import Look
from froster.serve.samples import Sample, all_labels, from_folder, of_world
from froster.text.labels import split_labels
from froster.utils import strict_json as json

Found = TypeVar("Found")
_HERE = Path(__file__).parent
_WAITING = (
    "Choose a video, write labels, press Classify: which label fits, when, and where the model"
    " looks."
)


@dataclass(frozen=True)
class Seen:
    """What the server remembers of a session: the last video and what was found in it."""

    path: Path
    timelines: dict[str, Timeline]
    first: list[str]
    "labels in the order in which they are drawn, the likeliest first"


def add_page(app: FastAPI, service: Service, samples: Path | None = None) -> None:
    """Mounts the page at `/`. Nothing in it is loaded from elsewhere, and nothing is reported to
    anybody."""
    folder, shown = service.folder / "page", service.folder / "samples"
    folder.mkdir()
    shown.mkdir()
    # Read by Gradio while it is imported, and later.
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False"
    )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import gradio

    chosen = (
        from_folder(samples, service.limits)
        if samples
        else of_world(shown)
        if of_the_world(service)
        else []
    )
    blocks = build(gradio, Page(service, folder, chosen, gradio.Error))
    theme = gradio.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="md",
    )
    inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        inner,
        blocks,
        path="/",
        theme=theme,
        css=(_HERE / "page.css").read_text(encoding="utf-8"),
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    outer = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with outer(app) as state, inner.router.lifespan_context(inner):
            sweeping = asyncio.create_task(keep_swept(folder))
            try:
                yield state
            finally:
                sweeping.cancel()

    app.router.lifespan_context = lifespan
    app.mount("/", Gate(inner, service, folder))


def of_the_world(service: Service) -> list[str]:
    """The models that know the rendered world alone: the nano, and what was trained from it."""
    return [name for name, each in service.models.named.items() if each.tokenizer.vocab_size < 1000]


@dataclass(frozen=True)
class Page:
    """What happens when people do something. Paths come from Gradio, which the gate has kept to its
    folder."""

    service: Service
    folder: Path
    samples: list[Sample]
    toast: type[Exception]
    _copies: dict[Path, Path] = field(default_factory=dict)
    """The samples that were picked, by their paths."""
    _picking: threading.Lock = field(default_factory=threading.Lock)

    async def analyse(self, video: str | None, labels: str) -> tuple[str, str, str, Seen]:
        if video is None:
            raise self.toast("Choose a video first.", print_exception=False)  # type: ignore[call-arg]
        path = Path(video)
        classified, timelines, at, look = await self.do(
            lambda: self.work(path, split_labels(labels or "")), path
        )
        first = ordered(classified, timelines)
        return (
            parts.bars(classified, first, self.uncalibrated()),
            parts.lanes(timelines, first, at),
            parts.moment(timelines, first, at, look),
            Seen(path, timelines, first),
        )

    def work(
        self, path: Path, labels: list[str]
    ) -> tuple[dict[str, Classification], dict[str, Timeline], float, Look]:
        models = self.service.models
        classified = {
            name: models.classify(each, path, labels)[0] for name, each in models.named.items()
        }
        timelines = {
            name: models.timeline(each, path, labels) for name, each in models.named.items()
        }
        at = best_moment(next(iter(classified.values())).label, next(iter(timelines.values())))
        return classified, timelines, at, models.look(path, at)

    def uncalibrated(self) -> list[str]:
        return [
            name
            for name, each in self.service.models.named.items()
            if each.calibration.fitted is None
        ]

    async def go_to(self, seen: Seen | None, event: Any) -> str:
        """The moment that was clicked."""
        if seen is None:
            return parts.empty(_WAITING)
        try:
            at = float(event.seconds)
        except (AttributeError, TypeError, ValueError):
            at = math.nan
        longest = max(each.end for each in seen.timelines.values())
        at = min(max(at, 0.0), longest) if math.isfinite(at) else 0.0
        if not seen.path.exists():
            message = "That was too long ago, and the video is deleted: choose it again."
            raise self.toast(message, print_exception=False)  # type: ignore[call-arg]
        look = await self.do(lambda: self.service.models.look(seen.path, at), seen.path)
        return parts.moment(seen.timelines, seen.first, at, look)

    def pick(self, labels: str, event: Any) -> tuple[str, str]:
        """A sample, copied once to where uploads are, and the labels with those of the sample among
        them."""
        try:
            sample = self.samples[int(event.index)]
        except (AttributeError, TypeError, ValueError, IndexError):
            raise self.toast("There is no such sample.", print_exception=False) from None  # type: ignore[call-arg]
        return str(self.copied(sample)), with_labels(labels or "", sample)

    def copied(self, sample: Sample) -> Path:
        with self._picking:
            copy = self._copies.get(sample.path)
            if copy is None or not copy.exists():
                copy = new_place(self.folder) / f"sample{sample.path.suffix.lower()}"
                shutil.copyfile(sample.path, copy)
                self._copies[sample.path] = copy
            os.utime(copy.parent)  # it is kept as long as a new one
            return copy

    async def do(self, work: Callable[[], Found], path: Path) -> Found:
        """In the queue, as requests of the API are; what goes wrong is told in a corner of the
        page."""
        try:
            with self.service.jobs.place() as place:
                return await self.service.jobs.do(work, place)
        except FrosterError as error:
            message = html.escape(nameless(error, path))
            raise self.toast(message, print_exception=False) from None  # type: ignore[call-arg]


def ordered(classified: dict[str, Classification], timelines: dict[str, Timeline]) -> list[str]:
    """The labels that are drawn: those that win somewhere, by the time for which they do, then the
    likeliest."""
    seconds: dict[str, float] = {}
    for timeline in timelines.values():
        for segment in timeline.segments:
            seconds[segment.label] = seconds.get(segment.label, 0.0) + segment.end - segment.start
    likely = [label for each in classified.values() for label in each.labels]
    names = dict.fromkeys([*sorted(seconds, key=lambda label: -seconds[label]), *likely])
    return list(names)[: parts.SHOWN]


def best_moment(label: str, timeline: Timeline) -> float:
    """The middle of the moment where the label has its highest score."""
    row = int(timeline.scores[:, timeline.labels.index(label)].argmax())
    return (timeline.edges[row] + timeline.edges[row + 1]) / 2


def build(gr: Any, page: Page) -> Any:
    """The layout, and what calls what."""
    limits = page.service.limits
    call: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
    with gr.Blocks(title="froster", analytics_enabled=False) as blocks:
        gr.HTML(header(page.service), elem_classes=["f-head", "f-part"], js_on_load=None)
        seen = gr.State(None, time_to_live=KEPT_SECONDS)
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320, elem_classes="f-asked"):
                video = gr.Video(
                    label="Video",
                    sources=["upload"],
                    elem_id="froster-video",
                    height=280,
                    buttons=[],
                )
                if page.samples:
                    shown = samples_html(page.samples)
                    gallery = gr.HTML(
                        shown, js_on_load=_PICK, elem_id="froster-samples", elem_classes="f-part"
                    )
                labels = gr.Textbox(
                    value=all_labels(page.samples),
                    label="Labels, one a line or between commas",
                    lines=3,
                    max_lines=8,
                    elem_id="froster-labels",
                    max_length=limits.labels * limits.characters,
                )
                button = gr.Button("Classify", variant="primary", elem_id="froster-go")
                with gr.Accordion("About, and limits", open=False):
                    gr.HTML(about(limits), js_on_load=None, elem_classes="f-about")
            with gr.Column(scale=6, min_width=320):
                scores = gr.HTML(
                    parts.empty(_WAITING),
                    js_on_load=None,
                    elem_id="froster-scores",
                    elem_classes="f-part",
                )
                script = (_HERE / "page.js").read_text(encoding="utf-8")
                lanes = gr.HTML(
                    "", js_on_load=script, elem_id="froster-lanes", elem_classes="f-part"
                )
                moment = gr.HTML(
                    "", js_on_load=None, elem_id="froster-moment", elem_classes="f-part"
                )

        async def go_to(state: Any, event: gr.EventData) -> str:
            return await page.go_to(state, event)

        def pick(labels: str, event: gr.EventData) -> tuple[str, str]:
            return page.pick(labels, event)

        # Annotations are texts in this module, and Gradio looks for the class itself.
        go_to.__annotations__["event"] = pick.__annotations__["event"] = gr.EventData
        found = [scores, lanes, moment, seen]
        button.click(page.analyse, [video, labels], found, **call, show_progress_on=scores)
        if page.samples:
            picked = gallery.pick(pick, [labels], [video, labels], **call)
            picked.then(page.analyse, [video, labels], found, **call, show_progress_on=scores)
        lanes.pick(
            go_to, [seen], [moment], trigger_mode="always_last", show_progress="minimal", **call
        )
    blocks.queue(max_size=4 * page.service.jobs.room, default_concurrency_limit=None)
    return blocks


_PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('pick', { index: Number(button.dataset.index) });
});
"""


def header(service: Service) -> str:
    named = service.models.named
    models = [
        f"<b>{parts.text(name)}</b> ({parts.text(each.config.method.name)})"
        for name, each in named.items()
    ]
    toys = of_the_world(service)
    note = f"{' and '.join(toys)} can tell rendered things only: real videos need a real model."
    return (
        "<h1>froster</h1><p>Which of these labels fits the video, and when?"
        f" {' beside '.join(models)}, "
        f"on {parts.text(str(next(iter(named.values())).device))}.</p>{f'<p>{parts.text(note)}</p>' if toys else ''}"
    )


def samples_html(samples: list[Sample]) -> str:
    buttons = [
        f'<button data-index="{i}" title="{parts.text(each.name)}">'
        f'<img src="{parts.picture(each.thumbnail.permute(1, 2, 0).numpy())}" alt="">'
        f"<span>{parts.text(each.name)}</span></button>"
        for i, each in enumerate(samples)
    ]
    return (
        f'<p class="f-caption">Or one of these:</p><div class="f-samples">{"".join(buttons)}</div>'
    )


def with_labels(labels: str, sample: Sample) -> str:
    """The labels that are asked for, after those of a sample that are missing, written as they are
    there."""
    try:
        given = split_labels(labels)
    except UsageError:  # said when they are asked for
        given = []
    missing = [label for label in sample.labels if label not in given]
    if given and labels.lstrip().startswith("["):
        return json.dumps([*missing, *given], ensure_ascii=False)
    between = "\n" if "\n" in labels.strip() else ", "
    return between.join([*missing, *([labels] if labels.strip() else [])])


def about(limits: Limits) -> str:
    return (
        "<p>The numbers say how likely a label is, among the labels that you give; of a calibrated"
        " model also how likely it is that none of them fits. The attention shows where the class"
        f" tokens of the last block look.</p><p>At most {limits.upload / MB:g} MB and"
        f" {limits.seconds:g} s of video, {limits.labels} labels, {limits.timeout:g} s of work;"
        f" {limits.waiting} requests may wait. Videos are deleted from the server after"
        f" {KEPT_SECONDS // 60} minutes at most. Nothing is sent anywhere else. For programs: <a"
        ' href="/docs">the API</a></p>'
    )
