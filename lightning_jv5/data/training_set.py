"""One data set of a mixture: where its rows come from, and how they are batched, prompted and tokenised."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightning_jv5.data.keyed import key, permuted
from lightning_jv5.data.label_tuples import LabelTuples
from lightning_jv5.data.layouts import Layout, prompt_role, row_by_row
from lightning_jv5.data.roles import PROMPT_ROLES, check_role
from lightning_jv5.data.source import Source, did_you_mean
from lightning_jv5.data.tokenized import cut_column
from lightning_jv5.losses.batch import checked_roles
from lightning_jv5.rebuildable import Rebuildable

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from lightning_jv5.models.tokenization import ColumnTokenization, Tokenization

SAMPLED_ROWS = 256  # enough that other data cannot pass for these, few enough for any size

_log = logging.getLogger(__name__)


@dataclass
class TrainingSet(Rebuildable):
    """A data set of a mixture.

    Args:
        source: Where the rows come from.
        batch_size: Rows in a *global* batch of this set; by default the data module's.
        max_length: Most tokens of the student's texts, for all columns or by column; by default the student's.
        weight: How often the set is drawn, in proportion to the others' weights. Either all sets have one or none.
        roles: Whose prompt a column has, the query's or the document's, by column; by default ``query`` has the query's
            and every other column the document's.
        prompts: Text that the student reads before the texts of a column, by column, instead of its own prompt.
        teacher_roles: The roles whose texts the teacher embeds; by default the data module's. ``[]`` spares the teacher
            a set whose loss asks for none of its vectors, such as scored pairs.
        tuples: Makes tuples of texts with labels.
        streaming: Whether to read the rows in the source's order, without loading all of them first.
        shuffle_rows: In a stream: how many rows are shuffled together; 0 keeps the order.
        tokens: ``"cached"`` tokenises all texts before training and keeps the token ids on disk; ``"as_read"``
            tokenises the texts of each batch in the loader. A stream is always tokenised as it is read.

    Raises:
        ValueError: If a size is not positive, a role is unknown, or settings contradict each other.
    """

    source: Source
    batch_size: int | None = None
    max_length: int | dict[str, int] | None = None
    weight: float | None = None
    roles: dict[str, str] | None = None
    prompts: dict[str, str] | None = None
    teacher_roles: list[str] | None = None
    tuples: LabelTuples | None = None
    streaming: bool = False
    shuffle_rows: int = 10_000
    tokens: Literal["cached", "as_read"] = "cached"

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"Got batch_size {self.batch_size} of a data set; need at least 1.")
        if self.shuffle_rows < 0:
            raise ValueError(f"Got shuffle_rows {self.shuffle_rows}; need 0 (keep the order) or more.")
        if self.tokens not in ("cached", "as_read"):
            raise ValueError(f"Got tokens {self.tokens!r}; need 'cached' or 'as_read'.")
        if self.streaming and self.tuples is not None:
            raise ValueError("Got tuples of a stream; tuples need all labels beforehand. Set streaming to false.")
        if self.teacher_roles:
            checked_roles(self.teacher_roles)
        for role in (self.roles or {}).values():
            check_role(role, PROMPT_ROLES, "roles")

    def layout(self, rows: "datasets.Dataset", origin: str) -> Layout:
        """Return how rows become batches.

        Raises:
            ValueError: If the columns are none of the layouts, or labels do not fit.
        """
        if self.tuples is not None:
            return self.tuples.layout(rows, origin)
        return row_by_row(rows.column_names, len(rows), origin)

    def tokenizations(self, layout: Layout, tokenization: "Tokenization", name: str) -> dict[str, "ColumnTokenization"]:
        """Return how the student tokenises each column of texts.

        Args:
            layout: Says which columns there are.
            tokenization: The student's.
            name: The set's, for errors.

        Raises:
            ValueError: If a setting is for a column that is not there.
        """
        columns = layout.text_columns
        limits = self.max_length if isinstance(self.max_length, Mapping) else dict.fromkeys(columns, self.max_length)
        for setting, given in {"roles": self.roles, "prompts": self.prompts, "max_length": limits}.items():
            for column in given or {}:
                if column not in columns:
                    raise ValueError(
                        f"Got {setting} for the column {column!r} of the data set {name!r}; its texts are in "
                        f"{', '.join(columns)}.{did_you_mean(column, columns)}"
                    )
        return {
            column: tokenization.column(
                (self.roles or {}).get(column, prompt_role(column)),
                prompt=(self.prompts or {}).get(column),
                max_length=limits.get(column),
            )
            for column in columns
        }

    def teacher_prompts(self, columns: Sequence[str]) -> dict[str, str]:
        """Return whose prompt of the teacher each column has, the query's or the document's."""
        return {column: (self.roles or {}).get(column, prompt_role(column)) for column in columns}


def sample_fingerprint(rows: "datasets.Dataset", columns: list[str]) -> str:
    """Hash the number of rows and the texts of some of them, the same wherever the files lie.

    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"text": ["a", "b"]})
    >>> sample_fingerprint(rows, ["text"]) == sample_fingerprint(rows.select([1, 0]), ["text"])
    False
    """
    numbers = np.sort(permuted(np.arange(min(len(rows), SAMPLED_ROWS)), len(rows), key("sample")))
    table: Any = rows.select_columns(columns).with_format("arrow")[numbers.tolist()]
    return table_fingerprint(table, len(rows))


def table_fingerprint(table: "pa.Table", rows: int = 0) -> str:
    """Hash what the rows of a table hold."""
    plain = json.dumps([rows, table.to_pydict()], sort_keys=True)
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()


def report_cut_texts(rows: "datasets.Dataset", tokenizations: Mapping[str, "ColumnTokenization"], name: str) -> None:
    """Say how many texts are longer than their limit, and so are not read to their end."""
    import pyarrow.compute as pc

    for column, tokenization in tokenizations.items():
        cut = pc.sum(rows.data.table[cut_column(column, "student")]).as_py() or 0
        if cut:
            _log.warning(
                "%s: %d texts in the %d rows of %r are longer than %d tokens and are cut there.",
                *(name, cut, len(rows), column, tokenization.max_length),
            )
