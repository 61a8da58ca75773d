"""The whole audit of tensors on their device: a report of what comes down as counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from divulge import controls, measuring, metrics
from divulge.adapters.device.doors import read, read_member
from divulge.adapters.device.halves import halves_of, identified
from divulge.adapters.device.signals import signals_on
from divulge.adapters.device.sorting import roc_on
from divulge.adapters.device.tensors import Tensor
from divulge.attacks import all_named
from divulge.attacks.threshold import Threshold
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.preparing import check_settings, finished
from divulge.provenance import provenance
from divulge.report import Report, Row
from divulge.signals import NAMES
from divulge.slices import MIN_N


def audit_on_device(
    outputs: Tensor,
    labels: Tensor | None,
    member: Tensor,
    *,
    kind: str = "logits",
    attacks: str | Iterable[str] = ("loss", "modified_entropy"),
    confidence: float = 0.95,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """The report of `audit(evidence, controls=())`, with signals, halves and sorts on the outputs' device.

    Halves and digest are the same, scores as near as those of `signals_on`; the report says that no control ran.
    Attacks are thresholds on signals: what is fitted, slices, references and controls are `audit`'s. Beyond the outputs
    it takes about 100 bytes a record and 1.3 GB on the device, and 30 bytes a distinct score and attack on the host.

    Args:
        outputs, labels, kind: as for `signals_on`, labels of two classes as they are.
        member: (n,) bool tensor or array.
        attacks: names of `divulge.signals.NAMES`, the plainer first; see `audit`.
        confidence, seed, name: as for `audit`.

    Raises:
        InputError: DV005, one side has no records; DV052, an attack that is no such threshold; DV056, a confidence or
            a seed outside its range; else as `signals_on`.
        Unavailable: an attack needs labels and there are none.

    >>> import torch  # doctest: +SKIP
    >>> z = 3 * torch.sin(torch.arange(8000.).square()).reshape(4000, 2)  # doctest: +SKIP
    >>> member, labels = torch.arange(4000) < 2000, torch.zeros(4000, dtype=torch.int64)  # doctest: +SKIP
    >>> z[member, 0] += 1  # doctest: +SKIP
    >>> round(audit_on_device(z, labels, member).score.value, 2)  # doctest: +SKIP
    0.1
    """
    outputs, labels = read(outputs, labels, kind)
    member = read_member(member, outputs)
    members = int(member.sum())
    sizes = members, len(member) - members
    if 0 in sizes:
        raise InputError("DV005", f"expected members and non-members, got {sizes[0]:,} and {sizes[1]:,}: give both")
    stand_in = _stand_in(outputs, labels, kind)
    check_settings(float(confidence), seed=int(seed))
    chosen = all_named(attacks, stand_in)
    if other := [
        attack.name for attack in chosen if not isinstance(attack.call, Threshold) or attack.name not in NAMES
    ]:
        raise InputError(
            "DV052",
            f"expected signals to threshold ({', '.join(NAMES)}), got {other[0]!r}: other attacks need divulge.audit",
        )
    names = [attack.name for attack in chosen]
    values = signals_on(outputs, labels, [*names, *([] if labels is None else ["correct"])], kind)
    right = None
    if labels is not None:
        correct = values["correct"] >= 1
        right = int((correct & member).sum()), int((correct & ~member).sum())
        del correct
        if "correct" not in names:
            del values["correct"]

    found = identified(outputs, labels, member, kind)
    halves, digest, effective = halves_of(found, member, int(seed)), found.digest, found.effective
    del found
    # One at a time, each signal let go once it is counted: the measuring would ask for several at once.
    rocs = {name: roc_on(values.pop(name), member, halves, effective=effective) for name in names}
    del halves

    error = 1 - float(confidence)
    meta = provenance(stand_in, chosen, digest, None, seed=int(seed), confidence=float(confidence), min_n=MIN_N)
    meta["data"] |= {"members": sizes[0], "nonmembers": sizes[1]}
    measured = measuring.of_all(
        chosen, lambda attack: rocs.pop(attack.name), [], metrics.all_named("default"), right, error, _nothing
    )
    slices = measuring.of_partitions(measured, chosen, lambda attack, merged: [], [], [], sizes, error, _nothing)
    statuses: list[Row] = [{"attack": name, "status": "ran", "reason": None} for name in names]
    tables = measuring.tables(measured, slices, statuses, controls.run([], None))
    return finished(meta, tables, tests=measured.tests, name=name)


def _stand_in(outputs: Tensor, labels: Tensor | None, kind: str) -> Evidence:
    """Evidence of two rows that has the shape and the types of what lies on the device, as a door would give them."""
    types = {"torch.float16": np.float16, "torch.float64": np.float64}
    return Evidence(
        np.array([True, False]),
        outputs=np.zeros((2, *outputs.shape[1:]), types.get(str(outputs.dtype), np.float32)),
        labels=None if labels is None else np.zeros(2, np.int64),
        kind="logits" if kind == "logits" else "probs",
    )


def _nothing() -> None:
    pass
