"""What people keep records in -> batches of (inputs, labels), in order, one batch in memory at a time.

Pairs (x, y) of arrays, tensors, frames or lists; torch's DataLoader and Dataset; tf.data; Keras' PyDataset; sequences
of dicts or of (x, y); an iterable of batches. Kinds are told by the names of their classes: nothing is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.errors import InputError

LABELS = ("labels", "label", "label_ids")


class Batch(NamedTuple):
    """The inputs of b records, as the data gave them, and their labels."""

    inputs: Any
    labels: Any


class Batches(NamedTuple):
    """All batches, and how many records they hold together where the data says."""

    total: int | None
    blocks: Iterator[Batch]


def origins(thing: object) -> list[tuple[str, str]]:
    """(top-level package, name) of an object's class and those that it derives from, its own first.

    >>> origins(True)[:2]
    [('builtins', 'bool'), ('builtins', 'int')]
    """
    return [(str(kind.__module__).partition(".")[0], kind.__name__) for kind in type(thing).__mro__]


def batches(data: Any, size: int, name: str) -> Batches:
    """The records of one side in batches of `size`; a loader keeps its own.

    Args:
        data: see above.
        size: records a batch.
        name: what to call the data in messages.

    Raises:
        InputError: DV004, more inputs than labels; DV072, no labels; DV073, not in order, or not all; DV074, no data
            that this can read.

    >>> found = batches((np.arange(5.0), np.arange(5)), 2, "members")
    >>> found.total, [len(batch.labels) for batch in found.blocks]
    (5, [2, 2, 1])
    """
    kinds = origins(data)
    if ("torch", "DataLoader") in kinds:
        _check_loader(data, name)
        return Batches(_length(data.dataset), _split_each(_loaded(data), name))
    if ("tensorflow", "DatasetV2") in kinds:
        return Batches(None, _split_each(_tensorflow_batches(data, size, name), name))
    if ("keras", "PyDataset") in kinds:
        return Batches(None, _split_each((data[i] for i in range(len(data))), name))
    if ("xgboost", "DMatrix") in kinds or ("catboost", "Pool") in kinds:
        labels = _labelled(data.get_label(), name)
        return Batches(len(labels), iter([Batch(data, labels)]))
    if isinstance(data, Mapping) or (isinstance(data, tuple) and len(data) in (2, 3)):
        inputs, labels = split(data, name)
        n = count(inputs)
        if count(labels) != n:
            raise InputError(
                "DV004", f"{name} has {n:,} inputs and {count(labels):,} labels; expected one label a record, as (x, y)"
            )
        parts = (slice(start, min(start + size, n)) for start in range(0, n, size))
        return Batches(n, (Batch(take(inputs, part), take(labels, part)) for part in parts))
    first = _first(data)
    if first is None:  # neither a sequence nor empty
        return _iterated(data, kinds, size, name)
    pair = isinstance(first, tuple | list) and len(first) > 1
    if pair and ("torch", "Dataset") in kinds:
        return Batches(len(data), _split_each(_loader(data, size), name))
    if isinstance(first, Mapping) or (pair and _is_one(first[1])):
        # Row by row: this is all that a sequence promises.
        rows = ([data[i] for i in range(start, min(start + size, len(data)))] for start in range(0, len(data), size))
        return Batches(len(data), (_collated(part, name) for part in rows))
    if pair and isinstance(data, list):
        return Batches(None, _split_each(data, name))
    raise _unlabelled(data, name)


def split(batch: Any, name: str) -> Batch:
    """Inputs and labels of one batch: (x, y), (x, y, weights), or a mapping with the labels under their name.

    A list of several arrays with a row a label each is the model's several inputs, and becomes a tuple.

    Raises:
        InputError: DV072, there are no labels; DV074, three parts of which the last are no weights.

    >>> split({"input_ids": [[1], [2]], "labels": [0, 1]}, "members").labels
    [0, 1]
    """
    if isinstance(batch, Mapping):
        key = next((key for key in LABELS if batch.get(key) is not None), None)
        if key is not None:
            return Batch({name: value for name, value in batch.items() if name not in LABELS}, batch[key])
    elif isinstance(batch, tuple | list) and len(batch) in (2, 3) and batch[1] is not None:
        if len(batch) == 3 and not _are_weights(batch[2]):
            raise InputError(
                "DV074",
                f"expected for {name} inputs and labels, got three parts, of which the third is no floats: is it "
                "(x, y, weights) or ((x, k), y)? Give weights as floats, or several inputs as one part: ((x, k), y)",
            )
        return Batch(_inputs(batch[0], batch[1]), batch[1])
    raise _unlabelled(batch, name)


def count(inputs: Any) -> int:
    """How many records a batch, or whole inputs, hold.

    >>> count({"a": np.zeros((3, 2)), "b": np.zeros(3)}), count(["one", "two"])
    (3, 2)
    """
    if isinstance(inputs, Mapping):
        return count(next(iter(inputs.values()))) if inputs else 0
    if isinstance(inputs, tuple):
        return count(inputs[0]) if inputs else 0
    if ("xgboost", "DMatrix") in origins(inputs):
        return int(inputs.num_row())
    shape = getattr(inputs, "shape", None)  # a sparse matrix has no len()
    return int(shape[0]) if shape else len(inputs)


def take(inputs: Any, rows: slice | NDArray[np.int64]) -> Any:
    """Some records of inputs of any kind.

    >>> take({"a": np.arange(4), "b": list("abcd")}, np.array([2, 0]))
    {'a': array([2, 0]), 'b': ['c', 'a']}
    """
    if isinstance(inputs, Mapping):
        return {name: take(value, rows) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(take(value, rows) for value in inputs)
    if isinstance(inputs, list):
        return inputs[rows] if isinstance(rows, slice) else [inputs[i] for i in rows.tolist()]
    if hasattr(inputs, "iloc"):
        return inputs.iloc[rows]
    kinds = origins(inputs)
    if ("xgboost", "DMatrix") in kinds or ("catboost", "Pool") in kinds:
        return inputs.slice(np.arange(count(inputs))[rows].tolist())
    if kinds[0][0] == "tensorflow" and not isinstance(rows, slice):
        return inputs.numpy()[rows]  # a tensor of TensorFlow takes no index array
    return inputs[rows]


def _are_weights(part: Any) -> bool:
    """Whether this is None or floats, of any kind of array, or the form of such an array."""
    return part is None or "float" in str(getattr(part, "dtype", None) or np.asarray(part).dtype).lower()


def _inputs(inputs: Any, labels: Any) -> Any:
    """A list of several arrays, each with as many rows as there are labels, as a tuple; all else as it is."""
    if not isinstance(inputs, list) or len(inputs) < 2 or np.ndim(labels) == 0:
        return inputs
    several = all(getattr(part, "shape", None) and part.shape[0] == len(labels) for part in inputs)
    return tuple(inputs) if several else inputs


def _split_each(source: Iterable[Any], name: str) -> Iterator[Batch]:
    for batch in source:
        yield split(batch, name)


def _labelled(labels: Any, name: str) -> Any:
    if labels is None or len(labels) == 0:
        raise InputError("DV072", f"{name} holds no labels; expected one a record. Set its label when you make it")
    return labels


def _unlabelled(data: Any, name: str) -> InputError:
    keys = f" with {sorted(map(str, data))}" if isinstance(data, Mapping) else ""
    return InputError(
        "DV072",
        f"expected {name} with a label for each record: (x, y), batches of (x, y), or dicts with 'labels'; got "
        f"{type(data).__name__}{keys} without labels. "
        "Attacks compare what the model says of the true class: give the labels too",
    )


def _check_loader(loader: Any, name: str) -> None:
    """Refuse a DataLoader that changes the order of its data set or leaves records out."""
    batches = loader.batch_sampler  # None: the data set gives whole batches
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", batches)
    own = type(sampler).__name__ not in ("SequentialSampler", "_InfiniteConstantSampler")
    n = _length(loader.dataset)
    dropped = getattr(batches, "drop_last", False) and (n is None or n % batches.batch_size > 0)
    if not own and not dropped:
        return
    got = f"one with {type(sampler).__name__}" if own else "one with drop_last=True"
    raise InputError(
        "DV073",
        f"expected for {name} a DataLoader that gives every record once, in the order of its data set; got {got}. "
        "Training loaders shuffle, so ids and columns would belong to other records. Give the data set itself "
        "(loader.dataset), or DataLoader(loader.dataset, batch_size=…, shuffle=False)",
    )


def _loaded(loader: Any) -> Iterator[Any]:
    import torch

    # An iterator draws a seed from the global generator: training goes on as if nothing had been read.
    with torch.random.fork_rng(devices=[]):
        batches = iter(loader)
    yield from batches


def _loader(data: Any, size: int) -> Iterator[Any]:
    import torch

    return _loaded(torch.utils.data.DataLoader(data, batch_size=size))


def _tensorflow_batches(data: Any, size: int, name: str) -> Iterable[Any]:
    stages = [data]
    for stage in stages:
        stages += stage._inputs()  # what it is made from: tf.data has no public way to ask whether it shuffles
        if "Shuffle" in type(stage).__name__:
            raise InputError(
                "DV073",
                f"expected for {name} a tf.data.Dataset in a fixed order, got one that shuffles: ids and columns would "
                "belong to other records. Give the data set before .shuffle(…)",
            )
    if int(data.cardinality()) == -1 or any("Repeat" in type(stage).__name__ for stage in stages):
        raise InputError(
            "DV073",
            f"expected for {name} a tf.data.Dataset that gives every record once, got one that repeats or never ends. "
            "Give the data set before .repeat(…)",
        )
    if not _are_batches(data.element_spec, [type(stage).__name__ for stage in stages], name):
        data = data.batch(size)
    batches: Iterable[Any] = data.as_numpy_iterator()
    return batches


def _are_batches(spec: Any, stages: list[str], name: str) -> bool:
    """Whether the elements of a tf.data.Dataset are batches, and not single records.

    Args:
        spec: of an element.
        stages: what the data set is made by, the last first.
        name: of the side, for messages.
    """
    import tensorflow as tf

    inputs, labels = split(spec, name)
    shapes: list[Any] = [getattr(part, "shape", None) for part in tf.nest.flatten((inputs, labels))]
    shapes = [shape for shape in shapes if shape is not None and shape.rank is not None]
    if any(shape.rank == 0 for shape in shapes):
        return False
    rows = {shape[0] for shape in shapes}
    if len(rows - {None}) > 1:  # features and one-hot classes of a record
        return False
    batching = next((stage for stage in stages if "batch" in stage.lower()), None)
    if batching is not None:
        return "Unbatch" not in batching
    if rows <= {None}:
        return True
    if None not in rows and all(shape.rank == 1 for shape in shapes):
        if any("TensorSlice" in stage for stage in stages):  # as many features as classes
            return False
        raise InputError(
            "DV074",
            f"expected for {name} batches or records, got elements whose inputs and labels are both of shape "
            f"{tuple(shapes[0])}: of one record or of as many? Give records with .batch(32)",
        )
    return None not in rows


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # a stream
        return None


def _first(data: Any) -> Any:
    """The first item of a sequence; None for what is none, or empty."""
    if isinstance(data, str | bytes) or not hasattr(data, "__getitem__") or not _length(data):
        return None
    try:
        return data[0]
    except (KeyError, IndexError, TypeError, NotImplementedError):
        return None


def _is_one(label: Any) -> bool:
    """Whether this is the label of one record, not of a batch."""
    return isinstance(label, str) or np.ndim(label) == 0


def _iterated(data: Any, kinds: list[tuple[str, str]], size: int, name: str) -> Batches:
    if ("torch", "Dataset") in kinds:  # a stream of records
        return Batches(None, _split_each(_loader(data, size), name))
    if _length(data) == 0:
        return Batches(0, iter(()))
    if isinstance(data, Iterator):
        return Batches(None, _split_each(data, name))
    if kinds[0][0] in ("numpy", "pandas", "polars", "scipy") or isinstance(data, str | bytes):
        raise _unlabelled(data, name)
    if isinstance(data, Iterable):
        return Batches(None, _split_each(data, name))
    raise InputError(
        "DV074",
        f"{name} is a {kinds[0][0]} {type(data).__name__}, expected (x, y), a DataLoader, a Dataset, a sequence of "
        "records or an iterable of batches. Give (x, y) arrays",
    )


def _collated(rows: list[Any], name: str) -> Batch:
    """Records of a sequence as one batch; dicts stay a list of dicts, which the model's own collator joins."""
    parts = [split(row, name) for row in rows]
    labels = [part.labels for part in parts]
    inputs = [part.inputs for part in parts]
    first = inputs[0]
    if isinstance(first, tuple | list) and len(first) > 1 and all(getattr(one, "shape", None) for one in first):
        return Batch(tuple(_stacked(list(column)) for column in zip(*inputs, strict=True)), labels)
    if isinstance(first, str | Mapping):
        return Batch(inputs, labels)
    return Batch(_stacked(inputs), labels)


def _stacked(inputs: list[Any]) -> Any:
    if origins(inputs[0])[0][0] == "torch":
        import torch

        return torch.stack(inputs)
    return np.stack([np.asarray(one) for one in inputs])
