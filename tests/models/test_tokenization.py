import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5.models.tokenization import Tokenization, load_tokenizer
from tests.tiny_models import TEXTS, VOCABULARY, save_tiny_tokenizer

END, SEP, CLS = VOCABULARY["[END]"], VOCABULARY["[SEP]"], VOCABULARY["[CLS]"]


def make(folder: Path, *, append_end: bool = True, max_length: Any = 16, prompts: Any = None, **options: Any) -> Any:
    tokenizer = load_tokenizer(save_tiny_tokenizer(folder, **options))
    return Tokenization(tokenizer, prompts=prompts or {}, max_length=max_length, append_end=append_end)


def words(text: str) -> list[int]:
    return [VOCABULARY[word] for word in text.split()]


def test_prompt_of_the_role_comes_first(tmp_path: Path) -> None:
    tokenization = make(tmp_path, prompts={"query": "query: ", "document": "document: "})
    assert tokenization(["a cat"], "query") == [[*words("query : a cat"), END]]
    assert tokenization(["a cat"], "negatives") == tokenization(["a cat"], "document")
    assert tokenization(["a cat"], "document") == [[*words("document : a cat"), END]]


def test_each_role_has_its_own_limit(tmp_path: Path) -> None:
    tokenization = make(tmp_path, max_length={"query": 3, "document": 5})
    assert [len(ids) for role in ("query", "document", "negatives") for ids in tokenization(TEXTS[:1], role)] == [
        3,
        5,
        5,
    ]


def test_end_token_is_the_post_processors_and_survives_truncation(tmp_path: Path) -> None:
    for tokens in make(tmp_path, max_length=4)(TEXTS, "document"):
        assert tokens[-1] == END
        assert tokens.count(END) == 1
        assert len(tokens) <= 4


def test_eos_is_appended_where_the_post_processor_appends_nothing(tmp_path: Path) -> None:
    tokenization = make(tmp_path, end_token=False, max_length=4)
    assert tokenization(["a cat", TEXTS[0]], "document") == [[*words("a cat"), SEP], [*words("the cat sat"), SEP]]
    assert make(tmp_path, end_token=False, append_end=False)(["a cat"], "document") == [words("a cat")]


def test_bert_frame_counts_as_end(tmp_path: Path) -> None:
    assert make(tmp_path, style="bert")(["a cat"], "query") == [[CLS, *words("a cat"), SEP]]


def test_empty_document_keeps_its_place(tmp_path: Path) -> None:
    assert make(tmp_path)([""], "document") == [[END]]
    assert make(tmp_path, end_token=False, append_end=False)(["", "cat"], "document") == [[0], words("cat")]


def test_ragged_lays_texts_end_to_end(tmp_path: Path) -> None:
    ragged = make(tmp_path).ragged(TEXTS[:2], "document")
    assert ragged.lengths.tolist() == [8, 3]
    assert ragged.token_ids.tolist() == [*words(TEXTS[0]), END, *words(TEXTS[1]), END]


