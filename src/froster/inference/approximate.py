"""Search without comparing every segment: a graph within each of many cells of the index's vectors
(Lance's IVF_HNSW_SQ), of which the nearest cells are looked into. How many are is chosen by the
answers of the exact search to a sample of queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from froster.errors import UsageError
from froster.inference.store import Store
from froster.inference.tables import INDEXED, LanceTable, lance_errors

CELL = 32_768
"""Segments of a cell, in the mean. Smaller ones are faster to make, and more of them must be looked
into for the same recall (docs/lab.md)."""
PROBES = (8, 16, 24, 32, 64, 128, 256)
"""Cells that may be looked into, until the recall is reached."""
RECALL_AT, GOOD_RECALL, LEAST_RECALL = 10, 0.99, 0.95
PAYS_FROM = 3_000_000
"""Segments; fewer are compared in a second of one core."""
SAMPLED = 32
"""Segments of the index that are taken for queries."""
_SETTING = "froster.probes"


def probes(store: Store) -> int:
    """Cells that a search looks into; 0: there are none, and it is exact."""
    return int(store.table.settings().get(_SETTING, 0))


def search_options(store: Store, exact: bool) -> dict[str, Any]:
    """How Lance searches."""
    cells = 0 if exact else probes(store)
    if not cells:
        return {"use_index": False}
    return {"minimum_nprobes": cells, "maximum_nprobes": cells}


def approximate(store: Store, texts: Float[Tensor, "texts embed"]) -> dict[str, float]:
    """Makes the search index, or makes it anew. Returns the recall at 10 of such texts and of
    segments of the index as queries, against the exact search. Raises UsageError, and leaves
    the search exact, where it is below 0.95."""
    table = store.table
    table.write(lambda: _build(table))
    table.refresh()
    most = max(1, store.segments // CELL)
    rows = np.linspace(0, store.segments - 1, min(store.segments, SAMPLED)).round().astype(int)
    sampled = store.vectors(rows.tolist())
    exact = [closest(store, query, exact=True) for query in (*texts, *sampled)]
    for cells in [*(cells for cells in PROBES if cells < most), most]:
        table.set(_SETTING, str(cells))
        estimated = [closest(store, query, exact=False) for query in (*texts, *sampled)]
        shares = torch.tensor(
            [len(a & b) / len(a) for a, b in zip(exact, estimated, strict=True)]
        ).split([len(texts), len(sampled)])
        recall = {"text": float(shares[0].mean()), "video": float(shares[1].mean())}
        if min(recall.values()) >= GOOD_RECALL:
            break
    if min(recall.values()) >= LEAST_RECALL:
        return {"probes": cells, **recall}
    exactly(store)
    raise UsageError(
        f"{store.folder}: the recall at 10 of estimated answers is {min(recall.values()):.2f} at"
        f" best, less than {LEAST_RECALL}: searches stay exact"
    )


def exactly(store: Store) -> None:
    """Takes the search index away."""
    table = store.table

    def work() -> None:
        for index in table.dataset.describe_indices():
            if index.field_names == ["vector"]:
                table.dataset.drop_index(index.name)
        if _SETTING in table.settings():
            table.dataset.delete_config_keys([_SETTING])

    table.write(work)
    table.refresh()


def closest(store: Store, query: Tensor, exact: bool) -> set[int]:
    """The addresses of the best 10, as a search has them."""
    options = search_options(store, exact)
    return set(store.closest(query, 8 * RECALL_AT, None, **options)[1][:RECALL_AT])


def _build(table: LanceTable) -> None:
    cells = max(1, table.dataset.count_rows() // CELL)
    with lance_errors(table.address):
        table.dataset.create_index(
            *("vector", "IVF_HNSW_SQ"), metric="cosine", num_partitions=cells, replace=True
        )
        table.dataset.create_scalar_index(*INDEXED, replace=True)
