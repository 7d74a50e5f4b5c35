import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import huggingface_hub
import pytest

from lightning_jv5.cli import main
from lightning_jv5.export import push
from lightning_jv5.export.push import files_to_push
from tests.tiny_models import save_tiny_sentence_transformer

REAL = huggingface_hub.HfApi


class RecordingApi:
    """In place of the hub's client: keeps what it is asked, after its real signature has let it pass."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]]
    error: ClassVar[Exception | None] = None

    def create_repo(self, *arguments: Any, **named: Any) -> None:
        self._record("create_repo", arguments, named)

    def create_commit(self, *arguments: Any, **named: Any) -> Any:
        self._record("create_commit", arguments, named)
        return SimpleNamespace(commit_url="https://huggingface.co/team/model/commit/abc")

    def _record(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        bound = inspect.signature(getattr(REAL, name)).bind(self, *arguments, **named).arguments
        self.calls.append((name, {key: value for key, value in bound.items() if key != "self"}))
        if self.error is not None:
            raise self.error


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[RecordingApi]:
    class Api(RecordingApi):
        calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return Api


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "embedder"
    save_tiny_sentence_transformer(folder, dense=24)
    (folder / "README.md").write_text("# A model\n")
    return folder


def test_a_folder_goes_up_as_one_commit_to_a_repository_that_may_be_there(
    model: Path, api: type[RecordingApi], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", "--folder", str(model), "--repo", "team/model"])
    [(first, created), (second, uploaded)] = api.calls
    assert (first, created) == (
        "create_repo",
        {"repo_id": "team/model", "private": None, "repo_type": "model", "exist_ok": True},
    )
    assert second == "create_commit"
    assert (uploaded["repo_id"], uploaded["repo_type"]) == ("team/model", "model")
    for operation in uploaded["operations"]:
        with operation.as_file() as file:
            assert file.read() == (model / operation.path_in_repo).read_bytes()
    assert uploaded["commit_message"] == "Upload embedder with lightning_jv5"
    said = capsys.readouterr().out
    assert "https://huggingface.co/team/model/commit/abc: 11 files" in said
    assert re.search(r"model\.safetensors +0\.\d{3} MB", said)


def test_private_and_message_are_passed_on(model: Path, api: type[RecordingApi]) -> None:
    push(str(model), "team/model", private=True, message="Second try")
    assert api.calls[0][1]["private"] is True
    assert api.calls[1][1]["commit_message"] == "Second try"


def test_a_dry_run_lists_files_and_asks_nobody(
    model: Path, api: type[RecordingApi], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    main(["push", "--folder", str(model), "--repo", "team/model", "--dry_run"])
    said = capsys.readouterr().out
    assert not api.calls
    assert "team/model: 11 files" in said
    assert "would be uploaded" in said
    assert "2_Dense/model.safetensors" in said


def test_what_is_listed_is_what_is_uploaded_and_hidden_files_stay(model: Path, api: type[RecordingApi]) -> None:
    there = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    for path in (".env", ".git/config", "1_Pooling/.DS_Store", ".cache/huggingface/lock.json"):
        (model / path).parent.mkdir(exist_ok=True, parents=True)
        (model / path).write_text("secret")
    listed = push(str(model), "team/model").files
    assert {operation.path_in_repo for operation in api.calls[1][1]["operations"]} == set(listed) == there
    assert listed["README.md"] == len("# A model\n")
    assert "1_Pooling/config.json" in listed


def test_the_card_that_goes_up_loads_the_model_from_where_it_goes(model: Path, api: type[RecordingApi]) -> None:
    before = '---\nmodel_name: embedder\n---\n\n# embedder\n\n```python\nmodel = SentenceTransformer("embedder")\n```\n'
    (model / "README.md").write_text(before)
    size = push(str(model), "team/model").files["README.md"]
    [card] = [one for one in api.calls[1][1]["operations"] if one.path_in_repo == "README.md"]
    with card.as_file() as file:
        uploaded = file.read()
    assert uploaded.decode() == before.replace("embedder", "team/model")
    assert len(uploaded) == size
    assert (model / "README.md").read_text() == before


@pytest.mark.parametrize(
    "files", [["adapter_config.json", "adapter_model.safetensors"], ["model.onnx", "tokenizer.json"]], ids="+".join
)
def test_adapters_and_graphs_are_models_too(tmp_path: Path, files: list[str]) -> None:
    for name in [*files, "README.md"]:
        (tmp_path / name).write_text("{}")
    assert sorted(files_to_push(str(tmp_path))) == sorted([*files, "README.md"])
    (tmp_path / files[0]).unlink()
    with pytest.raises(ValueError, match="which has neither a model"):
        files_to_push(str(tmp_path))


@pytest.mark.parametrize("without", ["model.safetensors", "config.json"])
def test_a_folder_without_a_model_is_refused(model: Path, without: str) -> None:
    (model / without).unlink()  # a Dense layer has files of these names, too
    with pytest.raises(ValueError, match=r"which has neither a model \(config.json, \*.safetensors\), nor an adapter"):
        files_to_push(str(model))


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_folder_without_a_card_is_refused(model: Path, content: str | None) -> None:
    (model / "README.md").unlink()
    if content is not None:
        (model / "README.md").write_text(content)
    with pytest.raises(ValueError, match=r"which has no model card. Write README.md in it"):
        files_to_push(str(model))


@pytest.mark.parametrize(
    "name",
    [
        "last.ckpt",
        "checkpoints/epoch=0.ckpt",
        "optimizer.pt",
        "pytorch_model.bin",
        "optimizer_0/state.safetensors",
        "trainer_state.json",
        "events.out.tfevents.1",
        "optim.pkl",
        "state.pickle",
        "scaler.joblib",
        "run.log",
    ],
)
def test_checkpoints_optimizer_states_logs_and_pickles_are_refused(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("{}")
    with pytest.raises(ValueError, match=f"with {re.escape(name)}: checkpoints, optimizer states"):
        files_to_push(str(model))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("lightning_jv5.json", {"base": "/home/ada/models/student"}, "base is '/home/ada/models/student'"),
        ("lightning_jv5.json", {"trained": {"paths": ["a.jsonl", "~/b.jsonl"]}}, "trained.paths.1 is '~/b.jsonl'"),
        ("adapters/x/adapter_config.json", {"base": r"C:\models\student"}, "base is"),
        ("training_config.yaml", {"from": "file://server/student"}, "from is 'file://server/student'"),
        ("training_config.yaml", {"from": "../../home/ada/student"}, "from is '../../home/ada/student'"),
        ("notes.json", {"said": f"trained in {Path.home()}/runs"}, "said is 'trained in"),
    ],
)
def test_paths_of_this_machine_are_refused(model: Path, name: str, content: dict[str, Any], said: str) -> None:
    (model / name).parent.mkdir(exist_ok=True, parents=True)
    (model / name).write_text(json.dumps(content))  # JSON is YAML, too
    with pytest.raises(ValueError, match=rf"{re.escape(name)}' names a path of this machine.*: {re.escape(said)}"):
        files_to_push(str(model))


def test_hub_ids_relative_paths_tokens_and_prompts_may_stay(model: Path) -> None:
    content = {
        "base": "Qwen/Qwen3-Embedding-0.6B",
        "file": "data/pairs.jsonl",
        "prompt": "and/or: ",
        "url": "https://x/y",
        "command": "/search: ",
        "own": "../..",
    }
    (model / "lightning_jv5.json").write_text(json.dumps(content))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["/usr/lib"] = 99
    tokenizer["added"] = ["/usr/lib"]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "lightning_jv5.json" in files_to_push(str(model))


def test_a_file_that_cannot_be_read_is_refused(model: Path) -> None:
    (model / "lightning_jv5.json").write_text('{"base": ')
    with pytest.raises(ValueError, match=r"Cannot read .*lightning_jv5.json"):
        files_to_push(str(model))


@pytest.mark.parametrize("repo", ["model", "a/b/c", "https://huggingface.co/team/model", "team/", "../model"])
def test_a_repo_is_owner_and_name(model: Path, repo: str) -> None:
    with pytest.raises(ValueError, match=r"need owner/name"):
        push(str(model), repo, dry_run=True)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere', but there is no such folder"):
        push(str(tmp_path / "nowhere"), "team/model")


def test_a_missing_token_is_an_error_that_says_how_to_get_one(
    model: Path, api: type[RecordingApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match=r"There is no token for the hub.*hf auth login \(or set HF_TOKEN\)"):
        push(str(model), "team/model")
    assert not api.calls


def test_a_hub_that_refuses_is_an_error_that_asks_for_the_right_to_write(model: Path, api: type[RecordingApi]) -> None:
    refused = huggingface_hub.errors.HfHubHTTPError.__new__(huggingface_hub.errors.HfHubHTTPError)
    Exception.__init__(refused, "403 Forbidden")
    api.error = refused
    with pytest.raises(ValueError, match=r"The hub refuses the upload to 'team/model': .*the right to write there"):
        push(str(model), "team/model")


def test_a_hub_out_of_reach_is_an_error_that_says_so(model: Path, api: type[RecordingApi]) -> None:
    unreachable = huggingface_hub.errors.HTTPError("no route to host")  # the class of its HTTP client
    for error in (huggingface_hub.errors.OfflineModeIsEnabled("offline mode"), ConnectionError("reset"), unreachable):
        api.error = error
        with pytest.raises(ValueError, match=rf"Cannot reach the hub to upload to 'team/model': {error} Check"):
            push(str(model), "team/model")
