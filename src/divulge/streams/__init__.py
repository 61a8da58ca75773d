"""Any number of records, read once: counted in bins that add up, measured as records in memory are."""

from divulge.streams.source import Stream

__all__ = ["Stream"]
