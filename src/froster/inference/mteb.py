"""A model of ours as mteb (github.com/embeddings-benchmark/mteb) takes one, for its video tasks.

mteb hands out the files themselves; which frames are read of them, and how they are prepared, is
the model's own business here as everywhere. Its own way, decoding by torchcodec, is not used, so
that package is not needed.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from froster.data.dataset import ReadViews, Views
from froster.encoders.known import known_encoder
from froster.encoders.model import unit
from froster.errors import DataError, UsageError, VideoError, install
from froster.inference.fingerprint import model_fingerprint
from froster.inference.index import check_comparable
from froster.inference.recognizer import Recognizer, load
from froster.text.prompts import Prompting
from froster.utils import pool
from froster.utils.tensors import finite

AS_GIVEN = Prompting(("{}",), "plain")


@dataclasses.dataclass(frozen=True)
class ReadRows:
    """From the number of a row to the views of its video: the work of a process that reads."""

    rows: Any
    """mteb's dataset, with a column `video` of {"path", "bytes"}."""
    reader: ReadViews

    def __call__(self, number: int) -> Iterator[Views]:
        """Raises VideoError."""
        with _file_of(self.rows[number]["video"]) as path:
            yield from self.reader(path)


@contextmanager
def _file_of(video: dict[str, Any]) -> Iterator[str]:
    """A path to a video that may be bytes in a table."""
    path, content = video.get("path") or "", video.get("bytes")
    if content is None:
        if not os.path.exists(path):
            raise VideoError(f"{path}: there is no such file")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="froster-") as folder:
        file = Path(folder) / f"video{PurePath(path).suffix[:8]}"
        file.write_bytes(content)
        yield str(file)


class MTEBModel:
    """What `mteb.evaluate` takes as a model: videos and texts -> unit embeddings (n, E), as
    `embed_video` and `embed_text` give them.

    mteb's texts are whole prompts ("a video of archery") or captions, and are embedded as they are;
    `templates` puts them into the model's own, as labels. Raises UsageError on a network that does
    not compare a video with one embedding of a text (X-CLIP, ActionCLIP).
    """

    def __init__(
        self,
        model: Recognizer | str | Path,
        revision: str | None = None,
        *,
        name: str | None = None,
        workers: int | None = None,
        templates: bool = False,
        device: str | None = None,
    ):
        given = model if isinstance(model, Recognizer) else load(model, device=device)
        check_comparable(given)
        prompting = given.config.prompting if templates else AS_GIVEN
        self.model = Recognizer(
            given.model,
            given.tokenizer,
            dataclasses.replace(given.config, prompting=prompting),
            device=given.device,
            precision=given.precision,
            merge_tokens=given.merge_tokens,
        )
        self.workers = pool.spare_cores() if workers is None else workers
        self.mteb_model_meta = _meta(given, name, revision)

    def encode(self, inputs: Any, **task: Any) -> Tensor:
        """The rows of mteb's loader, texts, videos or both (the mean of the two), -> (n, E).

        Raises DataError on a video that cannot be read: mteb has no place for a row without an
        embedding.
        """
        rows = inputs.dataset
        columns = set(rows.column_names)
        batch_size = task.get("batch_size") or inputs.batch_size or 1
        parts = []
        if "text" in columns:
            parts.append(self._texts(list(rows["text"])))
        if "video" in columns:
            parts.append(self._videos(rows, batch_size))
        if not parts:
            raise UsageError(f"froster embeds texts and videos, not {', '.join(sorted(columns))}")
        return parts[0] if len(parts) == 1 else unit(torch.stack(parts).mean(0))

    def _texts(self, texts: Sequence[str]) -> Tensor:
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        embeddings = self.model.embed_text(list(place), truncate=True)
        return embeddings[[place[text] for text in texts]]

    def _videos(self, rows: Any, batch_size: int) -> Tensor:
        from datasets import Video  # of mteb's own dependencies

        undecoded = rows.cast_column("video", Video(decode=False)).select_columns(["video"])
        work = ReadRows(undecoded, self.model.view_reader())
        numbers = range(len(rows))
        window = self.workers + 2 * batch_size
        events = pool.run(work, numbers, self.workers, window=window)
        ends = pool.ends(pool.in_order(events))
        embeddings: list[Tensor] = []
        clips: list[Tensor] = []
        with closing(pool.ahead(ends, window) if self.workers else ends) as following:
            for number, views, error in following:
                if views is None:
                    raise DataError(f"row {number} of mteb's data: {error}")
                clips.append(torch.from_numpy(views.clips))
                if len(clips) == batch_size:
                    embeddings.append(self._embedded(clips))
                    clips = []
        if clips:
            embeddings.append(self._embedded(clips))
        return torch.cat(embeddings)

    @torch.no_grad()
    def _embedded(self, clips: list[Tensor]) -> Tensor:
        """The views of some videos, (V, T, 3, S, S) each -> (n, E)."""
        views = torch.stack(clips)
        video = self.model.encode_clips(views.flatten(0, 1)).video
        return finite(unit(video.unflatten(0, views.shape[:2]).mean(1)).cpu(), "video embeddings")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(n, E), (m, E) -> cosines (n, m)."""
        one, other = map(_units, (embeddings1, embeddings2))
        return one @ other.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(n, E), (n, E) -> cosines (n,)."""
        one, other = map(_units, (embeddings1, embeddings2))
        return (one * other).sum(-1)


def _units(embeddings: Any) -> Tensor:
    return unit(torch.as_tensor(embeddings).float())


def _meta(model: Recognizer, name: str | None, revision: str | None) -> Any:
    """What mteb files its results under."""
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise UsageError(f"mteb is not installed: {install('mteb')}") from error
    config, source = model.clip.config, model.source or "model"
    if (known := known_encoder(source)) is not None:
        source = known.hub_id
    is_hub_id = source.count("/") == 1 and not os.path.exists(source)
    return ModelMeta(
        loader=None,
        name=name or (source if is_hub_id else f"froster/{PurePath(source).name}"),
        revision=revision or model_fingerprint(model),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=sum(weight.numel() for weight in model.model.parameters()),
        memory_usage_mb=None,
        max_tokens=config.text.context,
        embed_dim=config.embed_dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=["text", "video"],
    )
