"""audit() of records that are read once, a block at a time: any number of them, in memory that does not grow.

Sketch -> plan (attacks fitted, slices' edges settled) -> tallies of blocks, added up -> Rocs -> the same report.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from os import PathLike
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge import measuring, pipeline, signals
from divulge import slices as slice_family
from divulge.attacks import NamedAttack
from divulge.batches import BLOCK, Part, blocks_of, listed, parts_of, sketched
from divulge.blocks import alone, cores, one_thread_each
from divulge.controls import SAMPLE, Shared
from divulge.controls.records import unusual
from divulge.doors.tables import Overrides
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.folds import MOST_COPIES, are_copies, digest_text, halves_of_block, identified, with_copies_grouped
from divulge.folds import content_hashes as contents_of
from divulge.metrics import NamedMetric
from divulge.report import Report, Row
from divulge.roc import Histogram, Roc, rank, tags
from divulge.sketches import joined
from divulge.slices import MISSING, REST, Merged, Partition, Slicer
from divulge.tally import BITS, NO_BOUNDS, SLICE_BITS, Bounds, Plan, Slices, Tally, added

if TYPE_CHECKING:
    from divulge.policy import Policy

FITTED_ON = 50_000  # rows a side that an attack is fitted on, of each half
SKETCHED = 1 << 20  # rows of an iterator that are looked at before the first is counted
TRIED = 512  # rows on which is tried whether a score depends on other rows
SAVE_EVERY = 30.0  # seconds between two checkpoints

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Stream:
    """Records to be read once: `audit(Stream("folder"))`.

    Attributes:
        source: a folder of Parquet files, files, or an iterable of Evidence (blocks of one table, either side or both).
            An iterable that gives one side first is held in memory until the other comes.
        columns: what is in which column, as `Evidence.from_table` takes it; files only.
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
    of quantiles and of numeric columns with over 20 values. A row's half is its hash's, also where rows are few.

    >>> import tempfile
    >>> from divulge import audit
    >>> n = np.arange(2000)
    >>> leaky = Evidence(member=n < 1000, signals={"loss": np.sin(n * n) + 0.2 * (n < 1000)}, ids=n)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(4):
    ...         leaky.take(slice(500 * part, 500 * part + 500)).save(f"{folder}/{part}.parquet")
    ...     round(audit(Stream(folder), controls=()).score.value, 1)
    0.2
    """

    source: str | PathLike[str] | Iterable[str | PathLike[str]] | Iterable[Evidence]
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
        for name in ("workers", "sample", "block"):
            number = getattr(self, name)
            if not (number is None and name == "workers") and (not isinstance(number, int) or number < 1):
                raise InputError("DV056", f"expected {name} from 1 up, got {number!r:.80}")


@dataclass
class _Found:
    """What a stream gave. tally: of all blocks; None where there were none. left_out: files and why."""

    sketch: Evidence
    plan: Plan
    statuses: list[Row]
    tally: Tally | None
    files: int
    left_out: dict[str, str]


def audit(
    stream: Stream,
    *,
    attacks: Any,
    slices: Sequence[str | Slicer],
    everyones: Sequence[NamedMetric],
    of_slices: Sequence[NamedMetric],
    trials: Sequence[str],
    policy: Policy | None,
    baseline: Report | None,
    name: str | None,
    confidence: float,
    min_n: int,
    seed: int,
    records: bool,
    progress: Progress | None,
) -> Report:
    """What `divulge.audit` does with a `Stream`; the arguments are its own, with the defaults resolved."""
    error = 1 - confidence
    tell: Progress = progress or (lambda done, total, what: None)
    tell(0, 1, "looking at the records")
    settings = partial(_planned, attacks=attacks, slices=slices, seed=seed, sample=stream.sample)
    found = _read(stream, settings, tell)
    plan, tally = found.plan, found.tally
    if tally is None or not tally.rows.all():
        raise _one_sided(*((0, 0) if tally is None else tally.rows.tolist()))
    ran, sizes, statuses = list(plan.attacks), (int(tally.rows[0]), int(tally.rows[1])), _said(found, tally)
    effective = _effective(tally)
    cuts = {part.name: part for part in tally.slices}
    first = [slicer(found.sketch).labels for slicer in plan.slicers]
    ordered = [_in_order(part, labels, found.sketch) for part, labels in zip(tally.slices, first, strict=True)]
    partitions = [_merged(part, labels, min_n) for part, labels in zip(tally.slices, ordered, strict=True)]

    def roc_of(attack: NamedAttack) -> Roc:
        return tally.everyone[attack.name].roc(fitted=attack.fitted, effective=effective)

    def slice_rocs(attack: NamedAttack, merged: Merged) -> Iterator[Roc]:
        counts = _rearranged(cuts[merged.partition.name], attack.name, merged)
        for at in range(len(merged.partition.labels)):
            yield counts.roc(at, fitted=attack.fitted, effective=effective)

    steps = pipeline.Steps(progress, ran, len(partitions), len(tally.sample.hashes) if trials else 0)
    steps.at("measuring")
    right = None if tally.right is None else (int(tally.right[0]), int(tally.right[1]))
    of_all = measuring.of_all(ran, roc_of, partitions, everyones, right, error, lambda: steps.did(1))
    ready = _ready(plan, tally, statuses) if trials or records else None
    one_by_one = None
    if records and ready is not None:
        one_by_one = pipeline.records_of(tally.sample.rows, ready, None, seed=seed, error=error, steps=steps)
    setting = None
    if trials and ready is not None:
        steps.at("controls")
        given, shared = sorted(tally.sample.rows.signals), _shared(tally)
        setting = pipeline.setting_of(
            ready, of_all.aucs, shared, given, sizes=sizes, effective=effective, seed=seed, steps=steps
        )
        groups = None if tally.groups is None else tally.groups.shared()
        setting = setting._replace(in_order=False, shared_groups=groups)
    outcomes = control_family.run(trials, setting)
    steps.at("measuring slices")
    rows = measuring.of_partitions(of_all, ran, slice_rocs, partitions, of_slices, sizes, error, lambda: steps.did(1))
    tables = measuring.tables(of_all, rows, statuses, outcomes)
    meta = pipeline.provenance(
        found.sketch, ran, digest_text(tally.digest), None, seed=seed, confidence=confidence, min_n=min_n
    )
    meta["data"] |= {"members": sizes[0], "nonmembers": sizes[1]}
    meta |= {} if name is None else {"name": str(name)}
    meta |= {"tests": of_all.tests, "slices": [merged.partition.name for merged in partitions]}
    meta["stream"] = {
        "files": found.files,
        "left_out": found.left_out,
        "bins": 1 << BITS,
        "bins_of_slices": 1 << SLICE_BITS,
        "sketch": len(found.sketch),
        "sample": {"members": int(tally.sample.rows.member.sum()), "rows": len(tally.sample.hashes)},
    }
    if one_by_one is not None:
        tables["records"] = one_by_one.columns
        meta["records"] = one_by_one.about
    steps.last()
    return Report({**meta, "verdict": "NOT_GATED", "policy": None}, tables).judged(policy, baseline=baseline)


# ------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Crossed:
    """Scores by an attack fitted twice: each half of the rows by what was fitted on the other half of the sketch."""

    scorers: tuple[Callable[[Evidence], NDArray[np.floating[Any]]], ...]

    def __call__(self, block: Evidence, halves: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """(n,) float64."""
        scores = np.empty(len(block))
        for half, scorer in enumerate(self.scorers):
            rows = np.flatnonzero(halves != half)
            if len(rows):
                found = np.asarray(scorer(block.take(rows)))
                if found.shape != rows.shape or found.dtype.kind not in "fiub":
                    raise InputError(
                        "DV057",
                        f"what an attack's fit made gave {found.dtype} scores of shape {found.shape}; expected one "
                        f"number a record, shape {rows.shape}",
                    )
                scores[rows] = found
        return scores


@dataclass(frozen=True)
class Plain:
    """Scores by an attack that asks nothing but the record."""

    attack: NamedAttack
    seed: int

    def __call__(self, block: Evidence, halves: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """(n,) float."""
        return pipeline.scores_of(self.attack, block, self.seed)


def _planned(
    sketch: Evidence, *, attacks: Any, slices: Sequence[str | Slicer], seed: int, sample: int
) -> tuple[Plan, list[Row]]:
    """What is counted, from what the sketch says; and how attacks that cannot run fared."""
    chosen = attack_family.all_named(attacks, sketch)
    slicers = tuple(slice_family.settled(slice_family.named(slicer, sketch), sketch) for slicer in slices)
    names = [slice_family.checked(slicer(sketch), len(sketch)).name for slicer in slicers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError("DV053", f"two partitions are called {min(twice)!r}: ask for each once")
    prepared = partial(pipeline.with_signals, attacks=tuple(chosen))
    ready = prepared(sketch)
    halves = halves_of_block(ready, contents_of(sketch), seed)
    scores: dict[str, Any] = {}
    statuses: list[Row] = []
    for attack in chosen:
        try:
            scores[attack.name] = _score_of(attack, ready, halves, seed)
        except Unavailable as reason:
            if attack.required:
                raise Unavailable(f"the attack {attack.name} cannot run: {reason.message}") from reason
            statuses.append({"attack": attack.name, "status": "skipped", "reason": reason.message})
    if not scores:
        reasons = "; ".join(f"{row['attack']}: {row['reason']}" for row in statuses)
        raise Unavailable(f"no attack could run on this stream ({reasons})")
    ran = tuple(attack for attack in chosen if attack.name in scores)
    return Plan(ran, scores, slicers, partial(pipeline.with_signals, attacks=ran), seed, sample), statuses


def _score_of(attack: NamedAttack, sketch: Evidence, halves: NDArray[np.uint8], seed: int) -> Any:
    """How an attack scores a block.

    Raises:
        Unavailable: it cannot: it needs what a stream has not, or other records than the one that it scores.
    """
    if attack.prepare is not None and not any(need in sketch.signals for need in attack.needs):
        raise Unavailable("it asks the model, and a stream is read without one: give its answers as a signal")
    fit = getattr(attack.call, "fit", None)
    if fit is not None:
        rng = pipeline.rng_of(attack, seed)
        return Crossed(tuple(fit(_few(sketch.take(halves == half), seed), rng) for half in (0, 1)))
    rows = np.linspace(0, len(sketch) - 1, min(TRIED, len(sketch))).astype(np.int64)
    some, plain = sketch.take(rows), Plain(attack, seed)
    whole, parts = plain(some, halves[rows]), [slice(first, None, 2) for first in range(min(2, len(rows)))]
    if not all(_alike(whole[part], plain(some.take(part), halves[rows][part])) for part in parts):
        raise Unavailable("its scores depend on other records of a block: give it fit(sample, rng) -> scorer")
    return plain


def _alike(scores: NDArray[Any], others: NDArray[Any]) -> bool:
    """Equal but for the rounding of sums that a library adds up otherwise in another block."""
    known = scores[np.isfinite(scores)].astype(np.float64)
    tolerance = 1e-6 * float(np.ptp(known)) if len(known) else 0.0
    return np.allclose(scores, others, rtol=1e-6, atol=tolerance, equal_nan=True)


def _few(evidence: Evidence, seed: int) -> Evidence:
    return control_family.subsample(evidence, FITTED_ON, seed)


# --------------------------------------------------------------------------------------------------------- reading


def _read(stream: Stream, planned: Callable[[Evidence], tuple[Plan, list[Row]]], tell: Progress) -> _Found:
    source: Any = [stream.source] if isinstance(stream.source, Evidence) else stream.source
    if isinstance(source, str | PathLike):
        return _read_files(stream, [source], planned, tell)
    items = iter(source)
    first = next(items, None)
    if isinstance(first, Evidence):
        return _read_blocks(stream, itertools.chain([first], items), planned, tell)
    return _read_files(stream, [] if first is None else [first, *items], planned, tell)


def _read_blocks(
    stream: Stream, blocks: Iterator[Evidence], planned: Callable[[Evidence], tuple[Plan, list[Row]]], tell: Progress
) -> _Found:
    if stream.checkpoint is not None or stream.engine != "threads":
        raise InputError("DV056", "a checkpoint, and another engine than threads, are for Parquet files only")
    seen: list[Evidence] = []
    for block in blocks:
        _check_block(block, seen)
        seen.append(block)
        members = sum(int(one.member.sum()) for one in seen)
        rows = sum(map(len, seen))
        if rows >= SKETCHED and 0 < members < rows:
            break
    else:
        if not 0 < members < rows:
            raise _one_sided(members, rows - members)
    sketch = joined([replace(one, references=None) for one in seen])
    plan, statuses = planned(sketch)
    numbered = enumerate(itertools.chain(seen, blocks))
    done, start = 0, time.monotonic()
    total: Tally | None = None

    def counted(item: tuple[int, Evidence], stop: Event) -> Tally | None:
        at, block = item
        if at >= len(seen):
            _check_block(block, seen)
        parts = (block.take(slice(row, row + stream.block)) for row in range(0, len(block), stream.block))
        return added(plan, _until(stop, parts), NO_BOUNDS if total is None else total.bounds)

    filled = ((at, block) for at, block in numbered if not isinstance(block, Evidence) or len(block))
    with closing(_threaded(counted, filled, stream.workers or cores())) as tallies:
        for tally in tallies:
            total = tally if total is None else total + tally
            done += int(tally.rows.sum())
            tell(0, 1, f"{done:,} records, {_rate(done, start)}")
    return _Found(sketch, plan, statuses, total, 0, {})


def _one_sided(members: int, nonmembers: int) -> InputError:
    text = f"{members:,} members and {nonmembers:,} non-members came in, and an audit compares the two."
    return InputError("DV005", text)


def _check_block(block: object, seen: Sequence[Evidence]) -> None:
    if not isinstance(block, Evidence):
        raise InputError("DV056", f"expected blocks of Evidence, got {type(block).__name__}")
    if block.references is not None:
        raise InputError("DV018", "a block has reference models, which a stream cannot use: audit those records alone")
    if seen:
        from divulge.doors.assemble import check_alike

        check_alike(block, seen[0])


def _read_files(
    stream: Stream, source: Sequence[Any], planned: Callable[[Evidence], tuple[Plan, list[Row]]], tell: Progress
) -> _Found:
    from divulge.checkpoints import Checkpoint

    files = listed(source)
    names = {file: file.name for file in files}
    if len(set(names.values())) < len(files):
        names = {file: file.absolute().as_posix() for file in files}
    stamps: dict[str, tuple[int, int]] = {}
    bad: dict[Path, InputError] = {}
    parts: dict[Path, list[Part]] = {}
    for file in files:
        stamps[names[file]] = Checkpoint.stamp(file)
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
    if kept is not None:
        kept.check(plan, stream.columns, stamps)
    total, finished = (None, {}) if kept is None else (kept.tally, dict(kept.files))
    left = {file: of for file, of in parts.items() if names[file] not in finished}
    rows = {file: sum(part.rows for part in of) for file, of in parts.items()}
    before, whole = sum(rows[file] for file in parts if file not in left), sum(rows.values())
    done, start, saved = before, time.monotonic(), time.monotonic()
    missing = Counter({file: len(of) for file, of in left.items()})
    partial_: dict[Path, Tally] = {}

    def bounds(part: Part) -> Bounds:
        """By what will be counted if this part is: finished files and the part's own."""
        known = [tally.bounds for tally in (total, partial_.get(part.file)) if tally is not None]
        return reduce(Bounds.lower, known, NO_BOUNDS)

    def save() -> None:
        if stream.checkpoint is not None:
            Checkpoint.of(sketch, plan, stream.columns, total, finished).save(stream.checkpoint)

    if kept is None:
        save()  # a place that cannot be written to is told of now, not in an hour
    tallies = _tallies(stream, plan, sketch, [part for of in left.values() for part in of], bad, bounds)
    try:
        for file in [file for file in left if not missing[file]]:
            finished[names[file]] = stamps[names[file]]  # of no rows
        for counted, result in tallies:  # parts of this file, or of several whole ones
            file = counted[0].file
            if isinstance(result, InputError):
                bad.setdefault(file, _of_file(result, file))
                partial_.pop(file, None)
                _fail_early(stream, bad)
                continue
            if file in bad:
                continue
            tally = result if file not in partial_ else partial_.pop(file) + result
            missing.subtract(part.file for part in counted)
            done += sum(part.rows for part in counted)
            tell(done, max(whole, 1), f"{done:,} of {whole:,} records, {_rate(done - before, start)}")
            if missing[file]:
                partial_[file] = tally
                continue
            whose = {names[part.file]: stamps[names[part.file]] for part in counted}
            total, finished = tally if total is None else total + tally, finished | whose  # no Ctrl-C comes between
            if time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()
    finally:
        try:
            save()
        finally:
            tallies.close()  # now, not once the error is forgotten that stopped it
    if bad and (total is None or not stream.skip_bad_files):
        raise _said_bad(bad, stream)
    return _Found(
        sketch, plan, statuses, total, len(finished), {names[file]: error.message for file, error in bad.items()}
    )


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
    work = partial(tally_of, plan=plan, overrides=stream.columns, like=sketch.take(slice(0, 2)), rows=stream.block)
    if stream.engine == "threads":
        wanted = (part for part in parts if part.file not in bad)

        def here(part: Part, stop: Event) -> tuple[tuple[Part, ...], Tally | InputError]:
            return (part,), work(part, bounds=bounds(part), stop=stop)

        yield from _threaded(here, wanted, stream.workers or cores())
    else:
        from divulge.streams_on_ray import tallies

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
    try:
        total = added(plan, _until(stop, blocks_of(part, overrides, like, rows)), bounds)
    except InputError as error:
        return error
    return total if total is not None else InputError("DV032", f"{part.file} holds no records where it says so")


