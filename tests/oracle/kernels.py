"""What the profiler saw of a step's kernels, one line each: python3 kernels.py FILE.csv

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
ONCE_A_STEP = "sample"


def launches(lines):
    """The name, the grid and the metrics of each launch, in order."""
    found = {}
    for row in csv.DictReader(line for line in lines if line.startswith('"')):
        launch = found.setdefault(row["ID"], {"name": row["Kernel Name"], "grid": row["Grid Size"]})
        launch[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return list(found.values())


def short(name):
    name = name.split("(")[0] if not name.startswith("(") else name
    return name.removeprefix("void ").strip()


def table(seen):
    kernels = collections.OrderedDict()
    for launch in seen:
        kernels.setdefault((short(launch["name"]), launch["grid"]), []).append(launch)
    reads = [k for k in kernels if k[0].startswith(READS)]
    rate = max(statistics.median(l[BYTES] / l[TIME] for l in kernels[k]) for k in reads)
    steps = max(len(v) for k, v in kernels.items() if k[0].startswith(ONCE_A_STEP))
    of_step = {k: v for k, v in kernels.items() if len(v) >= steps and k not in reads}
    rows = []
    for key, of in of_step.items():
        us = statistics.median(l[TIME] for l in of) / 1e3
        mb = statistics.median(l[BYTES] for l in of) / 1e6
        rows.append((key[0], len(of) / steps, us, mb, mb / us * 1e3 / rate / 1e3))
    return rate, rows


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rate, rows = table(launches(file))
    all_us = sum(calls * us for _, calls, us, _, _ in rows)
    print(f"memory reads {rate:.0f} GB/s; kernels of a step, one at a time, {all_us:.0f} us")
    print(f"{'kernel':44} {'a step':>7} {'us':>8} {'of all':>7} {'MB':>8} {'of memory':>10}")
    for name, calls, us, mb, share in rows:
        print(f"{name[:44]:44} {calls:7.2f} {us:8.2f} {calls * us / all_us:7.3f} {mb:8.2f} {share:10.3f}")


main()
