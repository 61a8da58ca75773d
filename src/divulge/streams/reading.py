"""A stream read once: its blocks counted on threads or on Ray, and the tallies added up, by file."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from threading import Event
from typing import Any

from divulge.blocks import alone, cores, one_thread_each
from divulge.doors.assemble import check_alike
from divulge.doors.tables import Overrides
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.report import Row
from divulge.streams.batches import Part, blocks_of, is_table, listed, of_tables, parts_of, sketched
from divulge.streams.checkpoints import Checkpoint, asked_of
from divulge.streams.dealing import Block, placed, unplaced
from divulge.streams.sketches import joined
from divulge.streams.source import Stream
from divulge.streams.tally import NO_BOUNDS, Bounds, Plan, Tally, Total, added

logger = logging.getLogger("divulge")

SKETCHED = 1 << 20  # rows of an iterator that are looked at before the first is counted
SAVE_EVERY = 30.0  # seconds between two checkpoints

Progress = Callable[[int, int, str], None]
Planned = Callable[[Evidence], tuple[Plan, list[Row]]]


@dataclass
class Found:
    """What a stream gave. tally: of all blocks; None where there were none. left_out: files and why."""

    sketch: Evidence
    plan: Plan
    statuses: list[Row]
    tally: Tally | None
    files: int
    left_out: dict[str, str]


def read(stream: Stream, planned: Planned, tell: Progress) -> Found:
    """All that a stream holds, counted.

    Args:
        stream: what to read, and how.
        planned: makes the plan from a sketch, and says how attacks fared that cannot run.
        tell: called with (rows done, all rows, what is being done).

    Raises:
        InputError: a file or block that cannot be read, or does not fit the others.
    """
    source: Any = [stream.source] if isinstance(stream.source, Evidence) or is_table(stream.source) else stream.source
    if isinstance(source, str | PathLike):
        return _read_files(stream, [source], planned, tell)
    items = iter(source)
    first = next(items, None)
    if isinstance(first, Evidence):
        return _read_blocks(stream, itertools.chain([first], items), planned, tell)
    if first is None or isinstance(first, str | PathLike):
        return _read_files(stream, [] if first is None else [first, *items], planned, tell)
    return _read_blocks(stream, of_tables(itertools.chain([first], items), stream.columns), planned, tell)


def _read_blocks(stream: Stream, blocks: Iterator[Evidence], planned: Planned, tell: Progress) -> Found:
    if stream.checkpoint is not None or stream.engine != "threads":
        raise InputError("DV056", "a checkpoint, and another engine than threads, are for Parquet files only")
    seen: list[Evidence] = []
    members = rows = 0
    for block in blocks:
        _check_block(block, seen)
        seen.append(block)
        members += int(block.member.sum())
        rows += len(block)
        if rows >= SKETCHED and 0 < members < rows:
            break
    else:
        if not 0 < members < rows:
            raise one_sided(members, rows - members)
    firsts = [Block(replace(one, references=None), f"block {at}", 0) for at, one in enumerate(seen)]
    sketch = joined([placed(block.rows, block.places) for block in firsts])
    plan, statuses = planned(sketch)
    numbered = enumerate(itertools.chain(seen, blocks))
    done, start = 0, time.monotonic()
    total: Tally | None = None

    def counted(item: tuple[int, Evidence], stop: Event) -> Tally | None:
        at, block = item
        if at >= len(seen):
            _check_block(block, seen)
        starts = range(0, len(block), stream.block)
        parts = (Block(block.take(slice(row, row + stream.block)), f"block {at}", row) for row in starts)
        return added(plan, _until(stop, parts), NO_BOUNDS if total is None else total.bounds)

    filled = ((at, block) for at, block in numbered if not isinstance(block, Evidence) or len(block))
    with closing(_threaded(counted, filled, stream.workers or cores())) as tallies:
        for tally in tallies:
            total = tally if total is None else total + tally
            done += int(tally.rows.sum())
            tell(0, 1, f"{done:,} records, {_rate(done, start)}")
    return Found(unplaced(sketch), plan, statuses, total, 0, {})


def one_sided(members: int, nonmembers: int) -> InputError:
    """The error for so many records of either side."""
    text = f"{members:,} members and {nonmembers:,} non-members came in, and an audit compares the two."
    return InputError("DV005", text)


def _check_block(block: object, seen: Sequence[Evidence]) -> None:
    if not isinstance(block, Evidence):
        raise InputError("DV056", f"expected blocks of Evidence, got {type(block).__name__}")
    if block.references is not None:
        raise InputError("DV018", "a block has reference models, which a stream cannot use: audit those records alone")
    if seen:
        check_alike(block, seen[0])


def _read_files(stream: Stream, source: Sequence[Any], planned: Planned, tell: Progress) -> Found:
    files = listed(source)
    names = {file: file.name for file in files}
    if len(set(names.values())) < len(files):
        names = {file: file.absolute().as_posix() for file in files}
    keys = {file: file.absolute().as_posix() for file in files}  # of the checkpoint: whichever other files there are
    stamps: dict[str, tuple[int, int]] = {}
    bad: dict[Path, InputError] = {}
    parts: dict[Path, list[Part]] = {}
    for file in files:
        stamps[keys[file]] = Checkpoint.stamp(file)
        try:
            parts[file] = parts_of(file)
        except InputError as error:
            bad[file] = _of_file(error, file)
            _fail_early(stream, bad)
    if not parts:
        raise next(iter(bad.values()))
    kept = None if stream.checkpoint is None else Checkpoint.load(stream.checkpoint)
    sketch = (
        kept.sketch if kept is not None else sketched([part for of in parts.values() for part in of], stream.columns)
    )
    plan, statuses = planned(sketch)
    asked = "" if stream.checkpoint is None else asked_of(plan, stream.columns)
    if kept is not None:
        kept.check(asked, stamps)
    total = Total() if kept is None else Total(kept.tally, kept.files)
    left = {file: of for file, of in parts.items() if keys[file] not in total.of}
    rows = {file: sum(part.rows for part in of) for file, of in parts.items()}
    before, whole = sum(rows[file] for file in parts if file not in left), sum(rows.values())
    done, start, saved = before, time.monotonic(), time.monotonic()
    missing = Counter({file: len(of) for file, of in left.items()})
    begun: dict[Path, Total] = {}
    warned = False

    def bounds(part: Part) -> Bounds:
        """By what will be counted if this part is: finished files and the part's own."""
        of_file = begun.get(part.file)
        return total.bounds if of_file is None else total.bounds.lower(of_file.bounds)

    def save() -> None:
        if stream.checkpoint is not None:
            tally = total.settled()
            Checkpoint(sketch, asked, tally, total.of).save(stream.checkpoint)

    if kept is None:
        save()  # a place that cannot be written to is told of now, not in an hour
    tallies = _tallies(stream, plan, sketch, [part for of in left.values() for part in of], bad, bounds)
    try:
        total.of |= {keys[file]: stamps[keys[file]] for file in left if not missing[file]}  # of no rows
        for counted, result in tallies:  # parts of this file, or of several whole ones
            file = counted[0].file
            if isinstance(result, InputError):
                bad.setdefault(file, _of_file(result, file))
                begun.pop(file, None)
                _fail_early(stream, bad)
                continue
            if file in bad:
                continue
            missing.subtract(part.file for part in counted)
            if missing[file] or file in begun:  # a part of a file
                begun.setdefault(file, Total()).add(result)
            tally = None if missing[file] else begun.pop(file, Total(result)).settled()
            if tally is not None:
                total.add(tally, {keys[part.file]: stamps[keys[part.file]] for part in counted})
            done += sum(part.rows for part in counted)
            tell(done, max(whole, 1), f"{done:,} of {whole:,} records, {_rate(done - before, start)}")
            if time.monotonic() - saved > SAVE_EVERY:
                warned = _saved_or_said(save, warned)
                saved = time.monotonic()
    finally:
        try:
            save()
        finally:
            tallies.close()  # now, not once the error is forgotten that stopped it
    tally = total.settled()
    if bad and (tally is None or not stream.skip_bad_files):
        raise _said_bad(bad, stream)
    return Found(
        unplaced(sketch),
        plan,
        statuses,
        tally,
        len(total.of),
        {names[file]: error.message for file, error in bad.items()},
    )


