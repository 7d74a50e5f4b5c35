import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from lightning_jv5 import Embedder
from lightning_jv5.cli import main
from lightning_jv5.data import Docstrings
from lightning_jv5.export import assemble, export_onnx, onnx
from lightning_jv5.export.card_name import front_matter, renamed
from lightning_jv5.export.push import files_to_push
from lightning_jv5.losses import EmbeddingDistillation, Matryoshka
from lightning_jv5.models import Projection
from lightning_jv5.models.model_folder import ModelFolder
from lightning_jv5.rebuildable import describe
from tests.export.conftest import Stages
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

LONG = [*TEXTS, " ".join(TEXTS), "the red house " * 9, "a slow tree"]  # more than a batch


SAID = {
    "license": "apache-2.0",
    "language": ["en"],
    "base_model": "team/base",
    "datasets": ["team/pairs", "/home/ada/more"],
}


@dataclass
class Exported:
    """A model and its ONNX folder."""

    model: Path
    folder: Path
    printed: str

    @property
    def about(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "onnx.json").read_text())
        return read


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    # A form feed ends no line
    file.write_text("\n".join([*LONG[:-1], LONG[-1].replace(" ", "\f"), "", "  "]))
    return str(file)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, texts: str) -> Exported:
    """An encoder with a Dense layer, prompts, a limit for each role and Matryoshka dims, by the command."""
    root = tmp_path_factory.mktemp("encoder")
    model, prompts = root / "model", {"query": "query : ", "document": ""}
    save_tiny_sentence_transformer(model, dense=24, prompts=prompts, tokenizer={"style": "bert"})
    objective = Matryoshka(EmbeddingDistillation(Projection(24, 24)), dims=[8, 24])
    described = ModelFolder(
        "model", prompts, {"query": 9, "document": 16}, 24, trained={"objective": describe(objective)}
    )
    (model / "lightning_jv5.json").write_text(json.dumps(described.to_plain()))
    front = yaml.safe_dump({"model_name": "m", "tags": ["mine"], **SAID})
    (model / "README.md").write_text(f"---\n{front}---\n\n# m\n")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(["onnx", "--model", str(model), "--output", str(root / "onnx"), "--int8", "--texts", texts])
    return Exported(model, root / "onnx", printed.getvalue())


def encoded_as_the_card_says(folder: Path, texts: list[str], role: str) -> Tensor:
    """Run the code of the card, which knows nothing of PyTorch, beside the folder."""
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "torch" not in code
    with contextlib.chdir(folder.parent):
        names: dict[str, Any] = {}
        exec(code, names)
        found: np.ndarray = names["encode"](texts, role)
    return torch.from_numpy(found)


@pytest.mark.parametrize("role", ["query", "document"])
def test_the_code_of_the_card_gives_the_embeddings_of_an_encoder(exported: Exported, role: str) -> None:
    expected = Embedder(str(exported.model)).encode(LONG, role)
    torch.testing.assert_close(encoded_as_the_card_says(exported.folder, LONG, role), expected, rtol=0, atol=1e-5)
    for text, one in zip(LONG, expected, strict=True):
        alone = encoded_as_the_card_says(exported.folder, [text], role)
        torch.testing.assert_close(alone[0], one, rtol=0, atol=1e-5)


def test_the_card_names_the_graph_and_what_the_models_card_says_of_its_rights_and_making(
    exported: Exported, decoder: Exported
) -> None:
    card = (exported.folder / "README.md").read_text()
    assert front_matter(card) == {
        "model_name": "onnx",
        **SAID,
        "datasets": ["team/pairs", "more"],
        "pipeline_tag": "feature-extraction",
        "tags": ["onnx", "feature-extraction", "sentence-similarity"],
    }
    assert "\n# onnx\n" in card
    assert "## License" not in card
    unlicensed = (decoder.folder / "README.md").read_text()
    assert "license" not in front_matter(unlicensed)
    assert "## License\n\nNot stated" in unlicensed


def test_the_base_of_a_graph_of_a_model_on_the_hub_is_that_model() -> None:
    assert onnx._said_of("team/small") == {"base_model": "team/small"}


