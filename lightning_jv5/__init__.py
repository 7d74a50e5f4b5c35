"""Train compact text-embedding models the jina-embeddings-v5-text way, with PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_jv5.datamodule import EmbeddingDataModule as EmbeddingDataModule
    from lightning_jv5.encoder import Encoder as Encoder
    from lightning_jv5.encoder import load as load
    from lightning_jv5.models import Embedder as Embedder
    from lightning_jv5.models import LoRA as LoRA
    from lightning_jv5.models import Projection as Projection
    from lightning_jv5.models import Teacher as Teacher
    from lightning_jv5.module import EmbeddingModule as EmbeddingModule
    from lightning_jv5.mteb_encoder import MTEBEncoder as MTEBEncoder
    from lightning_jv5.rebuildable import Rebuildable as Rebuildable
    from lightning_jv5.tasks import BeirRetrieval as BeirRetrieval
    from lightning_jv5.tasks import BitextMiningTask as BitextMiningTask
    from lightning_jv5.tasks import ClassificationTask as ClassificationTask
    from lightning_jv5.tasks import ClusteringTask as ClusteringTask
    from lightning_jv5.tasks import HubRetrieval as HubRetrieval
    from lightning_jv5.tasks import PairClassificationTask as PairClassificationTask
    from lightning_jv5.tasks import RerankingTask as RerankingTask
    from lightning_jv5.tasks import RetrievalTask as RetrievalTask
    from lightning_jv5.tasks import STSTask as STSTask

_HOME_OF = {
    "EmbeddingDataModule": "lightning_jv5.datamodule",
    "EmbeddingModule": "lightning_jv5.module",
    "Encoder": "lightning_jv5.encoder",
    "load": "lightning_jv5.encoder",
    "Embedder": "lightning_jv5.models",
    "MTEBEncoder": "lightning_jv5.mteb_encoder",
    "LoRA": "lightning_jv5.models",
    "Projection": "lightning_jv5.models",
    "Teacher": "lightning_jv5.models",
    "Rebuildable": "lightning_jv5.rebuildable",
    "BeirRetrieval": "lightning_jv5.tasks",
    "BitextMiningTask": "lightning_jv5.tasks",
    "ClassificationTask": "lightning_jv5.tasks",
    "ClusteringTask": "lightning_jv5.tasks",
    "HubRetrieval": "lightning_jv5.tasks",
    "PairClassificationTask": "lightning_jv5.tasks",
    "RerankingTask": "lightning_jv5.tasks",
    "RetrievalTask": "lightning_jv5.tasks",
    "STSTask": "lightning_jv5.tasks",
}

__all__ = [  # noqa: PLE0604 - strings, all of them
    "__version__",
    *_HOME_OF,
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: torch and lightning take seconds, ``--help`` should not."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
