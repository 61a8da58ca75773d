"""What each attack and each set of attacks finds on the zoo of tests/zoo.py: writes Markdown to stdout.

    python benchmarks/attacks.py                        # all of it: hours on one core
    python benchmarks/attacks.py --only 'wine/*' cancer/mlp --replicates 2
    python benchmarks/attacks.py --table                # only the tables, of what is there

What is finished is kept in a folder, a file for each target and replicate, so a run that was stopped goes on where it
was; to measure anew, remove the files. An attack runs once; what sets of attacks find is read from the same scores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import divulge
from divulge import metrics
from divulge.atomic import replacing
from divulge.attacks import NamedAttack, all_named, named
from zoo import ERROR, FASHION, LEAKS, ZOO, Scored, Target, attacked, leaks, mean_interval, missing, views

LOSS = "loss"
SETS = ("quick", "default", "thorough")
VIEWS = {"outputs": "Outputs and labels alone", "features": "With the model's inputs"}
FPRS = (0.01, 0.001)
UNDEFINED = "–"

Row = dict[str, Any]  # a file's content: a target's replicate

# ---------------------------------------------------------------------------------------------------- measuring


def measure(target: Target, replicate: int, budget: str) -> Row:
    """Train once, and attack with all that the sets up to the budget hold, under each view."""
    start = time.perf_counter()
    evidence = target.evidence(replicate)
    trained = time.perf_counter() - start
    found = {view: measure_view(part, up_to(budget)) for view, part in views(evidence).items()}
    return {
        "target": target.name,
        "replicate": replicate,
        "version": divulge.__version__,
        "members": int(evidence.member.sum()),
        "nonmembers": int((~evidence.member).sum()),
        "right": [float((evidence.outputs.argmax(axis=1) == evidence.labels)[side].mean()) for side in sides(evidence)],
        "seconds": trained,
        "views": found,
    }


def sides(evidence: divulge.Evidence) -> tuple[np.ndarray, np.ndarray]:
    return evidence.member, ~evidence.member


def measure_view(evidence: divulge.Evidence, budgets: Sequence[str]) -> Row:
    """Figures of every attack, and of the loss and each set."""
    sets = {LOSS: [named(LOSS, evidence)], **{name: all_named(name, evidence) for name in budgets if exists(name)}}
    every: dict[str, NamedAttack] = {attack.name: attack for attacks in sets.values() for attack in attacks}
    result = attacked(evidence, list(every.values()))
    return {
        "attacks": {name: figures(scored) for name, scored in result.scored.items()},
        "skipped": result.skipped,
        "sets": {
            name: {
                **dict(zip(("score", "low", "high"), result.score(attack.name for attack in attacks)[:3], strict=True)),
                "auc": result.auc([attack.name for attack in attacks]),
                "attacks": [attack.name for attack in attacks],
            }
            for name, attacks in sets.items()
        },
    }


def up_to(budget: str) -> Sequence[str]:
    return SETS[: SETS.index(budget) + 1]


def exists(name: str) -> bool:
    """Whether this version knows a set of that name."""
    try:
        all_named(name, divulge.Evidence(np.array([True, False]), signals={LOSS: np.zeros(2)}))
    except divulge.InputError:
        return False
    return True


def figures(scored: Scored) -> Row:
    score = metrics.advantage(scored.roc, ERROR)
    tprs = {f"tpr@{fpr:g}": metrics.TprAtFpr(fpr)(scored.roc, ERROR).value for fpr in FPRS}
    return {
        "auc": scored.roc.placement.auc,
        "score": score.value,
        "low": score.low,
        "high": score.high,
        **tprs,
        "seconds": scored.seconds,
    }


# ------------------------------------------------------------------------------------------------------ running


def chosen(patterns: Sequence[str]) -> list[Target]:
    return [target for target in ZOO if any(fnmatch(target.name, pattern) for pattern in patterns)]


def place(folder: Path, target: Target, replicate: int) -> Path:
    return folder / f"{target.name.replace('/', '_')}-{replicate:02d}.json"


def done(path: Path, budget: str) -> bool:
    wanted = {name for name in up_to(budget) if exists(name)}
    return path.is_file() and wanted <= set(json.loads(path.read_text())["views"]["outputs"]["sets"])


def finish(target: Target, replicate: int, budget: str, folder: Path) -> str:
    """Measure and write, whole or not at all; a line of what was done."""
    start = time.perf_counter()
    row = measure(target, replicate, budget)
    with replacing(place(folder, target, replicate)) as temporary:
        temporary.write_text(json.dumps(without_nan(row), indent=1, allow_nan=False))
    score = row["views"]["outputs"]["sets"].get("default", {}).get("score", math.nan)
    return f"{target.name} {replicate}: default {score:.3f}, {time.perf_counter() - start:.1f} s"


def without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(targets: Sequence[Target], replicates: int | None, budget: str, jobs: int, folder: Path) -> None:
    """All that is not there yet; early replicates of all targets first, so that a first look is soon there."""
    folder.mkdir(parents=True, exist_ok=True)
    lacking = {target: reason for target in targets if (reason := missing(target))}
    for target, reason in lacking.items():
        say(f"{target.name} left out: needs {reason}")
    least = replicates or max((target.replicates for target in targets), default=0)
    tasks = [
        (target, replicate)
        for replicate in range(least)
        for target in targets
        if target not in lacking
        and replicate < target.replicates
        and not done(place(folder, target, replicate), budget)
    ]
    if jobs == 1:
        for at, (target, replicate) in enumerate(tasks, 1):
            say(f"{at}/{len(tasks)} {finish(target, replicate, budget, folder)}")
        return
    # Spawned: a fork of a process with threads may hang.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_finish_by_name, target.name, replicate, budget, folder) for target, replicate in tasks]
        for at, future in enumerate(as_completed(waiting), 1):
            say(f"{at}/{len(tasks)} {future.result()}")


def _finish_by_name(name: str, replicate: int, budget: str, folder: Path) -> str:
    """A target holds functions that cannot be sent to another process; its name can."""
    return finish(next(target for target in ZOO if target.name == name), replicate, budget, folder)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------- tables


def loaded(folder: Path, targets: Sequence[Target], replicates: int | None) -> dict[Target, list[Row]]:
    """What is there, by target in the zoo's order."""
    found: dict[Target, list[Row]] = {}
    for target in targets:
        paths = [place(folder, target, replicate) for replicate in range(min(target.replicates, replicates or 1000))]
        if rows := [json.loads(path.read_text()) for path in paths if path.is_file()]:
            found[target] = rows
    return found


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def of_set(rows: Sequence[Row], view: str, name: str, figure: str) -> list[float]:
    """A set's figure in each replicate; empty where a replicate lacks it."""
    values = [row["views"][view]["sets"].get(name, {}).get(figure) for row in rows]
    return [] if any(value is None for value in values) else values


