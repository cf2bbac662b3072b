"""What the profiler saw of a step, a line for each kernel in order: python3 kernels.py FILE.csv

FILE is what `ncu --csv --print-units base --metrics gpu__time_duration.sum,dram__bytes_read.sum` writes of
`tessera bench`. The profiler lets kernels run one at a time and empties caches between them, so that these
times add up to more than a step: its kernels begin before those in front have ended.
"""

import collections
import csv
import statistics
import sys

TIME, BYTES = "gpu__time_duration.sum", "dram__bytes_read.sum"
READS = "read_kernel"  # by which bench measures what memory reads
BEGINS = "embed_kernel"  # a step
CLOCK = "clock_kernel"  # of steps whose blocks are timed


def short(name):
    return name.split("(")[0].removeprefix("void ").strip()


def launches(lines):
    """The name, nanoseconds and bytes of each, in order."""
    found = {}
    for row in csv.DictReader(line for line in lines if line.startswith('"')):
        launch = found.setdefault(row["ID"], {"name": short(row["Kernel Name"])})
        launch[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return list(found.values())


def steps(seen):
    """Those of the steps that have the kernels that most of them have: the first may have others."""
    cut = []
    for launch in seen:
        if launch["name"] == BEGINS:
            cut.append([])
        if cut and launch["name"] not in (CLOCK, READS):
            cut[-1].append(launch)
    if not cut:
        sys.exit(f"{sys.argv[1]}: there is no {BEGINS}, so no step")
    names = [tuple(launch["name"] for launch in step) for step in cut]
    usual = collections.Counter(names).most_common(1)[0][0]
    return [step for step, has in zip(cut, names) if has == usual]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        seen = launches(file)
    reads = [launch[BYTES] / launch[TIME] for launch in seen if launch["name"] == READS]
    if not reads:
        sys.exit(f"{sys.argv[1]}: there is no {READS}, so nothing to compare with")
    rate = statistics.median(reads)  # GB/s
    same = steps(seen)
    rows = []
    for at in zip(*same):
        ns = statistics.median(launch[TIME] for launch in at)
        rows.append((at[0]["name"], ns, statistics.median(launch[BYTES] for launch in at)))
    whole = sum(ns for _, ns, _ in rows)
    print(f"memory reads {rate:.0f} GB/s; kernels one at a time {whole / 1e3:.1f} us, {len(same)} steps")
    print(f"{'kernel':40} {'us':>8} {'of all':>7} {'MB':>8} {'of memory':>10}")
    for name, ns, read in rows:
        share = read / ns / rate
        print(f"{name[:40]:40} {ns / 1e3:8.2f} {ns / whole:7.3f} {read / 1e6:8.2f} {share:10.3f}")


main()