def _saved_or_said(save: Callable[[], None], warned: bool) -> bool:
    """Save, or warn where there was no warning yet: the disk may have room again at the end. Whether there was one."""
    try:
        save()
    except InputError as error:
        if error.code != "DV035":
            raise
        if not warned:
            logger.warning("%s Counting goes on, and saving is tried again; so far the last checkpoint stays.", error)
        return True
    return warned


def _fail_early(stream: Stream, bad: Mapping[Path, InputError]) -> None:
    """Without a checkpoint there is nothing to go on for."""
    if stream.checkpoint is None and not stream.skip_bad_files:
        raise _said_bad(bad, stream)


def _of_file(error: InputError, file: Path) -> InputError:
    message = error.message if str(file) in error.message else f"{file}: {error.message.removeprefix(file.name + ' ')}"
    return InputError(error.code, message)


def _said_bad(bad: Mapping[Path, InputError], stream: Stream) -> InputError:
    first = next(iter(bad.values()))
    others = f" And {len(bad) - 1} more files." if len(bad) > 1 else ""
    kept = "All other files are counted and kept" if stream.checkpoint is not None else "Nothing is kept: no checkpoint"
    hint = f"{kept}. Mend or remove it and run again, or go on without it by skip_bad_files (--skip-bad-files)."
    return InputError(first.code, f"{first.message}{others} {hint}")


