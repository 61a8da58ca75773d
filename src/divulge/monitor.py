"""Monitor: a fixed part of the records audited again and again while a model trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.adapters import Pair, collect
from divulge.adapters.parts import length, part
from divulge.adapters.records import take
from divulge.adapters.untouched import untouched
from divulge.attacks import Attack
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.hashes import array_hashes
from divulge.pipeline import audit
from divulge.policy import Policy
from divulge.report import Report
from divulge.reporters.track import HasLog, Log, figures_of, prefixed, writer
from divulge.series import Entry, Series, store, write_index
from divulge.signals import signal
from divulge.slices import Slicer
from divulge.wording import known

logger = logging.getLogger("divulge")

By = Literal["low", "value", "high"]
Rows = NDArray[np.int64]


class Overhead(NamedTuple):
    """What the audits cost.

    audits: how many. seconds: of all of them. training: seconds between the calls. share: seconds of the audits after
    the first (which imports and compiles) for each second of training; NaN before the second call.

    >>> Overhead(3, 1.5, 20.0, 0.05).share
    0.05
    """

    audits: int
    seconds: float
    training: float
    share: float


class Parts(NamedTuple):
    """Rows of one side: those looked at during training, and those kept for the final report; rising.

    >>> Parts(np.array([0, 3]), np.array([1])).final.tolist()
    [1]
    """

    watched: Rows
    final: Rows


class _Audit(NamedTuple):
    """One look: worth is the held-out accuracy (or minus the held-out loss), NaN where neither is there."""

    epoch: int
    report: Report
    worth: float
    above: bool
    within: bool


class Monitor:
    """Watches how much a model gives away while it trains: called as `monitor(model, epoch)` after every epoch.

    Every few epochs the same records are scored in evaluation mode and attacked; the figures go to a log, the reports
    into a `series`, the losses of each record into the traces of `evidence`. Controls are off in between (each report
    says so) and run in `final_report`. The model, its mode and all random numbers stay as they were: weights come out
    the same with and without a monitor.

    Looking often has a price. Each interval holds its truth in 95 % of cases; the highest of 50 looks exceeds its truth
    far more often. And records that chose when to stop, or which epoch to keep, no longer judge fairly: what was chosen
    for a low score looks lower than it is. Reports on such records carry the warning DV210. With `final=0.5` half of
    the records are kept apart, no look sees them, and `final_report` is as honest as an audit without any monitor.

    Attributes:
        evidence: of the latest audit, with the losses of all audited epochs as traces (n, e) float32; None before.
        figures: of the latest audit; see `__call__`.
        should_stop: whether the score has crossed `stop_at_score`; stays so.
        best_epoch, best_reason: the epoch to keep, as known so far, and why it is this one.

    >>> x, y = np.sin(np.arange(1800.0) ** 2).reshape(600, 3), np.arange(600) % 3
    >>> learned = np.eye(3)[y] * (np.arange(600) < 300)[:, None]
    >>> monitor = Monitor((np.arange(300), y[:300]), (np.arange(300, 600), y[300:]), stop_at_score=0.2)
    >>> for epoch in range(1, 9):
    ...     figures = monitor(lambda rows: x[rows] + epoch / 4 * learned[rows], epoch)
    ...     if monitor.should_stop:
    ...         break
    >>> epoch, round(figures["score_low"], 2), monitor.best_epoch, monitor.evidence.traces.shape
    (4, 0.22, 1, (600, 4))
    """

    def __init__(
        self,
        members: Any,
        nonmembers: Any,
        *,
        every: int = 1,
        records: int = 2000,
        slices: str | Slicer | Iterable[str | Slicer] | None = None,
        attacks: str | Attack | Iterable[str | Attack] = "quick",
        controls: str | Iterable[str] = (),
        log: Log | HasLog | None = None,
        folder: str | PathLike[str] | None = None,
        stop_at_score: float | None = None,
        by: By = "low",
        patience: int = 1,
        final: float = 0.0,
        policy: Policy | None = None,
        columns: Mapping[str, Pair] | None = None,
        ids: Pair | None = None,
        groups: Pair | None = None,
        batch_size: int = 256,
        seed: int = 0,
        collect: Callable[..., Evidence] = collect,
    ) -> None:
        """Choose the records; nothing is scored yet.

        Args:
            members: the training records, without augmentation, as for `divulge.collect`; of a DataLoader that
                shuffles, its data set is read. Only the records that are looked at are read, once.
            nonmembers: records that neither train nor (in another way than this monitor) choose the model.
            every: epochs that are a multiple of it are audited.
            records: at most so many of each side are looked at, chosen once by the seed; groups stay whole.
            slices: as for `divulge.audit`; None: by class, where labels are classes.
            attacks: as for `divulge.audit`, here "quick": a look must not hold up the training.
            policy: as for `divulge.audit`.
            controls: of the audits during training; `final_report` runs all.
            log: where figures go, "privacy/" before their names; see `divulge.reporters.track`.
            folder: each report is saved here at once, as a series that `divulge compare FOLDER` shows.
            stop_at_score: the limit of the vulnerability score; None: never stop.
            by: which end of the score's interval must be above the limit: "low": it is credibly above; "value";
                "high": it may be above.
            patience: so many audits in a row must be above.
            final: share of each side kept apart for `final_report`.
            columns, ids, groups, batch_size: as for `divulge.collect`. Without ids records get their row numbers.
            seed: of the choice of records and of the audits.
            collect: from (model, members, nonmembers) and keywords to `Evidence`, for models that need their own way.

        Raises:
            InputError: DV068, an argument that cannot be used; DV069, a log that takes no figures; else as `collect`.
            PolicyError: DV304, the policy limits an increase.
        """
        if stop_at_score is not None and not -1 < stop_at_score <= 1:  # NaN neither
            raise InputError(
                "DV068", f"expected stop_at_score, a limit on the score, in (-1, 1], got {stop_at_score!r}"
            )
        for name, value, low in (("every", every, 1), ("records", records, 2), ("patience", patience, 1)):
            if value < low:
                raise InputError("DV068", f"expected {name} of at least {low}, got {value!r}")
        if not 0 <= final < 1:
            raise InputError("DV068", f"expected final, the share of records kept apart, in [0, 1), got {final!r}")
        if by not in ("low", "value", "high"):
            raise InputError("DV068", f"expected by to be 'low', 'value' or 'high', got {by!r}")
        if policy is not None:
            policy.check_baseline(None)
        self.every, self.stop_at_score, self.by, self.patience = every, stop_at_score, by, patience
        # Of what can be used once only, all looks need a copy.
        self._slices = slices if slices is None or isinstance(slices, str) or callable(slices) else tuple(slices)
        self._options: dict[str, Any] = {"attacks": attacks, "policy": policy, "seed": seed}
        self._controls, self._log, self._folder = controls, writer(log), folder
        self._batch_size, self._collect = batch_size, collect
        self._columns, self._groups, self._ids = columns, groups, ids
        self._data = (members, nonmembers)
        with untouched():
            sizes = [length(data, batch_size, name) for data, name in zip(self._data, _SIDES, strict=True)]
            self.parts = [
                chosen(n, None if groups is None else np.asarray(groups[side]), records, final, seed, side)
                for side, n in enumerate(sizes)
            ]
            self._watched = self._read([parts.watched for parts in self.parts])
        self._numbers = (self.parts[0].watched, sizes[0] + self.parts[1].watched)
        self._audits: list[_Audit] = []
        self._entries: list[Entry] = []
        self._losses: list[NDArray[np.float32]] = []
        self._left: float | None = None  # when the latest call ended
        self._first = self._seconds = self._training = 0.0
        self._said = False
        self.evidence: Evidence | None = None
        self.figures: dict[str, float] = {}
        self.should_stop = False
        self.best_epoch: int | None = None
        self.best_reason = "no epoch was audited"

    def __repr__(self) -> str:
        sizes = " and ".join(f"{len(parts.watched):,}" for parts in self.parts)
        return f"<Monitor of {sizes} records, {len(self._audits)} audits>"

    # ------------------------------------------------------------------------------------------ during training

    def __call__(self, model: Any, epoch: int, *, step: int | None = None) -> dict[str, float]:
        """Audit the model if this epoch's turn has come.

        Args:
            model: as for `divulge.collect`.
            epoch: a whole number, rising from call to call; from 0 or 1.
            step: what the log calls this moment; default: the epoch.

        Returns:
            Nothing between turns; else what `divulge.reporters.track.figures_of` gives, and member_loss,
            nonmember_loss, loss_gap (nats), seconds (of this audit) and epoch. What is not measurable is left out.
            Nothing either where outputs are NaN or infinite: a warning says so, and training goes on, as it does where
            the log fails.

        Raises:
            InputError: DV068, an epoch that is not whole or does not rise; else as `collect` and `audit`.
        """
        if epoch % 1 != 0:  # NaN neither
            raise InputError("DV068", f"expected an epoch that is a whole number, got {epoch!r}. Pass step= for steps")
        epoch = int(epoch)
        began = time.perf_counter()
        if self._left is not None:
            self._training += began - self._left
        try:
            if epoch % self.every:
                return {}
            if self._audits and epoch <= self._audits[-1].epoch:
                raise InputError("DV068", f"expected an epoch after {self._audits[-1].epoch}, got {epoch}")
            try:
                with untouched():
                    figures = self._look(model, epoch)
            except InputError as error:
                if error.code != "DV006":
                    raise
                logger.warning(f"epoch {epoch} is not audited, training goes on: {error}")
                return {}
            seconds = time.perf_counter() - began
            self._seconds += seconds
            self._first = self._first or seconds
            self.figures = {**figures, "seconds": seconds, "epoch": float(epoch)}
            self._write(self.figures, epoch if step is None else step)
            return dict(self.figures)
        finally:
            self._left = time.perf_counter()

    def _write(self, figures: dict[str, float], step: int) -> None:
        """To the log, whose failures are no reason to lose a training."""
        try:
            self._log(prefixed(figures), step)
        except Exception as error:  # not KeyboardInterrupt
            logger.warning(f"the log did not take the figures of step {step}, training goes on: {error!r}")

    def _look(self, model: Any, epoch: int) -> dict[str, float]:
        evidence = self._collected(model, self._watched, [parts.watched for parts in self.parts], self._ids is None)
        report = self._audited(evidence, controls=self._controls, name=f"epoch {epoch}")
        if self.stop_at_score is not None:
            report = _selected(report, self._options["policy"])
        figures = figures_of(report)
        losses = _losses(evidence)
        if losses is not None:
            self._losses.append(losses)
            evidence = replace(evidence, traces=np.column_stack(self._losses))
            ends = [float(losses[side].mean(dtype=np.float64)) for side in (evidence.member, ~evidence.member)]
            figures |= {"member_loss": ends[0], "nonmember_loss": ends[1], "loss_gap": ends[1] - ends[0]}
        self.evidence = evidence
        worth = figures.get("nonmember_accuracy", -figures.get("nonmember_loss", float("nan")))
        self._judge(epoch, report, worth)
        if self._folder is not None:
            self._entries.append(Entry(store(report, len(self._entries), self._folder), f"epoch {epoch}", epoch))
            write_index(self._folder, "epoch", self._entries)
        return figures

    def _audited(self, evidence: Evidence, **options: Any) -> Report:
        slices = self._slices
        if slices is None:
            labels = evidence.labels
            slices = () if labels is None or labels.dtype.kind == "f" else ("class",)
        return audit(evidence, slices=slices, **{**self._options, **options})

    def _judge(self, epoch: int, report: Report, worth: float) -> None:
        """Whether to stop, and which epoch to keep: always an earlier choice or this epoch."""
        score, limit = report.score, self.stop_at_score
        above = limit is not None and getattr(score, self.by) > limit  # an undefined score is above nothing
        within = limit is None or score.high <= limit
        self._audits.append(_Audit(epoch, report, worth, above, within))
        last = self._audits[-self.patience :]
        self.should_stop = self.should_stop or (len(last) == self.patience and all(one.above for one in last))
        self.best_epoch, self.best_reason = best(self._audits, limit)

    # --------------------------------------------------------------------------------------------- what was seen

    @property
    def reports(self) -> tuple[Report, ...]:
        """One an audit, in order."""
        return tuple(one.report for one in self._audits)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The audited epochs."""
        return tuple(one.epoch for one in self._audits)

    @property
    def series(self) -> Series:
        """The reports over the epochs.

        Raises:
            InputError: DV067, nothing was audited yet.
        """
        if not self._audits:
            raise InputError(
                "DV067",
                f"expected a monitor that has audited an epoch, got one that has not: nothing was audited yet, with "
                f"every={self.every}. Call it after each epoch, with an every= of at most the last epoch",
            )
        return Series.of(self.reports, steps=self.epochs, axis="epoch")

    @property
    def overhead(self) -> Overhead:
        """What the audits have cost so far."""
        after = self._seconds - self._first
        share = after / self._training if self._training > 0 else float("nan")
        return Overhead(len(self._audits), self._seconds, self._training, share)

    # ----------------------------------------------------------------------------------------------- at the end

    def finish(self) -> Overhead:
        """Say once, in the log, what watching cost and which epoch is best; the callbacks do so when training ends."""
        found = self.overhead
        if not self._said and self._audits:
            self._said = True
            share = f" ({100 * found.share:.1f} % of the training between them)" if known(found.share) else ""
            logger.info(f"divulge watched: {found.audits} audits in {found.seconds:.1f} s{share}")
            logger.info(f"best epoch: {self.best_epoch}: {self.best_reason}")
            told = {"overhead_seconds": found.seconds} | ({"overhead_share": found.share} if known(found.share) else {})
            self._write(told, self._audits[-1].epoch)
        elif not self._said:
            self._said = True
            logger.warning(
                f"divulge watched nothing: no epoch was audited, with every={self.every}. Give a lower every="
            )
        return found

    def final_report(
        self,
        model: Any,
        *,
        attacks: str | Attack | Iterable[str | Attack] | None = None,
        controls: str | Iterable[str] = "default",
    ) -> Report:
        """Audit the model that was kept, with all controls.

        With `final=` on the records that no look saw; without it on the watched ones, and then the report warns
        (DV210) that they helped to choose.

        Args:
            model: as for `divulge.collect`.
            attacks: as for `divulge.audit`; None: those of the looks, but "default" where these were "quick".
            controls: as for `divulge.audit`.
        """
        self.finish()
        if attacks is None:
            attacks = "default" if self._options["attacks"] == "quick" else self._options["attacks"]
        apart = all(len(parts.final) for parts in self.parts)
        rows = [parts.final if apart else parts.watched for parts in self.parts]
        with untouched():
            data = self._read(rows) if apart else self._watched
            report = self._audited(self._collected(model, data, rows, False), attacks=attacks, controls=controls)
        return report if apart else _selected(report, self._options["policy"])

    # -------------------------------------------------------------------------------------------------- records

    def _read(self, rows: Sequence[Rows]) -> list[Any]:
        return [
            part(data, own, self._batch_size, name) for data, own, name in zip(self._data, rows, _SIDES, strict=True)
        ]

    def _collected(self, model: Any, data: Sequence[Any], rows: Sequence[Rows], numbered: bool) -> Evidence:
        """Evidence of some rows; numbered: their row numbers are ids, so that every look has the same halves."""

        def own(pair: Pair | None) -> Pair | None:
            return None if pair is None else (take(pair[0], rows[0]), take(pair[1], rows[1]))

        columns = None if self._columns is None else {name: own(pair) for name, pair in self._columns.items()}
        return self._collect(
            model,
            *data,
            batch_size=self._batch_size,
            columns=columns,
            ids=self._numbers if numbered else own(self._ids),
            groups=own(self._groups),
            check=not self._audits,
        )