def _until(stop: Event | None, blocks: Iterable[Evidence]) -> Iterator[Evidence]:
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
            pool.shutdown(wait=True, cancel_futures=True)


def _rate(done: int, start: float) -> str:
    rate = done / max(time.monotonic() - start, 1e-3)
    return f"{rate / 1e6:.1f} million a second" if rate >= 1e5 else f"{rate:,.0f} a second"


# --------------------------------------------------------------------------------------------- from counts to Rocs


def _said(found: _Found, tally: Tally) -> list[Row]:
    rows = list(found.statuses)
    for attack in found.plan.attacks:
        members, nonmembers = tally.unscored[attack.name].tolist()
        text = f"{members:,} members and {nonmembers:,} non-members not scored: counted lowest"
        rows.append({"attack": attack.name, "status": "ran", "reason": text if members or nonmembers else None})
    return rows


def _effective(tally: Tally) -> tuple[float, float]:
    """See `folds.effective_shares`; of groups, else of copies of a record."""
    if tally.groups is not None:
        return tally.groups.effective()
    copies = tally.copies
    both = copies.members + copies.nonmembers
    several = (both > 1) & (both <= MOST_COPIES)
    if not are_copies(copies.members[several], copies.nonmembers[several]):
        return 1.0, 1.0
    few = both <= MOST_COPIES
    members, nonmembers = (
        _share(sizes[few].astype(np.float64), copies.seen * float(rows))
        for sizes, rows in zip((copies.members, copies.nonmembers), tally.rows, strict=True)
    )
    return members, nonmembers


