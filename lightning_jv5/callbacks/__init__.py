"""Callbacks: each does one job and survives a resume."""

from lightning_jv5.callbacks.adapter_averaging import AdapterAveraging as AdapterAveraging
from lightning_jv5.callbacks.binary_quantization import BinaryQuantization as BinaryQuantization
from lightning_jv5.callbacks.comparison import TeacherStudentTable as TeacherStudentTable
from lightning_jv5.callbacks.data_set_losses import DataSetLosses as DataSetLosses
from lightning_jv5.callbacks.embedding_projector import EmbeddingProjector as EmbeddingProjector
from lightning_jv5.callbacks.embedding_writer import EmbeddingWriter as EmbeddingWriter
from lightning_jv5.callbacks.embedding_writer import read_embeddings as read_embeddings
from lightning_jv5.callbacks.evaluation_report import EvaluationReport as EvaluationReport
from lightning_jv5.callbacks.group_breakdown import GroupBreakdown as GroupBreakdown
from lightning_jv5.callbacks.isotropy_evaluation import IsotropyEvaluation as IsotropyEvaluation
from lightning_jv5.callbacks.matryoshka_evaluation import MatryoshkaEvaluation as MatryoshkaEvaluation
from lightning_jv5.callbacks.ranked_examples import RankedExamples as RankedExamples
from lightning_jv5.callbacks.report import log_figure as log_figure
from lightning_jv5.callbacks.report import log_text as log_text
from lightning_jv5.callbacks.report import run_folder as run_folder
from lightning_jv5.callbacks.throughput import Throughput as Throughput
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation as ViewEvaluation
from lightning_jv5.data.cache import write_json as write_json
