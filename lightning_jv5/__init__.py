"""Train compact text-embedding models the jina-embeddings-v5-text way, with PyTorch Lightning."""

__version__ = "0.1.0"

from lightning_jv5.rebuildable import Rebuildable as Rebuildable
