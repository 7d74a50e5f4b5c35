import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset
from mteb.models import EncoderProtocol, SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from lightning_jv5 import Embedder, MTEBEncoder
from lightning_jv5.mteb_encoder import ADAPTER_OF, adapter_for
from lightning_jv5.tasks import View, evaluate
from tests.models.tiny_adapters import write_adapter
from tests.mteb_tasks import SAME_TASKS, TEXTS, TinyRetrieval, TinySTS, described, mteb_scores
from tests.tiny_models import save_tiny_sentence_transformer

PROMPTS = {"query": "query : ", "document": "document : "}
USES = ["retrieval", "text-matching", "clustering", "classification"]
TYPES = dict(zip(USES, ["Retrieval", "STS", "Clustering", "Classification"], strict=True))
ADAPTER = {
    "retrieval": "retrieval",
    "reranking": "retrieval",
    "pair classification": "text-matching",
    "bitext mining": "text-matching",
    "sts": "text-matching",
    "classification": "classification",
    "clustering": "clustering",
    "legacy clustering": "clustering",
}


def save_model(folder: Path, *, uses: list[str], seed: int = 0) -> str:
    """A folder as assemble lays it out; the first adapter has a prompt and limits of its own."""
    path = save_tiny_sentence_transformer(
        folder, "qwen3", pooling="lasttoken", prompts=PROMPTS, default_prompt_name="document"
    )
    own = {"prompts": {"query": "what is the ", "document": "over "}, "max_length": {"query": 9, "document": 8}}
    models = {"prompts": PROMPTS, "max_length": {"query": 16, "document": 16}}
    for place, use in enumerate(uses):
        write_adapter(folder / "adapters" / use, path, seed=10 * seed + place, described=models if place else own)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("plain") / "model", uses=[])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("adapted") / "model", uses=USES)


def encoder_of(model: str | Embedder, **settings: Any) -> MTEBEncoder:
    return MTEBEncoder(model, device="cpu", **settings)  # where there is a GPU, embeddings differ by rounding


def batches() -> DataLoader[Any]:
    return DataLoader(Dataset.from_dict({"text": TEXTS}), batch_size=7)


def encoded(encoder: Any, task_type: str = "STS", prompt_type: PromptType | None = None) -> np.ndarray:
    return encoder.encode(
        batches(),
        task_metadata=described(task_type, "main"),
        hf_split="test",
        hf_subset="default",
        prompt_type=prompt_type,
        show_progress_bar=False,
    )


def own_scores(embedder: Embedder, task: str, adapter: str | None, view: View | None = None) -> dict[str, float]:
    encode = functools.partial(embedder.encode, task=adapter)
    [score] = evaluate(encode, {"same": SAME_TASKS[task][1]}, [view or View()], progress=False)
    return score.values


# The same scores


@pytest.mark.parametrize("task", SAME_TASKS)
def test_a_model_with_adapters_has_the_scores_of_our_own_tasks(model: str, task: str) -> None:
    theirs, _, names = SAME_TASKS[task]
    found = mteb_scores(encoder_of(model), theirs)
    scores = own_scores(Embedder(model), task, ADAPTER[task])
    assert {name: found[name] for name in names.values()} == pytest.approx(
        {names[measure]: scores[measure] for measure in names}, abs=2e-5
    )
    assert scores != own_scores(Embedder(model), task, None)  # so a forgotten adapter would show


@pytest.mark.parametrize("task", SAME_TASKS)
def test_a_folder_that_sentence_transformers_reads_has_the_scores_of_our_own_tasks(plain: str, task: str) -> None:
    theirs, _, names = SAME_TASKS[task]
    found = mteb_scores(SentenceTransformer(plain, device="cpu"), theirs)
    scores = own_scores(Embedder(plain), task, None)
    assert {name: found[name] for name in names.values()} == pytest.approx(
        {names[measure]: scores[measure] for measure in names}, abs=2e-5
    )
    assert scores != own_scores(Embedder(plain, prompts={}), task, None)  # so a forgotten prompt would show


