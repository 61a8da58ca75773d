"""How often the intervals hold a known truth: writes the table of docs/coverage.md to stdout.

python benchmarks/coverage.py > docs/coverage.md        # the whole, on one core: about 10 minutes
python benchmarks/coverage.py --runs 200 --seeds 20     # a first look
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulations import ERROR, FAMILIES, Cell, Coverage, budget, cover

HEAD = """\
# Coverage: do the intervals hold the truth?

Every interval is simulated on data whose truth is known by formula, and whole audits on data without a leak.
This page is written by

    python benchmarks/coverage.py > docs/coverage.md

and `pytest -m slow` runs the same settings with fewer samples: it fails where the promised rates are all but
impossible given what it saw (p < 1e-4).

**Promised**, for intervals at 95 %:

- from 50 rows a side the truth is held in at least 93 % of runs. Below that nothing is promised; those rows, in
  _italics_, say what holds;
- without a leak the low end of the score and of the tail is above chance in at most 2.5 % of runs;
- from 200 rows a side the score's interval is at most twice as wide as Newcombe's at the best threshold, known in
  advance. Not where only few members are exposed: their best threshold lies where rates hardly vary, and has to be
  found; nor with lopsided halves, which hold less than their number of rows;
- audits of data without a leak raise a leak finding or FAIL in at most 5 % of runs, and the score's interval holds 0
  in at least 95 %.

**Bold** marks a rate short of its bar.

**Settings.** Members' scores are shifted by d = 2 Φ⁻¹((1 + advantage) / 2) against unit Gaussian noise; ten attacks
have shifts d, .9 d, … .1 d and noise that correlates by half. "Reversed" attacks shift the other way. Ties: scores are
rounded to whole standard deviations, or as said. "5 % exposed": only so many members are shifted, by 4. "Unstratified
halves": rows fall to the audit's two halves by a coin, as they do within a slice. "Lopsided halves": one holds 80 % of
the members and 20 % of the non-members, as large groups can cause.

**Truth.** Of the score: the best attack's best advantage in the population. Of the tail and the TPR: the population's
TPR at that FPR (under ties, at the best threshold whose FPR is no larger). Of the achieved FPR and the PPV: the
population's figure at the threshold that the sample used. "Too high": the interval's low end lies above the truth;
"too low": its high end below. Runs in which a figure is undefined are left out.
"""

AUDITS = """\
Default attacks; slices by class, by correctness and by tenths of the loss; a policy with five gates. "At chance": a
policy whose five limits are what chance gives (score 0, AUC 0.5, lift 1 …): it is held to 2.5 %.
"""

TITLES = {
    "score": "The vulnerability score",
    "auc": "AUC",
    "tpr": "TPR at an FPR",
    "tail": "The tail: the best attack's TPR at an FPR",
    "threshold": "Figures at the threshold that was used",
    "epsilon": "Empirical epsilon (a lower bound: it cannot be too low)",
}


def percent(count: int, runs: int, bar: float | None = None) -> str:
    """A share in percent; bold where it is above its bar."""
    text = f"{100 * count / runs:.1f}"
    return f"**{text}**" if bar is not None and count / runs > bar else text


def held(found: Coverage, asserted: bool) -> str:
    """The share held; bold where it is short of its bar."""
    text = f"{100 * (1 - found.misses / found.runs):.1f}"
    return f"**{text}**" if asserted and found.misses / found.runs > 0.07 else text


def line(cell: Cell, found: Coverage) -> str:
    """A row of the table."""
    alarms = "" if cell.chance != cell.chance else percent(found.alarms, found.runs, 0.025)
    width = "" if found.width != found.width else f"{found.width:.3f}"
    ratio = "" if found.reference != found.reference else f"{found.width / found.reference:.2f}"
    ratio = f"**{ratio}**" if ratio and min(cell.members, cell.nonmembers) >= 200 and float(ratio) > 2 else ratio
    cells = [
        cell.family,
        cell.setting if cell.asserted else f"_{cell.setting}_",
        f"{cell.members:,}",
        f"{cell.nonmembers:,}",
        f"{found.truth:.4g}",
        f"{found.runs:,}",
        held(found, cell.asserted),
        percent(found.too_high, found.runs),
        percent(found.too_low, found.runs),
        alarms,
        width,
        ratio,
    ]
    return "| " + " | ".join(cells) + " |"


def table(family: str, runs: int) -> None:
    """One family's table."""
    print(f"\n## {TITLES[family]}\n")
    print(
        "| figure | setting | members | non-members | truth | runs | held % | too high % | too low % | false alarms % "
        "| mean width | width / Newcombe's |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for cell in FAMILIES[family]():
        found = cover(cell, runs if cell.nonmembers < 50_000 else max(runs // 10, 1))
        print(line(cell, found), flush=True)
        print(cell, file=sys.stderr, flush=True)


def audits(seeds: int) -> None:
    """The error budget of whole audits."""
    print("\n## Whole audits without a leak\n")
    print(AUDITS)
    print("| rows a side | classes | runs | leak finding or FAIL % | FAIL % | FAIL at chance % | score holds 0 % |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    total = (0, 0, 0, 0, 0)
    for n in (200, 1000, 10_000):
        for classes in (2, 10, 100):
            found = budget(range(seeds), n, classes)
            total = tuple(a + b for a, b in zip(total, found, strict=True))
            print(budget_line(f"{n:,}", str(classes), found), flush=True)
            print(f"audits, {n} a side, {classes} classes", file=sys.stderr, flush=True)
    print(budget_line("all", "", total))


def budget_line(n: str, classes: str, found: Sequence[int]) -> str:
    """A row of the audits' table."""
    runs, alarms, fails, at_chance, misses = found
    zero = f"{100 * (1 - misses / runs):.1f}"
    zero = f"**{zero}**" if misses / runs > ERROR else zero
    rates = percent(alarms, runs, 0.05), percent(fails, runs, 0.05), percent(at_chance, runs, 0.025), zero
    return "| " + " | ".join((n, classes, f"{runs:,}", *rates)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="samples a setting")
    parser.add_argument("--seeds", type=int, default=200, help="whole audits a size")
    parser.add_argument("--only", nargs="*", default=[*FAMILIES, "audits"], help="families of settings")
    options = parser.parse_args()
    start = time.process_time()
    print(HEAD, end="")
    for family in FAMILIES:
        if family in options.only:
            table(family, options.runs)
    if "audits" in options.only:
        audits(options.seeds)
    print(f"{time.process_time() - start:.0f} s of CPU", file=sys.stderr)


if __name__ == "__main__":
    main()
