"""Exact search and its measures: beside brute force, faiss and torchmetrics.

    python benchmarks/search.py                 measure, print the table, write search.json
    python benchmarks/search.py --markdown      print the table of search.json again

Search: the 100 nearest of 10^6 random unit vectors of 384 coordinates for 1,000 queries, on two threads. Ours reads the
corpus from a file, tile by tile, and the reading counts; brute force (a product and torch.topk for 50 queries at a
time) and faiss (of the extra `test`) hold it, and loading does not count. What was found is
compared. On a machine that others use, CPU seconds on one thread (`--threads 1`) compare better than wall seconds.
Measures: nDCG, MAP, MRR and recall of 10,000 queries with 100 scored documents each, from scores to means,
beside the same of torchmetrics. Each case runs in a process of its own, in turn with the others, in each round.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from record import caption, load, pin, provenance, save, table

DIM, DEPTH, TILE, QUERIES = 384, 100, 4096, 1_000
RANKED, RANKED_QUERIES = 100, 10_000
MEASURES = ("ndcg@10", "map@100", "mrr@10", "recall@10")


class Found(NamedTuple):
    """Seconds of a search, and what it found: similarities or distances, and rows."""

    seconds: float
    cpu_seconds: float
    scores: Any
    rows: Any


class Files:
    """The vectors of a corpus and the same as sign codes, and the queries."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.documents = documents
        self.vectors, self.codes = folder / "vectors.bin", folder / "codes.bin"

    def write(self) -> None:
        """Write the corpus, a tile at a time, so that this takes no memory either."""
        import torch
        import torch.nn.functional as F

        from lightning_jv5.data import pack_signs

        generator = torch.Generator().manual_seed(0)
        with self.vectors.open("wb") as vectors, self.codes.open("wb") as codes:
            for start in range(0, self.documents, TILE):
                rows = min(TILE, self.documents - start)
                tile = F.normalize(torch.randn(rows, DIM, generator=generator), dim=1)
                vectors.write(tile.numpy().tobytes())
                codes.write(pack_signs(tile).numpy().tobytes())

    def queries(self) -> Any:
        import torch
        import torch.nn.functional as F

        return F.normalize(torch.randn(QUERIES, DIM, generator=torch.Generator().manual_seed(1)), dim=1)

    def tiles(self) -> Iterator[Any]:
        return self._read(self.vectors, "float32", DIM)

    def code_tiles(self) -> Iterator[Any]:
        return self._read(self.codes, "uint8", DIM // 8)

    def _read(self, file: Path, dtype: str, width: int) -> Iterator[Any]:
        import numpy as np
        import torch

        with file.open("rb") as stream:
            for start in range(0, self.documents, TILE):
                rows = min(TILE, self.documents - start)
                yield torch.from_numpy(np.fromfile(stream, dtype, rows * width).reshape(rows, width))

    def whole(self) -> Any:
        import numpy as np

        return np.fromfile(self.vectors, np.float32).reshape(self.documents, DIM)


def _timed(search: Callable[[], tuple[Any, Any]]) -> Found:
    started, used = time.perf_counter(), time.process_time()
    scores, rows = search()
    return Found(time.perf_counter() - started, time.process_time() - used, scores, rows)


def ours(files: Files) -> Found:
    from lightning_jv5.data.nearest import nearest

    queries = files.queries()
    return _timed(lambda: nearest(queries, files.tiles(), depth=DEPTH)[:2])


def metric(files: Files) -> Found:
    import torch

    from lightning_jv5.metrics import StreamingRetrieval, View

    queries = files.queries()
    judged = {query: {query: 1} for query in range(QUERIES)}
    retrieval = StreamingRetrieval(
        judged,
        query_count=QUERIES,
        document_count=files.documents,
        measures=["map@100"],
        view=View(),  # as every evaluation task has
    )

    def search() -> tuple[Any, Any]:
        retrieval.update("query", queries, torch.arange(QUERIES))
        first = 0
        for tile in files.tiles():
            retrieval.update("document", tile, torch.arange(first, first + len(tile)))
            first += len(tile)
        return retrieval.rankings()

    return _timed(search)


def brute(files: Files) -> Found:
    import torch

    queries, corpus = files.queries(), torch.from_numpy(files.whole())

    def search() -> tuple[Any, Any]:
        found = [(part @ corpus.T).topk(DEPTH) for part in queries.split(50)]
        return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])

    return _timed(search)


def faiss_flat(files: Files) -> Found:
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(DIM)
    for tile in files.tiles():
        index.add(tile.numpy())
    queries = files.queries().numpy()
    return _timed(lambda: index.search(queries, DEPTH))


