"""The README.md of a model folder: what the model is, how to load it, how it was made, and what it scored."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_jv5 import __version__
from lightning_jv5.data.cache import atomic_file
from lightning_jv5.export.adapters_layout import Written
from lightning_jv5.export.card_examples import examples
from lightning_jv5.export.card_name import NAME_KEY
from lightning_jv5.export.machine_paths import TRAINING_CONFIG, without_machine_paths
from lightning_jv5.export.markdown import code, escaped, fenced, table
from lightning_jv5.export.matryoshka_dims import matryoshka_dims
from lightning_jv5.export.merged_layout import MERGED_TASK
from lightning_jv5.export.output_folder import MADE_WITH
from lightning_jv5.export.score_files import RESULTS, SCORES
from lightning_jv5.models.model_folder import ADAPTERS, CARD, ModelFolder, adapters_in, read_model_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SOURCE_SETTINGS = ("path", "paths", "name", "split", "rows")
_ABOUT = {
    "stage": "A plain sentence-transformers model.",
    "merged": "One task's LoRA adapter is folded into the weights; it is a plain sentence-transformers model.",
    "assembled": "A model with a LoRA adapter for each task. Without an adapter it is a sentence-transformers model.",
    "switching": "A model with a LoRA adapter for each task, between which each call switches.",
    "jina_v5": "A model with a LoRA adapter for each task, in the layout of jina-embeddings-v5-text: an engine that "
    "knows `JinaEmbeddingsV5Model` merges the adapter of one task as it loads. There is no code in the folder.",
}


def write_model_card(
    folder: Path,
    layout: str,
    written: Written,
    *,
    name: str,
    license: str | None = None,
    language: Sequence[str] | None = None,
    base_model: str | None = None,
) -> None:
    """Write ``README.md`` from what a model folder says of itself.

    Args:
        folder: The model folder; its training configs, ``results.json``, ``scores.json`` and its adapters'
            ``scores.json`` are told of.
        layout: ``"stage"``, ``"assembled"``, ``"merged"``, ``"switching"`` or ``"jina_v5"``.
        written: What the model and its adapters are.
        name: What to call the model, and what the examples load.
        license: As the hub abbreviates it; without, the card names none.
        language: Codes of the languages.
        base_model: Hub id of the model that training started from; by default the training config's, if it has one.
    """
    configs = _configs(folder)
    model = written.model
    dims = sorted(matryoshka_dims([one.trained for one in (model, *written.adapters.values())]))
    front = _front_matter(
        layout, written, configs, dims, name=name, license=license, language=language, base_model=base_model
    )
    parts = [
        f"---\n{front}---",
        f"# {escaped(name)}",
        f"A text-embedding model with {model.dim} dimensions, {MADE_WITH} {__version__}. {_ABOUT[layout]}",
        _facts(written, dims),
        f"## Prompts\n\n{_prompts(written)}",
        f"## Use\n\n{examples(folder, layout, written, name=name, dims=dims)}",
        f"## Training\n\n{_training(folder, written, configs)}",
    ]
    if scores := _scores(folder):
        parts.append(f"## Scores\n\n{scores}")
    if license is None:
        parts.append("## License\n\nNot stated: it follows from the model that training started from, and the data.")
    with atomic_file(folder / CARD) as file:
        file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def read_written(folder: Path) -> Written:
    """Describe a folder that ``export`` or ``assemble`` wrote.

    Raises:
        ValueError: If neither it nor an adapter in it says what it is.
    """
    found = {task: read_model_folder(path) for task, path in adapters_in(folder).items()}
    adapters = {task: one for task, one in found.items() if one is not None}
    model = read_model_folder(folder)
    if model is None:
        if not adapters:
            raise ValueError(f"Got {str(folder)!r}, which does not say what it is. Give a folder that export wrote.")
        one = next(iter(adapters.values()))
        model = ModelFolder("model", one.prompts, one.max_length, one.dim, inference_theta=one.inference_theta)
    return Written(model, adapters, model.prompts)


# Front matter


def _front_matter(
    layout: str,
    written: Written,
    configs: Mapping[str, Any],
    dims: Sequence[int],
    *,
    name: str,
    license: str | None,
    language: Sequence[str] | None,
    base_model: str | None,
) -> str:
    import yaml

    tags = ["sentence-transformers", "feature-extraction", "sentence-similarity", "lightning-jv5"]
    tags += ["matryoshka"] if dims else []
    tags += ["peft", "lora"] if written.adapters else []
    data = [settings["path"] for config in configs.values() for _, settings in _sources(config) if _on_hub(settings)]
    named = {
        NAME_KEY: name,
        "license": license,
        "language": list(language or []),
        "library_name": "transformers" if layout == "jina_v5" else "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": tags,
        "base_model": base_model or _base_model(configs.get("")),
        "datasets": list(dict.fromkeys(data)),
    }
    kept = {key: value for key, value in named.items() if value}
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _base_model(config: Any) -> str | None:
    """Return the hub id in a training config; a folder may look like one."""
    path = _student(config).get("path")
    return path if isinstance(path, str) and _HUB_ID.fullmatch(path) and not Path(path).parent.is_dir() else None


def _student(config: Any) -> Mapping[str, Any]:
    found = config
    for key in ("model", "student"):
        found = found.get(key) if isinstance(found, dict) else None
        found = found.get("init_args", found) if isinstance(found, dict) else None
    return found or {}


def _on_hub(settings: Mapping[str, Any]) -> bool:
    path = settings.get("path")
    return settings["class"].startswith("Hub") and isinstance(path, str) and _HUB_ID.fullmatch(path) is not None


# What it is


def _facts(written: Written, dims: Sequence[int]) -> str:
    model = written.model
    rows = [("Dimensions", str(model.dim))]
    if smaller := ", ".join(str(dim) for dim in dims if dim < model.dim):
        rows.append(("Matryoshka", f"the first {smaller} dimensions, normalised again, are embeddings too"))
    query, document = (
        max(one.max_length[role] for one in (model, *written.adapters.values())) for role in ("query", "document")
    )
    rows.append(("Longest text", f"query {query} tokens, document {document}"))
    if written.adapters:
        rows.append(("Tasks", ", ".join(written.adapters)))
    thetas = {"": model, **written.adapters}
    for name, one in thetas.items():
        if one.inference_theta is not None:
            trained = f", trained with {one.theta:g}" if one.theta not in (None, one.inference_theta) else ""
            rows.append((f"RoPE theta{name and f', {name}'}", f"{one.inference_theta:g}{trained}"))
    return table(["", ""], [[escaped(key), escaped(value)] for key, value in rows])


def _prompts(written: Written) -> str:
    every = {"none" if written.adapters else "any": written.prompts}
    every |= {task: one.prompts for task, one in written.adapters.items()}
    rows = [
        [escaped(task), *(code(json.dumps(prompts[role], ensure_ascii=False)) for role in ("query", "document"))]
        for task, prompts in every.items()
    ]
    intro = "What is put before each text; a document's is the default."
    return f"{intro}\n\n{table(['task', 'query', 'document'], rows)}"


# How it was made


def _configs(folder: Path) -> dict[str, Any]:
    """Return the training configs in a folder, by adapter; that of the model by the empty name."""
    import yaml

    files = {"": folder / TRAINING_CONFIG}
    merged = {file.name.removesuffix(f"_{TRAINING_CONFIG}"): file for file in folder.glob(f"*_{TRAINING_CONFIG}")}
    files |= {_merged(task): file for task, file in merged.items()}
    files |= {file.parent.name: file for file in sorted(folder.glob(f"{ADAPTERS}/*/{TRAINING_CONFIG}"))}
    plain = {name: yaml.safe_load(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    return {name: without_machine_paths(config) for name, config in plain.items()}


def _training(folder: Path, written: Written, configs: Mapping[str, Any]) -> str:
    import yaml

    trained = _trained(written.model.trained) | {task: one.trained for task, one in written.adapters.items()}
    sections = []
    for name in dict.fromkeys([*configs, *trained]):
        made, lines = trained.get(name, {}), []
        if "steps" in made:
            lines.append(f"{made['steps']} steps on {made.get('batches', '?')} batches.")
        if sources := list(_sources(configs.get(name))):
            rows = [
                [escaped(source), *(escaped(text) for text in (settings.pop("class"), _listed(settings)))]
                for source, settings in sources
            ]
            lines.append(table(["data", "source", "settings"], rows))
        if "objective" in made:
            objective = yaml.safe_dump(
                _readable(without_machine_paths(made["objective"])), sort_keys=False, allow_unicode=True
            )
            lines.append("The objective:\n\n" + fenced(objective, "yaml"))
        if lines:
            title = f"### Adapter {escaped(name)}" if name else "### Model"
            sections.append("\n\n".join([title, *lines]))
    if files := sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{TRAINING_CONFIG}")):
        sections.append(f"All settings: {', '.join(map(code, files))}.")
    return "\n\n".join(sections) or "Not recorded."


def _trained(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of the training of a model, by the empty name, and of the adapters merged into it before."""
    if MERGED_TASK not in model:
        return {"": model}
    return _trained(model["model"]) | {_merged(model[MERGED_TASK]): model}


