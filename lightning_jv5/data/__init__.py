"""Data: where rows come from, in which order they are trained on, and what a batch is."""

from lightning_jv5.data.batches import EvaluationBatch as EvaluationBatch
from lightning_jv5.data.batches import RaggedTexts as RaggedTexts
from lightning_jv5.data.batches import TextBatch as TextBatch
from lightning_jv5.data.beir import BeirFolder as BeirFolder
from lightning_jv5.data.docstring_labels import DocstringLabels as DocstringLabels
from lightning_jv5.data.docstring_similarity import DocstringSimilarity as DocstringSimilarity
from lightning_jv5.data.docstrings import Docstrings as Docstrings
from lightning_jv5.data.files import LocalFiles as LocalFiles
from lightning_jv5.data.hub import HubDataset as HubDataset
from lightning_jv5.data.label_tuples import LabelTuples as LabelTuples
from lightning_jv5.data.mixture import MixturePlan as MixturePlan
from lightning_jv5.data.needle_in_noise import NeedleInNoise as NeedleInNoise
from lightning_jv5.data.packed_codes import NearestCodes as NearestCodes
from lightning_jv5.data.packed_codes import hamming as hamming
from lightning_jv5.data.packed_codes import nearest_codes as nearest_codes
from lightning_jv5.data.packed_codes import pack_signs as pack_signs
from lightning_jv5.data.packed_codes import unpack_signs as unpack_signs
from lightning_jv5.data.source import Source as Source
from lightning_jv5.data.training_set import TrainingSet as TrainingSet
