from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_jv5 import Embedder
from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.export import onnx_graph
from lightning_jv5.export.onnx_graph import EmbeddingGraph, GraphRunner, quantise_graph, write_graph
from tests.tiny_models import save_tiny_sentence_transformer

POOLING = {"bert": "mean", "roberta": "cls", "mpnet": "mean", "eurobert": "mean", "qwen3": "lasttoken"}
LONGEST = 60


@pytest.fixture(scope="module", params=POOLING)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    """A model of every family, with a Dense layer, and its graph."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_sentence_transformer(folder, request.param, pooling=POOLING[request.param], dense=24)
    embedder = Embedder(str(folder), attention="eager")
    assert write_graph(embedder, folder / "model.onnx") >= 18
    return embedder.eval(), folder / "model.onnx"


def random_texts(texts: int, longest: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(100 * texts + longest)
    lengths = [longest, *torch.randint(1, longest + 1, (texts - 1,), generator=generator).tolist()]
    return [torch.randint(5, 25, (length,), generator=generator).tolist() for length in lengths]


def one_by_one(embedder: Embedder, token_ids: list[list[int]]) -> Tensor:
    """Every text in a batch of its own, without any padding, at the implementation that training uses."""
    with torch.no_grad():
        return torch.cat([embedder(RaggedTexts.from_lists([text])) for text in token_ids])


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (1, LONGEST), (2, 7), (3, 33), (8, 2), (20, 17)], ids=str)
def test_a_graph_embeds_any_batch_of_any_length_padded_on_either_side(
    made: tuple[Embedder, Path], shape: tuple[int, int], left: bool
) -> None:
    embedder, file = made
    token_ids = random_texts(*shape)
    found = GraphRunner(file, pad_token_id=0)(token_ids, left=left)
    assert found.shape == (shape[0], 24)
    torch.testing.assert_close(found, one_by_one(embedder, token_ids), rtol=0, atol=1e-5)


def test_what_fills_padding_is_not_seen(made: tuple[Embedder, Path]) -> None:
    _, file = made
    token_ids = random_texts(6, 11)
    torch.testing.assert_close(
        GraphRunner(file, pad_token_id=0)(token_ids), GraphRunner(file, pad_token_id=9)(token_ids), rtol=0, atol=1e-6
    )


def test_a_graph_takes_integers_of_any_batch_and_length_and_gives_embeddings(made: tuple[Embedder, Path]) -> None:
    session = GraphRunner(made[1], 0).session
    assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
        ("input_ids", ["batch", "length"], "tensor(int64)"),
        ("attention_mask", ["batch", "length"], "tensor(int64)"),
    ]
    [output] = session.get_outputs()
    assert (output.name, output.shape, output.type) == ("embedding", ["batch", 24], "tensor(float)")


def test_a_graph_does_not_say_where_it_was_made(made: tuple[Embedder, Path]) -> None:
    content = made[1].read_bytes()
    assert not [path for path in (b".py", b"site-packages", str(made[1].parent).encode()) if path in content]


def test_8_bits_are_near_and_smaller(made: tuple[Embedder, Path]) -> None:
    _, file = made
    quantised = file.with_name("model_int8.onnx")
    quantise_graph(file, quantised)
    assert quantised.stat().st_size < file.stat().st_size
    token_ids = random_texts(20, 30)
    cosines = torch.cosine_similarity(GraphRunner(quantised, 0)(token_ids), GraphRunner(file, 0)(token_ids))
    assert 0.95 < cosines.min() < 1 - 1e-6


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "_LARGEST_FILE", 1000)
    embedder = Embedder(save_tiny_sentence_transformer(tmp_path / "model"), attention="eager").eval()
    (tmp_path / "made").mkdir()
    write_graph(embedder, tmp_path / "made" / "model.onnx")
    quantise_graph(tmp_path / "made" / "model.onnx", tmp_path / "made" / "model_int8.onnx")
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    names = ["model.onnx", "model.onnx.data", "model_int8.onnx", "model_int8.onnx.data"]
    assert sorted(path.name for path in moved.iterdir()) == names
    assert (moved / "model.onnx").stat().st_size < (moved / "model.onnx.data").stat().st_size
    token_ids = random_texts(5, 9)
    expected = one_by_one(embedder, token_ids)
    torch.testing.assert_close(GraphRunner(moved / "model.onnx", 0)(token_ids), expected, rtol=0, atol=1e-5)
    assert torch.cosine_similarity(GraphRunner(moved / "model_int8.onnx", 0)(token_ids), expected).min() > 0.95


def test_the_encoder_is_as_before_afterwards(tmp_path: Path) -> None:
    embedder = Embedder(save_tiny_sentence_transformer(tmp_path), attention="eager").train()
    write_graph(embedder, tmp_path / "model.onnx")
    assert embedder.training
    assert embedder.backbone.training
    texts = random_texts(2, 5)
    ids = np.array([text[:1] for text in texts])
    with torch.no_grad():
        EmbeddingGraph(embedder)(torch.from_numpy(ids), torch.ones(2, 1, dtype=torch.int64))  # can still be called


class BranchingBackbone(nn.Module):
    """Looks at what a text says to decide what to compute."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.config = backbone, backbone.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> object:
        if int(input_ids.sum()) > 100:
            input_ids = input_ids.flip(1)
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask)


def test_a_backbone_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    embedder = Embedder(save_tiny_sentence_transformer(tmp_path), attention="eager")
    embedder.backbone = BranchingBackbone(embedder.backbone)
    with pytest.raises(ValueError, match=r"Cannot make an ONNX graph of a BranchingBackbone: .* branch on the content"):
        write_graph(embedder, tmp_path / "model.onnx")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match=r"ONNX needs onnxscript. Run: pip install 'lightning-jv5\[export\]'"):
        GraphRunner(tmp_path / "model.onnx", 0)
