"""Search without comparing every segment: a graph within each of many cells of the index's vectors
(Lance's IVF_HNSW_SQ), of which the nearest cells are looked into. How many, and how many candidates
they give, is chosen by the answers of the exact search to a sample of queries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from froster.errors import UsageError
from froster.inference.store import Store
from froster.inference.tables import INDEXED, LanceTable, lance_errors

CELL = 131_072
"""Segments of a cell, in the mean. Smaller ones are faster to make, and more of them must be looked
into for the same recall (docs/lab.md)."""
PROBES = (4, 8, 16, 20, 24, 28, 32, 64, 128, 256)
"""Cells that may be looked into."""
WALKS = (1, 2, 3, 4, 5, 6, 8)
"""How wide the walk through a graph is: it keeps one and a half times so many for each one that is
wanted. All of these, or only as many as are wanted, are candidates, which are compared by their
vectors: the graph sees 8 bits of a number."""
RECALL_AT, GOOD_RECALL, LEAST_RECALL = 10, 0.99, 0.95
PAYS_FROM = 3_000_000
"""Segments; fewer are compared in a second of one core."""
SAMPLED = 32
"""Segments of the index that are taken for queries."""
_SETTING, _FORMER = "froster.estimated", "froster.probes"
"""How an index is searched: cells, candidates and the walk, which was as wide as these at first;
formerly the cells alone."""


def is_estimated(store: Store) -> bool:
    """Whether a search looks into some cells; otherwise it is exact."""
    return not store.table.settings().keys().isdisjoint((_SETTING, _FORMER))


def search_options(store: Store, exact: bool) -> dict[str, Any]:
    """How Lance searches."""
    settings = {} if exact else store.table.settings()
    setting = settings.get(_SETTING, settings.get(_FORMER))
    return {"use_index": False} if setting is None else _options(*map(int, setting.split()))


def _options(cells: int, candidates: int = 1, walk: int = 0) -> dict[str, int]:
    probes = {"minimum_nprobes": cells, "maximum_nprobes": cells}
    return {**probes, "candidates": candidates, "walk": walk or candidates}


def approximate(store: Store, texts: Float[Tensor, "texts embed"]) -> dict[str, float]:
    """Makes the search index, or makes it anew. Returns the recall at 10 of such texts and of
    segments of the index as queries, against the exact search, with the least work that reaches
    0.99, and what it is: the cells, and for each answer the candidates and the walk. Raises
    UsageError, and leaves the search exact, where the recall is below 0.95."""
    table = store.table
    table.write(lambda: _build(table))
    table.refresh()
    most = max(1, store.segments // CELL)
    rows = np.linspace(0, store.segments - 1, min(store.segments, SAMPLED)).round().astype(int)
    queries = [*texts, *store.vectors(rows.tolist())]
    exact = [closest(store, query, use_index=False) for query in queries]
    probes = [*(cells for cells in PROBES if cells < most), most]
    settings = {
        (cells, candidates, walk)
        for cells, walk in itertools.product(probes, WALKS)
        for candidates in (1, walk)
    }
    for setting in sorted(settings, key=lambda kept: (kept[0] * kept[2] + kept[1], kept)):
        estimated = [closest(store, query, **_options(*setting)) for query in queries]
        shares = torch.tensor(
            [len(a & b) / len(a) for a, b in zip(exact, estimated, strict=True)]
        ).split([len(texts), len(rows)])
        recall = {"text": float(shares[0].mean()), "video": float(shares[1].mean())}
        if min(recall.values()) >= GOOD_RECALL:
            break
    if min(recall.values()) < LEAST_RECALL:
        exactly(store)
        raise UsageError(
            f"{store.folder}: the recall at 10 of estimated answers is {min(recall.values()):.2f}"
            f" at best, less than {LEAST_RECALL}: searches stay exact"
        )
    table.set(_SETTING, " ".join(map(str, setting)))
    return {**dict(zip(("cells", "candidates", "walk"), setting, strict=True)), **recall}


def exactly(store: Store) -> None:
    """Takes the search index away."""
    table = store.table

    def work() -> None:
        for index in table.dataset.describe_indices():
            if index.field_names == ["vector"]:
                table.dataset.drop_index(index.name)
        if kept := table.settings().keys() & {_SETTING, _FORMER}:
            table.dataset.delete_config_keys(list(kept))

    table.write(work)
    table.refresh()


def closest(store: Store, query: Tensor, **search: Any) -> set[int]:
    """The addresses of the best 10, as a search has them."""
    return set(store.closest(query, 8 * RECALL_AT, None, **search)[1][:RECALL_AT])


def _build(table: LanceTable) -> None:
    """Rows that are marked as deleted are dropped first: where there is one, each search makes a
    mask of all rows of the cells that it looks into (docs/lab.md)."""
    cells = max(1, table.dataset.count_rows() // CELL)
    with lance_errors(table.address):
        table.dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
        table.dataset.create_index(
            *("vector", "IVF_HNSW_SQ"), metric="cosine", num_partitions=cells, replace=True
        )
        table.dataset.create_scalar_index(*INDEXED, replace=True)
