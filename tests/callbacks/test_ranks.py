import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_jv5.callbacks import read_embeddings


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    home = tmp_path_factory.mktemp("ranks")
    folders = {ranks: home / str(ranks) for ranks in (1, 2)}
    running = {}
    for ranks, folder in folders.items():
        folder.mkdir()
        command = [sys.executable, "-m", "tests.callbacks.ranks_run", str(folder), str(ranks)]
        settings = {"LIGHTNING_JV5_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        running[ranks] = subprocess.Popen(
            command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    for process in running.values():
        try:
            output, _ = process.communicate(timeout=180)
        finally:
            process.kill()
        assert process.returncode == 0, output
    return folders


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_two_ranks_log_what_one_logs(folders: dict[int, Path]) -> None:
    alone, *both = [read(folders[1] / "rank-0.json"), *(read(folders[2] / f"rank-{rank}.json") for rank in (0, 1))]
    for measure in ("small/mrr@10", "sts/spearman", "topics/v_measure", "intents/accuracy"):
        assert f"val/{measure}/binary_drop" in alone["val"]
    assert {"val/small/isotropy/query/mean_cosine", "val/topics/isotropy/effective_rank"} <= alone["val"].keys()
    for rank in both:
        assert rank["val"] == pytest.approx(alone["val"])
        assert rank["train"].keys() == alone["train"].keys()
    assert both[0]["train"]["train/texts_per_second"] == both[1]["train"]["train/texts_per_second"]


def test_two_ranks_show_the_same_examples_once(folders: dict[int, Path]) -> None:
    alone, both = (read(folders[ranks] / "texts" / "val.small.examples.step-0.json") for ranks in (1, 2))
    assert [[found["text"] for found in example["documents"]] for example in both] == [
        [found["text"] for found in example["documents"]] for example in alone
    ]


def test_two_ranks_project_the_same_texts(folders: dict[int, Path]) -> None:
    for name in ("val.small.step-0", "val.topics.step-0"):
        alone, both = (folders[ranks] / "projector" / name for ranks in (1, 2))
        assert (alone / "metadata.tsv").read_text() == (both / "metadata.tsv").read_text()
        assert np.loadtxt(both / "vectors.tsv") == pytest.approx(np.loadtxt(alone / "vectors.tsv"), abs=1e-5)


def test_two_ranks_make_the_same_summary(folders: dict[int, Path]) -> None:
    alone, both = (read(folders[ranks] / "summary.json") for ranks in (1, 2))
    for one, two in zip(alone["rows"], both["rows"], strict=True):
        assert one.keys() == two.keys()
        if one["model"] != "student_after":  # whose gradients are summed in another order
            assert one == pytest.approx(two)


def test_two_ranks_write_every_row_once(folders: dict[int, Path]) -> None:
    names = sorted(path.name for path in (folders[2] / "corpus").glob("*.parquet"))
    assert names == [f"embeddings-{rank}-{shard}.parquet" for rank in (0, 1) for shard in range(3)]
    alone, both = (read_embeddings(folders[ranks] / "corpus") for ranks in (1, 2))
    assert alone.shape == both.shape
    assert torch.allclose(both.norm(dim=1), torch.ones(len(both)))
