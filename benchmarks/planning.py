"""Planning: which data set and which rows 1,000 steps train on, in time and memory, for sets of up to 10^9 rows.

    python benchmarks/planning.py                 measure, print the table, write planning.json
    python benchmarks/planning.py --markdown      print the table of planning.json again

Global batches of 512 rows. Memory is what Python and numpy allocate at most. Beside it a shuffled list of row numbers,
``torch.randperm(rows).tolist()``, for a set of a hundredth of the rows: what one would write first.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from record import caption, load, pin, provenance, save, table

STEPS, BATCH, ROWS, LISTED_ROWS = 1000, 512, 10**9, 10**7


def planned(sets: int, first: int) -> Callable[[], object]:
    from lightning_jv5.data.mixture import MixturePlan, PlannedSet

    def run() -> object:
        plan = MixturePlan({f"set{number}": PlannedSet(ROWS, BATCH) for number in range(sets)}, seed=0)
        return [plan.rows(plan.draw(step)) for step in range(first, first + STEPS)][-1]

    return run


def listed() -> object:
    import torch

    rows: list[int] = torch.randperm(LISTED_ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[step * BATCH : (step + 1) * BATCH] for step in range(STEPS)][-1]


CASES = {
    "one set of 10^9 rows": planned(sets=1, first=0),
    "300 sets of 10^9 rows": planned(sets=300, first=0),
    "300 sets of 10^9 rows, from step 10^7": planned(sets=300, first=10**7),
    "a shuffled list of 10^7 rows": listed,
}


def measure(rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, run in CASES.items():
            start = time.perf_counter()
            run()
            seconds[name].append(round(time.perf_counter() - start, 3))
    peaks = {}
    for name, run in CASES.items():
        tracemalloc.start()
        run()
        peaks[name] = round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
        tracemalloc.stop()
    return {"seconds": seconds, "peak_mb": peaks}


def report(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f} - {max(times):.2f}",
            f"{result['peak_mb'][name]:.1f}",
        ]
        for name, times in result["seconds"].items()
    ]
    header = [f"{STEPS:,} steps of {BATCH} rows", "median s", "min - max", "peak MB"]
    return f"{table(header, rows)}\n\n{caption(result['made'])}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    arguments = parser.parse_args()
    if not arguments.markdown:
        pin(2)
        made = provenance(f"python benchmarks/planning.py --rounds {arguments.rounds}")
        save("planning", {"made": made, **measure(arguments.rounds)})
    print(report(load("planning")))


if __name__ == "__main__":
    main()
