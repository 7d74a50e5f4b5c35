import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from lightning_jv5 import Embedder, EmbeddingModule, Projection
from lightning_jv5.cli import main
from lightning_jv5.export import export, stage
from lightning_jv5.export.push import files_to_push
from lightning_jv5.losses import EmbeddingDistillation, Objective
from lightning_jv5.losses.objective import Term
from lightning_jv5.models.rope import rope_theta
from tests.export.assembled import texts_below
from tests.export.conftest import Stages
from tests.tiny_models import TEXTS


@pytest.mark.parametrize("role", ["query", "document"])
def test_an_exported_model_gives_the_embeddings_of_its_checkpoint(stages: Stages, role: str) -> None:
    module = EmbeddingModule.load_from_checkpoint(stages.checkpoint("distill"))
    exported = Embedder(stages.model)
    torch.testing.assert_close(exported.encode(TEXTS, role), module.encode(TEXTS, role), rtol=0, atol=1e-6)
    assert exported.tokenization.prompts == {"query": "query : ", "document": "document : "}
    assert exported.tokenization.max_length == {"query": 12, "document": 16}


def test_an_exported_model_has_a_card_names_no_path_of_the_machine_and_may_be_pushed(stages: Stages) -> None:
    folder = Path(stages.model)
    assert "training_config.yaml" in texts_below(folder)
    assert [name for name, text in texts_below(folder).items() if str(stages.folder) in text] == []
    assert "README.md" in files_to_push(stages.model)
    card = (folder / "README.md").read_text()
    assert "# distill\n" in card
    assert "| train | LocalFiles | paths: pairs.jsonl |" in card
    with pytest.raises(ValueError, match="has no model card"):
        files_to_push(stages.adapter("retrieval"))


@pytest.mark.parametrize("role", ["query", "document"])
def test_sentence_transformers_reads_an_exported_model(stages: Stages, role: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(stages.model, device="cpu")
    encode = model.encode_query if role == "query" else model.encode_document
    short = [text for text in TEXTS if len(text.split()) < 8]  # it has one limit for both roles
    theirs = torch.tensor(encode(short))
    torch.testing.assert_close(theirs, Embedder(stages.model).encode(short, role), rtol=0, atol=1e-5)


def test_the_exported_config_carries_the_inference_theta(stages: Stages) -> None:
    assert AutoConfig.from_pretrained(stages.model).rope_parameters["rope_theta"] == 5000.0
    assert rope_theta(Embedder(stages.model).backbone) == 5000.0
    described = json.loads(Path(stages.adapter("retrieval"), "lightning_jv5.json").read_text())
    assert (described["theta"], described["inference_theta"]) == (200.0, 5000.0)


def test_the_next_stage_starts_from_the_projection(stages: Stages) -> None:
    checkpoint = torch.load(stages.checkpoint("distill"), weights_only=True)
    projection = Projection(path=stages.model)
    assert torch.equal(projection.weight, checkpoint["state_dict"]["objective.projection.weight"])
    assert not torch.equal(projection.weight, torch.eye(32))
    trained_on = Projection(path=stages.adapter("retrieval"))
    assert not torch.equal(trained_on.weight, projection.weight)


def test_an_exported_adapter_is_small_and_names_its_model(stages: Stages) -> None:
    folder = Path(stages.adapter("retrieval"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "lightning_jv5.json",
        "projection.safetensors",
        "training_config.yaml",
    ]
    described = json.loads((folder / "lightning_jv5.json").read_text())
    assert (described["kind"], described["task"], described["base"]) == ("adapter", "retrieval", stages.model)
    assert described["trained"]["steps"] == 3
    assert 0.005 <= described["trained"]["watched"]["contrast/temperature"] <= 0.1
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))


def test_an_adapters_folder_gives_the_embeddings_of_its_checkpoint(stages: Stages) -> None:
    module = EmbeddingModule.load_from_checkpoint(stages.checkpoint("retrieval"))
    exported = Embedder(stages.adapter("retrieval"))
    torch.testing.assert_close(exported.encode(TEXTS), module.encode(TEXTS), rtol=0, atol=1e-6)
    assert (exported.encode(TEXTS) - Embedder(stages.model).encode(TEXTS)).abs().max() > 1e-3


