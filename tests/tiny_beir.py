"""A tiny BEIR folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CORPUS = [
    {"_id": "d1", "title": "Foxes", "text": "the fox is red"},
    {"_id": "d2", "title": "The sky", "text": ""},
    {"_id": "d3", "text": "a robin"},
    {"_id": "d4", "title": "", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "red animals"},
    {"_id": "q2", "text": "blue things"},
    {"_id": "q3", "text": "nobody asked", "metadata": {}},
]
JUDGEMENTS = [("q1", "d1", 1), ("q1", "d3", 2), ("q2", "d2", 1), ("q2", "d1", 0)]
HEADER = "query-id\tcorpus-id\tscore\n"


def write_beir(
    folder: Path,
    corpus: Sequence[dict[str, Any]] = CORPUS,
    queries: Sequence[dict[str, Any]] = QUERIES,
    judgements: Sequence[tuple[str, str, int]] = JUDGEMENTS,
    split: str = "train",
) -> str:
    """Write a corpus, queries and one split of judgements."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in judgements)
    (folder / "qrels" / f"{split}.tsv").write_text(HEADER + lines)
    return str(folder)