def _share(sizes: NDArray[np.float64], rows: float) -> float:
    """Kish's number of units per row; of the rows, those that are in none of these are units of their own."""
    alone = max(0.0, rows - float(sizes.sum()))
    return float((sizes.sum() + alone) / (np.square(sizes).sum() + alone))


def _shared(tally: Tally) -> Shared:
    """Records on both sides, by what was counted of ids, else of contents; they are left in."""
    none = np.zeros(0, bool)
    if tally.ids is not None:
        found = int(tally.ids.nonmembers[tally.ids.members > 0].sum())
        if found:
            return Shared("id", none, found, int(tally.ids.nonmembers.sum()))
    copies = tally.copies
    found, of = int(copies.nonmembers[copies.members > 0].sum()), int(copies.nonmembers.sum())
    usual, members = int(copies.members[copies.members > 1].sum()), int(copies.members.sum())
    if of and members and unusual(found, of, usual, members):
        return Shared("output row" if tally.sample.rows.outputs is not None else "signals", none, found, of)
    return Shared(None, none, 0, max(of, 1))


def _in_order(part: Slices, first: Sequence[str], sketch: Evidence) -> list[str]:
    """The labels as a partition of all records has them, whichever of them the sketch holds.

    By class, number or text; those of a user's own slicer as the sketch has them, then others.
    """
    names = part.name.split(" & ")
    known = {"class", "correct", *sketch.columns, *sketch.signals, *signals.NAMES}
    order = {label: at for at, label in enumerate(first)}
    if not known.issuperset(names) or any(len(label.split(" & ")) != len(names) for label in part.labels):
        return sorted(part.labels, key=lambda label: (order.get(label, len(order)), label))
    classes = {name: at for at, name in enumerate(sketch.classes or ())}

    def place(name: str, label: str) -> tuple[float, str]:
        value = label.removeprefix(f"{name}=")
        if name == "class" and value in classes:
            return classes[value], ""
        column = sketch.columns.get(name)
        if name == "correct" or (column is not None and column.dtype.kind not in "iuf"):
            return 0.0, "" if value == MISSING else value.strip('"')
        number = re.match(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]?inf", value)
        return (float(number[0]), "") if number else (math.inf, value)

    return sorted(part.labels, key=lambda label: [place(*pair) for pair in zip(names, label.split(" & "), strict=True)])