def codes(files: Files) -> Found:
    from lightning_jv5.data import nearest_codes, pack_signs

    queries = pack_signs(files.queries())
    return _timed(lambda: nearest_codes(queries, files.code_tiles(), dim=DIM, depth=DEPTH))


def faiss_binary(files: Files) -> Found:
    import faiss
    import torch

    from lightning_jv5.data import pack_signs

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexBinaryFlat(DIM)
    for tile in files.code_tiles():
        index.add(tile.numpy())
    queries = pack_signs(files.queries()).numpy()
    return _timed(lambda: index.search(queries, DEPTH))


SEARCHES = {
    "nearest": ours,
    "StreamingRetrieval": metric,
    "brute force": brute,
    "faiss IndexFlatIP": faiss_flat,
    "nearest_codes": codes,
    "faiss IndexBinaryFlat": faiss_binary,
}


def run_search(name: str, files: Files, result: Path) -> dict[str, float]:
    """Search in this process; keep what was found in a file."""
    import numpy as np

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = SEARCHES[name](files)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(result, scores=np.asarray(found.scores), rows=np.asarray(found.rows))
    return {
        "seconds": round(found.seconds, 2),
        "cpu_seconds": round(found.cpu_seconds, 2),
        "peak_megabytes": round(peak * 1024 / 1e6, 1),
        "idle_megabytes": round(idle * 1024 / 1e6, 1),
    }


def agreement(one: Path, other: Path, tolerance: float) -> bool:
    """Whether scores are equal, and documents that only one found score what the last of the other does."""
    import numpy as np

    a, b = np.load(one), np.load(other)
    if np.abs(a["scores"].astype(np.float64) - b["scores"]).max() > tolerance:
        return False
    for scores, rows, other_rows in zip(a["scores"], a["rows"], b["rows"], strict=True):
        alone = scores[~np.isin(rows, other_rows)].astype(np.float64)
        if len(set(rows.tolist())) != DEPTH or (np.abs(alone - scores[-1]) > 2 * tolerance).any():
            return False
    return True


def run_measures(name: str, queries: int) -> dict[str, Any]:
    """Measure rankings in this process: the seconds from scores to means, and the means."""
    import torch

    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(queries, RANKED, generator=generator)
    grades = torch.randint(0, 4, (queries, RANKED), generator=generator)
    grades[torch.rand(queries, RANKED, generator=generator) < 0.9] = 0
    if name == "lightning_jv5":
        from lightning_jv5.data.best_keys import pack
        from lightning_jv5.metrics import StreamingRetrieval

        judged = {query: dict(enumerate(row)) for query, row in enumerate(grades.tolist())}
        retrieval = StreamingRetrieval(judged, query_count=queries, document_count=RANKED, measures=MEASURES)
        started = time.perf_counter()
        retrieval.keys = pack(scores, torch.arange(RANKED)).topk(RANKED).values
        retrieval._update_count = 1  # as after an update; the scores are given here
        means = {key: value.item() for key, value in retrieval.compute().items()}
    else:
        from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

        peers = {
            "ndcg@10": RetrievalNormalizedDCG(top_k=10),
            "map@100": RetrievalMAP(top_k=100),
            "mrr@10": RetrievalMRR(top_k=10),
            "recall@10": RetrievalRecall(top_k=10),
        }
        indexes = torch.arange(queries).repeat_interleave(RANKED)
        started = time.perf_counter()
        means = {}
        for key, peer in peers.items():
            target = grades.flatten()
            peer.update(scores.flatten(), target if key == "ndcg@10" else target > 0, indexes)
            means[key] = peer.compute().item()
    return {"seconds": round(time.perf_counter() - started, 4), "means": means}


MEASURERS = ("lightning_jv5", "torchmetrics")


def measure(rounds: int, documents: int, ranked_queries: int, threads: int) -> dict[str, Any]:
    """Run every case in turn, in processes of their own."""
    from tqdm import tqdm

    searches: dict[str, list[dict[str, float]]] = {name: [] for name in SEARCHES}
    measures: dict[str, list[dict[str, Any]]] = {name: [] for name in MEASURERS}
    sizes = ["--documents", str(documents), "--ranked-queries", str(ranked_queries)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}  # torch's, and the BLAS of faiss

    def told(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, __file__, *sizes, *arguments]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        return answer

    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=1 + rounds * (len(SEARCHES) + len(MEASURERS)), unit="case") as bar,
    ):
        bar.set_description("Writing the corpus")
        told("--write", "--folder", folder)
        bar.update()
        for _ in range(rounds):
            for name in SEARCHES:
                bar.set_description(name)
                searches[name].append(told("--search", name, "--folder", folder))
                bar.update()
            for name in MEASURERS:
                bar.set_description(f"measures of {name}")
                measures[name].append(told("--measures", name))
                bar.update()
        result = {name: Path(folder) / f"{name}.npz" for name in SEARCHES}
        same = {
            name: agreement(result[name], result["faiss IndexFlatIP"], 1e-6)
            for name in ("nearest", "StreamingRetrieval", "brute force")
        }
        same["nearest_codes"] = agreement(result["nearest_codes"], result["faiss IndexBinaryFlat"], 0)
    return {
        "documents": documents,
        "ranked_queries": ranked_queries,
        "threads": threads,
        "searches": searches,
        "measures": measures,
        "same_as_faiss": same,
    }


