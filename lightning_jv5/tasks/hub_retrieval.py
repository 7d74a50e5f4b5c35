"""Retrieval in a data set of the Hugging Face hub."""

from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.hub_retrieval import HubTables
from lightning_jv5.tasks.judged_texts import judged_texts
from lightning_jv5.tasks.retrieval import RetrievalData, RetrievalTask


class HubRetrieval(RetrievalTask):
    """Find the documents that a data set of the hub judges relevant to its queries, as mteb and BEIR publish them.

    Configurations ``corpus`` and ``queries`` hold the texts, and ``default`` or ``qrels`` the judgements, or a data set
    of their own: ``HubRetrieval("BeIR/scifact", qrels_path="BeIR/scifact-qrels")``. Which columns they need:
    :class:`~lightning_jv5.data.hub_retrieval.HubTables`. Otherwise as
    :class:`~lightning_jv5.tasks.beir_retrieval.BeirRetrieval`.

    Args:
        path: Name on the hub, or a local folder laid out like one.
        qrels_path: That of the judgements; by default the same.
        name: What stands before the names of the configurations, such as ``"de"`` of ``de-corpus``.
        split: Split of the judgements. Where texts have a single split they are the same for all.
        title: As for :class:`~lightning_jv5.tasks.beir_retrieval.BeirRetrieval`.
        max_documents: As for :class:`RetrievalTask`.
        seed: As for :class:`RetrievalTask`.
        main_metric: As for :class:`RetrievalTask`.
        ignore_identical_ids: As for :class:`~lightning_jv5.tasks.beir_retrieval.BeirRetrieval`.
        group: Column of the queries that names their group, such as ``"lang"``.
        revision: Branch, tag or commit of ``path``; a commit makes runs repeatable.
        on_bad_row: ``"error"`` or ``"skip"``.
        max_bad_share: With ``"skip"``: most rows of a table that may be left out, as a share of all.

    Raises:
        ValueError: If there is no such measure or setting; when loading, if the hub cannot be reached or has no such
            data, configuration, split or column, or a row cannot be used; says which.
    """

    def __init__(
        self,
        path: str,
        *,
        qrels_path: str | None = None,
        name: str | None = None,
        split: str = "test",
        title: bool = True,
        max_documents: int | None = None,
        seed: int = 0,
        main_metric: str = "ndcg@10",
        ignore_identical_ids: bool = True,
        group: str | None = None,
        revision: str | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(max_documents=max_documents, seed=seed, main_metric=main_metric, group=group)
        BadRows(path, on_bad_row, max_bad_share)  # refuses a wrong setting before anything is read
        self.title, self.ignore_identical_ids = title, ignore_identical_ids
        self.tables = HubTables(
            path, qrels_path, name, split, revision=revision, on_bad_row=on_bad_row, max_bad_share=max_bad_share
        )

    def load(self) -> RetrievalData:
        """Return the data, downloading it if this machine has not done so before."""
        tables = self.tables
        return judged_texts(
            tables.corpus(title=self.title),
            tables.queries(group=self.group),
            tables.qrels(),
            BadRows(f"{tables.qrels_path or tables.path}, {tables.split}", tables.on_bad_row, tables.max_bad_share),
            ignore_identical_ids=self.ignore_identical_ids,
            homes=("the queries", "the corpus"),
            unit="row",
        )