def test_peft_reads_an_exported_adapter(stages: Stages) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(stages.model), stages.adapter("retrieval")).eval()
    ours = Embedder(stages.adapter("retrieval")).backbone.eval()
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
        torch.testing.assert_close(ours(input_ids=ids).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_half_precision_weights_are_written_where_asked(stages: Stages, tmp_path: Path) -> None:
    export(stages.checkpoint("distill"), str(tmp_path / "half"), dtype="bfloat16")
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    apart = Embedder(str(tmp_path / "half")).encode(TEXTS) - Embedder(stages.model).encode(TEXTS)
    assert 0 < apart.abs().max() < 0.05


def test_the_command_says_what_it_wrote_and_what_to_do_next(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", "--ckpt_path", stages.checkpoint("distill"), "--output", str(tmp_path / "model")])
    shown = capsys.readouterr().out
    assert re.search(r"model\.safetensors +0\.\d\d MB", shown)
    assert f"--from={tmp_path / 'model'}" in shown


def test_a_failed_export_leaves_what_was_there(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    export(stages.checkpoint("distill"), str(folder))
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(stage, "write_json", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export(stages.checkpoint("distill"), str(folder), overwrite=True)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_is_replaced_only_where_asked(stages: Stages, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(stages.checkpoint("retrieval"), str(folder))
    before = (folder / "lightning_jv5.json").read_text()
    with pytest.raises(ValueError, match=r"which is there already. Choose another, or set overwrite"):
        export(stages.checkpoint("distill"), str(folder))
    assert (folder / "lightning_jv5.json").read_text() == before
    export(stages.checkpoint("distill"), str(folder), overwrite=True)
    assert not (folder / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_missing_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Got ckpt_path 'nothing.ckpt', but there is no such file"):
        export("nothing.ckpt", str(tmp_path / "model"))


def test_an_unknown_dtype_is_said(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Got dtype 'int8'; need float32 or bfloat16"):
        export(stages.checkpoint("distill"), str(tmp_path / "model"), dtype="int8")  # type: ignore[arg-type]


def test_an_adapter_on_some_layers_of_a_model_is_refused(stages: Stages, tmp_path: Path) -> None:
    checkpoint = torch.load(stages.checkpoint("retrieval"), weights_only=True)
    arguments = checkpoint["lightning_jv5"]["arguments"]
    arguments["student"]["init_args"]["layers"] = [0, 1]
    torch.save(checkpoint, tmp_path / "layers.ckpt")
    with pytest.raises(ValueError, match=r"adapter 'retrieval' on layers \[0, 1\] of a model, which nobody could find"):
        export(str(tmp_path / "layers.ckpt"), str(tmp_path / "model"))


def test_of_several_projections_one_must_be_named() -> None:
    objective = Objective(
        {
            "near": Term(EmbeddingDistillation(Projection(4, 4))),
            "far": Term(EmbeddingDistillation(Projection(4, 8))),
            "theirs": Term(EmbeddingDistillation(teacher_projection=Projection(8, 4))),
        }
    )
    with pytest.raises(ValueError, match=r"terms.near.projection, terms.far.projection; say which"):
        stage._projection(objective, None)
    assert stage._projection(objective, "terms.far.projection") is objective.terms["far"].projection
    with pytest.raises(ValueError, match=r"Got projection 'far'; the objective has terms.near.projection, "):
        stage._projection(objective, "far")


def test_a_checkpoint_without_its_student_is_refused(tmp_path: Path) -> None:
    described = {"format": 3, "arguments": {"objective": {}}, "frozen": {}}
    torch.save({"lightning_jv5": described, "state_dict": {}}, tmp_path / "one.ckpt")
    with pytest.raises(ValueError, match="does not say how to build its student: a class of your own"):
        export(str(tmp_path / "one.ckpt"), str(tmp_path / "model"))