def report(result: dict[str, Any]) -> str:
    """Return the tables and where they are from."""
    searches, measures = result["searches"], result["measures"]

    def median(runs: list[dict[str, Any]], what: str = "seconds") -> float:
        return statistics.median(run[what] for run in runs)

    rows = []
    for name, runs in searches.items():
        walls = [run["seconds"] for run in runs]
        rows.append(
            [
                name,
                f"{median(runs):.1f}",
                f"{min(walls):.1f} - {max(walls):.1f}",
                f"{median(runs, 'cpu_seconds'):.1f}",
                f"{median(runs, 'peak_megabytes'):,.0f}",
                "yes" if result["same_as_faiss"].get(name) else "" if "faiss" in name else "NO",
            ]
        )
    title = f"{QUERIES:,} queries, {result['documents']:,} x {DIM}, depth {DEPTH}"
    main = table([title, "median s", "min - max", "CPU s", "peak MB", "same as faiss"], rows)

    def faster(name: str, peer: str, what: str) -> float:
        return median(searches[peer], what) / median(searches[name], what)

    own, other = (median(measures[name]) for name in MEASURERS)
    values = [measures[name][0]["means"] for name in MEASURERS]
    apart = max(abs(values[0][key] - values[1][key]) for key in MEASURES)
    same = result["same_as_faiss"]
    targets: list[tuple[str, float, str, float | None]] = [
        *(
            (f"{name}, times the speed of {peer}, {unit}", faster(name, peer, what), ">=", wanted)
            for name, peer, wanted in (
                ("nearest", "faiss IndexFlatIP", 0.8),
                ("StreamingRetrieval", "faiss IndexFlatIP", 0.8),
                ("nearest_codes", "faiss IndexBinaryFlat", None),
            )
            for what, unit in (("seconds", "wall"), ("cpu_seconds", "CPU"))
        ),
        ("StreamingRetrieval, peak MB", median(searches["StreamingRetrieval"], "peak_megabytes"), "<", 1500),
        ("searches that found what faiss finds", sum(same.values()), ">=", len(same)),
        (f"measures of {result['ranked_queries']:,} queries, s", own, "<", None),
        ("measures, times faster than torchmetrics", other / own, ">=", 20),
        ("measures, farthest from torchmetrics", apart, "<", 1e-6),
    ]
    met = []
    for name, value, sign, wanted in targets:
        fulfilled = wanted is not None and (value >= wanted if sign == ">=" else value < wanted)
        goal = ["", ""] if wanted is None else [f"{sign} {wanted:g}", "yes" if fulfilled else "NO"]
        met.append([name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", *goal])
    against = table(["figure", "measured", "target", "met"], met)
    return f"{main}\n\n{against}\n\n{caption(result['made'])}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case")
    parser.add_argument("--documents", type=int, default=1_000_000, help="size of the corpus")
    parser.add_argument(
        "--ranked-queries", type=int, default=RANKED_QUERIES, help="queries whose rankings are measured"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each case")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    for name in ("--search", "--measures", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.markdown:
        print(report(load("search")))
        return
    pin(2)
    if arguments.measures:
        print(json.dumps(run_measures(arguments.measures, arguments.ranked_queries)))
        return
    if arguments.folder:
        files = Files(Path(arguments.folder), arguments.documents)
        if arguments.write:
            files.write()
            print(json.dumps({}))
        else:
            result = Path(arguments.folder) / f"{arguments.search}.npz"
            print(json.dumps(run_search(arguments.search, files, result)))
        return
    made = provenance(
        f"python benchmarks/search.py --rounds {arguments.rounds} --documents {arguments.documents} "
        f"--ranked-queries {arguments.ranked_queries} --threads {arguments.threads}"
    )
    sizes = arguments.documents, arguments.ranked_queries, arguments.threads
    measured = {"made": made, **measure(arguments.rounds, *sizes)}
    save("search", measured)
    print(report(measured))


if __name__ == "__main__":
    main()
