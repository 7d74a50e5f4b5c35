import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.process_runs import distributed_run, finished, in_process, ranks_environment, with_lora


def run(folder: Path, ranks: int, **settings: Any) -> None:
    common = {"LIGHTNING_JV5_CACHE": str(folder / "cache"), **ranks_environment(ranks)}
    processes = [
        in_process(
            distributed_run, folder, *settings.values(), environment={**common, "RANK": rank, "LOCAL_RANK": rank}
        )
        for rank in map(str, range(ranks))
    ]
    assert finished(processes) == [0] * ranks


def diary(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"diary{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    run(folder, 1)
    run(folder, 2)
    return folder


def test_two_ranks_train_as_one_process_on_the_same_global_batches(folder: Path) -> None:
    alone, first, second = (torch.load(folder / f"result{name}.pt") for name in ("0of1", "0of2", "1of2"))
    torch.testing.assert_close(first["weights"], alone["weights"], atol=1e-5, rtol=0)
    torch.testing.assert_close(first["weights"], second["weights"], atol=0, rtol=0)


def test_ranks_get_disjoint_rows_of_the_batch_that_one_process_has(folder: Path) -> None:
    alone, first, second = (diary(folder, name) for name in ("0of1", "0of2", "1of2"))
    assert len(alone) == len(first) == len(second) == 3
    for whole, *parts in zip(alone, first, second, strict=True):
        assert parts[0]["tokens"] + parts[1]["tokens"] == whole["tokens"]


def test_two_ranks_score_as_one_process(folder: Path) -> None:
    alone, first, second = (torch.load(folder / f"result{name}.pt")["scores"] for name in ("0of1", "0of2", "1of2"))
    assert "val/tiny/ndcg@10" in alone
    assert first == second == alone


def test_with_gathered_candidates_two_ranks_train_as_one_process(tmp_path: Path) -> None:
    for ranks in (1, 2):
        run(tmp_path, ranks, sampler=False, contrast=True)
    alone, first, second = (torch.load(tmp_path / f"result{name}.pt") for name in ("0of1", "0of2", "1of2"))
    torch.testing.assert_close(first["weights"], alone["weights"], atol=1e-5, rtol=0)
    torch.testing.assert_close(first["weights"], second["weights"], atol=0, rtol=0)


def test_two_ranks_train_an_adapter_with_the_base_as_teacher_as_one_process(tmp_path: Path) -> None:
    for ranks in (1, 2):
        run(tmp_path, ranks, sampler=False, contrast=False, lora=True)
    alone, first, second = (torch.load(tmp_path / f"result{name}.pt") for name in ("0of1", "0of2", "1of2"))
    torch.testing.assert_close(first["weights"], alone["weights"], atol=1e-6, rtol=0)
    torch.testing.assert_close(first["weights"], second["weights"], atol=0, rtol=0)
    assert first["scores"] == second["scores"] == alone["scores"]
    start = with_lora(tmp_path / "start", dropout=0.0)
    trained = {name for name, weights in start.named_parameters() if weights.requires_grad}
    for name, weights in start.state_dict().items():
        assert torch.equal(first["weights"][name], weights) == (name not in trained), name


def test_lightnings_own_sampler_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 2, sampler=True)
    for rank in range(2):
        assert "trainer.use_distributed_sampler=True" in (tmp_path / f"error{rank}of2.txt").read_text()