def _merged(task: str) -> str:
    return f"{task}, merged"


def _sources(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the training data in a config: a name, and the class with those settings that say what it is."""
    data = config.get("data") if isinstance(config, dict) else None
    data = data.get("init_args", data) if isinstance(data, dict) else None
    train = data.get("train") if isinstance(data, dict) else None
    yield from _sources_below("train", train)


def _sources_below(name: str, part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(part, dict):
        return
    if isinstance(part.get("class_path"), str):
        settings = part.get("init_args") or {}
        said = {key: settings[key] for key in _SOURCE_SETTINGS if settings.get(key) is not None}
        yield name, {"class": part["class_path"].rpartition(".")[2], **said}
        return
    for key, value in part.items():
        yield from _sources_below(name if key in ("source", "init_args") else str(key), value)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in settings.items())


def _readable(part: Any) -> Any:
    """Write a described part as its class's name over the arguments that were given."""
    if isinstance(part, list):
        return [_readable(value) for value in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("class_path"), str):
        return {part["class_path"].rpartition(".")[2]: _readable(part.get("init_args") or {})}
    return {key: _readable(value) for key, value in part.items() if value is not None}


# What it scored


def _scores(folder: Path) -> str:
    tables = []
    if (folder / RESULTS).is_file():
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        metrics = found["main_metrics"]
        header = ["stage", *(f"{task}, {metric}" for task, metric in metrics.items())]
        rows = [
            [stage, *(_number(by_task.get(task)) for task in metrics)] for stage, by_task in found["scores"].items()
        ]
        tables += [table([*map(escaped, header)], [[*map(escaped, row)] for row in rows])] if metrics else []
    if (folder / SCORES).is_file():
        tables.append(_scores_table(folder / SCORES))
    for task, adapter in adapters_in(folder).items():
        if (adapter / SCORES).is_file():
            tables.append(f"The adapter {escaped(task)}:\n\n{_scores_table(adapter / SCORES)}")
    return "\n\n".join(tables)


def _scores_table(file: Path) -> str:
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        [str(one[key]) for key in ("task", "dim", "precision")] + [metric, _number(value)]
        for one in found["scores"]
        for metric, value in one["values"].items()
        if metric == one.get("main_metric", metric)
    ]
    return table(["task", "dimensions", "precision", "measure", "score"], [[*map(escaped, row)] for row in rows])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
