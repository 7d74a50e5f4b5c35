"""The README.md of an ONNX folder: what it is, and how to use it without PyTorch."""

import json
from collections.abc import Mapping
from typing import Any

from lightning_jv5.export.card_name import NAME_KEY
from lightning_jv5.export.markdown import escaped, fenced

DESCRIPTION = "onnx.json"
_INHERITED = ("license", "license_name", "license_link", "language", "base_model", "datasets")
_USE = """import json
from pathlib import Path

import numpy as np
import onnxruntime
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

name = NAME
folder = Path(name if Path(name).is_dir() else snapshot_download(name))
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


def onnx_card(description: Mapping[str, Any], name: str, model: Mapping[str, Any] | None = None) -> str:
    """Write the card of a folder from its ``onnx.json``.

    Args:
        description: What :func:`~lightning_jv5.export.onnx.export_onnx` writes there.
        name: What to call the model, and what the program loads.
        model: What the card of the model itself says to the hub; its license, languages, data and base model hold for
            the graph.

    Returns:
        Markdown, with the metadata that the hub reads.
    """
    import yaml

    task = description["task"]
    of = "A text-embedding model" if task is None else f"A text-embedding model for {task}"
    length = "at unit length, so that a dot product is a cosine" if description["normalized"] else "not normalised"
    side = "either side" if description["padding"] == "either side" else "the right"
    inherited = {key: value for key in _INHERITED if (value := (model or {}).get(key))}
    front = {
        NAME_KEY: name,
        **inherited,
        "pipeline_tag": "feature-extraction",
        "tags": ["onnx", "feature-extraction", "sentence-similarity"],
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        "",
        *(f"# {escaped(name)}", ""),
        f"{of} as an ONNX graph. Token ids go in, embeddings of {description['dim']} dimensions come out, {length}. "
        f"Texts of a batch may be padded on {side}.",
        "",
    ]
    if len(description["dims"]) > 1:
        dims = ", ".join(map(str, description["dims"]))
        lines += [f"Embeddings can be cut to their first {dims} coordinates; divide by their length again.", ""]
    lines += [fenced(_USE.replace("NAME", json.dumps(name), 1), "python"), ""]
    lines += ["| graph | compared with | result |", "|---|---|---|"]
    for graph, found in description["graphs"].items():
        if "largest_difference" in found:
            lines.append(
                f"| `{graph}` | the model in PyTorch | coordinates differ by {found['largest_difference']:.1e} |"
            )
        else:
            mean, least = found["mean_cosine"], found["least_cosine"]
            lines.append(f"| `{graph}` | `model.onnx` | cosine {mean:.4f} on average, {least:.4f} at least |")
    lines += ["", f"Measured on {description['compared_texts']} texts.", ""]
    if "license" not in inherited:
        lines += ["## License", "", "Not stated: it is that of the model.", ""]
    return "\n".join(lines)
