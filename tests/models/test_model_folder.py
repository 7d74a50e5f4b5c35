import json
from pathlib import Path

import pytest

from lightning_jv5.models.lora import ADAPTER_CONFIG
from lightning_jv5.models.model_folder import DESCRIPTION, ModelFolder, adapters_in, read_model_folder

DESCRIBED = ModelFolder(
    kind="adapter",
    prompts={"query": "q: ", "document": ""},
    max_length={"query": 5, "document": 9},
    dim=32,
    task="retrieval",
    base="model",
    base_fingerprint="abc",
    theta=1e4,
    inference_theta=1e6,
    trained={"steps": 3, "of": ["a", None]},
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for described in (DESCRIBED, ModelFolder("model", {}, {}, 8)):
        (tmp_path / DESCRIPTION).write_text(json.dumps(described.to_plain()))
        assert read_model_folder(tmp_path) == described
    assert json.loads((tmp_path / DESCRIPTION).read_text())["format"] == 1


def test_where_nothing_is_described_there_is_nothing(tmp_path: Path) -> None:
    assert read_model_folder(tmp_path) is None
    assert read_model_folder("organisation/name") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"lightning_jv5\.json' has format 2; this version of lightning_jv5 reads 1. Read it with"),
        ({"colour": "red"}, r"Cannot read .*lightning_jv5\.json': .*colour.*Export the model again"),
        ({"prompts": ...}, r"Cannot read .*lightning_jv5\.json': .*prompts.*Export the model again"),
    ],
)
def test_another_format_or_fields_that_are_not_ours_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    plain = {key: value for key, value in {**DESCRIBED.to_plain(), **change}.items() if value is not ...}
    (tmp_path / DESCRIPTION).write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=message):
        read_model_folder(tmp_path)


@pytest.mark.parametrize("text", ["", '{"format": 1, "kin', "[1]", "3"])
def test_a_file_that_is_cut_off_or_no_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / DESCRIPTION).write_text(text)
    with pytest.raises(ValueError, match=r"Cannot read .*lightning_jv5\.json': .*Export the model again"):
        read_model_folder(tmp_path)


def test_adapters_are_the_folders_with_an_adapters_config(tmp_path: Path) -> None:
    assert adapters_in(tmp_path) == {}
    for name in ("sts", "clustering"):
        (tmp_path / "adapters" / name).mkdir(parents=True)
        (tmp_path / "adapters" / name / ADAPTER_CONFIG).write_text("{}")
    (tmp_path / "adapters" / "empty").mkdir()
    assert list(adapters_in(tmp_path)) == ["clustering", "sts"]
    assert adapters_in(tmp_path)["sts"] == tmp_path / "adapters" / "sts"