@pytest.mark.parametrize("task", SAME_TASKS)
def test_fewer_dimensions_have_the_scores_of_their_view(model: str, task: str) -> None:
    theirs, _, names = SAME_TASKS[task]
    found = mteb_scores(encoder_of(model, truncate_dim=6), theirs)
    scores = own_scores(Embedder(model), task, ADAPTER[task], View(dim=6))
    assert {name: found[name] for name in names.values()} == pytest.approx(
        {names[measure]: scores[measure] for measure in names}, abs=2e-5
    )


# Adapters and prompts


def test_it_is_what_mteb_takes_for_an_encoder(plain: str) -> None:
    assert isinstance(encoder_of(plain), EncoderProtocol)


@pytest.mark.parametrize("prompt_type", [PromptType.query, PromptType.document, None])
@pytest.mark.parametrize("use", USES)
def test_the_type_of_task_chooses_the_adapter_and_the_prompt_type_the_prompt(
    model: str, use: str, prompt_type: PromptType | None
) -> None:
    found = encoded(encoder_of(model), TYPES[use], prompt_type)
    role = "query" if prompt_type is PromptType.query else "document"
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, Embedder(model).encode(TEXTS, role, task=use).numpy())
    others = [Embedder(model).encode(TEXTS, role, task=other).numpy() for other in [*USES, None] if other != use]
    other_role = "document" if role == "query" else "query"
    others.append(Embedder(model).encode(TEXTS, other_role, task=use).numpy())
    assert min(np.abs(found - other).max() for other in others) > 1e-2


@pytest.mark.parametrize("prompt_type", [PromptType.query, PromptType.document, None])
def test_the_prompts_of_a_folder_are_applied_by_sentence_transformers_too(
    plain: str, prompt_type: PromptType | None
) -> None:
    theirs = encoded(SentenceTransformerEncoderWrapper(SentenceTransformer(plain, device="cpu")), "STS", prompt_type)
    np.testing.assert_allclose(theirs, encoded(encoder_of(plain), "STS", prompt_type), atol=1e-5)


def test_a_model_without_adapters_computes_every_type_alone(plain: str) -> None:
    expected = Embedder(plain).encode(TEXTS).numpy()
    for task_type in ADAPTER_OF:
        np.testing.assert_array_equal(encoded(encoder_of(plain), task_type), expected)


def test_other_adapters_can_be_chosen_and_none(model: str) -> None:
    encoder = encoder_of(model, adapters={"STS": "retrieval", "Clustering": None})
    embedder = Embedder(model)
    for task_type, adapter in {"STS": "retrieval", "PairClassification": "text-matching", "Clustering": None}.items():
        assert encoder.adapter(task_type) == adapter
        np.testing.assert_array_equal(encoded(encoder, task_type), embedder.encode(TEXTS, task=adapter).numpy())


def test_an_embedder_that_uses_an_adapter_keeps_it_for_all_tasks(model: str) -> None:
    embedder = Embedder(model, task="clustering")
    encoder = encoder_of(embedder, adapters={"STS": None})
    expected = Embedder(model).encode(TEXTS, task="clustering").numpy()
    np.testing.assert_array_equal(encoded(encoder, "Retrieval"), expected)
    assert encoder.adapter("STS") is None
    assert np.abs(encoded(encoder, "STS") - expected).max() > 1e-2
    assert embedder.task == "clustering"


def test_the_model_is_as_before_between_tasks(model: str) -> None:
    embedder = Embedder(model)
    before, tokenization = embedder.encode(TEXTS), embedder.tokenization
    encoded(encoder_of(embedder), "Retrieval")
    assert embedder.task is None
    assert embedder.tokenization is tokenization
    assert torch.equal(embedder.encode(TEXTS), before)


