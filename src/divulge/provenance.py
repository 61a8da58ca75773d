"""What a report says of how it was made: versions, settings, and digests of what it was made from."""

from __future__ import annotations

import datetime
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.attack import NamedAttack, without_address
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.hashes import STEP, array_hashes
from divulge.report import LADDER
from divulge.version import VERSION


def provenance(
    evidence: Evidence,
    attacks: Sequence[NamedAttack],
    digest: str,
    references: dict[str, Any] | None,
    *,
    seed: int,
    confidence: float,
    min_n: int,
) -> dict[str, Any]:
    """What a report says of how it was made; data as the evidence has them."""
    clock = os.environ.get("SOURCE_DATE_EPOCH")
    if clock is not None and not (clock.isdecimal() and len(clock) < 12):
        raise InputError("DV056", f"expected SOURCE_DATE_EPOCH to be whole seconds since 1970, got {clock[:40]!r}")
    now = (
        datetime.datetime.now(datetime.UTC)
        if clock is None
        else datetime.datetime.fromtimestamp(int(clock), datetime.UTC)
    )
    outputs = evidence.outputs
    return {
        "version": VERSION,
        "created": now.isoformat(timespec="seconds"),
        "seed": seed,
        "confidence": confidence,
        "min_n": min_n,
        "ladder": list(LADDER),
        "data": {
            "members": int(evidence.member.sum()),
            "nonmembers": int((~evidence.member).sum()),
            "task": evidence.task,
            "kind": evidence.kind,
            "outputs": None if outputs is None else 1 if outputs.ndim == 1 else outputs.shape[1],
            "dtype": None if outputs is None else str(outputs.dtype),
            "given": sorted(evidence.signals),
            "columns": sorted(evidence.columns),
            "digest": digest,
            "references": references,
        },
        "attacks": {attack.name: without_address(repr(attack.call)) for attack in attacks},
    }


def of_references(evidence: Evidence, contents: NDArray[np.uint64]) -> dict[str, Any] | None:
    """What reference models there are, and 32 hex digits of all that they say, whatever the order of the records."""
    references = evidence.references
    if references is None:
        return None
    hashes = array_hashes(contents) + array_hashes(np.packbits(references.trained_on, axis=0).T)
    of_signals = sorted(references.signals.items())
    # One model at a time: the arrays may be memory-mapped.
    arrays = [(name, of_model) for name, values in of_signals for of_model in values]
    for name, values in arrays + sorted((references.target or {}).items()):
        hashes = hashes * STEP + array_hashes(values, zlib.crc32(name.encode()))
    hashes = array_hashes(hashes)
    return {
        "models": len(references.trained_on),
        "source": references.source,
        "signals": [name for name, _ in of_signals],
        "digest": f"{int(hashes.sum(dtype=np.uint64)):016x}{int(array_hashes(hashes).sum(dtype=np.uint64)):016x}",
    }
