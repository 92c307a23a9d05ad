"""The exact search reads Lance's files itself, and gives Lance's answers."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from froster.errors import DataError
from froster.inference.approximate import approximate, exactly
from froster.inference.scan import all_scores
from froster.inference.search import nearest
from froster.inference.store import Store
from test_index_lance import ABOUT, entry, unit_rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_exact_search_scores_what_lance_reads(dtype: str, tmp_path: Path) -> None:
    """Rows of several files in their order, without those that were deleted, also after columns
    were added and some files became one."""
    store = Store.create(tmp_path / "i", {**ABOUT, "dtype": dtype}, 160)
    rows, query = unit_rows(900, size=160), unit_rows(1, 9, 160)[0]
    for part in range(3):
        videos = [(entry(f"{i}.mp4", 3), rows[3 * i : 3 * i + 3]) for i in range(part, 300, 3)]
        store.add(videos)
    store.remove(["4.mp4", "200.mp4", "299.mp4"])
    store.relabel({"7.mp4": {"label": "a cat"}})

    def check() -> None:
        scored = all_scores(store.table, query)
        assert scored is not None
        table = store.table.rows(["vector"])
        vectors = torch.tensor(np.stack(table["vector"].to_numpy())).float()
        torch.testing.assert_close(scored[0], vectors @ query, rtol=0, atol=1e-6)
        assert scored[1].tolist() == table["_rowaddr"].to_pylist() and len(vectors) == 891

    check()
    store.add([(entry("4.mp4", 3), rows[:3]), (entry("300.mp4", 3), rows[3:6])])
    store.remove(["4.mp4", "300.mp4"])
    store.table.compact()
    check()
    threads = torch.get_num_threads()
    exact = [(hit.entry.path, hit.best, hit.score) for hit in nearest(store, query, 20)]
    with patch("froster.inference.store.all_scores", return_value=None):
        lance = [(hit.entry.path, hit.best, hit.score) for hit in nearest(store, query, 20)]
    assert exact == [(*place, pytest.approx(score, abs=1e-6)) for *place, score in lance]
    assert torch.get_num_threads() == threads


def test_files_of_another_form_are_left_to_lance(tmp_path: Path) -> None:
    """Short vectors are packed in another way. Scores that are not those of Lance are not used."""
    store = Store.create(tmp_path / "i", ABOUT, 160)
    rows = unit_rows(30, size=160)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(3)])
    scores, addresses = all_scores(store.table, rows[11]) or (torch.empty(0), ())
    with patch("froster.inference.store.all_scores", return_value=(scores.roll(1), addresses)):
        assert nearest(store, rows[11], 1)[0].best == (1.0, 2.0)
    short = Store.create(tmp_path / "short", ABOUT, 16)
    short.add([(entry("0.mp4", 30), unit_rows(30))])
    assert all_scores(short.table, unit_rows(1)[0]) is None
    (file,) = (tmp_path / "i" / "segments.lance" / "data").iterdir()
    os.truncate(file, 5000)
    with pytest.raises(DataError, match=r"cannot be read"):
        nearest(store, rows[11], 1)


def test_videos_of_a_large_index_are_looked_up(tmp_path: Path) -> None:
    """And are the same after the search index is taken away, and for rows that came later."""
    store = Store.create(tmp_path / "i", ABOUT, 32)
    rows = unit_rows(400, size=32)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(40)])
    with patch("froster.inference.tables.INDEXED_FROM", 400):
        store.table.compact()
    approximate(store, unit_rows(20, 1, 32))
    exactly(store)
    assert [index.field_names for index in store.table.dataset.describe_indices()] == [["path"]]
    store.add([(entry("3.mp4", 10), rows[:10]), (entry("new.mp4", 10), rows[-10:])])
    videos = store.videos(["3.mp4", "new.mp4", "39.mp4"])
    assert {name: len(video.rows) for name, video in videos.items()} == dict.fromkeys(videos, 10)
    assert len(videos) == 3
    torch.testing.assert_close(videos["3.mp4"].vectors.float(), rows[:10], rtol=0, atol=1e-3)