def test_fingerprint_is_the_same_after_use_after_pickling_and_in_another_process(tmp_path: Path) -> None:
    tokenization = make(tmp_path)
    tokenization(TEXTS, "query")
    assert make(tmp_path).fingerprint == tokenization.fingerprint
    assert pickle.loads(pickle.dumps(make(tmp_path))).fingerprint == tokenization.fingerprint
    code = (
        "from lightning_jv5.models.tokenization import *;"
        f"t = Tokenization(load_tokenizer({str(tmp_path)!r}), prompts={{}}, max_length=16, append_end=True);"
        "print(t.fingerprint)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == tokenization.fingerprint


@pytest.mark.parametrize(
    "change", [{"max_length": 15}, {"prompts": {"query": "a"}}, {"end_token": False}, {"append_end": False}]
)
def test_fingerprint_changes_with_every_setting(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make(tmp_path / "one").fingerprint != make(tmp_path / "two", **change).fingerprint


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    tokenization = make(tmp_path / "good")
    with pytest.raises(
        ValueError, match=r"role 'querry'; need one of query, document, negatives. Did you mean 'query'"
    ):
        tokenization(["a"], "querry")
    with pytest.raises(ValueError, match="Got one string, 'a cat'; need a list"):
        tokenization("a cat", "query")
    with pytest.raises(ValueError, match=r"prompts 'documents'.*Did you mean 'document'"):
        make(tmp_path / "good", prompts={"documents": ""})
    with pytest.raises(ValueError, match="it lacks document"):
        make(tmp_path / "good", max_length={"query": 4})
    with pytest.raises(ValueError, match="max_length 1 for query; the tokenizer adds 1 tokens itself"):
        make(tmp_path / "good", max_length=1)
    with pytest.raises(ValueError, match="appends no end token and names no eos or sep token"):
        make(tmp_path / "bare", end_token=False, eos=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Cannot load a tokenizer"):
        load_tokenizer(str(tmp_path / "empty"))


@pytest.mark.parametrize("style", ["bert", "end"])
@pytest.mark.parametrize("end_token", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [5, 6, 7, 8, 64])
def test_a_cut_text_is_what_the_tokenizer_would_have_made_of_it(
    tmp_path: Path, style: str, end_token: bool, side: str, limit: int
) -> None:
    tokenizer = load_tokenizer(save_tiny_tokenizer(tmp_path, style=style, end_token=end_token))
    tokenizer.truncation_side = side
    tokenization = Tokenization(tokenizer, prompts={"query": "query : "}, max_length=limit, append_end=False)
    tokenized = tokenization.column("query")(TEXTS)
    prompted = [f"query : {text}" for text in TEXTS]
    assert tokenized.ids == tokenizer(prompted, truncation=True, max_length=limit)["input_ids"]
    whole = tokenizer(prompted)["input_ids"]
    assert tokenized.cut == [len(ids) > limit for ids in whole]
    assert any(tokenized.cut) == (limit < 16)


def test_a_column_may_have_a_prompt_and_a_limit_of_its_own(tmp_path: Path) -> None:
    tokenization = Tokenization(
        load_tokenizer(save_tiny_tokenizer(tmp_path)), prompts={"query": "query : "}, max_length=9, append_end=True
    )
    own = tokenization.column("query", prompt="the ", max_length=4)
    assert own(["cat sat on mat"]).ids == tokenization.column("query", prompt="", max_length=4)(["the cat sat on"]).ids
    assert tokenization.column("query")(["a cat"]).ids == tokenization(["a cat"], "query")
    columns = [own, *(tokenization.column(role) for role in ("query", "document"))]
    assert len({column.fingerprint for column in columns}) == 3
    assert tokenization.column("query", prompt="query : ", max_length=9).fingerprint == columns[1].fingerprint
    with pytest.raises(ValueError, match="Got max_length 1 for document; the tokenizer adds 1 tokens itself"):
        tokenization.column("document", max_length=1)
    with pytest.raises(ValueError, match="Got role 'querry'"):
        tokenization.column("querry")


def test_no_limit_of_a_role_or_a_column_is_above_the_models_positions(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_tiny_tokenizer(tmp_path))

    def limited(max_length: Any, positions: int | None = 9) -> Tokenization:
        return Tokenization(tokenizer, prompts={}, max_length=max_length, append_end=True, positions=positions)

    tokenization = limited({"query": 4, "document": 9})
    assert max(len(ids) for ids in tokenization.column("query", max_length=9)(TEXTS).ids) == 9
    message = "Got max_length 10 for {}, but the model has only 9 positions. Give at most 9"
    with pytest.raises(ValueError, match=message.format("query")):
        tokenization.column("query", max_length=10)
    with pytest.raises(ValueError, match=message.format("document")):
        tokenization.column("negatives", max_length=10)
    with pytest.raises(ValueError, match=message.format("document")):
        limited({"query": 4, "document": 10})
    with pytest.raises(ValueError, match=message.format("query")):
        tokenization.replaced(max_length=10)
    assert limited(10**6, positions=None).column("query", max_length=10**7).max_length == 10**7


def test_replaced_changes_what_is_given_and_nothing_else(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_tiny_tokenizer(tmp_path, end_token=False))
    tokenization = Tokenization(tokenizer, prompts={"query": "query : "}, max_length=5, append_end=True, positions=9)
    other = tokenization.replaced(prompts={"document": "the "})
    assert other(["cat"], "document") == [[*words("the cat"), SEP]]
    assert other(["cat"], "query") == [[*words("cat"), SEP]]
    assert other.max_length == {"query": 5, "document": 5}
    longer = tokenization.replaced(max_length={"query": 6, "document": 7})
    assert (longer.prompts, longer.max_length) == (tokenization.prompts, {"query": 6, "document": 7})
    assert tokenization.replaced(max_length={"document": 7}).max_length == {"query": 5, "document": 7}
    assert tokenization.replaced().fingerprint == tokenization.fingerprint
    assert tokenization.fingerprint not in (other.fingerprint, longer.fingerprint)
