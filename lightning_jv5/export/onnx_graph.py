"""An encoder as one ONNX graph, token ids and attention mask in, embeddings out: https://onnx.ai/onnx/intro/."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_jv5.models.backbone import first_position
from lightning_jv5.models.pooling import pool
from lightning_jv5.models.text_encoder import TextEncoder, evaluating

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_FILE = 1_500_000_000  # bytes; a protobuf file ends at 2 GiB, so larger weights lie in a file beside it


class EmbeddingGraph(nn.Module):
    """What an encoder computes from padded token ids: backbone, pooling, Dense layers and normalisation.

    Positions are counted along the attention mask, so that padding may be on either side.

    Args:
        encoder: Without adapters; its attention must be one that does not pack texts.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        backbone: Any = encoder.backbone
        self._counts_positions = "position_ids" in inspect.signature(backbone.forward).parameters
        self._first_position = first_position(backbone.config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: Token ids, int64, shape ``(batch, length)``.
            attention_mask: One where there is a token, zero where there is padding, int64, of the same shape; every
                text has a token.

        Returns:
            Embeddings, float32, shape ``(batch, dim)``.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._counts_positions:
            inputs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0) + self._first_position
        encoder = self.encoder
        pooled = pool(encoder.backbone(**inputs).last_hidden_state, attention_mask, encoder.pooling)
        embedding: Tensor = encoder.dense(pooled)
        return F.normalize(embedding, dim=-1) if encoder.normalize else embedding


def write_graph(encoder: TextEncoder, file: Path) -> int:
    """Write an encoder as an ONNX graph: inputs ``input_ids`` and ``attention_mask``, output ``embedding``.

    Weights of more than 1.5 GB lie beside it, in a file named as it with ``.data`` at the end.

    Args:
        encoder: On the CPU, without adapters, with eager attention: fused kernels give rows that are all padding a
            softmax over nothing.
        file: The file to write.

    Returns:
        The opset that the graph needs.

    Raises:
        ValueError: If a package is missing, or the exporter cannot trace the backbone.
    """
    check_onnx_is_installed()
    ids, mask = torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    axes = {0: "batch", 1: "length"}
    try:
        with evaluating(encoder), _quiet_exporter():
            program = torch.onnx.export(
                EmbeddingGraph(encoder).eval(),
                (ids, mask),
                dynamo=True,
                input_names=list(INPUTS),
                dynamic_shapes=(axes, axes),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(
            f"Cannot make an ONNX graph of a {type(encoder.backbone).__name__}: {' '.join(str(error).split())[:400]} "
            "Its code may branch on the content of a tensor, which a graph cannot."
        ) from error
    if program is None:
        raise ValueError("The exporter of torch returned no graph. Update torch.")
    _name_output(program.model)
    _forget_origin(program.model)
    program.save(str(file), external_data=_bytes(encoder) > _LARGEST_FILE)
    return int(program.model.opset_imports[""])


def quantise_graph(file: Path, quantised: Path) -> None:
    """Write a graph with weights in 8 bits, and activations rounded to 8 bits as they come.

    It is onnxruntime's dynamic quantisation, with a scale for each output, which loses a sixth of what one for each
    matrix does, at the same size and speed:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.

    Args:
        file: A graph that :func:`write_graph` wrote.
        quantised: The file to write.
    """
    check_onnx_is_installed()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    beside = file.with_name(f"{file.name}.data").is_file()
    with _quiet_exporter():
        quantize_dynamic(
            file, quantised, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=beside
        )


class GraphRunner:
    """A graph in onnxruntime, on the CPU.

    Args:
        file: What :func:`write_graph` or :func:`quantise_graph` wrote.
        pad_token_id: What fills padded positions.
    """

    def __init__(self, file: Path, pad_token_id: int) -> None:
        check_onnx_is_installed()
        import onnxruntime

        self.session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.pad_token_id = pad_token_id

    def __call__(self, token_ids: Sequence[Sequence[int]], *, left: bool = False) -> Tensor:
        """Embed texts in one batch.

        Args:
            token_ids: Of each text.
            left: Whether padding comes before the text rather than after it.

        Returns:
            Embeddings, float32, shape ``(texts, dim)``.
        """
        width = max(map(len, token_ids))
        ids = torch.full((len(token_ids), width), self.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(token_ids):
            place = slice(width - len(text), None) if left else slice(len(text))
            ids[row, place], mask[row, place] = torch.tensor(text), 1
        [embeddings] = self.session.run([OUTPUT], dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True)))
        return torch.from_numpy(embeddings)


def check_onnx_is_installed() -> None:
    """Refuse to go on without the packages of the extra ``export``.

    Raises:
        ValueError: If one is missing.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ValueError(f"ONNX needs {', '.join(missing)}. Run: pip install 'lightning-jv5[export]'")


def _name_output(graph_model: Any) -> None:
    """Name the output; the exporter may have called the rows of an embedding table the same, which no runtime reads."""
    [output] = graph_model.graph.outputs
    for node in graph_model.graph:
        for value in node.outputs:
            if value is not output and value.name == OUTPUT:
                value.name = "token_embedding"
    output.name = OUTPUT


def _forget_origin(graph_model: Any) -> None:
    """Drop what the exporter notes of every node: lines of Python, with the paths of this machine."""
    for node in graph_model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for part in (graph_model, graph_model.graph, *graph_model.graph.inputs):
        part.metadata_props.clear()


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep away what the exporter and the quantiser say about themselves."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
