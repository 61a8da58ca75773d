"""Pictures: one function each, from a `Report` (a `Comparison`, a `Series`) alone: Altair charts to restyle and save.

    divulge.charts.roc(report).save("roc.png")     # or .svg, .pdf, .html, .json

A chart carries its words: the question that it answers as its title, a sentence, and a text alternative (description).
Where the report does not carry a picture, `Unavailable` says why.

    >>> import numpy as np
    >>> from divulge import Evidence, audit
    >>> n = np.arange(400)
    >>> report = audit(Evidence(member=n < 200, signals={"loss": np.sin(n * n) + 0.2 * (n < 200)}), controls=())
    >>> roc(report).width
    380
"""

from divulge.charts.cost import tradeoff
from divulge.charts.crowd import people
from divulge.charts.curves import roc, rocs
from divulge.charts.over import over
from divulge.charts.reliability import reliability
from divulge.charts.several import baseline, runs
from divulge.charts.single import attacks, distributions, gates, records, slices

__all__ = [
    "attacks",
    "baseline",
    "distributions",
    "gates",
    "over",
    "people",
    "records",
    "reliability",
    "roc",
    "rocs",
    "runs",
    "slices",
    "tradeoff",
]
