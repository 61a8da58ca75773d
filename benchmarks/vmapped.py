"""How much faster reference models are trained at once (executor="vmapped") than one by one.

Each of a few torch models is trained on random halves of the same records three ways, in turn, in one run: one by one
in a loop, on one thread; in as many processes as cores, on one thread each, which are up and have their data; and by
`Torch.fit_many`, on as many threads as cores. What counts is the ratio, repeat by repeat: median, least and greatest.
The ratio of processor times is what at once gains on one core; other work on the machine moves it little.

    python benchmarks/vmapped.py [--models 64] [--batch-size 32] [--repeats 5] [--only tabular mlp cnn] [--workers 2]
    python benchmarks/vmapped.py --device cuda

Images are Fashion-MNIST where Debian's package dataset-fashion-mnist is installed, else random ones of that shape,
which take as long.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.externals.loky import ProcessPoolExecutor

from divulge.blocks import cores
from divulge.fits import Torch
from divulge.references.pinning import pinned

IMAGES = Path("/usr/share/datasets/fashion-mnist")
RECORDS, FEATURES, CLASSES = 2_500, 40, 10
BARS = {"cpu": 3.0, "cuda": 10.0}  # an MLP, against one by one


def tabular() -> Any:
    """Of 40 columns: 40-64-64-10."""
    from torch import nn

    return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def mlp() -> Any:
    """Of images: 784-128-10."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> Any:
    """Of images: two convolutions and a linear layer, 7,000 weights."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(576, 10)),
    )


MODELS = {"tabular": tabular, "mlp": mlp, "cnn": cnn}


def records(name: str, count: int) -> tuple[Any, Any, str]:
    """(x, y), and what they are."""
    rng = np.random.default_rng(0)
    if name == "tabular":
        x = rng.standard_normal((count, FEATURES), dtype=np.float32)
        return x, (x @ rng.standard_normal((FEATURES, CLASSES))).argmax(axis=1), "random columns"
    images, labels = IMAGES / "train-images-idx3-ubyte.gz", IMAGES / "train-labels-idx1-ubyte.gz"
    if images.exists():
        with gzip.open(images) as file:
            file.read(16)
            x = np.frombuffer(file.read(count * 784), np.uint8).reshape(count, 1, 28, 28).astype(np.float32) / 255
        with gzip.open(labels) as file:
            file.read(8)
            y = np.frombuffer(file.read(count), np.uint8).astype(np.int64)
        return x, y, "Fashion-MNIST"
    return rng.random((count, 1, 28, 28), np.float32), rng.integers(0, CLASSES, count), "random images"


def one_by_one(fit: Torch, data: Any, rows: Sequence[Any], seeds: Sequence[int]) -> None:
    with pinned(seeds[0], 1):
        for part, seed in zip(rows, seeds, strict=True):
            fit(data, part, seed)
    finished(fit)


def at_once(fit: Torch, data: Any, rows: Sequence[Any], seeds: Sequence[int], threads: int) -> None:
    with pinned(seeds[0], threads):
        for start in range(0, len(rows), fit.at_once):
            part = slice(start, start + fit.at_once)
            fit.fit_many(data, rows[part], seeds[part])
    finished(fit)


def finished(fit: Torch) -> None:
    if str(fit.device).startswith("cuda"):
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, fit: Torch, data: Any, rows: Sequence[Any], repeats: int, workers: int) -> None:
    seeds = list(range(len(rows)))
    ways: dict[str, Callable[[], object]] = {
        "a loop": lambda: one_by_one(fit, data, rows, seeds),
        "at once": lambda: at_once(fit, data, rows, seeds, workers),
    }
    pool = None
    if workers > 1 and fit.device is None:
        pool = ProcessPoolExecutor(workers, env={"OMP_NUM_THREADS": "1"})

        def in_processes() -> None:
            parts = [slice(i, None, workers) for i in range(workers)]
            list(
                pool.map(functools.partial(one_by_one, fit, data), [rows[p] for p in parts], [seeds[p] for p in parts])
            )

        ways[f"{workers} processes"] = in_processes
    for work in ways.values():
        work()  # loads, compiles, finds its memory
    took = {way: np.empty(repeats) for way in ways}
    busy = {way: np.empty(repeats) for way in ways}
    for i in range(repeats):
        for way, work in ways.items():
            before = time.process_time()
            took[way][i] = seconds(work)
            busy[way][i] = time.process_time() - before
    if pool is not None:
        pool.shutdown()
    everyone = np.arange(len(data[1]))
    apart = fit(data, rows[0], 0)(data, everyone, 0) - fit.fit_many(data, rows[:2], seeds[:2])[0](data, everyone, 0)
    print(f"{name}: {', '.join(f'{way} {np.median(runs):.2f} s' for way, runs in took.items())}")
    for way, runs in took.items():
        if way != "at once":
            ratio = runs / took["at once"]
            print(
                f"  at once against {way}: {np.median(ratio):.1f} [{ratio.min():.1f}, {ratio.max():.1f}] times as fast"
            )
    ratio = busy["a loop"] / busy["at once"]
    print(
        f"  processor time of a loop: {np.median(ratio):.1f} [{ratio.min():.1f}, {ratio.max():.1f}] times that at once"
    )
    print(f"  outputs differ from one by one by at most {np.abs(apart).max():.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=None, help="models in a batch; default: all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=MODELS, nargs="+", default=list(MODELS))
    options = parser.parse_args()
    on = platform.machine() if options.device == "cpu" else torch.cuda.get_device_name()
    print(
        f"torch {torch.__version__}, {on}, {options.workers} cores; {options.models} models, {options.epochs} epochs "
        f"of {options.records // 2:,} records in batches of {options.batch_size}; SGD with momentum. Bar for an MLP: "
        f"{BARS[options.device]:g} times as fast as one by one"
    )
    for name in options.only:
        x, y, what = records(name, options.records)
        rng = np.random.default_rng(1)
        rows = [np.sort(rng.permutation(len(y))[: len(y) // 2]) for _ in range(options.models)]
        fit = Torch(
            MODELS[name],
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
            device=None if options.device == "cpu" else options.device,
            at_once=options.at_once or options.models,
        )
        compare(f"{name} ({what})", fit, (x, y), rows, options.repeats, options.workers)


if __name__ == "__main__":
    main()
