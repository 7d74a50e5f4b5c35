"""Metrics for torchmetrics: fed with embeddings batch by batch, merged over ranks."""

from lightning_jv5.metrics.bitext_mining import BitextMining as BitextMining
from lightning_jv5.metrics.bitext_mining import mining_measures as mining_measures
from lightning_jv5.metrics.classification import FewShotClassification as FewShotClassification
from lightning_jv5.metrics.clustering import ClusteringVMeasure as ClusteringVMeasure
from lightning_jv5.metrics.correlation import CosineCorrelation as CosineCorrelation
from lightning_jv5.metrics.correlation import pearson as pearson
from lightning_jv5.metrics.correlation import spearman as spearman
from lightning_jv5.metrics.grouped_retrieval import GroupedRetrieval as GroupedRetrieval
from lightning_jv5.metrics.pair_classification import PairClassification as PairClassification
from lightning_jv5.metrics.pair_classification import pair_measures as pair_measures
from lightning_jv5.metrics.ranking import average_precision as average_precision
from lightning_jv5.metrics.ranking import ndcg as ndcg
from lightning_jv5.metrics.ranking import precision as precision
from lightning_jv5.metrics.ranking import recall as recall
from lightning_jv5.metrics.ranking import reciprocal_rank as reciprocal_rank
from lightning_jv5.metrics.retrieval import StreamingRetrieval as StreamingRetrieval
from lightning_jv5.metrics.streaming import StreamingMetric as StreamingMetric
from lightning_jv5.metrics.views import PRECISIONS as PRECISIONS
from lightning_jv5.metrics.views import Precision as Precision
from lightning_jv5.metrics.views import View as View
from lightning_jv5.metrics.whole_set import WholeSetMetric as WholeSetMetric
