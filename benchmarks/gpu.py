"""How long 100,000,000 + 100,000,000 scores take on a GPU, what memory, and against numpy in the same run.

Scores: made on the device, sorted and counted there (roc_on), score and AUC from the counts that come down. Outputs:
signals, halves and the whole report from logits that lie on the device. Both are checked against numpy on the first
rows, and compared with it row by row. Where no CUDA device is there the script says so and ends; --device cpu runs the
same code there.

    python benchmarks/gpu.py [--rows 100000000] [--classes 10] [--device cuda] [--host-rows 1000000]
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from divulge import Evidence, folds, metrics, selection
from divulge.adapters.device import audit_on_device, halves_on, roc_on, signals_on
from divulge.pipeline import audit
from divulge.roc import exact
from divulge.signals import compute

SIGNALS = ("loss", "modified_entropy")
SHIFT = 0.2  # of members' scores and logits


class Clock:
    """Seconds and memory of one step at a time on a device, printed as it goes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self.seconds: dict[str, float] = {}

    def step(self, name: str, rows: int, work: Callable[[], Any]) -> Any:
        before = 0
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        start = time.perf_counter()
        result = work()
        if self.cuda:
            torch.cuda.synchronize(self.device)
        self.seconds[name] = took = time.perf_counter() - start
        line = f"  {name:<34}{took:9.2f} s {rows / took / 1e6:10.1f} million rows a second"
        if self.cuda:
            extra = torch.cuda.max_memory_allocated(self.device) - before
            line += f"; {extra / 1e9:.2f} GB more on the device, {extra / rows:.0f} bytes a row"
        print(line, flush=True)
        return result


def of_scores(clock: Clock, rows: int, host_rows: int) -> None:
    """Given scores: one sort, counts, score and AUC."""
    print(f"\n{rows:,} + {rows:,} scores, float32")
    device, n = clock.device, 2 * rows
    generator = torch.Generator(device).manual_seed(0)
    member = torch.arange(n, device=device) % 2 == 0
    scores = torch.randn(n, generator=generator, device=device)
    scores[::2] += SHIFT
    halves = torch.randint(0, 2, (n,), generator=generator, device=device, dtype=torch.uint8)
    roc = clock.step("sort and counts (roc_on)", n, lambda: roc_on(scores, member, halves))
    error = 0.05
    score = clock.step("score, on the host", n, lambda: selection.score({"given": roc}, error))
    auc = clock.step("AUC, on the host", n, lambda: metrics.auc(roc, error))
    print(
        f"  {len(roc.thresholds):,} thresholds; score {score.value:.5f} [{score.low:.5f}, {score.high:.5f}]; ", end=""
    )
    print(f"AUC {auc.value:.6f} [{auc.low:.6f}, {auc.high:.6f}]")
    part = min(2 * host_rows, n)
    few = [tensor[:part].cpu().numpy() for tensor in (scores, member, halves)]
    wanted = clock.step("the first rows, numpy (exact)", part, lambda: exact(*few))
    found = clock.step("the first rows, device", part, lambda: roc_on(scores[:part], member[:part], halves[:part]))
    same = all(np.array_equal(getattr(found, x), getattr(wanted, x)) for x in ("thresholds", "tp", "fp"))
    print(f"  thresholds and counts equal numpy's: {'yes' if same else 'NO'}")
    compared(clock, "sort and counts (roc_on)", "the first rows, numpy (exact)", n, part)


def of_outputs(clock: Clock, rows: int, classes: int, host_rows: int) -> None:
    """Logits and labels: signals, halves, the whole report."""
    n, device = 2 * rows, clock.device
    print(f"\n{rows:,} + {rows:,} records x {classes} logits, float32 ({4 * n * classes / 1e9:.1f} GB)")
    needed = n * (4 * classes + 8 + 100) + (2 << 30)
    if clock.cuda and needed > torch.cuda.mem_get_info(device)[0]:
        print(f"  not run: about {needed / 1e9:.0f} GB are needed on the device. Fewer --rows or --classes")
        return
    generator = torch.Generator(device).manual_seed(1)
    logits = torch.empty(n, classes, device=device).normal_(generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator, device=device)
    member = torch.arange(n, device=device) < rows
    logits[:rows].scatter_add_(1, labels[:rows, None], torch.full((rows, 1), SHIFT, device=device))
    clock.step("signals: " + ", ".join(SIGNALS), n, lambda: signals_on(logits, labels, SIGNALS))
    clock.step("halves", n, lambda: halves_on(logits, labels, member))
    report = clock.step("the whole report", n, lambda: audit_on_device(logits, labels, member, attacks=SIGNALS))
    print("  score {:.5f} [{:.5f}, {:.5f}]".format(*report.score[:3]))

    part = min(host_rows, rows)
    at = torch.cat([torch.arange(part), torch.arange(rows, rows + part)]).to(device)
    few = Evidence(
        member[at].cpu().numpy(), outputs=logits[at].cpu().numpy(), labels=labels[at].cpu().numpy(), kind="logits"
    )
    wanted = compute(few, SIGNALS)
    found = signals_on(logits[at], labels[at], SIGNALS)
    for name in SIGNALS:
        error = np.max(np.abs(found[name].cpu().numpy().astype(float) / wanted[name].astype(float) - 1))
        print(f"  {name} of the first rows: within {error:.1e} of numpy's, as a share")
    same = np.array_equal(halves_on(logits[at], labels[at], member[at]).cpu().numpy(), folds.halves(few, 0))
    print(f"  halves of the first rows equal numpy's: {'yes' if same else 'NO'}")
    numpys = clock.step("the first rows, numpy (audit)", 2 * part, lambda: audit(few, attacks=SIGNALS, controls=()))
    ours = audit_on_device(logits[at], labels[at], member[at], attacks=SIGNALS)
    print(f"  scores of the first rows: {ours.score.value:.6f}, numpy's {numpys.score.value:.6f}")
    compared(clock, "the whole report", "the first rows, numpy (audit)", n, 2 * part)


def compared(clock: Clock, ours: str, numpys: str, rows: int, part: int) -> None:
    share = clock.seconds[ours] / rows / (clock.seconds[numpys] / part)
    print(f"  a row takes {share:.3f} of what numpy takes for one here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000, help="a side")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--host-rows", type=int, default=1_000_000, help="a side, of what numpy is compared on")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"No CUDA device is here (torch {torch.__version__}): nothing was run. --device cpu runs the same code.")
        sys.exit(1)
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU, {torch.get_num_threads()} threads"
    )
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}; {where}")
    clock = Clock(device)
    of_scores(clock, options.rows, options.host_rows)
    of_outputs(clock, options.rows, options.classes, options.host_rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "linux" else 1e9)
    print(f"\nPeak memory of the process on the host: {peak:.2f} GB")


if __name__ == "__main__":
    main()