def test_the_bar_counts_texts_and_can_be_hidden(plain: str, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, task = encoder_of(plain), described("STS", "main")
    shown = []
    for show in (True, False):
        encoder.encode(batches(), task_metadata=task, show_progress_bar=show)
        shown.append(capsys.readouterr().err)
    assert "60/60" in shown[0]
    assert shown[1] == ""


# What mteb keeps


def test_kept_scores_are_taken_up_by_the_same_model_alone(model: str, tmp_path: Path) -> None:
    cache = mteb.ResultCache(tmp_path / "kept")
    other = save_model(tmp_path / "model", uses=USES, seed=1)  # a folder of the same name
    first, second = (mteb_scores(encoder_of(path), TinyRetrieval, cache=cache) for path in (model, other))
    again = mteb_scores(encoder_of(model), TinyRetrieval, cache=cache, overwrite_strategy="only-cache")
    assert first["ndcg_at_10"] == again["ndcg_at_10"] != second["ndcg_at_10"]
    assert len(list((tmp_path / "kept").rglob("TinyRetrieval.json"))) == 2
    mteb_scores(encoder_of(model, truncate_dim=8), TinyRetrieval, cache=cache)
    mteb_scores(encoder_of(model, adapters={"Retrieval": None}), TinyRetrieval, cache=cache)
    assert len(list((tmp_path / "kept").rglob("TinyRetrieval.json"))) == 4


def test_the_revision_tells_weights_adapters_prompts_and_limits(model: str, plain: str, tmp_path: Path) -> None:
    def revision(source: str | Embedder) -> str | None:
        return encoder_of(source).mteb_model_meta.revision

    assert revision(model) == revision(Embedder(model))
    other_adapter = save_model(tmp_path / "adapter", uses=USES, seed=3)
    changed: list[str | Embedder] = [model, plain, other_adapter, Embedder(plain, prompts={})]
    changed += [Embedder(plain, max_length=7), Embedder(model, task="clustering")]
    assert len({revision(source) for source in changed}) == len(changed)


def test_mteb_is_told_what_the_model_is(model: str) -> None:
    described = encoder_of(model, truncate_dim=8).mteb_model_meta
    assert (described.name, described.embed_dim, described.max_tokens) == ("lightning_jv5/model", 8, 16)
    assert described.use_instructions is True
    assert described.experiment_kwargs == {"truncate_dim": 8}
    assert encoder_of(model, name="us/ours").mteb_model_meta.name == "us/ours"


def test_the_module_is_imported_without_mteb() -> None:
    code = "import sys, lightning_jv5; lightning_jv5.MTEBEncoder; print('mteb' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


# Errors


def test_a_type_whose_adapter_is_not_there_is_refused(tmp_path: Path) -> None:
    encoder = encoder_of(save_model(tmp_path / "model", uses=["retrieval"]))
    message = r"of type 'STS', for the adapter 'text-matching'; the model has retrieval.*adapters={'STS': None}"
    with pytest.raises(ValueError, match=message):
        mteb_scores(encoder, TinySTS)
    assert encoded(encoder_of(encoder.embedder, adapters={"STS": None}), "STS").shape == (len(TEXTS), 32)


@pytest.mark.parametrize("available", [[], USES])
def test_types_of_other_media_are_refused(available: list[str]) -> None:
    with pytest.raises(ValueError, match="Got a task of type 'ImageClustering'; need one of Retrieval, Reranking"):
        adapter_for("ImageClustering", available)


def test_without_mteb_it_says_how_to_install_it(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    with pytest.raises(ValueError, match=r"needs the package mteb, .*pip install 'lightning-jv5\[eval\]'"):
        encoder_of(plain)


def test_inputs_without_text_are_refused(plain: str) -> None:
    with pytest.raises(ValueError, match="Got inputs with image, of the task 'TinySTS'; need text"):
        encoder_of(plain).encode([{"image": [0]}], task_metadata=described("STS", "main"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapters": {"sts": None}}, "Got an adapter for tasks of type 'sts'; need one of Retrieval"),
        ({"adapters": {"STS": "matching"}}, "Got the adapter 'matching' for 'STS'; the model has .*retrieval"),
        ({"truncate_dim": 0}, "Got truncate_dim 0; embeddings have 32. Give 1 to 32"),
        ({"truncate_dim": 33}, "Got truncate_dim 33; embeddings have 32. Give 1 to 32"),
        ({"name": "ours"}, "Got the name 'ours'; mteb needs organization/name"),
    ],
)
def test_wrong_settings_are_refused(model: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_of(model, **settings)


def test_an_adapter_of_another_model_is_refused_before_anything_is_encoded(model: str, tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", uses=["clustering"])
    strange = {"base_fingerprint": "another's"}
    write_adapter(tmp_path / "model" / "adapters" / "retrieval", path, described=strange)
    with pytest.raises(ValueError, match=r"was trained on other weights"):
        encoder_of(path)
