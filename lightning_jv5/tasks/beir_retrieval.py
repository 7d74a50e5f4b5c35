"""Retrieval in a folder as BEIR lays it out."""

from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.beir import qrels_file, read_corpus, read_qrels, read_queries
from lightning_jv5.tasks.judged_texts import judged_texts
from lightning_jv5.tasks.retrieval import RetrievalData, RetrievalTask


class BeirRetrieval(RetrievalTask):
    """Find the documents of ``corpus.jsonl`` that ``qrels/<split>.tsv`` judges relevant to ``queries.jsonl``.

    Each file may be gzipped; what is read is kept as Arrow in the cache folder, and documents are read from there as
    they are encoded. Queries without judgements are left out. Grades are kept, 0 and below as irrelevant. Documents
    without text keep their place.

    Args:
        path: The folder, of https://github.com/beir-cellar/beir.
        split: Which judgements: ``qrels/<split>.tsv``.
        title: Whether a document is its title, a space and its text, as BEIR has it; else its text alone.
        max_documents: As for :class:`RetrievalTask`.
        seed: As for :class:`RetrievalTask`.
        main_metric: As for :class:`RetrievalTask`.
        ignore_identical_ids: Whether a document whose id is the query's is not to be found, as BEIR does: in some data
            sets (ArguAna, Quora) the queries are themselves documents.
        group: Field of every query in ``queries.jsonl`` that names its group, such as ``"lang"``; the metric's
            ``breakdown()`` has the measures of each.
        on_bad_row: ``"error"`` stops at a line that cannot be used (broken, an id for the second time, a judgement of
            something that does not exist); ``"skip"`` leaves it out, counted.
        max_bad_share: With ``"skip"``: most lines of a file that may be left out, as a share of all.

    Raises:
        ValueError: If there is no such measure or setting; when loading, if a file is missing, empty or broken; says in
            which line.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "test",
        title: bool = True,
        max_documents: int | None = None,
        seed: int = 0,
        main_metric: str = "ndcg@10",
        ignore_identical_ids: bool = True,
        group: str | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(max_documents=max_documents, seed=seed, main_metric=main_metric, group=group)
        BadRows(path, on_bad_row, max_bad_share)  # refuses a wrong setting before anything is read
        self.path, self.split, self.title = path, split, title
        self.ignore_identical_ids = ignore_identical_ids
        self.on_bad_row, self.max_bad_share = on_bad_row, max_bad_share

    def load(self) -> RetrievalData:
        """Read the folder, or what was cached of it."""
        origin = str(qrels_file(self.path, self.split))
        on_bad_row, share = self.on_bad_row, self.max_bad_share
        return judged_texts(
            read_corpus(self.path, title=self.title, on_bad_row=on_bad_row, max_bad_share=share),
            read_queries(self.path, group=self.group, on_bad_row=on_bad_row, max_bad_share=share),
            read_qrels(self.path, self.split, on_bad_row=on_bad_row, max_bad_share=share),
            BadRows(origin, on_bad_row, share),
            ignore_identical_ids=self.ignore_identical_ids,
        )
