"""What a sample of this size could show."""

from __future__ import annotations

import math

from divulge import metrics
from divulge.controls.setting import FEW, OK, WARNING, Outcome, Setting, number
from divulge.intervals import clopper_pearson_lower, fpr_ranks


def smallest_score(members: int, nonmembers: int, power: float = 0.8) -> float:
    """The smallest true score whose interval lies above 0 with this probability.

    >>> round(smallest_score(1000, 1000), 3)
    0.081
    """
    from scipy.special import ndtri

    return (math.sqrt(2) * 1.96 + float(ndtri(power))) * math.sqrt((1 / members + 1 / nonmembers) / 4)


def rows_for_score(limit: float) -> int:
    """Rows a side at which a model that leaks nothing would pass a limit on its score.

    The interval's high end is then about 2.56 / sqrt(n): the largest chance advantage and Newcombe's half width.

    >>> rows_for_score(0.1)
    656
    """
    return math.ceil((2.56 / limit) ** 2) if limit > 0 else 0


def smallest_tpr(fpr: float, members: int, nonmembers: int) -> float:
    """The smallest share of members, found above the strictest threshold that is credibly at this FPR, to beat chance.

    What a sample needs to show a tail at all, at 95 %; 1 where nothing would do.

    >>> round(smallest_tpr(0.01, 1000, 1000), 3)
    0.019
    """
    quarter = 0.05 / 4
    if int(fpr_ranks(fpr, nonmembers, quarter)[0]) < 0:
        return 1.0
    low, high = 0, members
    while low < high:
        middle = (low + high) // 2
        enough = float(clopper_pearson_lower(middle, members, quarter)) > fpr
        low, high = (low, middle) if enough else (middle + 1, high)
    return low / members


def power(setting: Setting) -> Outcome:
    """What this sample could show: the smallest score, and the FPRs at which a tail can be measured."""
    shares = zip(setting.sizes, setting.effective, strict=True)
    members, nonmembers = (math.floor(n * share + 1e-9) for n, share in shares)
    smallest = smallest_score(members, nonmembers)
    carried = [fpr for fpr in metrics.FPRS if metrics.needed_nonmembers(fpr) <= nonmembers]
    tail = "TPR at low FPR is not measured"
    if carried:
        least = smallest_tpr(carried[0], members, nonmembers)
        tail = f"TPR is measured down to FPR {carried[0]:g}, where {100 * least:.2f} % found would beat chance"
    below = [fpr for fpr in metrics.FPRS if fpr not in carried]
    if below:
        tail += f" (FPR {below[-1]:g} needs {metrics.needed_nonmembers(below[-1]):,} non-members)"
    text = f"a score of {smallest:.3f} would be seen four times in five; {tail}"
    few = min(members, nonmembers) < FEW
    if few:
        text = f"fewer than {FEW} records (or groups) on a side: intervals are not promised to hold; {text}"
    return Outcome("power", "DV207", WARNING if few else OK, number(smallest), text)
