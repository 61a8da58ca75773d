"""Reporters: a `Report` in, something to read out. One file a format; none of them computes a figure."""
