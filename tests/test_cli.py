import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_jv5 import EmbeddingModule, __version__
from lightning_jv5.cli import main
from lightning_jv5.models import LoRA, StudentWithoutAdapter
from tests.tiny_configs import write_config
from tests.tiny_models import save_tiny_backbone


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def edited(folder: Path, name: str, old: str, new: str) -> str:
    text = (folder / "tiny.yaml").read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    return name


def overlay(folder: Path, name: str, config: dict[str, Any]) -> str:
    (folder / name).write_text(yaml.safe_dump(config))
    return name


# Answered before torch is imported

WITHOUT_TORCH = """
import sys
from lightning_jv5.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "lightning", "transformers", "datasets"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "small.yaml"),
        (["--version"], 0, __version__),
        ([], 2, "usage"),
        (["fitt"], 2, "Did you mean fit?"),
        (["fit", "--config", "smal.yaml"], 2, "Did you mean small.yaml?"),
        (["fit", "--config"], 2, "needs the name of a config"),
    ],
)
def test_simple_questions_are_answered_without_importing_torch(words: list[str], code: int, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_config_in_the_current_folder_wins_over_a_packaged_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "small.yaml").write_text("trainer: {max_stps: 1}")
    assert "error: small.yaml, line 1: no key max_stps" in error_of(capsys, "fit", "--config=small.yaml")


# What the config may look like


def printed_config(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_bare_keys_init_args_and_the_class_path_of_a_subclass_all_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((folder / "tiny.yaml").read_text())
    bare = printed_config(capsys, "--config=tiny.yaml")
    assert bare["model"]["class_path"] == "lightning_jv5.EmbeddingModule"
    assert bare["data"]["class_path"] == "lightning_jv5.EmbeddingDataModule"
    overlay(folder, "init_args.yaml", config | {key: {"init_args": config[key]} for key in ("model", "data")})
    assert printed_config(capsys, "--config=init_args.yaml") == bare
    classes = {"model": "tests.tiny_configs.DownstreamModule", "data": "tests.tiny_configs.DownstreamData"}
    named = {key: {"class_path": path, "init_args": config[key]} for key, path in classes.items()}
    named["model"]["init_args"]["extra"] = 7
    overlay(folder, "classes.yaml", config | named)
    subclass = printed_config(capsys, "--config=classes.yaml")
    assert subclass["model"]["class_path"] == classes["model"]
    assert subclass["model"]["init_args"]["extra"] == 7
    assert subclass["data"]["class_path"] == classes["data"]
    main(["fit", "--config=classes.yaml", "--trainer.fast_dev_run=true"])


def test_a_config_without_model_and_data_gets_the_default_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay(folder, "empty.yaml", {"trainer": {"max_steps": 1}})
    printed = printed_config(capsys, "--config=empty.yaml")
    assert printed["model"]["class_path"] == "lightning_jv5.EmbeddingModule"
    assert printed["data"]["class_path"] == "lightning_jv5.EmbeddingDataModule"


def test_configs_merge_from_left_to_right_and_overlays_append_callbacks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    throughput = {"class_path": "lightning_jv5.callbacks.Throughput"}
    examples = {"class_path": "lightning_jv5.callbacks.RankedExamples"}
    overlay(folder, "first.yaml", {"trainer": {"max_steps": 5, "callbacks": [throughput]}})
    overlay(folder, "second.yaml", {"trainer": {"max_steps": 6, "callbacks+": [examples]}})
    printed = printed_config(capsys, "--config=tiny.yaml", "--config=first.yaml", "--config=second.yaml")
    assert printed["trainer"]["max_steps"] == 6
    names = [callback["class_path"].rpartition(".")[2] for callback in printed["trainer"]["callbacks"]]
    assert names == ["Throughput", "RankedExamples"]


# Errors: one line, exit 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  student:", "  studnt:", "no key studnt in model; did you mean student?"),
        ("pooling: mean", "poling: mean", "no key poling in model.student; did you mean pooling?"),
        ("trainer:", "trainr:", "no key trainr; did you mean trainer?"),
        ("max_epochs: 1", "max_epoch: 1", "no key max_epoch in trainer; did you mean max_epochs?"),
        ("max_epochs: 1", "max_epochs: one", "trainer.max_epochs: expected int or null, got 'one'"),
        ("batch_size: 2", "batch_size: two", "data.batch_size: expected int, got 'two'"),
        ("paths:", "pahts:", "no key pahts in data.train; did you mean paths?"),
        (".EmbeddingDistillation", ".EmbedingDistillation", "Did you mean EmbeddingDistillation?"),
        ("torch.optim.AdamW", "torch.optm.AdamW", "torch has no optm. Did you mean optim?"),
        ("seed_everything: 0", "seed_everything: [", "this is not YAML"),
    ],
)
def test_a_wrong_config_is_one_line_with_the_file_the_key_and_the_nearest_name(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    edited(folder, "wrong.yaml", old, new)
    line = error_of(capsys, "fit", "--config=wrong.yaml")
    assert said in line
    assert line.startswith("error: wrong.yaml, line ")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--trainer.max_stps=3", "--trainer.max_stps: no key max_stps in trainer; did you mean max_steps?"),
        ("--model.studnt.path=x", "no key studnt in model; did you mean student?"),
        ("--trainer.max_steps=abc", "--trainer.max_steps: expected int, got 'abc'"),
        ("--model.objective.terms.distill.weight=x", "expected float or a class_path, got 'x'"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    assert said in error_of(capsys, "fit", "--config=tiny.yaml", word)


PICKY = "tests.tiny_configs.PickyLoss"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.lr=-1"], "Got lr -1.0; a learning rate is positive."),
        (["--model.student.layers=[9]"], "the model has 2 layers"),
        (
            [f"--model.objective.terms.distill.loss={PICKY}", "--model.objective.terms.distill.loss.margin=-1"],
            "Got margin",
        ),
        (["--trainer.callbacks=lightning_jv5.callbacks.Throughput", "--trainer.callbacks.window=0"], "Got window 0"),
    ],
    ids=["module", "student", "loss", "callback"],
)
def test_a_constructors_own_error_is_shown_rather_than_jsonargparses(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    line = error_of(capsys, "fit", "--config=tiny.yaml", *words)
    assert said in line
    assert "Union" not in line


def test_an_error_that_nobody_foresaw_keeps_its_traceback(folder: Path) -> None:
    words = [f"--model.objective.terms.distill.loss={PICKY}", "--model.objective.terms.distill.loss.margin=101"]
    with pytest.raises(Exception, match="nobody foresaw this"):
        main(["fit", "--config=tiny.yaml", *words])


def test_a_missing_data_file_is_one_line_that_names_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(folder, "wrong.yaml", "pairs.jsonl", "pears.jsonl")
    line = error_of(capsys, "fit", "--config=wrong.yaml")
    assert "pears.jsonl" in line
    assert "pairs.jsonl" in line


# A run and its folder


def test_a_run_leaves_its_config_checkpoints_and_events_in_one_folder(folder: Path) -> None:
    main(["fit", "--config=tiny.yaml"])
    run = folder / "runs" / "tiny" / "version_0"
    assert {"config.yaml", "checkpoints"} <= {path.name for path in run.iterdir()}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(run.glob("events.out.tfevents.*"))
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 1
    assert saved["name"] == "tiny"
    main(["fit", f"--config={run / 'config.yaml'}", "--trainer.max_steps=1"])  # what was saved runs again
    assert (folder / "runs" / "tiny" / "version_1" / "checkpoints" / "last.ckpt").is_file()


def test_fast_dev_run_leaves_nothing(folder: Path) -> None:
    main(["fit", "--config=tiny.yaml", "--trainer.fast_dev_run=true"])
    assert not (folder / "runs").exists()


RUN_CLI = [sys.executable, "-m", "lightning_jv5", "fit", "--config=tiny.yaml"]


def test_two_processes_continue_one_run_in_one_folder_as_one_curve(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for words in (["--trainer.max_epochs=2"], ["--trainer.max_epochs=4", "--ckpt_path=last"]):
        subprocess.run([*RUN_CLI, *words], check=True, capture_output=True)
    assert [path.name for path in (folder / "runs" / "tiny").iterdir()] == ["version_0"]
    run = folder / "runs" / "tiny" / "version_0"
    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(16))  # 4 epochs of 4 steps
    assert (run / "config.0.yaml").is_file()  # the first process's, as the second had another max_epochs


def test_last_refuses_where_there_is_nothing_and_last_or_new_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no complete checkpoint in runs/tiny" in error_of(capsys, "fit", "--config=tiny.yaml", "--ckpt_path=last")
    main(["fit", "--config=tiny.yaml", "--ckpt_path=last-or-new"])
    assert (folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt").is_file()


def test_validate_scores_the_newest_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config=tiny.yaml"])
    capsys.readouterr()
    main(["validate", "--config=tiny.yaml", "--ckpt_path=last"])
    assert "\npairs  ndcg@10" in capsys.readouterr().out
    assert [path.name for path in (folder / "runs" / "tiny").iterdir()] == ["version_0"]


def test_predict_writes_into_the_run_folder(folder: Path) -> None:
    from lightning_jv5.callbacks import read_embeddings

    writer = {"class_path": "lightning_jv5.callbacks.EmbeddingWriter", "init_args": {"folder": "{run}/embeddings"}}
    data = yaml.safe_load((folder / "tiny.yaml").read_text())["data"]
    overlay(folder, "predict.yaml", {"data": {"predict": data["train"]}, "trainer": {"callbacks": [writer]}})
    main(["predict", "--config=tiny.yaml", "--config=predict.yaml"])
    assert read_embeddings(folder / "runs" / "tiny" / "version_0" / "embeddings").shape == (8, 32)


LOGGERS = {
    "none": False,
    "csv": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "{run}"}},
    "wandb": {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"save_dir": "{run}", "project": "tests", "offline": True},
    },
}
LEAVES = {"none": "summary.json", "csv": "metrics.csv", "wandb": "*.wandb"}


@pytest.mark.parametrize("name", LOGGERS)
def test_other_loggers_leave_the_same_run_folder(folder: Path, name: str) -> None:
    callbacks = [
        {"class_path": "lightning_jv5.callbacks.MatryoshkaEvaluation", "init_args": {"dims": [32, 8]}},
        {"class_path": "lightning_jv5.callbacks.RankedExamples"},
        {"class_path": "lightning_jv5.callbacks.TeacherStudentTable", "init_args": {"dims": [32, 8]}},
    ]
    overlay(folder, "logger.yaml", {"trainer": {"logger": LOGGERS[name], "callbacks": callbacks}})
    # In a process of its own: W&B starts a service that outlives a test
    subprocess.run([*RUN_CLI, "--config=logger.yaml"], check=True, capture_output=True)
    run = folder / "runs" / "tiny" / "version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((run / "figures").glob("val.matryoshka.*.png"))
    [data] = (run / "figures").glob("val.matryoshka.*.json")
    assert json.loads(data.read_text())
    assert list((run / "texts").glob("val.pairs.examples.*.json"))
    assert {row["model"] for row in json.loads((run / "summary.json").read_text())["rows"]} == {
        "teacher",
        "student_before",
        "student_after",
    }
    assert list(run.rglob(LEAVES[name]))


def test_a_checkpoint_of_the_command_line_loads_in_python(folder: Path) -> None:
    from lightning_jv5 import EmbeddingModule

    main(["fit", "--config=tiny.yaml"])
    module = EmbeddingModule.load_from_checkpoint(folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt")
    assert module.encode(["one text"], role="query").shape == (1, 32)


def test_every_loss_can_be_said_in_yaml_and_comes_back_from_its_checkpoint(folder: Path) -> None:
    def loss(name: str, **settings: Any) -> dict[str, Any]:
        return {"class_path": f"lightning_jv5.losses.{name}", "init_args": settings}

    ramp = loss("LinearRamp", start=0.0, end=1.0, steps=2)
    terms = {
        "contrast": {
            "weight": ramp,
            "loss": loss(
                "Matryoshka",
                dims=[32, 16, 8],
                dims_per_step=2,
                loss=loss("InfoNCE", temperature=loss("LearnableTemperature", initial=0.05), direction="both"),
            ),
        },
        "fixed": {"loss": loss("InfoNCE", temperature=0.05)},
        "cooling": {"loss": loss("InfoNCE", temperature=loss("CosineRamp", start=0.1, end=0.05, steps=2))},
        "spread": {"weight": 0.5, "loss": loss("SpreadOut")},
        "scores": {"loss": loss("ScoreDistillation", divergence="kl")},
        "relations": {"loss": loss("RelationalDistillation", roles=["query", "document"])},
        "bits": {"loss": loss("BinaryConsistency")},
        "sts": {"loss": loss("ByScore", scored=loss("CoSENT"), unscored=loss("EmbeddingDistillation"))},
    }
    overlay(folder, "losses.yaml", {"model": {"objective": {"terms": terms}, "gather": True}})
    main(["fit", "--config=tiny.yaml", "--config=losses.yaml", "--trainer.max_steps=3"])

    from lightning_jv5 import EmbeddingModule

    checkpoint = folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    module = EmbeddingModule.load_from_checkpoint(checkpoint)
    matryoshka = module.objective.terms["contrast"]
    assert set(module.objective.terms) == set(terms)  # a later config replaces the terms as a whole
    assert (matryoshka.dims_per_step, matryoshka.loss.options["direction"]) == (2, "both")
    assert module.objective.weights["contrast"].at(1) == 0.5
    [saved] = [name for name in module.state_dict() if name.endswith("log_temperature")]
    import torch

    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert module.state_dict()[saved] == weights[saved] != torch.tensor(0.05).log()  # it has learned


# Data sets


SETS = """
data:
  train:
    nli:
      source: {class_path: lightning_jv5.data.LocalFiles, init_args: {paths: pairs.jsonl}}
      SETTING
    sts:
      source: {class_path: lightning_jv5.data.LocalFiles, init_args: {paths: pairs.jsonl}}
