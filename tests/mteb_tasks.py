"""Local tasks of the mteb package and our own tasks on the same data: nothing is downloaded."""

from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from lightning_jv5.tasks import (
    BitextMiningTask,
    ClassificationTask,
    ClusteringTask,
    EvaluationTask,
    PairClassificationTask,
    ReadyRetrieval,
    RerankingTask,
    RetrievalData,
    STSTask,
)
from tests.tasks.labelled_texts import Rows, labelled, scored_pairs
from tests.tiny_data import tiny_texts

TEXTS = tiny_texts(60, seed=21)
RETRIEVAL = RetrievalData(
    [f"q{row}" for row in range(12)],
    TEXTS[:12],
    [f"d{row}" for row in range(48)],
    TEXTS[12:],
    {f"q{row}": {f"d{(5 * row + place) % 48}": 1 + place % 2 for place in range(6)} for row in range(12)},
)
RERANKING = RerankingTask(
    Rows(
        {
            "query": TEXTS[:10],
            "positive": [TEXTS[10 + row : 12 + row] for row in range(10)],
            "negative": [TEXTS[25 + row : 33 + row] for row in range(10)],
        }
    )
)
PAIRS = scored_pairs(40)
DUPLICATES = Rows({**PAIRS.columns, "label": [int(score > 3) for score in PAIRS.columns["score"]]})
TRANSLATIONS = Rows({"text1": TEXTS, "text2": [f"{text} under the slow tree" for text in TEXTS]})
TOPICS = labelled(70, seed=12)
TRAIN, TEST = labelled(80, seed=13), labelled(50, seed=14)


def described(task_type: str, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=f"Tiny{task_type}",
        description="Made up.",
        type=task_type,
        category="t2t",
        dataset={"path": "none", "revision": "none"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


def retrieval_split(data: RetrievalData) -> dict[str, Any]:
    queries, documents = (
        Dataset.from_dict({"id": list(ids), "text": list(texts)})
        for ids, texts in ((data.query_ids, data.queries), (data.document_ids, data.documents))
    )
    judgements = {query: dict(grades) for query, grades in data.judgements.items()}
    candidates = data.candidates and {query: list(listed) for query, listed in data.candidates.items()}
    return {"corpus": documents, "queries": queries, "relevant_docs": judgements, "top_ranked": candidates}


class TinyRetrieval(AbsTaskRetrieval):
    metadata = described("Retrieval", "ndcg_at_10")

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = {"default": {"test": retrieval_split(RETRIEVAL)}}, True


class TinyReranking(AbsTaskRetrieval):
    metadata = described("Reranking", "map_at_1000")

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = {"default": {"test": retrieval_split(RERANKING.load())}}, True


class TinySTS(AbsTaskSTS):
    metadata = described("STS", "cosine_spearman")
    column_names = ("text1", "text2")

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = DatasetDict({"test": PAIRS.load()}), True


class TinyPairClassification(AbsTaskPairClassification):
    metadata = described("PairClassification", "max_ap")
    input1_column_name, input2_column_name, label_column_name = "text1", "text2", "label"

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = DatasetDict({"test": DUPLICATES.load()}), True


class TinyBitextMining(AbsTaskBitextMining):
    metadata = described("BitextMining", "f1")

    def load_data(self, *_: Any, **__: Any) -> None:
        pairs = TRANSLATIONS.load().rename_columns({"text1": "sentence1", "text2": "sentence2"})
        self.dataset, self.data_loaded = DatasetDict({"test": pairs}), True


class TinyClassification(AbsTaskClassification):
    metadata = described("Classification", "accuracy")
    n_experiments = 4

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = DatasetDict({"train": TRAIN.load(), "test": TEST.load()}), True


class TinyClustering(AbsTaskClustering):
    metadata = described("Clustering", "v_measure")
    max_fraction_of_documents_to_embed = None
    max_document_to_embed = 60
    max_documents_per_cluster = 50
    n_clusters = 3
    input_column_name, label_column_name = "text", "label"

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset, self.data_loaded = DatasetDict({"test": TOPICS.load()}), True


class TinyClusteringLegacy(AbsTaskClusteringLegacy):
    metadata = described("Clustering", "v_measure").model_copy(update={"name": "TinyClusteringLegacy"})
    input_column_name, label_column_name = "text", "label"

    def load_data(self, *_: Any, **__: Any) -> None:
        sets = Dataset.from_list([TOPICS.columns])
        self.dataset, self.data_loaded = DatasetDict({"test": sets}), True


# Of each pair: mteb's task, ours with the same protocol, and mteb's names of our measures
SAME_TASKS: dict[str, tuple[type[mteb.AbsTask], EvaluationTask, dict[str, str]]] = {
    "retrieval": (
        TinyRetrieval,
        ReadyRetrieval(RETRIEVAL),
        {"ndcg@10": "ndcg_at_10", "recall@10": "recall_at_10", "map@100": "map_at_100", "mrr@10": "mrr_at_10"},
    ),
    "reranking": (
        TinyReranking,
        RERANKING,
        {"map@1000": "map_at_1000", "mrr@10": "mrr_at_10", "ndcg@10": "ndcg_at_10"},
    ),
    "pair classification": (
        TinyPairClassification,
        PairClassificationTask(DUPLICATES),
        {"ap": "cosine_ap", "accuracy": "cosine_accuracy", "f1": "cosine_f1"},
    ),
    "bitext mining": (TinyBitextMining, BitextMiningTask(TRANSLATIONS), {"f1": "f1", "accuracy": "accuracy"}),
    "sts": (TinySTS, STSTask(PAIRS), {"spearman": "cosine_spearman", "pearson": "cosine_pearson"}),
    "classification": (
        TinyClassification,
        ClassificationTask(TRAIN, TEST, experiments=4),
        {"accuracy": "accuracy", "f1": "f1"},
    ),
    "clustering": (
        TinyClustering,
        ClusteringTask(TOPICS, batch_size=512, repeats=3, bootstrap=50, max_texts=60),
        {"v_measure": "v_measure", "v_measure_std": "v_measure_std"},
    ),
    "legacy clustering": (TinyClusteringLegacy, ClusteringTask(TOPICS), {"v_measure": "v_measure"}),
}


def mteb_scores(model: Any, task: type[mteb.AbsTask], **settings: Any) -> dict[str, float]:
    """Score a model in mteb, on a task that has drawn nothing yet; by default nothing is kept or shown."""
    settings = {"cache": None, "show_progress_bar": False, **settings}
    [result] = mteb.evaluate(model, task(), co2_tracker=False, **settings).task_results
    [scores] = result.scores["test"]
    return scores
