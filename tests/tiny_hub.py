"""Folders of Parquet files laid out as data sets of the hub are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

Tables = Mapping[str, Mapping[str, Mapping[str, list[Any]]]]  # configuration, split, column


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
