import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.models import Embedder, LoRA
from lightning_jv5.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_names, adapter_parameters
from lightning_jv5.rebuildable import describe, rebuild
from tests.models.tiny_adapters import fill_adapter, write_adapter
from tests.tiny_models import TEXTS, save_tiny_backbone, save_tiny_sentence_transformer, tiny_config

FAMILIES = {"bert": "cls", "qwen3": "last", "eurobert": "mean"}
COMPUTING: list[dict[str, Any]] = [
    {},
    {"attention": "packed"},
    {"recompute": True, "max_tokens_per_chunk": 20},
    {"recompute_layers": True},
    {"recompute": True, "recompute_layers": True, "attention": "packed"},
]


def with_adapter(path: str, name: str = "retrieval", **options: Any) -> Embedder:
    """An embedder whose adapter matters."""
    embedder = Embedder(path, adapter=LoRA(name, rank=4, alpha=12, dropout=0.0), **options)
    fill_adapter(embedder.backbone, name)
    return embedder


def gradients_of(embedder: Embedder, between: Any = None) -> dict[str, torch.Tensor]:
    embeddings = embedder(embedder.tokenization.ragged(TEXTS, "document"))
    if between is not None:
        between(embedder)
    (embeddings @ embeddings.T).pow(3).sum().backward()
    return {name: weights.grad for name, weights in embedder.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("computing", COMPUTING, ids=str)
def test_without_its_adapter_a_student_is_the_base_model_bit_for_bit(
    tmp_path: Path, family: str, computing: dict[str, Any]
) -> None:
    path = save_tiny_backbone(tmp_path, family)
    options = {"pooling": FAMILIES[family], "dropout": 0.0, **computing}
    base, student = Embedder(path, **options).train(), with_adapter(path, **options).train()
    tokens = base.tokenization.ragged(TEXTS, "document")
    adapted = student(tokens)
    with student.without_adapter():
        assert student.task is None
        assert torch.equal(student(tokens), base(tokens))
        assert torch.equal(student.encode(TEXTS, "query"), base.encode(TEXTS, "query"))
    assert student.task == "retrieval"
    assert torch.equal(student(tokens), adapted)
    assert not torch.allclose(adapted, base(tokens), atol=1e-2)
    torch.testing.assert_close(student.encode(TEXTS), adapted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("computing", COMPUTING, ids=str)
def test_a_pass_without_adapter_in_the_middle_of_a_step_changes_no_gradient(
    tmp_path: Path, family: str, computing: dict[str, Any]
) -> None:
    path = save_tiny_backbone(tmp_path, family)

    def between(student: Embedder) -> None:
        with student.without_adapter(), torch.no_grad():
            student(student.tokenization.ragged(TEXTS, "document"))
        student.encode(TEXTS)

    options = {"pooling": FAMILIES[family], "dropout": 0.0}
    plain = gradients_of(with_adapter(path, **options).train())
    student = with_adapter(path, **options, **computing).train()
    found = gradients_of(student, between)
    assert found.keys() == {f"backbone.{name}" for name in adapter_parameters(student.backbone, "retrieval")}
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-3)
    again = gradients_of(with_adapter(path, **options, **computing).train())
    assert all(torch.equal(gradient, again[name]) for name, gradient in found.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_layers_keep_less_of_a_frozen_model_too(tmp_path: Path, family: str) -> None:
    path = save_tiny_backbone(tmp_path, family, num_hidden_layers=4)

    def kept(**computing: bool) -> int:
        student = with_adapter(path, pooling="mean", dropout=0.0, **computing).train()
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            embeddings = student(student.tokenization.ragged(TEXTS * 8, "document"))
        weights = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
        assert embeddings.requires_grad
        return sum(size for place, size in sizes.items() if place not in weights)

    whole = kept()
    for computing in ({"recompute_layers": True}, {"recompute": True}, {"recompute": True, "recompute_layers": True}):
        assert kept(**computing) < whole / 4


def test_a_model_that_cannot_recompute_its_layers_is_named(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path, "mpnet")
    with pytest.raises(ValueError, match="Got recompute_layers for a MPNetModel, which does not offer it"):
        Embedder(path, pooling="mean", recompute_layers=True)


def test_everything_but_the_adapter_is_frozen_dense_layers_too(tmp_path: Path) -> None:
    student = Embedder(save_tiny_sentence_transformer(tmp_path, dense=5), adapter=LoRA("retrieval"))
    names = {name for name, weights in student.named_parameters() if weights.requires_grad}
    assert names == {f"backbone.{name}" for name in adapter_parameters(student.backbone, "retrieval")}
    assert torch.equal(student.encode(TEXTS), Embedder(str(tmp_path)).encode(TEXTS))
    assert (student.task, student.tasks) == ("retrieval", ["retrieval"])


def test_a_student_with_an_adapter_is_rebuilt_from_plain_data(tmp_path: Path) -> None:
    student = with_adapter(save_tiny_backbone(tmp_path), pooling="mean", recompute_layers=True)
    again = rebuild(json.loads(json.dumps(describe(student))))
    assert again.adapter == student.adapter
    assert again.state_dict().keys() == student.state_dict().keys()


# Several adapters


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with three adapters, one of which PEFT alone describes."""
    model = save_tiny_sentence_transformer(tmp_path / "model", prompts={"query": "query: ", "document": "document: "})
    described = {
        "retrieval": {"prompts": {"query": "what ", "document": "the "}, "max_length": {"query": 5, "document": 9}},
        "text-matching": {"prompts": {"query": "red ", "document": "red "}, "max_length": {"query": 8, "document": 8}},
        "plain": None,
    }
    for seed, (name, description) in enumerate(described.items()):
        write_adapter(tmp_path / "model" / "adapters" / name, model, seed=seed, described=description, dropout=0.5)
    return tmp_path / "model"


def base_of(folder: Path) -> Embedder:
    return Embedder(str(folder))


def test_a_folder_computes_with_the_asked_tasks_adapter_prompts_and_limits(folder: Path) -> None:
    embedder = Embedder(str(folder), task="retrieval")
    assert embedder.task == "retrieval"
    assert embedder.tasks == ["retrieval", "plain", "text-matching"]
    assert embedder.tokenization.prompts == {"query": "what ", "document": "the "}
    assert embedder.tokenization.max_length == {"query": 5, "document": 9}
    assert not any(weights.requires_grad for weights in embedder.parameters())
    plain = base_of(folder)
    assert (plain.task, plain.tasks) == (None, ["plain", "retrieval", "text-matching"])
    assert all(weights.requires_grad for weights in plain.parameters())
    assert not torch.allclose(embedder.encode(TEXTS), plain.encode(TEXTS), atol=1e-2)


def test_settings_win_over_an_adapters_own(folder: Path) -> None:
    embedder = Embedder(str(folder), task="retrieval", prompts={"query": "who "}, max_length=7)
    assert embedder.tokenization.prompts == {"query": "who ", "document": ""}
    assert embedder.tokenization.max_length == {"query": 7, "document": 7}


def test_each_call_may_ask_for_another_task_as_if_the_folder_had_been_opened_for_it(folder: Path) -> None:
    expected = {task: Embedder(str(folder), task=task).encode(TEXTS, "query") for task in ("retrieval", "plain")}
    expected["text-matching"] = Embedder(str(folder), task="text-matching").encode(TEXTS, "query")
    base = base_of(folder).encode(TEXTS, "query")
    for first in (None, "text-matching"):
        embedder = Embedder(str(folder), task=first)
        own = embedder.encode(TEXTS, "query")
        for task in ("retrieval", "text-matching", "retrieval"):
            assert torch.equal(embedder.encode(TEXTS, "query", task=task), expected[task])
            with embedder.using(task):
                assert embedder.task == task
                with embedder.using("text-matching"):
                    assert torch.equal(embedder.encode(TEXTS, "query"), expected["text-matching"])
                assert torch.equal(embedder.encode(TEXTS, "query"), expected[task])
        assert embedder.task == first
        assert torch.equal(embedder.encode(TEXTS, "query"), own)
    embedder = base_of(folder)
    assert torch.equal(embedder.encode(TEXTS, "query", task="plain"), expected["plain"])  # with the model's prompts
    with embedder.using("retrieval"), embedder.using(None):
        assert torch.equal(embedder.encode(TEXTS, "query"), base)
    with embedder.using("retrieval"), embedder.using("plain"):
        assert torch.equal(embedder.encode(TEXTS, "query"), expected["plain"])


def test_adapters_lie_beside_the_one_that_is_trained(folder: Path) -> None:
    student = with_adapter(str(folder), "clustering", prompts={"query": "who ", "document": ""}).train()
    own, trained = (
        student.encode(TEXTS, "query"),
        {n for n, weights in student.named_parameters() if weights.requires_grad},
    )
    other = student.encode(TEXTS, "query", task="retrieval")
    assert torch.equal(other, Embedder(str(folder), task="retrieval").encode(TEXTS, "query"))
    assert torch.equal(student.encode(TEXTS, "query", task="clustering"), own)
    assert torch.equal(student.encode(TEXTS, "query"), own)
    assert {name for name, weights in student.named_parameters() if weights.requires_grad} == trained
    assert student.tasks == ["clustering", "retrieval", "plain", "text-matching"]


def test_loaded_adapters_do_not_drop_out_in_evaluation(folder: Path) -> None:
    embedder = Embedder(str(folder), task="retrieval")
    tokens = embedder.tokenization.ragged(TEXTS, "query")
    assert torch.equal(embedder(tokens), embedder(tokens))
    with embedder.using("text-matching"):
        assert torch.equal(embedder(tokens), embedder(tokens))


def test_load_adapter_adds_one_under_its_task_or_another_name(folder: Path, tmp_path: Path) -> None:
    apart = tmp_path / "run7"
    shutil.copytree(folder / "adapters" / "retrieval", apart)
    description = json.loads((apart / "lightning_jv5.json").read_text())
    (apart / "lightning_jv5.json").write_text(json.dumps(description | {"task": "old-retrieval"}))
    embedder = base_of(folder)
    assert embedder.load_adapter(str(apart)) == "old-retrieval"
    assert embedder.load_adapter(str(apart), "once-more") == "once-more"
    assert embedder.load_adapter(str(folder / "adapters" / "plain"), "bare") == "bare"
    expected = embedder.encode(TEXTS, "query", task="retrieval")
    for name in ("old-retrieval", "once-more"):
        assert torch.equal(embedder.encode(TEXTS, "query", task=name), expected)
    assert embedder.task is None
    assert set(embedder.tasks) == {"old-retrieval", "once-more", "bare", "retrieval", "text-matching", "plain"}


def test_an_adapters_own_folder_is_read_with_the_model_that_it_names(folder: Path, tmp_path: Path) -> None:
    apart = tmp_path / "exported"
    shutil.copytree(folder / "adapters" / "retrieval", apart)
    description = json.loads((apart / "lightning_jv5.json").read_text())
    settings = json.loads((apart / ADAPTER_CONFIG).read_text())

    def say(ours: str | None, theirs: str | None) -> None:
        (apart / "lightning_jv5.json").write_text(json.dumps(description | {"task": "sts", "base": ours}))
        (apart / ADAPTER_CONFIG).write_text(json.dumps(settings | {"base_model_name_or_path": theirs}))

    for ours, theirs in ((str(folder), None), (None, str(folder)), (str(folder), "nowhere/to-be-found")):
        say(ours, theirs)
        embedder = Embedder(str(apart))
        assert (embedder.task, embedder.tasks, embedder.folder) == ("sts", ["sts"], str(folder))
        assert torch.equal(
            embedder.encode(TEXTS, "query"), Embedder(str(folder), task="retrieval").encode(TEXTS, "query")
        )
    say(None, None)
    with pytest.raises(ValueError, match=r"holds an adapter and does not say of which model. .*call load_adapter"):
        Embedder(str(apart))
    say(str(tmp_path / "gone"), None)
    with pytest.raises(ValueError, match=r"holds an adapter of a model that is not there: .*no such folder"):
        Embedder(str(apart))
    say(str(folder), None)
    with pytest.raises(ValueError, match=r"Got adapter 'mine', to be trained, on .*, which is itself an adapter"):
        Embedder(str(apart), adapter=LoRA("mine"))


def test_a_task_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"Got task 'sts'; .* has adapters for plain, retrieval, text-matching"):
        Embedder(str(folder), task="sts")
    student = with_adapter(str(folder), "clustering")
    with pytest.raises(ValueError, match=r"Got task 'sts'; the embedder has adapters for clustering, plain, retrieval"):
        student.encode(TEXTS, task="sts")
    with pytest.raises(ValueError, match=r"Got adapter 'sts', to be trained, and task 'retrieval'.*Leave task out"):
        Embedder(str(folder), adapter=LoRA("sts"), task="retrieval")
    assert student.task == "clustering"


def test_a_name_that_is_taken_is_refused_and_what_was_there_stays(folder: Path, tmp_path: Path) -> None:
    student = with_adapter(str(folder), "clustering")
    before = {task: student.encode(TEXTS, task=task) for task in ("clustering", "retrieval")}
    other = str(folder / "adapters" / "text-matching")
    for name in ("clustering", "retrieval", "plain"):  # trained, loaded, in the folder only
        with pytest.raises(ValueError, match=f"Got a second adapter named '{name}'"):
            student.load_adapter(other, name)
    for task, embeddings in before.items():
        assert torch.equal(student.encode(TEXTS, task=task), embeddings)
    with pytest.raises(ValueError, match="Got an adapter named 'a b'"):
        student.load_adapter(other, "a b")
    with pytest.raises(ValueError, match=r"which has no adapter_config\.json"):
        student.load_adapter(str(folder))


def test_an_adapter_that_cannot_be_loaded_is_not_among_the_tasks(folder: Path, tmp_path: Path) -> None:
    wide = save_tiny_backbone(tmp_path / "wide", hidden_size=64)
    embedder = base_of(folder)
    bad = str(write_adapter(tmp_path / "bad", wide))
    expected = embedder.encode(TEXTS)
    for _ in range(2):
        with pytest.raises(ValueError, match="does not fit a BertModel"):
            embedder.load_adapter(bad)
        assert "bad" not in embedder.tasks
        assert adapter_names(embedder.backbone) == []
        assert torch.equal(embedder.encode(TEXTS), expected)
    (folder / "adapters" / "plain" / ADAPTER_WEIGHTS).unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match="which has no adapter_model"):
            embedder.encode(TEXTS, task="plain")


def test_a_model_from_a_config_has_no_tasks(folder: Path) -> None:
    with pytest.raises(ValueError, match="Got task 'retrieval'"):
        Embedder(config=tiny_config(), tokenizer=str(folder), pooling="mean", task="retrieval")