_SIDES = ("members", "nonmembers")


def chosen(n: int, groups: NDArray[Any] | None, records: int, final: float, seed: int, side: int) -> Parts:
    """Which rows of a side are watched and which are kept apart: by chance, the same for the same seed.

    Args:
        n: records of the side.
        groups: (n,) or None; a group is in one part as a whole, on both sides.
        records: how many to watch at most, if no single group holds more.
        final: the share to keep apart.
        seed: of the choice.
        side: 0 or 1.

    >>> [len(rows) for rows in chosen(100, None, 30, 0.5, 0, 0)]
    [30, 50]
    """
    if n < 2:
        raise InputError("DV068", f"expected at least 2 {_SIDES[side]}, got {n}")
    if groups is None:
        order = np.random.default_rng([seed, side]).permutation(n)
        kept = round(final * n)
        found = Parts(np.sort(order[kept : kept + records]), np.sort(order[:kept]))
    else:
        if len(groups) != n:
            raise InputError("DV004", f"{_SIDES[side]} has {n:,} records and {len(groups):,} groups; expected one each")
        hashes = array_hashes(groups, seed)
        apart = hashes < np.uint64(int(final * 2**64))  # of the group alone: it is apart on both sides or on none
        units, sizes = np.unique(hashes[~apart], return_counts=True)
        few = units[: max(int(np.searchsorted(np.cumsum(sizes), records, side="right")), 1)]
        found = Parts(np.flatnonzero(np.isin(hashes, few) & ~apart), np.flatnonzero(apart))
    if len(found.watched) < 2 or (final > 0 and len(found.final) < 2):
        raise InputError("DV068", f"expected at least 2 {_SIDES[side]} in each part, got {[len(x) for x in found]}")
    return found