def _merged(part: Slices, labels: Sequence[str], min_n: int) -> Merged:
    """The partition, of labels in this order, with its small slices merged, as `slices.merge_small`.

    A rest of overlapping slices is not measured: a row may be in several of them.
    """
    members, nonmembers = _sizes(part)
    rows = {label: (int(members[at]), int(nonmembers[at])) for at, label in enumerate(part.labels)}
    kept = [label for label in labels if min(rows[label]) >= min_n]
    small = [label for label in labels if min(rows[label]) < min_n and any(rows[label])]
    found = [rows[label] for label in kept]
    if small:
        kept.append(f"{part.name}={REST}")
        found.append((sum(rows[label][0] for label in small), sum(rows[label][1] for label in small)))
    sizes = np.array(found, np.int64).reshape(-1, 2)
    measured: NDArray[np.bool_] = sizes.min(axis=1, initial=np.iinfo(np.int64).max) >= min_n
    if small and part.overlapping:
        measured[-1] = False
    partition = Partition(part.name, np.zeros(0, np.int32), tuple(kept))
    return Merged(partition, sizes[:, 0], sizes[:, 1], tuple(small), measured)


def _sizes(part: Slices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = next(iter(part.counts.values())).counts
    return counts[:, :, :2].sum(axis=(1, 2)), counts[:, :, 2:].sum(axis=(1, 2))


def _rearranged(part: Slices, attack: str, merged: Merged) -> Histogram:
    """An attack's counts by the labels of the merged partition; one more, at the end, for what is in none."""
    labels = merged.partition.labels
    place = {label: at for at, label in enumerate(labels)} | dict.fromkeys(merged.merged, len(labels) - 1)
    places = np.array([place.get(label, len(labels)) for label in part.labels], np.int64)
    return part.counts[attack].gathered(places, len(labels) + 1)


def _ready(plan: Plan, tally: Tally, statuses: list[Row]) -> pipeline.Ready:
    """The sample as an audit in memory has its records."""
    rows = tally.sample.rows
    contents = contents_of(rows)
    halves = halves_of_block(rows, contents, plan.seed)
    evidence = plan.prepared(with_copies_grouped(identified(rows, contents), contents))
    scored = [(attack, rank(plan.scores[attack.name](evidence, halves))) for attack in plan.attacks]
    unscored = {name: (int(of[0]), int(of[1])) for name, of in tally.unscored.items()}
    return pipeline.Ready(evidence, tags(rows.member, halves), scored, statuses, [], unscored)