"""


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("batch_sise: 4", "sets.yaml, line 6: no key batch_sise in data.train.nli; did you mean batch_size?"),
        ("batch_size: 0", "Got batch_size 0 of a data set; need at least 1"),
        ("tuples: {negatives: 0}", "Got 0 negatives; need at least 1"),
        ("roles: {query: qury}", "Got roles 'qury'; need one of query, document"),
        ("batch_size: 9", "Got a batch size of 9 for the data set 'nli' of 8 rows; need between 1 and 8"),
        ("prompts: {docment: 'a '}", "Got prompts for the column 'docment' of the data set 'nli'"),
        (
            "batch_size: 4\n    nli: {batch_size: 2}",
            "sets.yaml, line 7: the key nli is there already, in line 4. Give one of them another name",
        ),
    ],
)
def test_a_wrong_data_set_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    (folder / "sets.yaml").write_text(SETS.replace("SETTING", setting))
    assert said in error_of(capsys, "fit", "--config=tiny.yaml", "--config=sets.yaml")


def test_data_sets_take_the_place_of_a_single_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sets.yaml").write_text(SETS.replace("SETTING", "weight: 2\n      tuples: {negatives: 3}"))
    train = printed_config(capsys, "--config=tiny.yaml", "--config=sets.yaml")["data"]["init_args"]["train"]
    assert list(train) == ["nli", "sts"]
    assert train["nli"]["init_args"]["tuples"]["init_args"]["negatives"] == 3


# Adapters


@pytest.fixture
def adapters(folder: Path) -> Path:
    """A config of an adapter that its own base teaches, on a model in a folder."""
    model = save_tiny_backbone(folder / "model")
    config = yaml.safe_load((folder / "tiny.yaml").read_text())
    config["model"] |= {
        "student": {"path": model, "pooling": "mean", "adapter": {"name": "classification", "rank": 2, "alpha": 4}},
        "teacher": {"class_path": "lightning_jv5.models.StudentWithoutAdapter"},
        "objective": {"class_path": "lightning_jv5.losses.RelationalDistillation"},
    }
    overlay(folder, "adapter.yaml", config)
    return folder


def test_an_adapter_with_its_base_as_teacher_trains_goes_on_and_is_validated_from_yaml(adapters: Path) -> None:
    main(["fit", "--config=adapter.yaml"])
    saved = adapters / "runs" / "adapter" / "version_0" / "checkpoints" / "last.ckpt"
    module = EmbeddingModule.load_from_checkpoint(saved)
    assert module.student.adapter == LoRA("classification", rank=2, alpha=4.0)
    assert isinstance(module.teacher, StudentWithoutAdapter)
    checkpoint = torch.load(saved, weights_only=True)
    assert checkpoint["state_dict"]
    assert all("lora_" in name for name in checkpoint["state_dict"])
    main(["validate", "--config=adapter.yaml", f"--ckpt_path={saved}"])
    main(["fit", "--config=adapter.yaml", "--trainer.max_epochs=2", "--ckpt_path=last"])
    steps = torch.load(saved, weights_only=True)["global_step"]
    assert steps == 2 * checkpoint["global_step"] > 0


def test_an_adapter_is_named_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.student.adapter.name=retrieval", "--model.student.adapter.target_modules=[query,key]"]
    printed = printed_config(capsys, "--config=tiny.yaml", *words)
    adapter = printed["model"]["init_args"]["student"]["init_args"]["adapter"]
    assert adapter["init_args"] == {
        "name": "retrieval",
        "rank": 32,
        "alpha": 32.0,
        "dropout": 0.1,
        "target_modules": ["query", "key"],
        "init": "gaussian",
    }
    main(["fit", "--config=tiny.yaml", *words, "--trainer.fast_dev_run=true"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.student.adapter.rank=0"], "Got rank 0 of the adapter 'classification'; need at least 1"),
        (["--model.student.adapter.rank=two"], "model.student.adapter.rank: expected int, got 'two'"),
        (["--model.student.adapter.rnk=2"], "no key rnk in model.student.adapter; did you mean rank?"),
        (["--model.student.adapter.name=a.b"], "Got an adapter named 'a.b'; need letters"),
        (["--model.student.adapter.init=zeros"], "zeros"),
        (["--model.student.adapter.target_modules=[q_proj]"], "They are called dense, key, query, value"),
        (["--model.student.adapter.target_modules=query"], "need 'all-linear' or a list of names"),
        (["--model.student.task=retrieval"], "Got adapter 'classification', to be trained, and task 'retrieval'"),
        (['--model.student={"adapter": null}'], "Got the teacher StudentWithoutAdapter for a student without an"),
        (["--model.student.theta=1e6"], "which has no rotary position embeddings"),
        (["--data.teacher_vectors=precompute"], "whose vectors can be named and kept"),
        (["--model.student.max_length=65"], "the model has only 64 positions"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_one_line(
    adapters: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    line = error_of(capsys, "fit", "--config=adapter.yaml", *words)
    assert said in line
    assert "Union" not in line


# What a stage starts from

ENDED = """
import os, signal
from lightning.pytorch import Callback

