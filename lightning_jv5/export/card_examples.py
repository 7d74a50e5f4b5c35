"""The examples of a model card: for each way in which a layout can be loaded, a program that runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_jv5.export.adapters_layout import Written
from lightning_jv5.export.markdown import fenced
from lightning_jv5.models.sentence_transformers_folder import (
    SentenceTransformersFolder,
    read_sentence_transformers_folder,
)

_TEXTS = 'queries, documents = ["where is the cat?"], ["The cat sat on the mat.", "A dog runs fast."]'


def examples(folder: Path, layout: str, written: Written, *, name: str, dims: Sequence[int]) -> str:
    """Return Markdown with a program for each way to load a folder.

    Args:
        folder: The folder, complete but for the card.
        layout: As for :func:`~lightning_jv5.export.model_card.write_model_card`.
        written: What the model and its adapters are.
        name: What the programs load.
        dims: Dimensions to which embeddings may be cut.
    """
    quoted, task = json.dumps(name), json.dumps(next(iter(written.adapters), ""))
    prompt = next(iter(written.adapters.values()), written.model).prompts["document"]  # the task's, not the shared one
    smaller = [dim for dim in dims if dim < written.model.dim]
    found: list[tuple[str, str]] = []
    if layout in ("stage", "merged", "assembled"):
        without = ", without an adapter" if layout == "assembled" else ""
        found.append((f"With sentence-transformers{without}:", _sentence_transformers(quoted, smaller)))
    if layout == "switching":
        intro = (
            "With sentence-transformers, which runs `task_switching.py` of this folder. A task's own prompts take the "
            'place of the model\'s; `model_kwargs={"default_task": ...}` says what calls without a task use:'
        )
        found.append((intro, _switching(quoted, task)))
    settings = read_sentence_transformers_folder(str(folder))  # transformers alone knows of no layers after pooling
    if layout in ("switching", "assembled") and settings is not None and not settings.dense:
        found.append(("With transformers and PEFT:", _peft(quoted, task, prompt, settings)))
    if layout == "jina_v5" and settings is not None and not settings.dense:
        intro = (
            "An engine that knows the layout is told the task (vLLM: `jina_task` among its `--hf-overrides`). What it "
            "does, with safetensors and transformers alone:"
        )
        found.append((intro, _merging(quoted, task, prompt, settings)))
    if layout != "jina_v5":
        found.append(("With lightning_jv5:", _lightning_jv5(quoted, task if written.adapters else None)))
    return "\n\n".join(f"{intro}\n\n{fenced(program, 'python')}" for intro, program in found)


def _sentence_transformers(name: str, smaller: Sequence[int]) -> str:
    program = f"""
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({name})
{_TEXTS}
query_embeddings, embeddings = model.encode_query(queries), model.encode_document(documents)
print(model.similarity(query_embeddings, embeddings))
"""
    if smaller:
        program += f"short = model.encode_document(documents, truncate_dim={smaller[0]}, normalize_embeddings=True)\n"
    return program.lstrip() + 'bits = model.encode_document(documents, precision="ubinary")\n'


def _switching(name: str, task: str) -> str:
    return f"""
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({name}, trust_remote_code=True)
{_TEXTS}
query_embeddings = model.encode(queries, task={task}, prompt_name="query")
embeddings = model.encode(documents, task={task}, prompt_name="document")
print(model.similarity(query_embeddings, embeddings))
""".lstrip()


def _peft(name: str, task: str, prompt: str, settings: SentenceTransformersFolder) -> str:
    return f"""
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

name = {name}
tokenizer, task = AutoTokenizer.from_pretrained(name), {task}
model = AutoModel.from_pretrained(name)
model = PeftModel.from_pretrained(model, name, task, subfolder=f"adapters/{{task}}").eval()
{_embedded(prompt, settings)}
""".lstrip()


def _merging(name: str, task: str, prompt: str, settings: SentenceTransformersFolder) -> str:
    return f"""
import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

name = {name}
folder = Path(name if Path(name).is_dir() else snapshot_download(name))
adapter_folder = folder / "adapters" / {task}
settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
kind = "qwen3" if settings["is_decoder"] else "eurobert"
own = {{"model_type", "architectures", "task_names", "is_decoder", "transformers_version"}}
config = AutoConfig.for_model(kind, **{{key: value for key, value in settings.items() if key not in own}})

weights = {{key: weight.float() for key, weight in load_file(folder / "model.safetensors").items()}}
adapter = load_file(adapter_folder / "adapter_model.safetensors")
lora = json.loads((adapter_folder / "adapter_config.json").read_text(encoding="utf-8"))
for key, down in adapter.items():
    if ".lora_A." in key:
        base = key.removeprefix("base_model.model.").replace(".lora_A", "")
        weights[base] += adapter[key.replace(".lora_A", ".lora_B")] @ down * (lora["lora_alpha"] / lora["r"])
model = AutoModel.from_config(config, dtype=torch.float32).eval()
model.load_state_dict(weights)

tokenizer = AutoTokenizer.from_pretrained(folder)
{_embedded(prompt, settings)}
""".lstrip()


def _lightning_jv5(name: str, task: str | None) -> str:
    chosen = "" if task is None else f", task={task}"
    return f"""
from lightning_jv5 import Embedder

embedder = Embedder({name})
{_TEXTS}
query_embeddings = embedder.encode(queries, "query"{chosen})
embeddings = embedder.encode(documents, "document"{chosen})
print(query_embeddings @ embeddings.T)
""".lstrip()


def _embedded(prompt: str, settings: SentenceTransformersFolder) -> str:
    """Embed documents with a tokenizer and a transformer that a program has loaded."""
    return f"""{_TEXTS}
texts = [{json.dumps(prompt, ensure_ascii=False)} + text for text in documents]
batch = tokenizer(texts, padding=True, padding_side="right", truncation=True, return_tensors="pt")
batch.pop("token_type_ids", None)
with torch.no_grad():
    tokens = model(**batch).last_hidden_state
{_pooled(settings)}"""


def _pooled(settings: SentenceTransformersFolder) -> str:
    lines = {
        "last": 'embeddings = tokens[torch.arange(len(tokens)), batch["attention_mask"].sum(dim=1) - 1]',
        "mean": 'mask = batch["attention_mask"].unsqueeze(-1)\n'
        "embeddings = (tokens * mask).sum(dim=1) / mask.sum(dim=1)",
        "cls": "embeddings = tokens[:, 0]",
    }[settings.pooling]
    if settings.normalize:
        lines += "\nembeddings = torch.nn.functional.normalize(embeddings, dim=-1)"
    return lines
