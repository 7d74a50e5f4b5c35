from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.losses import EmbeddingBatch
from tests.losses.loss_on_ranks import alone, alternating, joined, losses, on_ranks, other_columns
from tests.process_runs import in_process

COUNTS = (2, 0, 1, 1, 3, 0)
BOUNDS = {
    "two ranks": (0, 3, 6),
    "two uneven ranks": (0, 4, 6),
    "three uneven ranks": (0, 1, 4, 6),
    "the last without negatives": (0, 5, 6),
    "the last without rows": (0, 6, 6),
}


def run(ranks: int, target: Callable[..., None], folder: Path, *arguments: Any) -> None:
    # They meet in a file: a port that was free a moment ago may be taken
    common = {"WORLD_SIZE": str(ranks), "RENDEZVOUS": f"file://{folder}/rendezvous"}
    processes = [
        in_process(joined, target, folder, *arguments, environment={**common, "RANK": str(rank)})
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0] * ranks
    finally:
        for process in processes:  # one that waits for another that failed
            process.kill()


@pytest.fixture(scope="module", params=BOUNDS)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, bounds = tmp_path_factory.mktemp("ranks"), BOUNDS[request.param]
    run(len(bounds) - 1, on_ranks, folder, COUNTS, bounds)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(len(bounds) - 1)]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return alone(COUNTS)


@pytest.mark.parametrize("name", losses())
def test_ranks_together_have_the_loss_and_gradients_of_one_process(
    name: str, results: Sequence[dict[str, Any]], expected: dict[str, Any]
) -> None:
    for rank in results:
        torch.testing.assert_close(rank[name], expected[name], atol=1e-5, rtol=1e-5)
    assert any(part.abs().max() > 1e-3 for key, part in expected[name].items() if key != "loss")


def test_batches_with_and_without_scores_may_alternate_under_ddp(tmp_path: Path) -> None:
    run(2, alternating, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_ranks_that_have_other_columns_all_say_so(tmp_path: Path) -> None:
    run(2, other_columns, tmp_path)
    for rank in range(2):
        assert "some ranks have score, negatives_label and others do not" in (tmp_path / f"rank{rank}.txt").read_text()


def test_without_several_processes_gathering_changes_nothing() -> None:
    batch = EmbeddingBatch(torch.eye(3), torch.eye(3))
    assert batch.gather() is batch
    assert batch.everywhere is batch
    assert (batch.rows, batch.share("query")) == (slice(0, 3), 1.0)