class EndAt(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_run_that_is_told_to_end_is_no_finished_one(folder: Path) -> None:
    (folder / "ended.py").write_text(ENDED)
    overlay(folder, "end.yaml", {"trainer": {"max_steps": 50, "callbacks": [{"class_path": "ended.EndAt"}]}})
    command = [sys.executable, "-m", "lightning_jv5", "fit", "--config=tiny.yaml", "--config=end.yaml"]
    path = f"{Path(__file__).parent.parent}:{folder}"
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert ended.returncode == 143, ended.stderr
    assert "This run:" not in ended.stdout
    [saved] = Path("runs").glob("tiny/version_0/checkpoints/last.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] < 50


def test_from_stands_for_the_folder_wherever_settings_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny_backbone(folder / "start", "bert")
    student = {"path": "{from}", "pooling": "mean", "max_length": 16}
    tiny = yaml.safe_load((folder / "tiny.yaml").read_text())
    tiny["model"]["student"] = student
    overlay(folder, "next.yaml", tiny)
    main(["fit", "--config=next.yaml", "--from=start", "--trainer.max_steps=1"])
    [saved] = Path("runs").glob("next/version_0/checkpoints/last.ckpt")
    described = torch.load(saved, weights_only=True)["lightning_jv5"]["arguments"]["student"]
    assert described["init_args"]["path"] == str(folder / "start")  # absolute, so that it is found from anywhere
    written = yaml.safe_load(Path("runs/next/version_0/config.yaml").read_text())
    assert written["from"] == "start"
    student = written["model"]["init_args"]["student"]
    assert student["init_args"]["path"] == "{from}"  # to start other runs with

    message = error_of(capsys, "fit", "--config=next.yaml")
    assert "Got settings with {from} and nothing to start from" in message
    message = error_of(capsys, "fit", "--config=next.yaml", "--from=./nowhere")
    assert "Got path './nowhere', but there is no such folder" in message
