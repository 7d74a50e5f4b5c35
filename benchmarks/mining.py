"""Search for hard negatives: the 100 nearest of 10^6 documents for 1,000 queries, time and peak memory.

    python benchmarks/mining.py                 measure, print the table, write mining.json
    python benchmarks/mining.py --markdown      print the table of mining.json again

Random unit vectors in float16, read from a file tile by tile as mining reads them, on two threads. Beside it torch.topk
on the scores of a tile, merged with the best so far: what one would write first, which leaves the order of ties open.
And the matrix products alone, the limit of both. Each case runs in a process of its own for its memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import caption, load, pin, provenance, save, table

DOCUMENTS, QUERIES, DIM, DEPTH, TILE = 1_000_000, 1_000, 384, 100, 4096


def write_corpus(file: Path) -> None:
    """Write the vectors of the corpus; a block at a time, so that this takes no memory either."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from tqdm import tqdm

    corpus = np.lib.format.open_memmap(file, "w+", np.float16, (DOCUMENTS, DIM))
    generator = torch.Generator().manual_seed(0)
    for start in tqdm(range(0, DOCUMENTS, TILE), desc="Writing the corpus", unit="tile"):
        rows = min(TILE, DOCUMENTS - start)
        corpus[start : start + rows] = F.normalize(torch.randn(rows, DIM, generator=generator), dim=1).half().numpy()
    corpus.flush()


def queries() -> Any:
    import torch
    import torch.nn.functional as F

    return F.normalize(torch.randn(QUERIES, DIM, generator=torch.Generator().manual_seed(1)), dim=1)


def tiles(file: Path) -> Iterator[Any]:
    import numpy as np
    import torch

    corpus = np.load(file, mmap_mode="r")
    for start in range(0, DOCUMENTS, TILE):
        yield torch.tensor(corpus[start : start + TILE])


def ours(file: Path) -> Any:
    """Return the rows of the nearest documents."""
    from lightning_jv5.data.nearest import nearest

    return nearest(queries(), tiles(file), depth=DEPTH).rows


def plain(file: Path) -> Any:
    import torch

    query, first = queries(), 0
    scores, rows = torch.full((QUERIES, DEPTH), -torch.inf), torch.full((QUERIES, DEPTH), -1)
    for tile in tiles(file):
        best = (query @ tile.float().T).topk(min(DEPTH, len(tile)))
        merged = torch.cat([scores, best.values], 1).topk(DEPTH)
        rows = torch.cat([rows, best.indices + first], 1).gather(1, merged.indices)
        scores = merged.values
        first += len(tile)
    return rows


def product(file: Path) -> Any:
    query = queries()
    for tile in tiles(file):
        last = query @ tile.float().T
    return last


CASES = {"nearest": ours, "chunked torch.topk": plain, "products alone": product}


def run(name: str, file: Path) -> dict[str, float]:
    """Return the seconds of one search in this process, its peak memory, and a checksum of what was found."""
    import torch

    torch.set_num_threads(2)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, used = time.perf_counter(), time.process_time()
    found = CASES[name](file)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        "idle_megabytes": round(idle * 1024 / 1e6, 1),
        "checksum": 0 if found.is_floating_point() else int((found.sort(1).values % 1_000_003).pow(2).sum()),
    }


def measure(rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run every case in turn, in processes of their own."""
    from tqdm import tqdm

    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "corpus.npy"
        # In another process: a child's peak begins at that of its parent
        subprocess.run([sys.executable, __file__, "--write", "--corpus", str(file)], check=True)
        for _ in tqdm(range(rounds), unit="round"):
            for name in CASES:
                told = subprocess.run(
                    [sys.executable, __file__, "--run", name, "--corpus", str(file)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                runs[name].append(json.loads(told.stdout.splitlines()[-1]))
    return runs


def report(result: dict[str, Any]) -> str:
    """Return the table and where it is from."""
    runs = result["runs"]

    def median(name: str, what: str) -> float:
        return statistics.median(run[what] for run in runs[name])

    rows = []
    for name in CASES:
        walls = [run["seconds"] for run in runs[name]]
        rows.append(
            [
                name,
                f"{median(name, 'seconds'):.1f}",
                f"{min(walls):.1f} - {max(walls):.1f}",
                f"{median(name, 'cpu_seconds'):.1f}",
                f"{median(name, 'peak_megabytes'):,.0f}",
                f"{median(name, 'idle_megabytes'):,.0f}",
            ]
        )
    header = [
        f"{QUERIES:,} queries, {DOCUMENTS:,} x {DIM}, depth {DEPTH}", "median s", "min - max", "CPU s", "peak MB",
        "of it idle",
    ]  # fmt: skip
    same = {run["checksum"] for name in ("nearest", "chunked torch.topk") for run in runs[name]}
    agreement = "found the same documents" if len(same) == 1 else "differ in some documents: scores tie"
    return (
        f"{table(header, rows)}\n\nPeak memory counts the pages of the corpus's file (768 MB) read, and torch "
        f"itself (idle). The two searches {agreement}.\n\n{caption(result['made'])}"
    )


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="searches of each case")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_corpus(arguments.corpus)
        return
    if arguments.run:
        pin(2)
        print(json.dumps(run(arguments.run, arguments.corpus)))
        return
    if arguments.markdown:
        print(report(load("mining")))
        return
    pin(2)
    made = provenance(f"python benchmarks/mining.py --rounds {arguments.rounds}")
    result = {"made": made, "runs": measure(arguments.rounds)}
    save("mining", result)
    print(report(result))


if __name__ == "__main__":
    main()
