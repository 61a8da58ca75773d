"""The table that all of divulge reads: one row a record, members and non-members together.

Left of `Evidence` code touches models, files and frames; right of it only these arrays. What people have is
normalised once, at the doors (`Evidence.from_splits`, `.from_table`, `.load`), so nothing inside guesses
again.

Axes: r models, n rows, q queries per row, c classes, e epochs, d features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.errors import InputError

Task = Literal["multiclass", "binary", "multilabel", "regression", "unlabelled", "signals"]
Kind = Literal["logits", "probs"]
Source = Literal["trained", "cv", "bagging", "base", "outputs"]


@dataclass(frozen=True, eq=False, slots=True, repr=False, kw_only=True)
class References:
    """What models trained with and without each record say about it.

    Attributes:
        signals: name -> (r, n, q) float32, higher = more member-like; "log_odds", "log_prob@T=2" …; may be
            memory-mapped.
        target: name -> (n, q), the target model's own; only for q > 1 or what the outputs cannot give.
        trained_on: (r, n) bool, whether model r was trained on row n.
        source: where they come from. "cv": a row is the model of the fold that left the record out, so that rows share
            fits; "bagging": from lists that name the members, a diagnostic that no attack may use; "base": the
            checkpoint that the target started from.

    Raises:
        InputError: DV003, a wrong shape, dtype or source; DV004, axes that differ in length.

    >>> signals = {"log_odds": np.zeros((4, 10, 1), np.float32)}
    >>> References(signals=signals, trained_on=np.ones((4, 10), bool)).take([0, 3]).trained_on.shape
    (4, 2)
    """

    signals: Mapping[str, NDArray[Any]]
    target: Mapping[str, NDArray[Any]] | None = None
    trained_on: NDArray[np.bool_]
    source: Source = "trained"

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise InputError("DV003", f"source is {self.source!r:.80}, expected one of {', '.join(get_args(Source))}.")
        object.__setattr__(self, "signals", dict(self.signals))
        object.__setattr__(self, "target", None if self.target is None else dict(self.target))
        _check_array("references.trained_on", self.trained_on, (2,), boolean=True)
        for name, array in self.signals.items():
            _check_array(f"references.signals[{name!r}]", array, (3,))
            if array.shape[:2] != self.trained_on.shape:
                raise InputError(
                    "DV004",
                    f"references.signals[{name!r}] has shape {array.shape}, (r, n, q) with r, n = "
                    f"{self.trained_on.shape} expected, as in trained_on.",
                )
        for name, array in (self.target or {}).items():
            _check_array(f"references.target[{name!r}]", array, (2,))
            _check_lengths({"trained_on": len(self), f"target[{name!r}]": len(array)})

    def __len__(self) -> int:
        """The number of rows, n."""
        return int(self.trained_on.shape[1])

    def __repr__(self) -> str:
        return f"References({self.trained_on.shape[0]} models, {len(self):,} rows, signals={list(self.signals)})"

    def take(self, rows: ArrayLike | slice) -> References:
        """The same models' words about some of the rows; see `Evidence.take`."""
        index = _row_index(rows, len(self))
        return References(
            signals={name: array[:, index] for name, array in self.signals.items()},
            target=_taken(self.target, index),
            trained_on=self.trained_on[:, index],
            source=self.source,
        )


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Evidence:
    """Members and non-members of one model's training set, and what the model says about them.

    Attributes:
        member: (n,) bool, True where the record was in the training set.
        labels: (n,) int64 in 0..c-1 | (n, c) bool (multi-label) | (n,) float (regression) | None.
        outputs: (n, c) float | (n,) binary | (n,) or (n, 2) regression (mean, standard deviation) | None; in
            the dtype it came in.
        kind: "logits" | "probs"; None for regression and where there are no outputs.
        signals: name -> (n,) float, higher = more member-like (a door negated loss, nll, entropy,
            perplexity).
        columns: name -> (n,) bool, int, float (NaN = missing) or text ("" = missing), to slice by.
        features: (n, d) float, the model's inputs | None.
        ids: (n,) int or text, the record | None.
        groups: (n,) int or text, the person or household | None.
        references: `References` over the same rows | None.
        traces: (n, e) float, loss per epoch | None.
        classes: the names of the output columns (or, without outputs, of the label codes); None means
            "0".."c-1".

    The constructor takes what is already normalised and checks shapes only; people enter by a door.

    Raises:
        InputError: DV003, a wrong shape or dtype; DV004, lengths that differ.

    >>> evidence = Evidence(np.array([True, False]), outputs=np.zeros((2, 3)), kind="logits")
    >>> len(evidence), evidence.task
    (2, 'unlabelled')
    """

    member: NDArray[np.bool_]
    _: KW_ONLY
    labels: NDArray[Any] | None = None
    outputs: NDArray[Any] | None = None
    kind: Kind | None = None
    signals: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    features: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    references: References | None = None
    traces: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # A copy, so that the caller's mapping can change without this evidence changing. Not a
        # MappingProxyType: that cannot be pickled, and evidence travels to other processes.
        object.__setattr__(self, "signals", dict(self.signals))
        object.__setattr__(self, "columns", dict(self.columns))
        _check_array("member", self.member, (1,), boolean=True)
        for name, array, dimensions in self._arrays():
            _check_array(name, array, dimensions)
        lengths = {name: len(array) for name, array, _ in self._arrays()}
        if self.references is not None:
            lengths["references"] = len(self.references)
        _check_lengths({"member": len(self), **lengths})
        self._check_kind()

    def __len__(self) -> int:
        """The number of rows, n."""
        return len(self.member)

    def __repr__(self) -> str:
        return f"Evidence({len(self):,} rows, {int(self.member.sum()):,} members, {self.task})"

    @property
    def task(self) -> Task:
        """What the rows hold: "signals" without outputs, "unlabelled" without labels, else what labels are.

        >>> Evidence(np.array([True, False]), signals={"loss": np.array([-0.1, -0.7])}).task
        'signals'
        """
        if self.outputs is None:
            return "signals"
        if self.labels is None:
            return "unlabelled"
        if self.kind is None:
            return "regression"
        if self.labels.ndim == 2:
            return "multilabel"
        return "binary" if self.outputs.ndim == 1 else "multiclass"

    def take(self, rows: ArrayLike | slice) -> Evidence:
        """The evidence of some rows, every field of it, in the order asked for.

        Args:
            rows: (m,) int indices, (n,) bool mask, or a slice (which copies nothing).

        Raises:
            InputError: DV004, a mask that is not n long; DV003, neither ints, bools nor a slice.

        >>> evidence = Evidence(np.array([True, True, False]), signals={"loss": np.array([0.1, 0.2, 0.3])})
        >>> evidence.take([2, 0]).signals["loss"].tolist()
        [0.3, 0.1]
        """
        index = _row_index(rows, len(self))
        return replace(self, **{f.name: _taken(getattr(self, f.name), index) for f in fields(self)})

    @classmethod
    def from_splits(
        cls,
        members: Mapping[str, object],
        nonmembers: Mapping[str, object] | None = None,
        *,
        columns: Mapping[str, tuple[object, object]] | None = None,
        classes: Sequence[object] | None = None,
        lower_is_member: Sequence[str] = (),
    ) -> Evidence:
        """Evidence from two mappings of arrays, or from one in TF Privacy's names (`logits_train` …).

        Args:
            members: arrays of any kind, each m long, under the keys logits probs predictions labels loss nll
                entropy perplexity features ids groups traces signals columns; the last two are mappings
                themselves. loss, nll, entropy and perplexity are low for members, so they are negated;
                `signals` are taken as they are.
                predictions: (m,) or (m, 2) mean and standard deviation of a regression.
            nonmembers: the same keys, each as long as there are non-members.
            columns: name -> (members' values, non-members' values), to slice by.
            classes: the c label values in the order of the output columns; needed where labels are neither
                0..c-1 nor c distinct texts in sorted order. Binary: (the value for 0, the value for 1).
            lower_is_member: names under `signals` that are low for members; they are negated.

        Raises:
            InputError: DV001 to DV024; `divulge explain CODE` says more of each.

        >>> members = {"logits": [[2.0, 0.0], [0.0, 3.0]], "labels": [0, 1]}
        >>> evidence = Evidence.from_splits(members, {"logits": [[1.0, 0.0]], "labels": [0]})
        >>> evidence.labels.tolist(), int(evidence.member.sum())
        ([0, 1, 0], 2)
        """
        from divulge.doors.splits import read_splits

        return read_splits(members, nonmembers, columns=columns or {}, classes=classes, lower_is_member=lower_is_member)

    @classmethod
    def from_table(
        cls,
        frame: object,
        *,
        member: str | None = None,
        label: str | None = None,
        id: str | None = None,
        group: str | None = None,
        outputs: str | Sequence[str] | None = None,
        kind: str | None = None,
        columns: Sequence[str] | None = None,
        classes: Sequence[object] | None = None,
        member_values: Sequence[object] = (),
        nonmember_values: Sequence[object] = (),
        lower_is_member: Sequence[str] = (),
    ) -> Evidence:
        """Evidence from one table with a column that tells members from non-members; rows keep their order.

        Columns map themselves by name and the mapping is logged: split | member | is_member | in_train; label
        | labels | y | y_true | target; logits | probs | probabilities | prediction(s) as lists, or logit_0 …,
        prob_0 …, proba_<class>; loss nll entropy perplexity; signal_<name>; id(s); group(s); features or
        feature_<i>; traces or trace_<e>. All others become slicing columns.

        Args:
            frame: a pandas, polars, pyarrow or other frame that narwhals reads, or a mapping of names to
                arrays.
            member: the column that tells the sides apart. Members: train, member, in, 1, true; non-members:
                test, holdout, nonmember, non-member, out, 0, false.
            label: the label column.
            id: the record column.
            group: the column of persons or households.
            outputs: the output column (lists), or one column a class in order.
            kind: what the outputs are: "logits", "probs" or "predictions".
            columns: the slicing columns; None: all that are left.
            classes: as in `from_splits`.
            member_values: more words for members.
            nonmember_values: more words for non-members; "val" is one only if named here.
            lower_is_member: as in `from_splits`.

        Raises:
            InputError: DV001 to DV024; `divulge explain CODE` says more of each.

        >>> table = {"split": ["train", "train", "test"], "loss": [0.1, 0.2, 0.9], "age": [30, 40, 50]}
        >>> evidence = Evidence.from_table(table)
        >>> evidence.signals["loss"].tolist(), list(evidence.columns)
        ([-0.1, -0.2, -0.9], ['age'])
        """
        from divulge.doors.tables import Overrides, read_table

        overrides = Overrides(
            member,
            label,
            id,
            group,
            outputs,
            kind,
            columns,
            classes,
            member_values,
            nonmember_values,
            lower_is_member,
        )
        return read_table(frame, overrides)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        member: str | None = None,
        label: str | None = None,
        id: str | None = None,
        group: str | None = None,
        outputs: str | Sequence[str] | None = None,
        kind: str | None = None,
        columns: Sequence[str] | None = None,
        classes: Sequence[object] | None = None,
        member_values: Sequence[object] = (),
        nonmember_values: Sequence[object] = (),
        lower_is_member: Sequence[str] = (),
    ) -> Evidence:
        """Evidence from a .npz, .csv or .parquet file or a folder of .parquet files.

        A .npz holds what `save` wrote, or one array a column as in `from_table`, or pairs in TF Privacy's
        names (`logits_train`, `logits_test` …). It is never unpickled. The other arguments are
        `from_table`'s.

        Raises:
            InputError: DV030 to DV033, a file that is missing, unknown, damaged or pickled; else as
                `from_table`.

        >>> import tempfile
        >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-0.1, -0.7])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     evidence.save(folder + "/evidence.npz")
        ...     len(Evidence.load(folder + "/evidence.npz"))
        2
        """
        from divulge.doors.tables import Overrides
        from divulge.files import load

        overrides = Overrides(
            member,
            label,
            id,
            group,
            outputs,
            kind,
            columns,
            classes,
            member_values,
            nonmember_values,
            lower_is_member,
        )
        return load(path, overrides)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to .npz (everything), .parquet (all but references) or .csv (as .parquet, without dtypes).

        The file is written beside its place and renamed, so a killed run leaves the old one or the new one.

        Raises:
            InputError: DV031, another suffix; DV034, what this format cannot carry; DV035, a place not
                writable.

        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Evidence(np.array([True, False]), signals={"x": np.array([1.0, 0.0])}).save(folder + "/x.csv")
        ...     len(os.listdir(folder))
        1
        """
        from divulge.files import save

        save(self, path)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any], tuple[int, ...]]]:
        """Name, array and allowed numbers of dimensions of every array but `member`."""
        single = {
            "labels": (1, 2),
            "outputs": (1, 2),
            "features": (2,),
            "ids": (1,),
            "groups": (1,),
            "traces": (2,),
        }
        for name, dimensions in single.items():
            if (array := getattr(self, name)) is not None:
                yield name, array, dimensions
        for name, array in self.signals.items():
            yield f"signals[{name!r}]", array, (1,)
        for name, array in self.columns.items():
            yield f"columns[{name!r}]", array, (1,)

    def _check_kind(self) -> None:
        if self.kind not in ("logits", "probs", None):
            raise InputError("DV003", f"kind is {self.kind!r}, expected 'logits', 'probs' or None (regression).")
        if self.kind is not None and self.outputs is None:
            raise InputError("DV003", f"kind is {self.kind!r} but there are no outputs. Pass outputs=, or kind=None.")
        if self.task == "regression" and self.outputs is not None and self.outputs.shape[1:] not in ((), (2,)):
            raise InputError(
                "DV003",
                f"outputs of a regression: expected (n,) or (n, 2) mean and standard deviation, got "
                f"{self.outputs.shape}. Several targets: audit them one by one.",
            )
        if self.classes is None or self.outputs is None or self.kind is None:
            return
        width = 2 if self.outputs.ndim == 1 else self.outputs.shape[1]
        if len(self.classes) != width:
            raise InputError("DV023", f"classes has {len(self.classes)} names, the outputs tell {width} classes apart.")


def _check_array(name: str, array: object, dimensions: tuple[int, ...], *, boolean: bool = False) -> None:
    expected = f"a numpy array{' of bool' if boolean else ''} with {' or '.join(map(str, dimensions))} dimension(s)"
    if not isinstance(array, np.ndarray):
        raise InputError(
            "DV003",
            f"{name} is a {type(array).__name__}, expected {expected}. Evidence.from_splits takes any kind.",
        )
    if array.ndim not in dimensions or (boolean and array.dtype != np.bool_):
        raise InputError("DV003", f"{name} is {array.dtype} of shape {array.shape}, expected {expected}.")


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise InputError(
            "DV004",
            "lengths differ: " + ", ".join(f"{name} has {n:,} rows" for name, n in lengths.items()) + ".",
        )


def _row_index(rows: ArrayLike | slice, n: int) -> NDArray[np.int64] | slice:
    """One index for every field, so that a mask is counted out once."""
    if isinstance(rows, slice):
        return rows
    index = np.asarray(rows)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "biu"):
        raise InputError(
            "DV003",
            f"rows to take are {index.dtype} of shape {index.shape}, expected (m,) int or ({n},) bool.",
        )
    if index.dtype.kind == "b":
        _check_lengths({"evidence": n, "mask": len(index)})
        return np.flatnonzero(index)
    return index.astype(np.int64, copy=False)


def _taken(value: Any, index: NDArray[np.int64] | slice) -> Any:
    if isinstance(value, np.ndarray):
        return value[index]
    if isinstance(value, References):
        return value.take(index)
    if isinstance(value, Mapping):
        return {name: array[index] for name, array in value.items()}
    return value
