"""Evaluation tasks: each owns its data and its metric, and one encode pass scores every view of the embeddings."""

from lightning_jv5.metrics.views import View as View
from lightning_jv5.tasks.beir_retrieval import BeirRetrieval as BeirRetrieval
from lightning_jv5.tasks.bitext_mining import BitextMiningTask as BitextMiningTask
from lightning_jv5.tasks.classification import ClassificationTask as ClassificationTask
from lightning_jv5.tasks.clustering import ClusteringTask as ClusteringTask
from lightning_jv5.tasks.evaluation import Evaluation as Evaluation
from lightning_jv5.tasks.evaluation import Score as Score
from lightning_jv5.tasks.evaluation import evaluate as evaluate
from lightning_jv5.tasks.hub_retrieval import HubRetrieval as HubRetrieval
from lightning_jv5.tasks.pair_classification import PairClassificationTask as PairClassificationTask
from lightning_jv5.tasks.reranking import RerankingTask as RerankingTask
from lightning_jv5.tasks.retrieval import ReadyRetrieval as ReadyRetrieval
from lightning_jv5.tasks.retrieval import RetrievalData as RetrievalData
from lightning_jv5.tasks.retrieval import RetrievalTask as RetrievalTask
from lightning_jv5.tasks.sts import STSTask as STSTask
from lightning_jv5.tasks.task import EmbeddedTexts as EmbeddedTexts
from lightning_jv5.tasks.task import EvaluationTask as EvaluationTask
from lightning_jv5.tasks.task import TaskPart as TaskPart
from lightning_jv5.tasks.whole_set import WholeSetTask as WholeSetTask
