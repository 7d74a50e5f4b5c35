"""Token ids as columns: texts are tokenised once and read from the cache ever after."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from lightning_jv5.data.cache import cache_folder, fingerprint
from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import datasets

# Raise it whenever the columns change: those cached by older code are then made anew.
_FORMAT = 1


class TokenizationLike(Protocol):
    """How texts become token ids: a tokenizer with its prompts, length limit and end-of-sequence habits.

    Attributes:
        fingerprint: Changes whenever the ids would.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __call__(self, texts: Sequence[str], role: str) -> list[list[int]]:
        """Return the token ids of each text in a role (``"query"``, ``"document"``, ...)."""


def ids_column(column: str, tokenization: str) -> str:
    """Return the name of the column that holds the token ids of another.

    >>> ids_column("query", "student")
    'query_student_ids'
    """
    return f"{column}_{tokenization}_ids"


def tokenize_columns(
    dataset: "datasets.Dataset",
    *,
    tokenizations: Mapping[str, TokenizationLike],
    columns: Mapping[str, str],
    origin: str,
) -> "datasets.Dataset":
    """Add a column of token ids for each text column and each tokenization.

    Each is kept in a file of its own under the cache folder, so that a change to one prompt or tokenizer redoes only
    what it changes.

    Args:
        dataset: The rows; its fingerprint says whether they are the same as before.
        tokenizations: By name, such as ``"student"`` and ``"teacher"``.
        columns: From the column's name to the role of its texts, which decides the prompt.
        origin: Where the rows are from, for errors and progress bars.

    Returns:
        The rows with columns ``{column}_{name}_ids`` of int32 lists, for example ``query_student_ids``.

    Raises:
        ValueError: If a column does not exist, the rows have ids of that name already, or there are no rows.
    """
    from datasets import concatenate_datasets

    if not len(dataset):
        raise ValueError(f"{origin} has no rows to tokenise; check its split and rows.")
    added = []
    for column, role in columns.items():
        if column not in dataset.column_names:
            raise ValueError(
                f"{origin} has the columns {', '.join(dataset.column_names)}; none is {column!r} (role {role!r})."
                f"{did_you_mean(column, dataset.column_names)} Rename one to it with columns=... of the source."
            )
        for name, tokenization in tokenizations.items():
            target = ids_column(column, name)
            if target in dataset.column_names:
                raise ValueError(
                    f"{origin} has a column {target!r} already, which is where the token ids of {column!r} go. "
                    "Remove it or rename it."
                )
            ids = _tokenize(dataset, tokenization, column, role, description=f"Tokenising {target} of {origin}")
            added.append(ids.rename_column("ids", target))
    return concatenate_datasets([dataset, *added], axis=1) if added else dataset


def _tokenize(
    dataset: "datasets.Dataset", tokenization: TokenizationLike, column: str, role: str, *, description: str
) -> "datasets.Dataset":
    from datasets import Features, List, Value

    key = fingerprint("tokenized", _FORMAT, dataset._fingerprint, tokenization.fingerprint, column, role)
    cached = cache_folder() / "tokenized" / f"{key}.arrow"
    cached.parent.mkdir(parents=True, exist_ok=True)
    # map writes to a temporary file beside the cache file and renames it; a fingerprint of our own spares it from
    # pickling the tokenizer, whose pickle differs between processes
    return dataset.with_format(None).map(
        lambda texts: {"ids": tokenization(texts, role)},
        batched=True,
        input_columns=[column],
        remove_columns=dataset.column_names,
        features=Features({"ids": List(Value("int32"))}),
        cache_file_name=str(cached),
        load_from_cache_file=True,
        new_fingerprint=key,
        desc=description,
    )
