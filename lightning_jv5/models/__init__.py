"""Models: the embedder that is trained, its frozen teacher, and the projection between them."""

from lightning_jv5.models.backbone import load_backbone as load_backbone
from lightning_jv5.models.backbone import resolve_path as resolve_path
from lightning_jv5.models.chunks import padded_tokens as padded_tokens
from lightning_jv5.models.chunks import plan_chunks as plan_chunks
from lightning_jv5.models.embedder import Embedder as Embedder
from lightning_jv5.models.lora import LoRA as LoRA
from lightning_jv5.models.pooling import pool as pool
from lightning_jv5.models.projection import Projection as Projection
from lightning_jv5.models.sentence_transformers_folder import SentenceTransformersFolder as SentenceTransformersFolder
from lightning_jv5.models.sentence_transformers_folder import (
    read_sentence_transformers_folder as read_sentence_transformers_folder,
)
from lightning_jv5.models.student_without_adapter import StudentWithoutAdapter as StudentWithoutAdapter
from lightning_jv5.models.teacher import Teacher as Teacher
from lightning_jv5.models.text_encoder import TextEncoder as TextEncoder
from lightning_jv5.models.tokenization import Tokenization as Tokenization
