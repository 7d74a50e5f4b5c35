"""Token ids as columns: texts are tokenised once and read from the cache ever after."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lightning_jv5.data.cache import cache_folder, fingerprint
from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import datasets

# Raise it whenever the columns change: those cached by older code are then made anew.
_FORMAT = 2


class TokenizedTextsLike(Protocol):
    """Token ids of texts, and which texts were longer than the limit."""

    @property
    def ids(self) -> list[list[int]]: ...  # noqa: D102

    @property
    def cut(self) -> list[bool]: ...  # noqa: D102


class ColumnTokenizationLike(Protocol):
    """How the texts of a column become token ids: :class:`~lightning_jv5.models.tokenization.ColumnTokenization`.

    Attributes:
        fingerprint: Changes whenever the ids would.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __call__(self, texts: Sequence[str]) -> TokenizedTextsLike:
        """Return the token ids of each text."""


def ids_column(column: str, tokenization: str) -> str:
    """Return the name of the column that holds the token ids of another.

    >>> ids_column("query", "student")
    'query_student_ids'
    """
    return f"{column}_{tokenization}_ids"


def cut_column(column: str, tokenization: str) -> str:
    """Return the name of the column that counts the texts of a row that were longer than the limit.

    >>> cut_column("query", "student")
    'query_student_cut'
    """
    return f"{column}_{tokenization}_cut"


def tokenize_columns(
    dataset: "datasets.Dataset", name: str, columns: Mapping[str, ColumnTokenizationLike], *, origin: str
) -> "datasets.Dataset":
    """Add a column of token ids for each text column, and one that counts the texts that were cut.

    Each is kept in a file of its own under the cache folder, so that a change to one prompt or limit redoes only what
    it changes.

    Args:
        dataset: The rows; its fingerprint says whether they are the same as before.
        name: Whose tokens they are, such as ``"student"``.
        columns: From the column, of texts or of lists of texts, to how it is tokenised. A missing text has no tokens.
        origin: Where the rows are from, for errors and progress bars.

    Returns:
        The rows with columns ``{column}_{name}_ids`` of int32 lists (or lists of them), and ``{column}_{name}_cut``.

    Raises:
        ValueError: If a column does not exist, the rows have ids of that name already, or there are no rows.
    """
    from datasets import concatenate_datasets

    if not len(dataset):
        raise ValueError(f"{origin} has no rows to tokenise; check its split and rows.")
    added = []
    for column, tokenization in columns.items():
        if column not in dataset.column_names:
            raise ValueError(
                f"{origin} has the columns {', '.join(dataset.column_names)}; none is {column!r}."
                f"{did_you_mean(column, dataset.column_names)} Rename one to it with columns=... of the source."
            )
        target = ids_column(column, name)
        if target in dataset.column_names:
            raise ValueError(
                f"{origin} has a column {target!r} already, which is where the token ids of {column!r} go. "
                "Remove it or rename it."
            )
        tokens = _tokenize(dataset, tokenization, column, description=f"Tokenising {target} of {origin}")
        added.append(tokens.rename_columns({"ids": target, "cut": cut_column(column, name)}))
    return concatenate_datasets([dataset, *added], axis=1) if added else dataset


def _tokenize(
    dataset: "datasets.Dataset", tokenization: ColumnTokenizationLike, column: str, *, description: str
) -> "datasets.Dataset":
    from datasets import Features, List, Value

    nested = not isinstance(dataset.features[column], Value)
    ids = List(List(Value("int32"))) if nested else List(Value("int32"))
    key = fingerprint("tokenized", _FORMAT, dataset._fingerprint, tokenization.fingerprint, column)
    cached = cache_folder() / "tokenized" / f"{key}.arrow"
    cached.parent.mkdir(parents=True, exist_ok=True)
    # map writes to a temporary file beside the cache file and renames it; a fingerprint of our own spares it from
    # pickling the tokenizer, whose pickle differs between processes
    return dataset.with_format(None).map(
        functools.partial(_tokenized_lists if nested else _tokenized_texts, tokenization),
        batched=True,
        input_columns=[column],
        remove_columns=dataset.column_names,
        features=Features({"ids": ids, "cut": Value("int32")}),
        cache_file_name=str(cached),
        load_from_cache_file=True,
        new_fingerprint=key,
        desc=description,
    )


def _tokenized_texts(tokenization: ColumnTokenizationLike, texts: Sequence[str | None]) -> dict[str, Any]:
    present = [text for text in texts if text is not None]
    tokenized = tokenization(present)
    if len(present) == len(texts):
        return {"ids": tokenized.ids, "cut": [int(cut) for cut in tokenized.cut]}
    ids, cuts = iter(tokenized.ids), iter(tokenized.cut)
    return {
        "ids": [[] if text is None else next(ids) for text in texts],
        "cut": [0 if text is None else int(next(cuts)) for text in texts],
    }


def _tokenized_lists(tokenization: ColumnTokenizationLike, lists: Sequence[Sequence[str]]) -> dict[str, Any]:
    tokenized = tokenization([text for texts in lists for text in texts])
    ids, cuts = iter(tokenized.ids), iter(tokenized.cut)
    return {
        "ids": [[next(ids) for _ in texts] for texts in lists],
        "cut": [sum(next(cuts) for _ in texts) for texts in lists],
    }
