import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from lightning_jv5 import Embedder
from lightning_jv5.data.cache import write_json
from lightning_jv5.data.packed_codes import pack_signs
from lightning_jv5.export import assemble, convert, export
from lightning_jv5.export.adapters_layout import Written
from lightning_jv5.export.model_card import read_written, write_model_card
from tests.export import foreign_programs
from tests.export.assembled import FAMILIES
from tests.export.conftest import Converted, Stages, run_without_lightning_jv5
from tests.export.test_convert import TASKS

ROOT = Path(__file__).parent.parent.parent
LAYOUTS = ["stage", "assembled", "merged", "switching", "jina_v5"]
WAYS = ("lightning_jv5", "PeftModel", "load_file", "SentenceTransformer")  # what tells each program from the others
RESULTS = {
    "main_metrics": {"pairs": "ndcg@10", "a|b": "map"},
    "scores": {"student": {"pairs": 0.5, "a|b": 0.25}, "retrieval": {"pairs": 0.75, "a|b": 0.5}},
}


@pytest.fixture(scope="module")
def cards(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each layout, with scores, under a name that Markdown would format."""
    home = tmp_path_factory.mktemp("cards")
    folders = {layout: home / f"a_{layout}_model" for layout in LAYOUTS}
    assemble([stages.adapter(task) for task in TASKS], str(folders["assembled"]))
    write_json(folders["assembled"] / "results.json", RESULTS)
    source = str(folders["assembled"])
    convert(source, str(folders["merged"]), "merged", task="retrieval", license="apache-2.0", language=["en", "de"])
    convert(source, str(folders["switching"]), "switching", base_model="ada/base")
    convert(source, str(folders["jina_v5"]), "jina_v5")
    shutil.copytree(stages.model, folders["stage"])
    written = read_written(folders["stage"])
    matryoshka = {"class_path": "lightning_jv5.losses.Matryoshka", "init_args": {"dims": [8, 16, 32]}}
    trained = {**written.model.trained, "objective": matryoshka}
    model = replace(written.model, trained=trained)
    write_model_card(folders["stage"], "stage", Written(model, {}, model.prompts), name=folders["stage"].name)
    return folders


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", maxsplit=2)
    return yaml.safe_load(front), body


def programs(folder: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", read_card(folder)[1], re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def computed(cards: dict[str, Path], converted: Converted) -> dict[tuple[str, str], dict[str, Tensor]]:
    """What each program computes, by folder and way to load it, where the folder lies in the working folder.

    The folders: one of each layout with trained weights, and those of each family, whose tasks have their own prompts.
    """
    folders = {f"trained/{layout}": folder for layout, folder in cards.items()}
    for family in FAMILIES:
        with_cards = (card.parent for card in (converted.folder / family).glob("*/README.md"))
        folders |= {f"{family}/{folder.name}": folder for folder in with_cards}
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    theirs: dict[str, tuple[str, str]] = {}
    for name, folder in folders.items():
        for program in programs(folder):
            way = next(way for way in WAYS if way in program)
            assert f"{name}/{way}" not in theirs
            if way == "lightning_jv5":
                with contextlib.chdir(folder.parent):
                    found[name, way] = foreign_programs.run(program)
            else:
                theirs[f"{name}/{way}"] = str(folder.parent), program
    home = cards["stage"].parent
    (home / "programs.json").write_text(json.dumps(theirs))
    words = [str(Path(foreign_programs.__file__)), str(home / "programs.json"), str(home / "found.safetensors")]
    run_without_lightning_jv5(words, home)
    for key, tensor in load_file(home / "found.safetensors").items():
        family, layout, way, kept = key.split("/")
        found.setdefault((f"{family}/{layout}", way), {})[kept] = tensor
    return found


def test_every_way_to_load_a_layout_has_a_program(computed: dict[tuple[str, str], dict[str, Tensor]]) -> None:
    plain, adapters = {"SentenceTransformer", "lightning_jv5"}, {"SentenceTransformer", "PeftModel", "lightning_jv5"}
    layouts = {"assembled": adapters, "switching": adapters, "jina_v5": {"load_file"}}
    expected = {"trained/stage": plain, "trained/merged": plain}
    expected |= {f"{family}/{layout}": ways for family in ("trained", *FAMILIES) for layout, ways in layouts.items()}
    expected |= {f"{family}/merged-{task}": plain for family in FAMILIES for task in TASKS}
    del expected["bert/jina_v5"], expected["modernbert/jina_v5"]  # which the layout does not have
    assert computed.keys() == {(name, way) for name, ways in expected.items() for way in ways}


def test_the_programs_of_a_card_compute_our_embeddings(
    computed: dict[tuple[str, str], dict[str, Tensor]], cards: dict[str, Path], converted: Converted
) -> None:
    queries, documents = ["where is the cat?"], ["The cat sat on the mat.", "A dog runs fast."]
    for (name, way), found in computed.items():
        family, layout = name.split("/")
        source = cards["assembled"] if family == "trained" else converted.layout(family, "assembled")
        task = {"stage": None, "merged": "retrieval", "merged-retrieval": "retrieval"}.get(layout, "clustering")
        embedder = Embedder(str(source), task=None if (layout, way) == ("assembled", "SentenceTransformer") else task)
        expected = {"embeddings": embedder.encode(documents, "document")}
        if way not in ("PeftModel", "load_file"):
            expected["query_embeddings"] = embedder.encode(queries, "query")
        if way == "SentenceTransformer" and layout != "switching":
            expected["bits"] = pack_signs(expected["embeddings"])
        if (name, way) == ("trained/stage", "SentenceTransformer"):
            expected["short"] = embedder.encode(documents, "document", truncate_dim=8)
        assert found.keys() == expected.keys(), (name, way)
        for kept, tensor in expected.items():
            torch.testing.assert_close(found[kept], tensor, rtol=0, atol=1e-5, msg=f"{name} by {way}: {kept}")


def test_the_programs_of_a_card_run_by_the_models_name_on_the_hub(converted: Converted, tmp_path: Path) -> None:
    model = str(converted.layout("eurobert", "assembled"))
    convert(model, str(tmp_path / "x"), "switching", name="ada/tiny")  # it is in the hub's cache there
    found = programs(tmp_path / "x")
    assert len(found) == 3
    assert all('"ada/tiny"' in program for program in found)
    # Offline, PEFT 0.21 looks for adapters/<task>/adapters/<task>; online it does not
    here = [program for program in found if "PeftModel" not in program]
    assert len(here) == 2
    (tmp_path / "programs.json").write_text(json.dumps(here))
    shown = "import json\nfor program in json.load(open('programs.json')):\n    exec(program, {})\nprint('all of them')"
    environment = {**os.environ, "HF_HOME": str(converted.folder / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", shown], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of them\n")


def test_the_front_matter_is_what_the_hub_reads(cards: dict[str, Path]) -> None:
    merged, _ = read_card(cards["merged"])
    assert merged["license"] == "apache-2.0"
    assert merged["language"] == ["en", "de"]
    assert merged["library_name"] == "sentence-transformers"
    assert merged["pipeline_tag"] == "sentence-similarity"
    assert "lora" not in merged["tags"]
    switching, body = read_card(cards["switching"])
    assert switching["base_model"] == "ada/base"
    assert "lora" in switching["tags"]
    assert "license" not in switching
    assert "Not stated: it follows from the model that training started from" in body
    assert "matryoshka" in read_card(cards["stage"])[0]["tags"]


def test_a_stage_and_an_assembled_model_state_a_license_that_was_given(stages: Stages, tmp_path: Path) -> None:
    export(stages.checkpoint("distill"), str(tmp_path / "stage"), license="mit")
    assemble([stages.adapter("retrieval")], str(tmp_path / "assembled"), license="apache-2.0")
    written = [read_card(tmp_path / name) for name in ("stage", "assembled")]
    assert [front["license"] for front, _ in written] == ["mit", "apache-2.0"]
    assert not any("## License" in body for _, body in written)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_card_tells_what_the_model_is_and_how_it_was_made(cards: dict[str, Path], layout: str) -> None:
    _, body = read_card(cards[layout])
    assert f"# a\\_{layout.replace('_', chr(92) + '_')}\\_model" in body
    assert "A text-embedding model with 32 dimensions" in body
    assert "| Longest text | query 12 tokens, document 16 |" in body
    assert "| RoPE theta | 5000, trained with " in body
    assert '| `"query : "` | `"document : "` |' in body
    assert "3 steps on 3 batches." in body
    assert "| train | LocalFiles | paths: pairs.jsonl |" in body
    assert "`training_config.yaml`" in body
    objectives = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", body, re.DOTALL)]
    if layout == "stage":
        assert objectives == [{"Matryoshka": {"dims": [8, 16, 32]}}]
        assert "the first 8, 16 dimensions, normalised again" in body
        assert "truncate_dim=8" in body
    else:
        terms = objectives[-1]["Objective"]["terms"]
        assert terms["contrast"]["Term"]["loss"]["InfoNCE"]["temperature"]["LearnableTemperature"]["initial"] == 0.02
        assert "| stage | pairs, ndcg@10 | a\\|b, map |" in body or layout == "assembled"


def test_scores_of_validate_are_shown_too(cards: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(cards["stage"], tmp_path / "model")
    rows = [
        {
            "task": "sts",
            "dim": 8,
            "precision": "binary",
            "main_metric": "spearman",
            "values": {"spearman": 0.5, "x": 1},
        },
        {"task": "sts", "dim": 32, "precision": "float", "main_metric": "spearman", "values": {"spearman": None}},
    ]
    write_json(folder / "scores.json", {"scores": rows})
    write_model_card(folder, "stage", read_written(folder), name="model")
    _, body = read_card(folder)
    assert "| sts | 8 | binary | spearman | 0.5000 |\n| sts | 32 | float | spearman |  |" in body
    assert "| x |" not in body


def test_what_a_card_tells_of_cannot_change_its_form(cards: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(cards["stage"], tmp_path / "model")
    written = read_written(folder)
    prompts = {"query": "`a|b`\n# Heading\n", "document": ""}
    model = replace(written.model, prompts=prompts, trained={"objective": "```\n# Heading", "steps": 1})
    evil = "mit\nlicense: gpl"
    write_model_card(folder, "stage", Written(model, {}, prompts), name="[x](y) *z*", license=evil)
    front, body = read_card(folder)
    assert front["license"] == evil
    outside = re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "# Heading" not in [line.strip() for line in outside.splitlines()]
    assert r"# \[x\](y) \*z\*" in outside
    [row] = [line for line in outside.splitlines() if "Heading" in line]
    assert len(re.split(r"(?<!\\)\|", row)) == 5  # three cells


def test_data_sets_and_the_model_of_the_hub_are_linked(cards: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(cards["stage"], tmp_path / "model")
    hub = {"class_path": "lightning_jv5.data.HubDataset", "init_args": {"path": "ada/pairs", "split": "train"}}
    config = {
        "model": {"class_path": "EmbeddingModule", "init_args": {"student": {"init_args": {"path": "ada/base"}}}},
        "data": {"init_args": {"train": {"web": {"source": hub, "batch_size": 4}, "own": {"source": {}}}}},
    }
    (folder / "training_config.yaml").write_text(yaml.safe_dump(config))
    write_model_card(folder, "stage", read_written(folder), name="model")
    front, body = read_card(folder)
    assert (front["base_model"], front["datasets"]) == ("ada/base", ["ada/pairs"])
    assert "| web | HubDataset | path: ada/pairs, split: train |" in body


def test_a_card_is_replaced_whole_or_not_at_all(
    cards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(cards["stage"], tmp_path / "model")
    before = {path.name: path.stat().st_size for path in folder.iterdir()}

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text[:9].encode())
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="the disk is full"):
        write_model_card(folder, "stage", read_written(folder), name="model")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == before


def test_a_folder_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which does not say what it is"):
        read_written(tmp_path)
