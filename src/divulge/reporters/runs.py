"""What every reporter says alike of several runs: their figures' names, changes, and how runs were paired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divulge.reporters.wording import clipped, figure, known, rate

if TYPE_CHECKING:
    from divulge.comparison import Comparison
    from divulge.report import Row

_LABELS = {
    "score": "score",
    "auc": "AUC, best attack",
    "member_accuracy": "right on members",
    "nonmember_accuracy": "right on others",
}


def run_label(row: Row) -> str:
    """What a row of a comparison is the figure of.

    >>> run_label({"metric": "tail_lift", "fpr": 0.01})
    'lift at 1 % FPR'
    """
    return f"lift at {rate(row['fpr'])} FPR" if known(row["fpr"]) else _LABELS.get(row["metric"], str(row["metric"]))


def run_figure(row: Row) -> str:
    """A run's figure with its interval."""
    return figure(row["metric"], row["value"], row["low"], row["high"])


def change(row: Row) -> str:
    """A difference to the first run with its sign; percentages as points; empty where there is none.

    >>> change({"metric": "score", "difference": 0.1, "diff_low": 0.05, "diff_high": 0.15})
    '+0.100 [0.050, 0.150]'
    """
    if not known(row["difference"]):
        return ""
    text = figure(row["metric"], row["difference"], row["diff_low"], row["diff_high"]).replace(" %", "", 1)
    return text if text.startswith("-") else f"+{text}"


def pairings(comparison: Comparison) -> list[str]:
    """What each change is a change of, and how its interval was made: sentences."""
    first = clipped(comparison.names[0], 40)
    if not any(comparison.pairings):
        return ["Unpaired: intervals of a change as of independent samples. With --evidence runs are paired by record."]
    seeds = [report.meta["seed"] for report in comparison.reports]
    said = []
    for name, seed, pairing in list(zip(comparison.names, seeds, comparison.pairings, strict=True))[1:]:
        name = clipped(name, 40)
        if pairing is None:
            said.append(f"{name} is unpaired: no evidence was given for it.")
            continue
        text = f"{pairing.members:,} members and {pairing.nonmembers:,} non-members are in both"
        if any(pairing.left_out):
            text += f", {pairing.left_out[0]:,} records of {first} and {pairing.left_out[1]:,} of {name} are left out"
        if pairing.crossed:
            text += f", {pairing.crossed:,} are members of the one and non-members of the other"
        if pairing.differences:
            said.append(f"{name} is paired with {first} by record: {text}.")
            if any(pairing.left_out):
                said.append(f"Paired changes of {name} are of the records in both; its values are of all its records.")
            if seed != seeds[0]:
                said.append(f"Paired changes of {name} are at seed {seeds[0]}, that of {first}; its values at {seed}.")
            said += [f"Not all of {name} is paired: {pairing.reason}."] if pairing.reason else []
        else:
            said.append(f"{name} is unpaired: {pairing.reason} ({text}).")
        if pairing.crossed:
            said.append("Unpaired intervals do not allow for records that changed sides: they may be too narrow.")
    unpaired = dict.fromkeys(
        run_label(row) for row in comparison.rows() if row["pairing"] == "unpaired" and known(row["difference"])
    )
    if unpaired:
        said.append(f"As of independent samples where unpaired: {', '.join(unpaired)}.")
    return said