def test_the_card_that_is_pushed_loads_the_graph_from_the_hub(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def snapshot_download(name: str) -> str:
        asked.append(name)
        return str(exported.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    card = renamed((exported.folder / "README.md").read_text(), "team/small-onnx")
    assert "\n# team/small-onnx\n" in card
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "README.md").write_text(card)
    expected = Embedder(str(exported.model)).encode(TEXTS)
    torch.testing.assert_close(encoded_as_the_card_says(place, TEXTS, "document"), expected, rtol=0, atol=1e-5)
    assert asked == ["team/small-onnx"]


def test_onnx_json_says_how_to_use_the_graph(exported: Exported) -> None:
    about = exported.about
    assert about["prompts"] == {"query": "query : ", "document": ""}
    assert about["max_length"] == {"query": 9, "document": 16}
    assert (about["dim"], about["dims"], about["pooling"], about["task"]) == (24, [8, 24], "mean", None)
    assert (about["inputs"], about["output"]) == (["input_ids", "attention_mask"], "embedding")
    assert about["padding"] == "either side"
    assert about["compared_texts"] == len(LONG)
    assert about["graphs"]["model.onnx"]["largest_difference"] < 1e-5


def test_the_loss_of_8_bits_is_measured_written_and_printed(exported: Exported) -> None:
    embedder = Embedder(str(exported.model))
    token_ids = embedder.tokenization(LONG, "document")
    graphs = [onnx.GraphRunner(exported.folder / name, 0) for name in ("model.onnx", "model_int8.onnx")]
    # batches as the command makes them: the scale of rounded activations is that of a batch
    float_, int8 = (torch.cat([graph(token_ids[:8]), graph(token_ids[8:])]).double() for graph in graphs)
    cosines = (float_ * int8).sum(dim=1) / float_.norm(dim=1) / int8.norm(dim=1)
    found = exported.about["graphs"]["model_int8.onnx"]
    assert found["mean_cosine"] == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert found["least_cosine"] == pytest.approx(float(cosines.min()), abs=1e-6)
    assert found["least_cosine"] < found["mean_cosine"] < 1
    assert f"cosine with model.onnx of {found['mean_cosine']:.4f} on average" in exported.printed
    assert f"cosine {found['mean_cosine']:.4f} on average" in (exported.folder / "README.md").read_text()


def test_the_folder_may_be_pushed(exported: Exported) -> None:
    assert {"model.onnx", "model_int8.onnx", "onnx.json", "tokenizer.json", "README.md"} <= set(
        files_to_push(str(exported.folder))
    )


@pytest.fixture(scope="module")
def decoder(stages: Stages, tmp_path_factory: pytest.TempPathFactory, texts: str) -> Exported:
    """A decoder with two adapters, trained with one RoPE theta to infer with another; one adapter is exported."""
    root = tmp_path_factory.mktemp("decoder")
    assemble([stages.adapter("retrieval"), stages.adapter("clustering")], str(root / "model"))
    made = export_onnx(str(root / "model"), str(root / "onnx"), task="clustering", texts=texts)
    return Exported(root / "model", root / "onnx", made.summary())


@pytest.mark.parametrize("role", ["query", "document"])
def test_one_adapter_of_a_decoder_is_merged_with_the_theta_to_infer_with(decoder: Exported, role: str) -> None:
    embedder = Embedder(str(decoder.model), task="clustering")
    found = encoded_as_the_card_says(decoder.folder, LONG, role)
    torch.testing.assert_close(found, embedder.encode(LONG, role), rtol=0, atol=1e-5)
    for other in (
        Embedder(str(decoder.model)),
        Embedder(str(decoder.model), task="retrieval"),
        Embedder(str(decoder.model), task="clustering", inference_theta=100.0),
    ):
        assert (other.encode(LONG, role) - found).abs().max() > 1e-3


def test_the_folder_of_an_adapter_says_its_task_and_theta(decoder: Exported) -> None:
    about = decoder.about
    assert (about["task"], about["theta"], about["pooling"], about["dims"]) == ("clustering", 5000.0, "last", [32])
    assert about["max_length"] == {"query": 12, "document": 16}
    assert "an ONNX graph of the adapter 'clustering', merged" in decoder.printed
    assert "for clustering" in (decoder.folder / "README.md").read_text()
    assert not (decoder.folder / "model_int8.onnx").exists()


def test_graphs_are_compared_on_docstrings_by_default_and_a_folder_may_be_replaced(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any, Any]] = []

    def load(source: Docstrings) -> datasets.Dataset:
        asked.append((source.split, source.packages, source.rows))
        return datasets.Dataset.from_dict({"document": TEXTS})

    monkeypatch.setattr(Docstrings, "load", load)
    (tmp_path / "onnx").mkdir()
    for old in ("model_int8.onnx", "onnx.json"):
        (tmp_path / "onnx" / old).touch()
    made = export_onnx(str(exported.model), str(tmp_path / "onnx"), overwrite=True)
    assert asked == [("heldout", ["stdlib"], 64)]
    assert made.texts == len(TEXTS)
    assert "model_int8.onnx" not in made.files
    assert made.files["model.onnx"] == (tmp_path / "onnx" / "model.onnx").stat().st_size


def test_a_graph_that_computes_something_else_is_refused(
    exported: Exported, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(onnx.GraphRunner):
        def __call__(self, *arguments: Any, **how: Any) -> Tensor:
            return super().__call__(*arguments, **how) + 0.5

    monkeypatch.setattr(onnx, "GraphRunner", Wrong)
    with pytest.raises(
        ValueError, match=r"graph of a BertModel gives embeddings that differ from the model's by up to"
    ):
        export_onnx(str(exported.model), str(tmp_path / "onnx"), texts=texts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task=cooking"], "error: Got task 'cooking'; .* has adapters for none"),
        (["--texts=nowhere.txt"], "error: Got texts 'nowhere.txt', but there is no such file"),
        (["--texts=empty.txt"], "error: Got texts 'empty.txt', a file without any text"),
        (["--output=."], "error: Got output '.', which is there already"),
        (["--model=./nowhere"], "error: .*no such folder"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    exported: Exported,
    texts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    given = {"--model": str(exported.model), "--output": "made", "--texts": texts}
    given |= dict(word.split("=", 1) for word in words)
    with pytest.raises(SystemExit) as ended:
        main(["onnx", *(f"{key}={value}" for key, value in given.items())])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "made").exists()
