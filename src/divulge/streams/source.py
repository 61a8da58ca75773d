"""What a stream is read from, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from divulge.controls import SAMPLE
from divulge.doors.tables import Overrides
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.streams.batches import BLOCK, is_table


@dataclass(frozen=True)
class Stream:
    """Records to be read once: `audit(Stream("folder"))`.

    Attributes:
        source: a folder of Parquet files, files, or an iterable of blocks of one table, either side or both: Evidence,
            or Arrow's record batches and what else speaks its protocol; one such table is a block. An iterable that
            gives one side first is held in memory until the other comes.
        columns: what is in which column, as `Evidence.from_table` takes it; not of blocks of Evidence.
        workers: threads that read and count; None: as many as cores. On Ray: tasks at a time; None: as it has CPUs.
        engine: "threads", or where Ray runs: "ray", "ray://host:port"; files only.
        checkpoint: a file that keeps what was counted, by file: after a stop the same call goes on from there. None:
            nothing is kept.
        skip_bad_files: leave out files that cannot be read, and say so in the report; else they end the run, with all
            others counted and kept where there is a checkpoint.
        sample: rows a side that are kept, at random, for the controls and for the table of records; there a record
            without an id has its place in the sample.
        block: rows that a worker counts at a time.

    The report is the same whatever the files, blocks, workers and orders, but for what is learned from a sketch, some
    of the first rows of up to 16 row groups, and so is other where files are cut otherwise: fits of attacks, cut points
    of quantiles and of numeric columns with over 20 values. A row's half is its hash's, also where rows are few; of
    rows without ids whose contents repeat, that of its file and number.

    >>> import tempfile
    >>> import numpy as np
    >>> from divulge import Evidence, audit
    >>> n = np.arange(2000)
    >>> leaky = Evidence(member=n < 1000, signals={"loss": np.sin(n * n) + 0.2 * (n < 1000)}, ids=n)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(4):
    ...         leaky.take(slice(500 * part, 500 * part + 500)).save(f"{folder}/{part}.parquet")
    ...     round(audit(Stream(folder), controls=()).score.value, 1)
    0.2
    """

    source: str | PathLike[str] | Iterable[str | PathLike[str]] | Iterable[Any]
    columns: Overrides = field(default_factory=Overrides)
    workers: int | None = None
    engine: str = "threads"
    checkpoint: str | PathLike[str] | None = None
    skip_bad_files: bool = False
    sample: int = SAMPLE
    block: int = BLOCK

    def __post_init__(self) -> None:
        if not (self.engine in ("threads", "ray") or self.engine.startswith("ray://")):
            raise InputError("DV056", f"expected the engine threads, ray or ray://host:port, got {self.engine!r:.80}")
        if not isinstance(self.columns, Overrides):
            hint = "divulge.doors.tables.Overrides(member=…, label=…, …)"
            raise InputError("DV056", f"expected columns={hint}, got {type(self.columns).__name__}")
        if not (isinstance(self.source, str | PathLike | Evidence | Iterable) or is_table(self.source)):
            kinds = "a folder, Parquet files, or blocks of Evidence or tables"
            raise InputError("DV056", f"expected {kinds}, got {type(self.source).__name__}")
        for name in ("workers", "sample", "block"):
            number = getattr(self, name)
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not (number is None and name == "workers") and (not whole or number < 1):
                raise InputError("DV056", f"expected {name} from 1 up, got {number!r:.80}")