def best(audits: Sequence[_Audit], limit: float | None) -> tuple[int | None, str]:
    """The epoch to keep of those audited, and why.

    It is the one of highest accuracy on held-out records among those whose score's upper end is at or below the limit;
    where there is none, the last one before the limit was crossed; None where the first one crossed it.
    """
    within = [one for one in audits if one.within]
    if within:
        top = max((one for one in within if known(one.worth)), key=lambda one: one.worth, default=within[-1])
        of = "all" if limit is None else f"those whose score is at most {limit:g} with its whole interval"
        return top.epoch, f"best on held-out records of {of}: {len(within)} of {len(audits)} audited epochs"
    first = next((at for at, one in enumerate(audits) if one.above), len(audits))
    none = f"no audited epoch has a score at most {limit:g} with its whole interval"
    if first == 0:
        return None, f"{none}, and the first one is above it already"
    why = (
        "the last one: none is credibly above it"
        if first == len(audits)
        else "the last one before the limit was crossed"
    )
    return audits[first - 1].epoch, f"{none}; this is {why}"


def _selected(report: Report, policy: Policy | None) -> Report:
    """The report with the warning that its records helped to choose the model."""
    return replace(report, meta={**report.meta, "selected": True}).judged(policy)


def _losses(evidence: Evidence) -> NDArray[np.float32] | None:
    """(n,) loss of each record in nats, or None where this model has none."""
    try:
        return np.asarray(-signal(evidence, "loss"), np.float32)
    except Unavailable:
        return None
