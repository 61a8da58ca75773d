"""How the runs of a comparison were paired, in sentences for every reporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divulge.wording import clipped, known, run_label

if TYPE_CHECKING:
    from divulge.comparison import Comparison


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
        if not pairing.differences and pairing.reason and "are in both" in pairing.reason:
            text = "in all"  # the reason says how many already
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
