import json
import shutil
from pathlib import Path

import pytest
import torch

from lightning_jv5 import Embedder, MTEBEncoder
from lightning_jv5.cli import main
from lightning_jv5.export import assemble
from lightning_jv5.tasks import evaluate
from tests.export.conftest import Stages
from tests.mteb_tasks import SAME_TASKS, mteb_scores
from tests.tiny_models import TEXTS, save_tiny_backbone


@pytest.fixture(scope="module")
def model(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("assembled") / "model"
    made = assemble([stages.adapter("retrieval"), stages.adapter("clustering")], str(folder))
    assert made.tasks == ["retrieval", "clustering"]
    return str(folder)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("task", ["retrieval", "clustering"])
def test_every_task_of_an_assembled_model_is_that_of_its_adapter(
    stages: Stages, model: str, task: str, role: str
) -> None:
    expected = Embedder(stages.adapter(task)).encode(TEXTS, role)
    assert torch.equal(Embedder(model).encode(TEXTS, role, task=task), expected)
    assert torch.equal(Embedder(model, task=task).encode(TEXTS, role), expected)


def test_an_assembled_model_without_a_task_is_the_first_stages(stages: Stages, model: str) -> None:
    embedder = Embedder(model)
    assert embedder.tasks == ["clustering", "retrieval"]
    embedder.encode(TEXTS, task="retrieval")
    assert torch.equal(embedder.encode(TEXTS), Embedder(stages.model).encode(TEXTS))


def test_the_adapters_differ(model: str) -> None:
    embedder = Embedder(model)
    apart = embedder.encode(TEXTS, task="retrieval") - embedder.encode(TEXTS, task="clustering")
    assert apart.abs().max() > 1e-3


def test_an_assembled_model_is_what_sentence_transformers_reads(stages: Stages, model: str) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = torch.tensor(SentenceTransformer(model, device="cpu").encode_document(TEXTS))
    torch.testing.assert_close(theirs, Embedder(model).encode(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", ["retrieval", "clustering"])
def test_an_assembled_model_has_in_mteb_the_scores_of_our_own_tasks(stages: Stages, model: str, task: str) -> None:
    from sentence_transformers import SentenceTransformer

    theirs, ours, names = SAME_TASKS[task]
    [score] = evaluate(Embedder(stages.adapter(task)).encode, {task: ours}, progress=False)
    found = mteb_scores(MTEBEncoder(model, device="cpu"), theirs)[names[ours.main_metric]]
    assert found == pytest.approx(score.values[ours.main_metric], abs=2e-5)
    [score] = evaluate(Embedder(stages.model, max_length=16).encode, {task: ours}, progress=False)
    for folder in (model, stages.model):  # as it is: without adapters, and with one limit for both roles
        found = mteb_scores(SentenceTransformer(folder, device="cpu"), theirs)[names[ours.main_metric]]
        assert found == pytest.approx(score.values[ours.main_metric], abs=2e-5)


def test_in_mteb_an_adapter_alone_computes_every_type_of_task(stages: Stages) -> None:
    encoder = MTEBEncoder(stages.adapter("retrieval"), device="cpu")
    assert [encoder.adapter(task_type) for task_type in ("Retrieval", "STS", "Clustering")] == ["retrieval"] * 3
    assert encoder.mteb_model_meta.name == "lightning_jv5/retrieval"


def test_the_command_says_how_to_use_the_model(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["assemble", f"--adapters=[{stages.adapter('retrieval')}]", f"--output={tmp_path / 'model'}"])
    assert "a model with adapters for retrieval" in capsys.readouterr().out


def test_an_adapter_of_another_model_is_refused(stages: Stages, tmp_path: Path) -> None:
    other = shutil.copytree(stages.model, tmp_path / "other")
    shutil.copyfile(
        Path(save_tiny_backbone(tmp_path / "random", "qwen3", max_position_embeddings=128, seed=7))
        / "model.safetensors",
        other / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"was trained on other weights than those of '.*other'"):
        assemble([stages.adapter("retrieval")], str(tmp_path / "model"), base=str(other))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inference_theta": 77.0}, "is to be used with a RoPE theta of 77.0, and its model has 5000.0"),
        ({"base": "/nowhere"}, "The adapters belong to '/nowhere' and '.*distill'"),
        ({"task": "retrieval"}, "Got two adapters for 'retrieval'"),
        ({"task": None}, "which is no folder that export wrote of a run with an adapter"),
        ({"format": 9}, "has format 9; this version of lightning_jv5 reads 1"),
        ({"colour": "red"}, "Cannot read .*lightning_jv5.json.*colour"),
    ],
)
def test_adapters_that_do_not_go_together_are_refused(
    stages: Stages, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    changed = shutil.copytree(stages.adapter("clustering"), tmp_path / "changed")
    described = json.loads((changed / "lightning_jv5.json").read_text())
    (changed / "lightning_jv5.json").write_text(json.dumps(described | change))
    with pytest.raises(ValueError, match=message):
        assemble([stages.adapter("retrieval"), str(changed)], str(tmp_path / "model"))


def test_no_adapters_and_no_model_are_refused(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Got no adapters to assemble"):
        assemble([], str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"which is no local folder with a config.json"):
        assemble([stages.adapter("retrieval")], str(tmp_path / "model"), base=stages.adapter("retrieval"))