def gain(rows: Sequence[Row], view: str, over: str, name: str, figure: str) -> metrics.Estimate | None:
    """How much larger a set's figure is than another's, replicate by replicate."""
    less, more = of_set(rows, view, over, figure), of_set(rows, view, name, figure)
    return mean_interval(np.subtract(more, less).tolist()) if less and more else None


def verdict(estimate: metrics.Estimate | None) -> str:
    """In bold where credibly above 0; marked where credibly below."""
    if estimate is None:
        return UNDEFINED
    if math.isnan(estimate.low):
        return f"{estimate.value:+.3f}"
    text = f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"**{text}**" if estimate.low > 0 else f"{text} below" if estimate.high < 0 else text


def mean_of(values: Sequence[float | None], form: str = "{:.3f}") -> str:
    numbers = [value for value in values if value is not None]
    return form.format(float(np.mean(numbers))) if numbers and len(numbers) == len(values) else UNDEFINED


STEPS = ((LOSS, "default"), ("default", "thorough"))


def tell_leaking(found: dict[Target, list[Row]], view: str) -> set[Target]:
    """The targets that leak, by the largest set that was measured."""
    top = next(name for name in reversed(SETS) if any(of_set(rows, view, name, "score") for rows in found.values()))
    return {target for target, rows in found.items() if leaks(of_set(rows, view, top, "score") or [math.nan])}


def of_sets(found: dict[Target, list[Row]], view: str, figure: str, leaking: set[Target]) -> Iterator[str]:
    """Target x set, and what the bars say."""
    headings = ("target", "replicates", *(name for name in (LOSS, *SETS)), *(f"{b} - {a}" for a, b in STEPS))
    yield table(
        headings,
        (
            (
                f"{target.name}{' (leaks)' if target in leaking else ''}",
                str(len(rows)),
                *(mean_of(of_set(rows, view, name, figure)) for name in (LOSS, *SETS)),
                *(verdict(gain(rows, view, *step, figure)) for step in STEPS),
            )
            for target, rows in found.items()
        ),
    )
    yield ""
    for over, name in STEPS:
        gains = {target: gain(rows, view, over, name, figure) for target, rows in found.items()}
        known = {target: each for target, each in gains.items() if each is not None and not math.isnan(each.low)}
        if not known:
            continue
        below = [target.name for target, each in known.items() if each.high < 0]
        above = {target for target, each in known.items() if each.low > 0}
        exceptions = f" (below on {', '.join(below)})" if below else ""
        yield (
            f"- {name} against {over}: at least as large within noise on {len(known) - len(below)} of {len(known)} "
            f"targets{exceptions}; credibly above on {len(above & leaking)} of {len(leaking & set(known))} that leak, "
            f"and on {len(above - leaking)} others."
        )


def names_of(found: dict[Target, list[Row]], view: str) -> list[str]:
    """Every attack that ran anywhere."""
    return [*dict.fromkeys(name for rows in found.values() for row in rows for name in row["views"][view]["attacks"])]


def of_attack(rows: Sequence[Row], view: str, name: str, figure: str) -> list[float | None]:
    """An attack's figure in each replicate in which it ran."""
    return [row["views"][view]["attacks"][name][figure] for row in rows if name in row["views"][view]["attacks"]]