def _tallies(
    stream: Stream,
    plan: Plan,
    sketch: Evidence,
    parts: Sequence[Part],
    bad: Mapping[Path, InputError],
    bounds: Callable[[Part], Bounds],
) -> Generator[tuple[tuple[Part, ...], Tally | InputError], None, None]:
    """The tallies of parts of one file, or of several whole ones; or of a part why it cannot be read."""
    work = partial(
        tally_of, plan=plan, overrides=stream.columns, like=unplaced(sketch).take(slice(0, 2)), rows=stream.block
    )
    if stream.engine == "threads":
        wanted = (part for part in parts if part.file not in bad)

        def here(part: Part, stop: Event) -> tuple[tuple[Part, ...], Tally | InputError]:
            return (part,), work(part, bounds=bounds(part), stop=stop)

        yield from _threaded(here, wanted, stream.workers or cores())
    else:
        from divulge.streams.on_ray import tallies

        yield from tallies(work, parts, stream.engine, stream.workers, bounds)


def tally_of(
    part: Part,
    *,
    plan: Plan,
    overrides: Overrides,
    like: Evidence,
    rows: int,
    bounds: Bounds = NO_BOUNDS,
    stop: Event | None = None,
) -> Tally | InputError:
    """The tally of a part of a file, or what is wrong with it; of some of it, for nobody, where `stop` is set."""
    wrong: list[InputError] = []  # with the file: what counting raises is no fault of it

    def readable() -> Iterator[Block]:
        try:
            yield from blocks_of(part, overrides, like, rows)
        except InputError as error:
            wrong.append(error)

    total = added(plan, _until(stop, readable()), bounds)
    if wrong:
        return wrong[0]
    return total if total is not None else InputError("DV032", f"{part.file} holds no records where it says so")


def _until(stop: Event | None, blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks, but none any more once it is known that nobody waits for what they add up to."""
    return itertools.takewhile(lambda _: stop is None or not stop.is_set(), blocks)


def _threaded(work: Callable[[Any, Event], Any], items: Iterable[Any], workers: int) -> Generator[Any, None, None]:
    """Results as they come; only few items are waiting, so that memory does not grow.

    Args:
        work: of an item, until the event is set: then nobody takes its result.
        items: taken one by one.
        workers: threads.
    """
    stop = Event()

    def here(item: Any) -> Any:
        with alone():
            return work(item, stop)

    waiting: set[Future[Any]] = set()
    with one_thread_each(), ThreadPoolExecutor(workers, thread_name_prefix="divulge") as pool:
        try:
            for item in items:
                waiting.add(pool.submit(here, item))
                if len(waiting) > workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            stop.set()
            if under_way := sum(future.running() for future in waiting):
                logger.warning("stopping: %d blocks of records are still being scored", under_way)
            pool.shutdown(wait=True, cancel_futures=True)


def _rate(done: int, start: float) -> str:
    rate = done / max(time.monotonic() - start, 1e-3)
    return f"{rate / 1e6:.1f} million a second" if rate >= 1e5 else f"{rate:,.0f} a second"
