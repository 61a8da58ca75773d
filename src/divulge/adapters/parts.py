"""Some records of a data set, in order: what an audit during training looks at again and again.

Rows are those of the data set: of a training loader, which shuffles, the data set is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.records import batches, count, origins, split, take
from divulge.errors import InputError

Rows = NDArray[np.int64]


def length(data: Any, size: int, name: str) -> int:
    """How many records a data set holds; one that does not say is read through once.

    Args:
        data: as for `collect`.
        size: records a batch.
        name: of the side, for messages.

    Raises:
        InputError: DV068, data that can be read only once; else as `records.batches`.

    >>> length((np.zeros((5, 2)), np.zeros(5)), 2, "members")
    5
    """
    data = in_order(data)
    if isinstance(data, Iterator):
        raise InputError(
            "DV068",
            f"expected {name} that can be read again at every audit, got a {type(data).__name__}, which is used up "
            "after one. Give (x, y), a data set or a list of batches",
        )
    found = batches(data, size, name)
    return found.total if found.total is not None else sum(count(batch.labels) for batch in found.blocks)


def part(data: Any, rows: Rows, size: int, name: str) -> Any:
    """Some records of a data set, read once, in a form that `collect` reads: (x, y) wherever records are of one shape.

    Args:
        data: as for `collect`.
        rows: (m,) rising.
        size: records a batch.
        name: of the side, for messages.

    >>> part((np.arange(5.0), np.arange(5)), np.array([1, 4]), 2, "members")
    (array([1., 4.]), array([1, 4]))
    """
    data = in_order(data)
    kinds = origins(data)
    stream = ("torch", "IterableDataset") in kinds
    if ("torch", "DataLoader") in kinds or (("torch", "Dataset") in kinds and not stream):
        blocks = [split(batch, name) for batch in _loaded(data, rows, size)]
    elif isinstance(data, Mapping) or (isinstance(data, tuple) and len(data) in (2, 3)):
        inputs, labels = split(data, name)
        return take(inputs, rows), take(labels, rows)
    else:
        start, blocks = 0, []
        for block in batches(data, size, name).blocks:
            stop = start + count(block.labels)
            own = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
            if len(own):
                blocks.append(type(block)(take(block.inputs, own), take(block.labels, own)))
            start = stop
    try:
        return _joined([block.inputs for block in blocks]), _joined([block.labels for block in blocks])
    except _Ragged:
        return [(block.inputs, block.labels) for block in blocks]


def in_order(data: Any) -> Any:
    """What a shuffling DataLoader reads from, as a loader that does not; all else as it is.

    Only where the loader draws from all of its data set: a sampler that leaves records out knows which are members.
    """
    if ("torch", "DataLoader") not in origins(data) or type(data.sampler).__name__ != "RandomSampler":
        return data
    if data.batch_size is None or len(data.sampler) != len(data.dataset):
        return data
    import torch

    return torch.utils.data.DataLoader(
        data.dataset, batch_size=data.batch_size, collate_fn=data.collate_fn, generator=torch.Generator()
    )


def _loaded(data: Any, rows: Rows, size: int) -> Any:
    """Batches of some rows of a torch data set, joined as its own loader would; only these rows are read."""
    import torch

    collate = None
    if ("torch", "DataLoader") in origins(data):
        batches(data, size, "records")  # refuses what is not in order
        size, collate, data = data.batch_size, data.collate_fn, data.dataset
    subset = torch.utils.data.Subset(data, rows.tolist())
    return torch.utils.data.DataLoader(subset, batch_size=size, collate_fn=collate, generator=torch.Generator())


class _Ragged(Exception):
    """Batches that were padded to different widths."""


def _joined(parts: list[Any]) -> Any:
    """Inputs or labels of several batches as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Mapping):
        return {name: _joined([one[name] for one in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(_joined(list(column)) for column in zip(*parts, strict=True))
    if isinstance(first, list):
        return [item for one in parts for item in one]
    if len({tuple(one.shape[1:]) for one in parts}) > 1:
        raise _Ragged
    if origins(first)[0][0] == "torch":
        import torch

        return torch.cat(parts)
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts)
    return np.concatenate([np.asarray(one) for one in parts])
