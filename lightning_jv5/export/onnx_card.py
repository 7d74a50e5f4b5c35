"""The README.md of an ONNX folder: what it is, and how to use it without PyTorch."""

from collections.abc import Mapping
from typing import Any

DESCRIPTION = "onnx.json"
_USE = """import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path(".")  # where this file lies
about = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
session = onnxruntime.InferenceSession(folder / "model.onnx")


def encode(texts: list[str], role: str = "document") -> np.ndarray:
    tokenizer.enable_truncation(about["max_length"][role], direction=about["truncation_side"])
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch([about["prompts"][role] + text for text in texts])
    inputs = {
        "input_ids": np.array([text.ids for text in encoded]),
        "attention_mask": np.array([text.attention_mask for text in encoded]),
    }
    return session.run(["embedding"], inputs)[0]
"""


def onnx_card(description: Mapping[str, Any]) -> str:
    """Write the card of a folder from its ``onnx.json``.

    Args:
        description: What :func:`~lightning_jv5.export.onnx.export_onnx` writes there.

    Returns:
        Markdown, with the metadata that the hub reads.
    """
    task = description["task"]
    of = "a text-embedding model" if task is None else f"a text-embedding model for {task}"
    length = "at unit length, so that a dot product is a cosine" if description["normalized"] else "not normalised"
    side = "either side" if description["padding"] == "either side" else "the right"
    lines = [
        *(
            "---",
            "pipeline_tag: feature-extraction",
            "tags: [onnx, feature-extraction, sentence-similarity]",
            "---",
            "",
        ),
        *(f"# {of[2:].capitalize()} as an ONNX graph", ""),
        f"Token ids go in, embeddings of {description['dim']} dimensions come out, {length}. Texts of a batch may be "
        f"padded on {side}.",
        "",
    ]
    if len(description["dims"]) > 1:
        dims = ", ".join(map(str, description["dims"]))
        lines += [f"Embeddings can be cut to their first {dims} coordinates; divide by their length again.", ""]
    lines += ["```python", *_USE.splitlines(), "```", ""]
    lines += ["| graph | compared with | result |", "|---|---|---|"]
    for name, found in description["graphs"].items():
        if "largest_difference" in found:
            lines.append(
                f"| `{name}` | the model in PyTorch | coordinates differ by {found['largest_difference']:.1e} |"
            )
        else:
            mean, least = found["mean_cosine"], found["least_cosine"]
            lines.append(f"| `{name}` | `model.onnx` | cosine {mean:.4f} on average, {least:.4f} at least |")
    return "\n".join([*lines, "", f"Measured on {description['compared_texts']} texts.", ""])
