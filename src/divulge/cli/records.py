"""`divulge audit --records`: the table of records one by one, which no report holds, to a file of its own."""

from __future__ import annotations

from pathlib import Path

import click

from divulge import atomic
from divulge.cli import terminal
from divulge.cli.terminal import logger
from divulge.report import Report

SUFFIXES = (".csv", ".parquet")


def check_suffix(path: str) -> None:
    """Refuse what cannot be written before the work.

    Raises:
        click.UsageError: another suffix than those of `SUFFIXES`.

    >>> check_suffix("records.csv")
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--records takes a name that ends in {' or '.join(SUFFIXES)}, got {path}")


def write_records(report: Report, path: str) -> None:
    """Write the table "records" of a report, and warn that it is about persons; what is undefined is left empty.

    Raises:
        InputError: DV035, a place that cannot be written to; DV054, an audit that was not asked for records.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    frame = report.to_frame("records", backend="pyarrow")
    columns = {name: pa.array(frame[name].to_pylist(), from_pandas=True) for name in frame.column_names}
    write = csv.write_csv if Path(path).suffix.lower() == ".csv" else parquet.write_table
    with terminal.writing(Path(path)), atomic.replacing(path) as temporary:
        write(pa.table(columns), temporary)
    logger.warning(
        "wrote %s: one row a record, who was in the training data and who stands out. It names persons: keep it as you "
        "keep the training data, and do not publish it",
        path,
    )
