"""What a stream costs: time against reading the same Parquet files with pyarrow alone, peak memory, growth, workers.

    python benchmarks/stream.py --rows 100000000 --folder FOLDER     # writes 4.4 GB there, once; ten minutes
    python benchmarks/stream.py --rows 1000000                       # small, in a temporary folder

Records: a label of 10 classes, float32 logits (a fixed-size list), whether they were in training; files of a million,
row groups of 250,000, no ids. Each measurement is a process of its own, in turn, repeated; ratios are of neighbours.
Peak memory is the process's, code and libraries included. Files stay in the page cache: reading is at its fastest, and
the ratio at its worst.

Exit status: 1 where a figure is over its bar; each such is marked "over". Fewer than ten million rows are not judged.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

A_FILE = 1_000_000
LIMIT, MOST_MEMORY = 2.5, 1_500  # times of reading alone, of the first setting; MB
GAIN = 1.6  # times the rate of one worker that two have at least
JUDGED_FROM = 10_000_000  # rows: of fewer the start is most of the time


def write(folder: Path, rows: int) -> None:
    """Files that are not there yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    size = min(rows, A_FILE)
    for number in range(rows // size):
        file = folder / f"{number:06}.parquet"
        if file.exists():
            continue
        rng = np.random.default_rng(number)
        member, labels = rng.random(size) < 0.5, rng.integers(0, 10, size).astype(np.int16)
        logits = rng.standard_normal((size, 10), dtype=np.float32)
        logits[np.arange(size), labels] += 2 + 0.4 * member
        lists = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), 10)
        table = pa.table({"member": member, "label": labels, "logits": lists})
        pq.write_table(table, file, row_group_size=250_000)


def read(folder: Path, files: int, workers: int) -> int:
    """All batches, by pyarrow, on its own threads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(workers)
    rows = 0
    for file in sorted(folder.glob("*.parquet"))[:files]:
        with pq.ParquetFile(file, memory_map=True) as parquet:
            rows += sum(batch.num_rows for batch in parquet.iter_batches(1 << 17, use_threads=workers > 1))
    return rows


def audited(folder: Path, files: int, workers: int, attacks: str, slices: str) -> int:
    from divulge import Stream, audit

    source = sorted(folder.glob("*.parquet"))[:files]
    report = audit(
        Stream(source, workers=workers), attacks=attacks.split(","), slices=slices.split(",") if slices else ()
    )
    return int(report.meta["data"]["members"] + report.meta["data"]["nonmembers"])


def one(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    if options.one == "read":
        rows = read(options.folder, options.files, options.workers)
    else:
        rows = audited(options.folder, options.files, options.workers, options.attacks, options.slices)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "MB": peak}))


def measured(
    what: str, folder: Path, files: int, workers: int, attacks: str = "loss", slices: str = ""
) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", what, "--folder", str(folder), "--files", str(files)]
    command += ["--workers", str(workers), "--attacks", attacks, "--slices", slices]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", choices=("read", "audit"), help=argparse.SUPPRESS)
    parser.add_argument("--files", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--attacks", default="loss,modified_entropy")
    parser.add_argument("--slices", default="")
    options = parser.parse_args()
    if options.one:
        one(options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write(folder, options.rows)
        files = options.rows // min(options.rows, A_FILE)
        over = compare(folder, files, options)
    if over:
        sys.exit(f"Over the bar: {', '.join(over)}.")


def compare(folder: Path, files: int, options: argparse.Namespace) -> list[str]:
    """Prints what it measures; what is over its bar."""
    over: list[str] = []

    def judged(text: str, name: str, good: bool) -> str:
        if good or options.rows < JUDGED_FROM:
            return text
        over.append(name)
        return f"{text} (over)"

    settings = [("loss,modified_entropy", ""), ("loss,modified_entropy", "class"), ("quick", "")]
    print("| attacks | slices | rows | s | rate (million a second) | times reading alone | peak MB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    whole: list[float] = []
    for attacks, slices in settings:
        ratios, found = [], []
        for _ in range(options.repeats):
            alone = measured("read", folder, files, options.workers)
            found.append(measured("audit", folder, files, options.workers, attacks, slices))
            ratios.append(found[-1]["seconds"] / alone["seconds"])
        seconds = [run["seconds"] for run in found]
        whole = whole or seconds
        peak = max(run["MB"] for run in found)
        rows = int(found[0]["rows"])
        rate = rows / np.median(seconds) / 1e6
        spread = f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        if (attacks, slices) == settings[0]:
            spread = judged(spread, "times reading alone", float(np.median(ratios)) <= LIMIT)
        memory = judged(f"{peak:.0f}", f"memory of {attacks}", peak <= MOST_MEMORY)
        row = [attacks, slices or "–", f"{rows:,}", f"{np.median(seconds):.1f}", f"{rate:.1f}", spread, memory]
        print("| " + " | ".join(row) + " |", flush=True)
    print(
        f"\nBars: {LIMIT} times reading alone for {settings[0][0]}, {MOST_MEMORY:,} MB, {GAIN} times one worker's rate."
    )
    if files >= 10:
        tenth = [measured("audit", folder, files // 10, options.workers, *settings[0])["seconds"] for _ in whole]
        growth = np.median(whole) / np.median(tenth)
        print(f"A tenth of the files: {np.median(tenth):.2f} s; all take {growth:.2f} times as long.")
    alone = [measured("audit", folder, files, 1, *settings[0])["seconds"] for _ in whole]
    gain = np.median(alone) / np.median(whole)
    text = judged(f"{gain:.2f}", "gain of workers", options.workers < 2 or gain >= GAIN)
    print(f"One worker: {np.median(alone):.1f} s; {options.workers} have {text} times its rate.")
    return over


if __name__ == "__main__":
    main()
