"""Folders of Parquet files laid out as data sets of the hub are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

Tables = Mapping[str, Mapping[str, Mapping[str, list[Any]]]]  # configuration, split, column

CORPUS: dict[str, list[Any]] = {
    "_id": ["d1", "d2", "d3", "d4"],
    "title": ["the house", "the tree", "", None],
    "text": ["the cat is red", "", "a dog", None],
}
QUERIES: dict[str, list[Any]] = {
    "_id": ["q1", "q2", "q3"],
    "text": ["red cat", "blue tree", "who runs"],
    "lang": ["en", "de", None],
}
QRELS: dict[str, list[Any]] = {
    "query-id": ["q1", "q1", "q2", "q2"],
    "corpus-id": ["d1", "d3", "d2", "d1"],
    "score": [1, 2, 1, 0],
}
TABLES: dict[str, dict[str, dict[str, list[Any]]]] = {
    "corpus": {"corpus": CORPUS},
    "queries": {"queries": QUERIES},
    "default": {"test": QRELS, "dev": {name: values[:1] for name, values in QRELS.items()}},
}


def renamed(columns: Mapping[str, list[Any]], **names: str) -> dict[str, list[Any]]:
    """Columns under other names."""
    return {names.get(name, name): values for name, values in columns.items()}


def changed(table: str, split: str, columns: Mapping[str, list[Any]]) -> Tables:
    """The tables with another split in place of those of one of them."""
    return {**TABLES, table: {split: columns}}


def added(columns: Mapping[str, list[Any]], *row: Any) -> dict[str, list[Any]]:
    """Columns with one more row."""
    return {name: [*values, value] for (name, values), value in zip(columns.items(), row, strict=True)}


def write_hub(folder: Path, tables: Tables) -> str:
    """Write each configuration's splits, and the README that lists them."""
    lines = ["---", "configs:"]
    for config, splits in tables.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, columns in splits.items():
            file = f"{config}/{split}.parquet"
            (folder / config).mkdir(parents=True, exist_ok=True)
            Dataset.from_dict(dict(columns)).to_parquet(str(folder / file))
            lines += [f"  - split: {split}", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)
