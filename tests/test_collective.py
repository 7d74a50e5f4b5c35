"""Students whose weights are divided among ranks: every forward is a collective, and no rank may do one fewer."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import read_embeddings
from tests.sharded_run import run
from tests.tiny_data import sgd, tiny_student, tiny_texts
from tests.tiny_models import tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    for ranks in (1, 2):
        run(folder, ranks)
    return folder


def results(folder: Path, scenario: str) -> list[Any]:
    """Return what one process has, and what each of two has."""
    return [torch.load(folder / f"{scenario}-{name}" / "result.pt") for name in ("0of1", "0of2", "1of2")]


def assert_same_run(alone: dict[str, Any], *ranks: dict[str, Any]) -> None:
    torch.testing.assert_close(ranks[0]["weights"], alone["weights"], atol=1e-5, rtol=0)
    assert ranks[0]["norm"] == pytest.approx(alone["norm"], rel=1e-5)
    assert ranks[0]["norm"] == ranks[1]["norm"]
    assert ranks[0]["scores"] == ranks[1]["scores"] == pytest.approx(alone["scores"])


@pytest.mark.parametrize("scenario", ["plain", "recompute", "packed"])
def test_two_sharded_ranks_train_score_and_predict_as_one_process(folder: Path, scenario: str) -> None:
    alone, first, second = results(folder, scenario)
    chunks = zip(first["chunks"], second["chunks"], strict=True)
    assert any(one != other for one, other in chunks), "the ranks must plan differently"
    assert_same_run(alone, first, second)
    assert "val/tiny/ndcg@10" in alone["scores"]
    torch.testing.assert_close(alone["weights"], results(folder, "plain")[0]["weights"], atol=1e-5, rtol=0)
    expected, embeddings = (read_embeddings(folder / f"{scenario}-0of{ranks}" / "embeddings") for ranks in (1, 2))
    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scenario", ["clip norm", "clip value"])
def test_gradients_of_sharded_and_whole_weights_are_clipped_together(folder: Path, scenario: str) -> None:
    alone, first, second = results(folder, scenario)
    assert_same_run(alone, first, second)
    assert not torch.equal(alone["weights"]["student.backbone.embeddings.LayerNorm.weight"], unclipped_weight(folder))


def unclipped_weight(folder: Path) -> torch.Tensor:
    weight: torch.Tensor = results(folder, "plain")[0]["weights"]["student.backbone.embeddings.LayerNorm.weight"]
    return weight


@pytest.mark.parametrize("scenario", ["fused", "resumed from a file", "resumed from a folder"])
def test_a_sharded_run_with_a_fused_optimizer_goes_on_from_its_checkpoint(folder: Path, scenario: str) -> None:
    alone, *_ = results(folder, "fused")
    assert_same_run(alone, *results(folder, scenario)[1:])


def test_a_checkpoint_in_one_file_can_be_loaded_without_ranks(folder: Path, tmp_path: Path) -> None:
    student = tiny_student(tmp_path, config=tiny_config(num_hidden_layers=2), max_tokens_per_chunk=16)
    last = folder / "resumed from a file-0of2" / "last.ckpt"
    module = EmbeddingModule.load_from_checkpoint(last, optimizer=sgd, student=student)
    expected = results(folder, "resumed from a file")[1]["weights"]
    torch.testing.assert_close(dict(module.state_dict()), expected, atol=0, rtol=0)


def test_a_checkpoint_in_parts_is_refused_without_ranks(folder: Path) -> None:
    with pytest.raises(ValueError, match="each rank has written its part; need one file"):
        EmbeddingModule.load_from_checkpoint(folder / "resumed from a folder-0of2" / "last.ckpt")


@pytest.mark.parametrize("scenario", ["forwards", "forwards, recompute"])
def test_a_rank_without_texts_takes_part(folder: Path, scenario: str) -> None:
    alone, first, second = results(folder, scenario)
    for name in ("before", "embeddings", "encoded"):
        assert first[name].shape == (0, 32)
        torch.testing.assert_close(second[name], alone[name], atol=1e-5, rtol=0)
    for rank in (first, second):
        torch.testing.assert_close(rank["gradients"], alone["gradients"], atol=1e-5, rtol=1e-5)
        assert float(rank["norm"]) == pytest.approx(float(alone["norm"]), rel=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", ["bert", "qwen3", "eurobert"])
def test_a_chunk_without_texts_changes_no_embedding_and_no_gradient(
    tmp_path: Path, family: str, recompute: bool
) -> None:
    embedded = []
    student = tiny_student(tmp_path, config=tiny_config(family), recompute=recompute)
    passes: list[tuple[int, ...]] = []
    student.backbone.register_forward_pre_hook(
        lambda _, __, kwargs: passes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    texts = student.tokenization.ragged(tiny_texts(5, seed=0), "query")
    for empty in (0, 2):
        student.zero_grad()
        passes.clear()
        embeddings = student(texts, [*student.plan(texts.lengths), *[torch.empty(0, dtype=torch.int64)] * empty])
        assert passes.count((1, 1)) == empty
        (embeddings * torch.arange(32)).sum().backward()
        embedded.append((embeddings, {name: weights.grad for name, weights in student.named_parameters()}))
    torch.testing.assert_close(embedded[1], embedded[0], atol=0, rtol=0)
    gradients = embedded[0][1].values()
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_every_rank_asks_an_encoder_equally_often(folder: Path) -> None:
    alone, first, second = results(folder, "counted calls")
    assert first["calls"] == [3, 4, 1]
    assert second["calls"] == [3, 4, 0]
    assert first["values"] == second["values"] == alone["values"]


def test_tensor_parallelism_is_refused(folder: Path) -> None:
    for message in results(folder, "refused")[1:]:
        assert "Got ModelParallelStrategy with tensor_parallel_size 2; need 1" in message


def test_all_ranks_blame_the_term_whose_gradient_is_not_finite(folder: Path) -> None:
    for message in results(folder, "broken")[1:]:
        assert "The gradient is not finite at step 0" in message
        assert "from the term 'broken'." in message