def of_attacks(found: dict[Target, list[Row]], view: str) -> str:
    """Target x attack."""
    names = names_of(found, view)

    def cell(rows: list[Row], name: str) -> str:
        if not of_attack(rows, view, name, "auc"):
            return UNDEFINED
        percent: Callable[[str], str] = lambda figure: mean_of(  # noqa: E731
            [value if value is None else 100 * value for value in of_attack(rows, view, name, figure)], "{:.1f}"
        )
        plain = [mean_of(of_attack(rows, view, name, figure)) for figure in ("auc", "score")]
        return " / ".join([*plain, *(percent(f"tpr@{fpr:g}") for fpr in FPRS)])

    return table(("target", *names), ((t.name, *(cell(rows, name) for name in names)) for t, rows in found.items()))


def of_time(found: dict[Target, list[Row]], view: str) -> str:
    """Seconds of an attack, by data set."""
    by_data: dict[str, list[Row]] = {}
    for target, rows in found.items():
        if not target.leak_free:
            by_data.setdefault(target.data, []).extend(rows)
    sizes = {data: rows[0]["members"] + rows[0]["nonmembers"] for data, rows in by_data.items()}
    lines = [
        (name, *(mean_of(of_attack(rows, view, name, "seconds"), "{:.3g}") for rows in by_data.values()))
        for name in names_of(found, view)
    ]
    for name in SETS:
        totals = [
            mean_of(
                [
                    sum(row["views"][view]["attacks"][attack]["seconds"] for attack in ran(row, view, name))
                    for row in rows
                    if name in row["views"][view]["sets"]
                ],
                "{:.3g}",
            )
            for rows in by_data.values()
        ]
        lines.append((f"_{name}, in all_", *totals))
    return table(("attack", *(f"{data}, {n:,} rows" for data, n in sizes.items())), lines)


def ran(row: Row, view: str, name: str) -> list[str]:
    """The attacks of a set that ran."""
    return [attack for attack in row["views"][view]["sets"][name]["attacks"] if attack in row["views"][view]["attacks"]]


def of_alarms(found: dict[Target, list[Row]]) -> str:
    """Leak-free targets: in how many replicates a set's score is credibly above 0."""
    cells = []
    for target, rows in found.items():
        for view in VIEWS:
            lows = [of_set(rows, view, name, "low") for name in (LOSS, *SETS)]
            alarms = [f"{sum(x > 0 for x in low)} of {len(low)}" if low else UNDEFINED for low in lows]
            cells.append((target.name, view, *alarms))
    return table(("target", "evidence", LOSS, *SETS), cells)


def show(found: dict[Target, list[Row]]) -> Iterator[str]:
    """The whole, as Markdown."""
    leaky = {target: rows for target, rows in found.items() if not target.leak_free}
    leak_free = {target: rows for target, rows in found.items() if target.leak_free}
    yield f"divulge {divulge.__version__}, Python {platform.python_version()}, {platform.machine()}."
    for view, title in VIEWS.items():
        if not leaky:
            continue
        leaking = tell_leaking(leaky, view)
        yield f"\n## {title}\n\n### Score of each set\n"
        yield f"Means; the gains' 95 % t-intervals, bold where credibly above 0. Leaks: credibly above {LEAKS}.\n"
        yield from of_sets(leaky, view, "score", leaking)
        yield "\n### AUC of each set's best attack, chosen on the other half\n"
        yield from of_sets(leaky, view, "auc", leaking)
        yield "\n### Attacks: AUC / score / TPR at 1 % FPR, % / TPR at 0.1 % FPR, %\n"
        yield of_attacks(leaky, view)
        yield "\n### Seconds of an attack\n"
        yield of_time(leaky, view)
    if leak_free:
        yield "\n## Leak-free twins\n\n### Alarms: the score's low end is above 0\n"
        yield of_alarms(leak_free)
        for view, title in VIEWS.items():
            yield f"\n### {title}: AUC / score / TPR at 1 % FPR, % / TPR at 0.1 % FPR, %\n"
            yield of_attacks(leak_free, view)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="targets, as in 'digits/*'")
    parser.add_argument("--replicates", type=int, help="at most so many of each target")
    parser.add_argument("--budget", choices=SETS, default="thorough", help="the largest set to run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("build/zoo"), metavar="FOLDER", help="of what is finished")
    parser.add_argument("--fashion", metavar="FOLDER", help=f"of Fashion-MNIST's .gz files, if not {FASHION}; or keras")
    parser.add_argument("--table", action="store_true", help="run nothing, show what is there")
    options = parser.parse_args(argv)
    if options.fashion:
        os.environ["DIVULGE_FASHION"] = options.fashion
    targets = chosen(options.only)
    if not targets:
        parser.error(f"no target is called so; there are {', '.join(target.name for target in ZOO)}")
    if not options.table:
        run(targets, options.replicates, options.budget, options.jobs, options.out)
    print("\n".join(show(loaded(options.out, targets, options.replicates))))


if __name__ == "__main__":
    main()
