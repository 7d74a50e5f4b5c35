"""The shipped recipes of jina-embeddings-v5-text: every number of the paper's table, and every one of them trains.

Models are random, with few layers but the real widths, in folders named as the hub names them; so the files are run as
they are shipped. Only batch sizes, the number of steps and the device are others.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file

from lightning_jv5 import EmbeddingModule
from lightning_jv5.cli import main
from lightning_jv5.config_files import config_names, packaged_configs
from lightning_jv5.data import HubDataset
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.export import export
from lightning_jv5.models import Embedder
from lightning_jv5.models.projection import read_projection
from tests.tiny_data import tiny_texts
from tests.tiny_models import save_tiny_backbone

GENERIC = "Given a web search query, retrieve relevant passages that answer the query"
TOPIC = "Instruct: Identify the topic or theme of the given document:\nQuery:"
DIMS = {"small": [1024, 768, 512, 256, 128, 64, 32], "nano": [768, 512, 256, 128, 64, 32]}
ASYMMETRIC = {"query": "Query: ", "document": "Document: "}
SYMMETRIC = {"query": "Document: ", "document": "Document: "}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Row(NamedTuple):
    """A line of table A1; batches by data set, ``""`` for all that are not named."""

    model: str
    stage: str
    steps: int
    devices: int
    batch: dict[str, int]
    max_length: dict[str, int]
    lr: float
    theta: float
    dropout: float | None = None


TABLE_A1 = [
    Row("small", "distill", 50_000, 8, {"": 512}, {"": 512}, 1e-4, 1e6),
    Row("nano", "distill", 50_000, 8, {"": 1024}, {"": 512}, 1e-4, 250e3),
    Row("small", "long_context", 6_500, 2, {"": 64}, {"": 4096}, 1e-4, 500e3),
    Row("small", "retrieval", 8_000, 2, {"": 256, "long": 64}, {"": 384, "long": 4096}, 2e-5, 1e6, 0.1),
    Row("nano", "retrieval", 8_000, 2, {"": 384, "long": 96}, {"": 384, "long": 4096}, 2e-5, 250e3, 0.1),
    Row("small", "text_matching", 20_000, 1, {"": 256}, {"": 384}, 5e-5, 1e6, 0.1),
    Row("nano", "text_matching", 20_000, 1, {"": 256}, {"": 384}, 5e-5, 250e3, 0.1),
    Row("small", "clustering", 20_000, 1, {"": 512}, {"": 512}, 1e-5, 100e3, 0.1),
    Row("nano", "clustering", 20_000, 1, {"": 1024}, {"": 512}, 1e-5, 25e3, 0.1),
    Row("small", "classification", 30_000, 4, {"": 64}, {"": 512}, 4e-4, 3.5e6, 0.05),
    Row("nano", "classification", 30_000, 4, {"": 128}, {"": 512}, 4e-4, 1e6, 0.1),
]
INFERENCE_THETA = {"small": 3.5e6, "nano": 1e6}
BASE = {"small": "Qwen/Qwen3-0.6B-Base", "nano": "EuroBERT/EuroBERT-210m"}
TEACHER = "Qwen/Qwen3-Embedding-4B"
stage_of_table = pytest.mark.parametrize("row", TABLE_A1, ids=lambda row: f"{row.model}-{row.stage}")


def recipe_files(row: Row) -> list[str]:
    return [f"--config=jina_v5_{row.model}/{row.stage}.yaml", f"--config=jina_v5_hub/{row.stage}.yaml"]


def distillation(model: str, *, first: bool = False) -> dict[str, Any]:
    whole = {"input_dim": DIMS[model][0], "output_dim": 2560, "path": None, "trainable": True}
    return {
        "EmbeddingDistillation": {
            "projection": {"Projection": whole if first else {**whole, **LOADED}},
            "teacher_projection": None,
            "roles": ["query", "document"],
        }
    }


LOADED = {"input_dim": None, "output_dim": None, "path": "{from}"}


def contrast(temperature: Any, **others: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "direction": "query_to_document",
        "own_negatives": False,
        "query_query": False,
        "document_document": False,
        "multiple_positives": False,
        "hardness": 0.0,
        "mask_same_text": True,
        "mask_same_label": False,
        "teacher_margin": None,
        "tile_rows": None,
    }
    return {"InfoNCE": {"temperature": temperature, **defaults, **others}}


def matryoshka(model: str, loss: dict[str, Any]) -> dict[str, Any]:
    settings = {"loss": loss, "dims": DIMS[model], "weights": None, "dims_per_step": None, "seed": 0}
    return {"Matryoshka": settings}


def objective(**terms: tuple[float, dict[str, Any]]) -> dict[str, Any]:
    named = {name: {"Term": {"loss": loss, "weight": weight}} for name, (weight, loss) in terms.items()}
    return {"Objective": {"terms": named}}


def objectives(model: str) -> dict[str, dict[str, Any]]:
    """The equations, by stage."""
    learnable = {"LearnableTemperature": {"initial": 0.02, "lowest": 0.005, "highest": 0.1}}
    eq_1, loaded = (matryoshka(model, distillation(model, first=first)) for first in (True, False))
    eq_2, eq_3 = matryoshka(model, contrast(learnable)), {"SpreadOut": {"roles": ["query", "document"]}}
    eq_6 = {
        "ByScore": {
            "scored": {"CoSENT": {"temperature": 0.05}},
            "unscored": objective(contrast=(1, contrast(0.02)), distill=(2, distillation(model))),
        }
    }
    eq_7 = contrast(0.02, direction="both", mask_same_label=True)
    eq_8 = {"RelationalDistillation": {"roles": ["query", "document", "negatives"]}}
    return {
        "distill": objective(distill=(1, eq_1)),
        "long_context": objective(distill=(1, loaded)),
        "retrieval": objective(contrast=(1, eq_2), distill=(2, loaded), spread=(1, eq_3)),
        "text_matching": matryoshka(model, eq_6),
        "clustering": objective(distill=(1, loaded)),
        "classification": objective(contrast=(1, matryoshka(model, eq_7)), relations=(20, eq_8)),
    }


def plain(node: Any) -> Any:
    """The resolved config with ``{Class: arguments}`` in place of ``class_path`` and ``init_args``."""
    if isinstance(node, dict) and "class_path" in node:
        return {node["class_path"].rpartition(".")[2]: plain(node.get("init_args", {}))}
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node


@pytest.fixture
def resolved(capsys: pytest.CaptureFixture[str]) -> Callable[[Row], dict[str, Any]]:
    """What the command line makes of a recipe and what it reads from the hub."""

    def resolve(row: Row) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["fit", *recipe_files(row), "--print_config"])
        assert ended.value.code == 0
        config: dict[str, Any] = plain(yaml.safe_load(capsys.readouterr().out))
        return config

    return resolve


@stage_of_table
def test_recipe_has_the_numbers_of_the_paper(row: Row, resolved: Callable[[Row], dict[str, Any]]) -> None:
    config = resolved(row)
    model, data = config["model"]["EmbeddingModule"], config["data"]["EmbeddingDataModule"]
    trainer, student = config["trainer"], model["student"]["Embedder"]
    assert (trainer["max_steps"], trainer["max_epochs"], trainer["devices"]) == (row.steps, -1, row.devices)
    assert (trainer["gradient_clip_val"], trainer["precision"]) == (1.0, "bf16-mixed")
    assert trainer["strategy"] == ("ddp" if row.devices > 1 else "auto")
    assert trainer["accumulate_grad_batches"] == 1

    # Batches, of all devices together, and lengths: those of a set, else those of all
    sets = {name: training_set["TrainingSet"] for name, training_set in data["train"].items()}
    assert set(row.batch) - {""} <= set(sets)
    for name, settings in sets.items():
        per_device, length = (by_set.get(name, by_set[""]) for by_set in (row.batch, row.max_length))
        assert (settings["batch_size"] or data["batch_size"]) == row.devices * per_device
        assert (settings["max_length"] or student["max_length"]) == length
        if row.stage == "classification":
            assert settings["tuples"]["LabelTuples"]["negatives"] == 7

    assert (student["theta"], student["inference_theta"]) == (row.theta, INFERENCE_THETA[row.model])
    assert (student["pooling"], student["path"]) == ("last", "{from}")
    assert student["prompts"] == (ASYMMETRIC if row.dropout is None or row.stage == "retrieval" else SYMMETRIC)
    if row.dropout is None:
        assert student["adapter"] is None
    else:
        wanted = {"name": row.stage.replace("_", "-"), "rank": 32, "alpha": 32.0, "dropout": row.dropout}
        assert student["adapter"] == {"LoRA": {**wanted, "target_modules": PROJECTIONS, "init": "gaussian"}}
    assert config["from"] == (BASE[row.model] if row.stage == "distill" else None)

    assert model["objective"] == objectives(row.model)[row.stage]
    assert model["gather"] is False
    adamw = model["optimizer"]["AdamW"]
    assert (adamw["lr"], adamw["weight_decay"], tuple(adamw["betas"])) == (row.lr, 0.01, (0.9, 0.999))
    assert model["scheduler"] == {"WarmupCosine": {"warmup": 0.05, "total_steps": None}}

    if row.stage == "classification":
        assert model["teacher"] == {"StudentWithoutAdapter": {}}
        assert data["teacher_roles"] == ["query", "document", "negatives"]
    else:
        teacher = model["teacher"]["Teacher"]
        assert (teacher["path"], teacher["pooling"]) == (TEACHER, "last")
        assert teacher["max_length"] == max(row.max_length.values())
        same = {"text_matching": "", "clustering": TOPIC}.get(row.stage)
        assert teacher["instruction"] == (GENERIC if same is None else None)
        assert teacher["prompts"] == (None if same is None else {"query": same, "document": same})
    averaged = [
        callback["AdapterAveraging"]["steps"] for callback in trainer["callbacks"] if "AdapterAveraging" in callback
    ]
    assert averaged == ([[0.5]] if row.stage == "retrieval" else [])


def test_table_names_every_shipped_recipe() -> None:
    shipped = {name for name in config_names(packaged_configs()) if name.startswith("jina_v5_")}
    assert shipped == {f"jina_v5_{home}/{row.stage}.yaml" for row in TABLE_A1 for home in (row.model, "hub")}


# Training

SHORT, SECOND, THIRD = (tiny_texts(24, seed=seed) for seed in (20, 21, 22))
LONG = [" ".join([text] * (4200 // len(text))) for text in SECOND]
LABELS = [f"intent {number % 3}" for number in range(24)]
# The columns of the data sets on the hub, by path and configuration
HUB: dict[tuple[str, str | None], dict[str, list[Any]]] = {
    ("sentence-transformers/natural-questions", None): {"query": SHORT, "answer": SECOND},
    ("sentence-transformers/gooaq", None): {"question": SHORT, "answer": THIRD},
    ("sentence-transformers/s2orc", "title-abstract-pair"): {"title": SHORT, "abstract": SECOND},
    ("sentence-transformers/all-nli", "pair"): {"anchor": SHORT, "positive": SECOND},
    ("sentence-transformers/all-nli", "triplet"): {"anchor": SHORT, "positive": SECOND, "negative": THIRD},
    ("sentence-transformers/parallel-sentences-tatoeba", "en-de"): {"english": SHORT, "non_english": SECOND},
    ("sentence-transformers/mldr", "en-triplet"): {"anchor": SHORT, "positive": LONG, "negative": LONG[1:] + LONG[:1]},
    ("sentence-transformers/ccnews", None): {"title": THIRD, "article": LONG},
    ("sentence-transformers/trivia-qa-triplet", "triplet"): {"anchor": SHORT, "positive": SECOND, "negative": THIRD},
    ("sentence-transformers/miracl", "en-triplet"): {"anchor": THIRD, "positive": SECOND, "negative": SHORT},
    ("sentence-transformers/stsb", None): {
        "sentence1": SHORT,
        "sentence2": SECOND,
        "score": [number % 6 / 5 for number in range(24)],
    },
    ("mteb/banking77", None): {"text": SHORT, "label": list(range(2)) * 12, "label_text": LABELS},
    ("mteb/amazon_massive_intent", "en"): {"id": LABELS, "text": SECOND, "label": LABELS, "label_text": LABELS},
    ("mteb/amazon_massive_intent", "de"): {"id": LABELS, "text": THIRD, "label": LABELS, "label_text": LABELS},
}


def open_tiny(source: HubDataset, *, streaming: bool) -> Dataset:
    rows = Dataset.from_dict(HUB[source.path, source.name])
    rows._fingerprint = fingerprint("tiny hub", source.path, source.name, source.split)
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Path]]:
    """Trains a stage for two steps, those before it first, and returns the folder of its run; each once."""
    home = tmp_path_factory.mktemp("jina")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("LIGHTNING_JV5_CACHE", str(home / "cache"))
        patch.setattr(HubDataset, "_open", open_tiny)
        reach = {"max_position_embeddings": 4096, "tokenizer": {"model_max_length": 4096}, "num_hidden_layers": 1}
        save_tiny_backbone(BASE["small"], "qwen3", hidden_size=1024, **reach)
        save_tiny_backbone(BASE["nano"], "eurobert", hidden_size=768, **reach)
        save_tiny_backbone(TEACHER, "qwen3", hidden_size=2560, **reach)
        tiny: dict[str, Any] = {
            "data": {"batch_size": 4, "steps_per_epoch": 2, "num_workers": 0},
            "trainer": {"max_steps": 2, "enable_progress_bar": False, "enable_model_summary": False, "logger": False},
        }
        Path("tiny.yaml").write_text(yaml.safe_dump(tiny))

        def train(model: str, stage: str) -> Path:
            run = home / "runs" / f"jina_v5_{model}_{stage}" / "version_0"
            if not run.is_dir():
                [row] = [row for row in TABLE_A1 if (row.model, row.stage) == (model, stage)]
                words = [*recipe_files(row), "--config=trainer/cpu.yaml", "--config=tiny.yaml"]
                if stage != "distill":
                    words.append(f"--from={exported(model, before(row), train(model, before(row)))}")
                if stage == "retrieval":
                    words.append("--data.train.long.batch_size=2")
                if model == "small":  # as shipped: fused optimizers, for one, cannot clip under mixed precision
                    words.append("--trainer.precision=bf16-mixed")
                main(["fit", *words])
            return run

        yield train


def before(row: Row) -> str:
    """The stage that a stage starts from."""
    return "long_context" if row.model == "small" and row.stage != "long_context" else "distill"


def exported(model: str, stage: str, run: Path) -> Path:
    folder = run / "model"
    if not folder.is_dir():
        export(str(run / "checkpoints" / "last.ckpt"), str(folder))
    return folder


@stage_of_table
def test_shipped_recipe_trains_from_the_stage_before(row: Row, trained: Callable[[str, str], Path]) -> None:
    run = trained(row.model, row.stage)
    module = EmbeddingModule.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    is_scored = row.stage in ("text_matching", "classification")
    assert (run / "checkpoints" / "best.ckpt").is_file() == is_scored
    trained_weights = {name: weights for name, weights in module.named_parameters() if weights.requires_grad}
    if row.stage == "distill":
        start = load_file(run.parents[2] / BASE[row.model] / "model.safetensors")
        assert {f"student.backbone.{name}" for name in start} <= trained_weights.keys()
        return
    folder = exported(row.model, before(row), trained(row.model, before(row)))
    stage_before = Embedder(str(folder)).backbone.state_dict()
    mine = {name.replace(".base_layer", ""): weights for name, weights in module.student.backbone.state_dict().items()}
    moved = [name for name, weights in stage_before.items() if not torch.equal(weights, mine[name])]
    if row.dropout is None:
        assert moved
    else:
        assert not moved
        adapted = {name for name in trained_weights if "lora_B" in name}
        assert len(adapted) == len(PROJECTIONS)  # in a model of one layer
        assert all(trained_weights[name].any() for name in adapted)
        assert not any("student" in name and "lora" not in name for name in trained_weights)
    for name, weights in trained_weights.items():
        if name.endswith("projection.weight"):  # two steps away from where the stage before left it
            torch.testing.assert_close(weights.detach(), read_projection(str(folder))[0], atol=5e-4, rtol=0)
    assert any(name.endswith("projection.weight") for name in trained_weights) == (row.stage != "classification")


@pytest.mark.parametrize("name", [name for name in config_names(packaged_configs()) if name.startswith("trainer/")])
def test_trainer_overlay_sets_where_it_runs_and_nothing_else(name: str) -> None:
    overlay = yaml.safe_load((packaged_configs() / name).read_text())
    assert set(overlay) == {"trainer"}
    assert (
        {"accelerator", "devices", "strategy"}
        <= set(overlay["trainer"])
        <= {"accelerator", "devices", "strategy", "precision"}
    )
