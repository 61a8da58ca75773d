"""Audits where the outputs lie: torch tensors are scored, split and sorted on their device, and only counts come down.

What stands here is `divulge.signals`, `divulge.folds` and `divulge.roc` once more in torch's words, for hundreds of
millions of records on one GPU: hashes, halves and counts are the same bit for bit, signals as far as float32 goes. The
same code runs on the CPU. float64 is needed, which Apple's MPS lacks.
"""

from divulge.adapters.device.auditing import audit_on_device
from divulge.adapters.device.halves import halves_on
from divulge.adapters.device.signals import signals_on
from divulge.adapters.device.sorting import roc_on

__all__ = ["audit_on_device", "halves_on", "roc_on", "signals_on"]
