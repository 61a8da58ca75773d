"""What lowers a model's leak, and what it costs: seven ways to train one network, each audited.

    python examples/mitigations/mitigations.py                     # Fashion-MNIST, torch and Keras: minutes
    python examples/mitigations/mitigations.py --data digits       # a minute or two, nothing to install

Writes, for each framework: epochs/ (a series: the leak while training without defence), defences/ (a run file each),
epochs.html, defences.html, and table.md.
"""

from __future__ import annotations

import argparse
import importlib
import time
from functools import partial
from pathlib import Path

from data import FASHION, Data, load
from defences import defences, train

import divulge
from divulge import charts
from divulge.series import Series
from divulge.wording import figure, score_attack

EPOCHS = {"fashion": 80, "digits": 100}
LOOKS = {"fashion": (1, 2, 5, 10, 20, 40, 80), "digits": (1, 3, 10, 30, 100)}


# Thresholds find what these networks give away in their losses, and many audits stay quick.
audit = partial(divulge.audit, attacks="quick", slices=["class"])


def main(argv: list[str] | None = None) -> None:
    """Train, audit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("torch", "keras"), nargs="+", default=["torch", "keras"])
    parser.add_argument("--data", choices=tuple(EPOCHS), default="fashion")
    parser.add_argument("--epochs", type=int, help="of training without defence")
    parser.add_argument("--fashion", type=Path, default=FASHION, metavar="FOLDER", help="of Fashion-MNIST's .gz files")
    parser.add_argument("--out", type=Path, default=Path("mitigations"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    data = load(options.data, options.fashion, options.seed)
    for framework in options.framework:
        run(framework, data, options)


def run(framework: str, data: Data, options: argparse.Namespace) -> None:
    """All defences in one framework."""
    made = importlib.import_module(f"with_{framework}")
    epochs = options.epochs or EPOCHS[options.data]
    looks = sorted({min(epoch, epochs) for epoch in LOOKS[options.data]} | {epochs})
    folder = options.out / framework
    reports, evidence, rows, over = [], [], [], []
    for defence in defences(epochs):
        started = time.perf_counter()
        learner = made.learner(defence, data.members, options.seed)

        def look(epoch: int, learner=learner, defence=defence) -> None:
            if defence.name == "no defence" and epoch in looks:
                seen = learner.evidence(data.members, data.others)
                over.append((epoch, seen, audit(seen, controls=(), name=f"epoch {epoch}")))

        kept = train(learner, defence, data, options.seed, look)
        evidence.append(learner.evidence(data.members, data.others))
        reports.append(audit(evidence[-1], name=f"{defence.name}, {framework}"))
        rows.append(row(defence.name, kept, reports[-1], learner.epsilon(), defence.delta))
        print(f"{framework}: {' | '.join(rows[-1])} | {time.perf_counter() - started:.0f} s", flush=True)
    steps, seen, looked = zip(*over, strict=True)
    series = Series.of(looked, steps=steps, axis="epoch", evidence=seen)
    series.save(folder / "epochs")
    series.to_html(folder / "epochs.html")
    names = [defence.name for defence in defences(epochs)]
    compared = divulge.compare(*reports, names=names, evidence=evidence)
    compared.to_html(folder / "defences.html")
    (folder / "defences").mkdir(exist_ok=True)
    for name, report in zip(names, reports, strict=True):
        report.save(folder / "defences" / f"{name.replace(' ', '-').replace(',', '')}.json")
    charts.over(series).save(str(folder / "epochs.png"), scale_factor=1.5)
    charts.tradeoff(compared).save(str(folder / "defences.png"), scale_factor=1.5)
    (folder / "table.md").write_text(table(rows), encoding="utf-8")
    print(f"{framework}: wrote {folder}/epochs.html, defences.html, table.md", flush=True)


HEADINGS = ("defence", "epoch", "right on others", "score", "TPR at 1 % FPR", "epsilon")


def row(name: str, epoch: int, report: divulge.Report, epsilon: float | None, delta: float) -> tuple[str, ...]:
    """One defence's cells."""
    accuracy, tpr = report.estimate("nonmember_accuracy"), report.estimate("tpr@0.01", attack=score_attack(report))
    return (
        name,
        str(epoch),
        figure("nonmember_accuracy", *accuracy[:3]),
        figure("score", *report.score[:3]),
        figure("tpr", *tpr[:3]),
        "none" if epsilon is None else f"{epsilon:.2f} at delta {delta:g}",
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
