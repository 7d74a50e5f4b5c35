"""A model as a folder that needs no PyTorch: one ONNX graph, the tokenizer, and what says how to use them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_jv5.data.cache import atomic_folder, write_json
from lightning_jv5.export.card_name import front_matter
from lightning_jv5.export.machine_paths import without_machine_paths
from lightning_jv5.export.matryoshka_dims import matryoshka_dims
from lightning_jv5.export.onnx_card import DESCRIPTION, onnx_card
from lightning_jv5.export.onnx_graph import (
    INPUTS,
    OUTPUT,
    GraphRunner,
    check_onnx_is_installed,
    quantise_graph,
    write_graph,
)
from lightning_jv5.export.output_folder import check_output
from lightning_jv5.export.sentence_transformers_layout import tokenizer_of
from lightning_jv5.models.adapter_folders import AdapterFolders
from lightning_jv5.models.backbone import quiet_transformers, resolve_path
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.lora import merge_adapter
from lightning_jv5.models.model_folder import ADAPTERS, CARD, read_model_folder
from lightning_jv5.models.rope import rope_theta

FLOAT, INT8 = "model.onnx", "model_int8.onnx"
_FORMAT = 1
_TEXTS = 64  # that the graphs are compared on by default
_TEXTS_PER_BATCH = 8
_LARGEST_DIFFERENCE = 1e-3  # of a coordinate of a unit-length embedding; float32 rounds at 1e-7, layers add up


@dataclass(frozen=True)
class ExportedOnnx:
    """What :func:`export_onnx` wrote.

    Attributes:
        folder: Where to.
        task: Name of the adapter that was merged, if any.
        files: Sizes in bytes by name.
        texts: How many texts the graphs were compared on.
        largest_difference: Between a coordinate of the float graph's embeddings and of the model's.
        mean_cosine: Between the embeddings of the int8 graph and of the float graph, where there is one.
        least_cosine: The smallest of these cosines.
    """

    folder: Path
    task: str | None
    files: dict[str, int]
    texts: int
    largest_difference: float
    mean_cosine: float | None = None
    least_cosine: float | None = None

    def summary(self) -> str:
        """Say in a few lines what was written, and how near to the model it is."""
        graph = "the model without an adapter" if self.task is None else f"the adapter {self.task!r}, merged"
        width = max(map(len, self.files))
        files = [f"  {name:<{width}}  {size / 1e6:8.2f} MB" for name, size in self.files.items()]
        lines = [
            f"{self.folder}: an ONNX graph of {graph}",
            *files,
            f"  {FLOAT} differs from the model by {self.largest_difference:.1e} at most, in {self.texts} texts",
        ]
        if self.mean_cosine is not None:
            cosine = f"{self.mean_cosine:.4f} on average, {self.least_cosine:.4f} at least"
            lines.append(f"  {INT8} has a cosine with {FLOAT} of {cosine}")
        return "\n".join(lines)


def export_onnx(
    model: str,
    output: str,
    *,
    task: str | None = None,
    int8: bool = False,
    texts: str | None = None,
    overwrite: bool = False,
) -> ExportedOnnx:
    """Write a model as one ONNX graph with backbone, pooling, Dense layers and normalisation inside.

    The graph takes ``input_ids`` and ``attention_mask`` (int64, of any batch and length, padded on either side) and
    gives ``embedding``, float32 of shape ``(batch, dim)``, at unit length. One adapter is merged into its weights, and
    the RoPE theta to infer with is the one it computes with. Beside it lie the tokenizer, which adds all special tokens
    itself, ``onnx.json`` (prompts, limits, dims, how near the graphs are to the model) and a card that shows how to use
    them.

    Args:
        model: A model folder, the folder of an adapter alone, or a hub id.
        output: The folder to write.
        task: Which adapter of the folder to merge; by default none, or that of an adapter's own folder.
        int8: Whether to write ``model_int8.onnx`` too, whose weights are a quarter of the size.
        texts: A file with a text in each line, which the graphs are compared on; what the model is for tells most. By
            default docstrings of Python's standard library.
        overwrite: Whether a model that is there may be replaced.

    Returns:
        What was written.

    Raises:
        ValueError: If a package is missing, the folder exists, there is no such model, task or text, or the graph does
            not compute what the model does.
    """
    from tqdm.auto import tqdm

    check_onnx_is_installed()
    folder = Path(output)
    check_output(folder, overwrite)
    sample = _sample(texts)
    embedder = Embedder(model, task=task, attention="eager").eval()
    task = embedder.task
    dims = _dims(model, task, embedder.dim)
    if task is not None:
        merge_adapter(embedder.backbone, task)
    names = [FLOAT, INT8] if int8 else [FLOAT]
    with atomic_folder(folder, replace=overwrite) as building, tqdm(total=1 + len(names), unit="step") as bar:
        bar.set_description("Making the graph")
        opset = write_graph(embedder, building / FLOAT)
        bar.update()
        bar.set_description("Comparing it with the model")
        token_ids = embedder.tokenization(sample, "document")
        expected = embedder.encode(sample)
        runner = GraphRunner(building / FLOAT, embedder.tokenization.pad_token_id)
        found = _in_batches(runner, token_ids)
        difference = _largest_difference(found, expected)
        if not difference <= _LARGEST_DIFFERENCE:  # nan is not, either
            raise ValueError(
                f"The ONNX graph of a {type(embedder.backbone).__name__} gives embeddings that differ from the model's "
                f"by up to {difference:.1e} in a coordinate; need at most {_LARGEST_DIFFERENCE:.0e}. The exporter does "
                "not know this backbone rightly."
            )
        left = _largest_difference(_in_batches(lambda batch: runner(batch, left=True), token_ids), expected)
        measured: dict[str, dict[str, float]] = {FLOAT: {"largest_difference": difference}}
        bar.update()
        if int8:
            bar.set_description("Rounding weights to 8 bits")
            quantise_graph(building / FLOAT, building / INT8)
            rounded = _in_batches(GraphRunner(building / INT8, embedder.tokenization.pad_token_id), token_ids)
            cosines = torch.cosine_similarity(rounded.double(), found.double())
            measured[INT8] = {"mean_cosine": float(cosines.mean()), "least_cosine": float(cosines.min())}
            bar.update()
        with quiet_transformers():
            tokenizer_of(embedder.tokenization).save_pretrained(str(building))
        description = {
            "format": _FORMAT,
            "task": task,
            "prompts": embedder.tokenization.prompts,
            "max_length": embedder.tokenization.max_length,
            "truncation_side": embedder.tokenization.tokenizer.truncation_side,
            "dim": embedder.dim,
            "dims": dims,
            "pooling": embedder.pooling,
            "normalized": embedder.normalize,
            "theta": rope_theta(embedder.backbone),
            "inputs": list(INPUTS),
            "output": OUTPUT,
            "padding": "either side" if left <= _LARGEST_DIFFERENCE else "right",
            "opset": opset,
            "graphs": measured,
            "compared_texts": len(sample),
        }
        write_json(building / DESCRIPTION, description)
        card = onnx_card(description, folder.resolve().name, _said_of(model))
        (building / CARD).write_text(card, encoding="utf-8")
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return ExportedOnnx(folder, task, files, len(sample), difference, **measured.get(INT8, {}))


def _sample(texts: str | None) -> list[str]:
    """Return the texts to compare on."""
    if texts is None:
        from lightning_jv5.data.docstrings import Docstrings

        rows: Any = Docstrings("heldout", packages=["stdlib"], rows=_TEXTS).load()
        return list(rows["document"])
    file = Path(texts)
    if not file.is_file():
        raise ValueError(f"Got texts {texts!r}, but there is no such file. Give one with a text in each line.")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").split("\n")]
    if not any(lines):
        raise ValueError(f"Got texts {texts!r}, a file without any text. Give one with a text in each line.")
    return [line for line in lines if line]


def _said_of(model: str) -> dict[str, Any]:
    """Return what the card of a model says to the hub; of a model on the hub, that it is the one."""
    path = resolve_path(AdapterFolders(model).model or model)
    if not Path(path).is_dir():
        return {"base_model": path}
    card = Path(path) / CARD
    found = front_matter(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else {}
    return {key: without_machine_paths(value) for key, value in found.items()}


def _in_batches(run: Callable[[Sequence[Sequence[int]]], Tensor], token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Embed in batches of texts as they come, so that most are padded."""
    starts = range(0, len(token_ids), _TEXTS_PER_BATCH)
    return torch.cat([run(token_ids[start : start + _TEXTS_PER_BATCH]) for start in starts])


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _dims(model: str, task: str | None, dim: int) -> list[int]:
    """Return the dims that an embedding was trained to be cut to, the whole one included."""
    folder = Path(resolve_path(model))
    described = read_model_folder(folder / ADAPTERS / task if task and (folder / ADAPTERS / task).is_dir() else folder)
    trained = matryoshka_dims(described.trained) if described is not None else set()
    return sorted(trained | {dim})
