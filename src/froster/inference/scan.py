"""The exact search of an index on this machine: its vectors are read as they lie in Lance's files
and multiplied a block at a time. Lance's own search copies each vector on its way, which is most of
its time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from froster.errors import DataError
from froster.inference.tables import LanceTable, lance_errors

if TYPE_CHECKING:
    from lance.fragment import LanceFragment

_ALONE = Lock()
"""PyTorch's number of threads is the process's, and a search changes it for a while."""
_BLOCK, _PART = 256, 65_536
"""Rows that a thread multiplies at once (512 numbers each, as float32, stay in its cache), and that
it takes over."""


def all_scores(
    table: LanceTable, query: Float[Tensor, " embed"]
) -> tuple[Float[Tensor, " rows"], np.ndarray] | None:
    """The products of the vectors of all rows with a query, and the rows' addresses, in the order
    of the rows. None where the vectors do not lie one after the other in files of this machine; in
    Lance's format 2.2 those of 256 bytes and more do. Raises DataError where a file cannot be
    read."""
    if "://" in table.address:
        return None
    addresses = table.rows(())["_rowaddr"].to_numpy()
    with lance_errors(table.address):
        fragments = table.dataset.get_fragments()
        pages = [list(_pages(table, fragment)) for fragment in fragments]
    kind = table.schema.field("vector").type
    width = kind.list_size * kind.value_type.bit_width // 8
    counts = [fragment.physical_rows for fragment in fragments]
    sizes = [sum(size for *_, size in of_fragment) for of_fragment in pages]
    if sizes != [count * width for count in counts]:
        return None
    number = torch.float16 if kind.value_type.bit_width == 16 else torch.float32
    empty = partial(torch.empty, _BLOCK, kind.list_size, dtype=number)
    parts = [
        (file, position + at, min(_PART * width, size - at))
        for file, position, size in itertools.chain.from_iterable(pages)
        for at in range(0, size, _PART * width)
    ]
    with _ALONE:
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                scores = list(pool.map(partial(_products, empty=empty, query=query), parts))
        finally:
            torch.set_num_threads(threads)  # for threads to come
    firsts = np.cumsum([0, *counts])[:-1]
    places = {
        fragment.fragment_id: first for fragment, first in zip(fragments, firsts, strict=True)
    }
    owners, of_row = np.unique(addresses >> 32, return_inverse=True)
    kept = np.array([places[owner] for owner in owners], np.int64)[of_row]
    kept += (addresses & 0xFFFFFFFF).astype(np.int64)
    return torch.cat([torch.empty(0), *scores])[torch.from_numpy(kept)], addresses


def _pages(table: LanceTable, fragment: LanceFragment) -> Iterator[tuple[str, int, int]]:
    """The file, the place in it and the size of each part of a fragment's vectors, if they lie
    there as they are."""
    from lance.file import LanceFileReader

    number = table.dataset.lance_schema.field("vector").id()
    if fragment.metadata.overlays:  # newer values that lie elsewhere
        return
    for file in fragment.data_files():
        if number in file.fields:
            path = os.path.join(table.address, "data", file.path)
            column = file.column_indices[file.fields.index(number)]
            for page in LanceFileReader(path).metadata().columns[column].pages:
                if len(page.buffers) == 1:
                    yield path, page.buffers[0].position, page.buffers[0].size


def _products(
    part: tuple[str, int, int], empty: Callable[[], Tensor], query: Tensor
) -> Float[Tensor, " rows"]:
    """Of the vectors that lie there in a file, read into an `empty` block again and again."""
    (file, position, size), stored = part, empty()
    buffer = stored.numpy().data.cast("B")
    width = len(buffer) // len(stored)
    block = torch.empty(stored.shape)
    scores = torch.empty(size // width)
    try:
        with open(file, "rb", buffering=0) as opened:
            opened.seek(position)
            for some in scores.split(len(stored)):
                count, have = len(some), 0
                while have < count * width:
                    if not (more := opened.readinto(buffer[have : count * width])):
                        raise DataError(f"{file}: cut short")
                    have += more
                torch.mv(block[:count].copy_(stored[:count]), query, out=some)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return scores
