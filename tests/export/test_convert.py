import json
import re
from pathlib import Path

import pytest
import torch

from lightning_jv5 import Embedder
from lightning_jv5.cli import main
from lightning_jv5.export import assemble, convert
from tests.export.assembled import FAMILIES, PROMPTS, read, texts_below
from tests.export.conftest import Converted, Stages
from tests.models.tiny_adapters import write_adapter
from tests.tiny_models import TEXTS

TASKS = [task for task in PROMPTS if task is not None]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_compared_differs_between_tasks_and_roles(converted: Converted, family: str) -> None:
    everything = [converted.expected[f"{family}/{task}/{role}"] for task in PROMPTS for role in ("query", "document")]
    apart = [(one - other).abs().max().item() for place, one in enumerate(everything) for other in everything[:place]]
    assert sorted(apart)[0] < 1e-6  # clustering has one prompt for both roles
    assert sorted(apart)[1] > 1e-2


# Loading a moved folder as others do


@pytest.mark.parametrize("family", FAMILIES)
def test_an_assembled_folder_loads_with_sentence_transformers_and_peft(converted: Converted, family: str) -> None:
    converted.check(f"{family}/assembled/None", f"{family}/None")
    for task in TASKS:
        converted.check(f"{family}/peft-assembled/{task}", f"{family}/{task}")


def ways_to_load(family: str) -> dict[str, str]:
    """All that was loaded of a family, and what it is compared to."""
    found = {f"{family}/assembled/None": f"{family}/None", f"{family}/switching/None/None": f"{family}/None"}
    layouts = ["merged", "switching/None", "peft-switching", "peft-assembled"]
    layouts += ["jina_v5"] * (family in ("qwen3", "eurobert"))
    return found | {f"{family}/{layout}/{task}": f"{family}/{task}" for layout in layouts for task in TASKS}


@pytest.mark.parametrize("family", ["modernbert", "eurobert", "qwen3"])
def test_a_tokenizer_that_pads_left_changes_nothing_where_positions_are_relative(
    converted: Converted, family: str
) -> None:
    for loaded, expected in ways_to_load(family).items():
        for role in ("query", "document"):
            close(converted.found[f"{loaded}/{role}/left"], converted.expected[f"{expected}/{role}"])


def test_a_written_tokenizer_pads_right_as_absolute_positions_need_it(converted: Converted) -> None:
    assert FAMILIES["bert"].padding_side == "left"  # the tokenizer that the folders were made with
    for loaded, expected in ways_to_load("bert").items():
        apart = converted.found[f"{loaded}/query/left"] - converted.expected[f"{expected}/query"]
        assert apart.abs().max() > 1e-2
    for family in FAMILIES:
        for file in (converted.folder / family).glob("*/tokenizer_config.json"):
            assert read(file)["padding_side"] == "right"


# Loading a moved folder as this package does


@pytest.mark.parametrize("family", FAMILIES)
def test_a_moved_folder_and_the_adapters_in_it_load_here(converted: Converted, family: str) -> None:
    for name in ("assembled", "switching"):
        folder = converted.layout(family, name)
        for task in TASKS:
            expected = converted.expected[f"{family}/{task}/query"]
            close(Embedder(str(folder)).encode(TEXTS, "query", task=task), expected)
            close(Embedder(str(folder / "adapters" / task)).encode(TEXTS, "query"), expected)
    merged = Embedder(str(converted.layout(family, "merged-clustering")))
    assert merged.tasks == []
    close(merged.encode(TEXTS, "query"), converted.expected[f"{family}/clustering/query"])


def test_a_folder_says_nothing_of_the_machine(stages: Stages, tmp_path: Path) -> None:
    main(
        [
            "assemble",
            f"--adapters=[{stages.adapter('retrieval')},{stages.adapter('clustering')}]",
            f"--output={tmp_path / 'model'}",
        ]
    )
    for layout, task in (("merged", "retrieval"), ("switching", None), ("jina_v5", None)):
        convert(str(tmp_path / "model"), str(tmp_path / layout), layout, task=task)  # type: ignore[arg-type]
        convert(stages.adapter("retrieval"), str(tmp_path / f"one-{layout}"), layout)  # type: ignore[arg-type]
    assert str(stages.folder) in Path(stages.adapter("retrieval"), "lightning_jv5.json").read_text()
    read = texts_below(tmp_path)
    assert {"model/adapters/clustering/training_config.yaml", "merged/retrieval_training_config.yaml"} <= read.keys()
    leaking = [name for name, text in read.items() if str(stages.folder) in text or str(tmp_path) in text]
    assert leaking == []
    described = json.loads(read["model/adapters/retrieval/lightning_jv5.json"])
    assert (described["base"], described["trained"]["steps"]) == ("../..", 3)
    close(Embedder(str(tmp_path / "one-merged")).encode(TEXTS), Embedder(stages.adapter("retrieval")).encode(TEXTS))


def test_an_adapter_of_an_assembled_folder_is_assembled_again(converted: Converted, tmp_path: Path) -> None:
    adapter = converted.layout("bert", "assembled") / "adapters" / "retrieval"
    main(["assemble", f"--adapters=[{adapter}]", f"--output={tmp_path / 'model'}"])
    close(
        Embedder(str(tmp_path / "model"), task="retrieval").encode(TEXTS), converted.expected["bert/retrieval/document"]
    )


def test_a_model_with_a_merged_task_takes_adapters_as_any_model(stages: Stages, tmp_path: Path) -> None:
    merged = tmp_path / "base"
    convert(stages.adapter("retrieval"), str(merged), "merged")
    about = {"task": "clustering", "base": str(merged), "prompts": PROMPTS["clustering"], "inference_theta": 5000.0}
    about |= {"max_length": {"query": 12, "document": 16}, "trained": {"steps": 7, "batches": 7}}
    adapter = write_adapter(tmp_path / "clustering", str(merged), described=about)
    assemble([str(adapter)], str(tmp_path / "model"))
    for layout in ("switching", "jina_v5", "merged"):
        made = convert(str(tmp_path / "model"), str(tmp_path / layout), layout)  # type: ignore[arg-type]
        assert made.tasks == ["clustering"]
    expected = Embedder(str(adapter)).encode(TEXTS)
    close(Embedder(str(tmp_path / "switching")).encode(TEXTS, task="clustering"), expected)
    close(Embedder(str(tmp_path / "merged")).encode(TEXTS), expected)
    for layout in ("model", "switching", "jina_v5", "merged"):
        card = (tmp_path / layout / "README.md").read_text(encoding="utf-8")
        sections = re.findall("^### (.*)\n\n(.*)", card, re.MULTILINE)
        again = "Adapter clustering, merged" if layout == "merged" else "Adapter clustering"
        assert dict(sections) == {
            "Model": "3 steps on 3 batches.",
            "Adapter retrieval, merged": "3 steps on 3 batches.",
            again: "7 steps on 7 batches.",
        }
        assert "EmbeddingDistillation" in card.partition("### Adapter")[0]
        assert "InfoNCE" in card.partition("### Adapter")[2]


def test_rounded_weights_have_their_own_fingerprint(converted: Converted, tmp_path: Path) -> None:
    source = str(converted.layout("qwen3", "assembled"))
    convert(source, str(tmp_path / "half"), "switching", dtype="bfloat16")
    embeddings = Embedder(str(tmp_path / "half")).encode(TEXTS, task="retrieval")
    apart = (embeddings - converted.expected["qwen3/retrieval/document"]).abs().max()
    assert 0 < apart < 0.2


def test_the_command_says_what_it_wrote_and_how_to_load_it(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = converted.layout("bert", "assembled")
    main(["convert", f"--model={model}", f"--output={tmp_path / 'x'}", "--layout=merged", "--task=retrieval"])
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'x'}: the layout merged, for retrieval." in shown
    assert "SentenceTransformer(folder) loads it. README.md shows how." in shown


# What is refused


def test_an_unknown_layout_or_dtype_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="Got layout 'gguf'; need one of merged, switching, jina_v5"):
        convert("model", str(tmp_path / "x"), "gguf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got dtype 'int8'; need float32 or bfloat16"):
        convert("model", str(tmp_path / "x"), "merged", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        main(["convert", "--model=model", f"--output={tmp_path / 'x'}", "--layout=gguf"])
    assert "gguf" in capsys.readouterr().err


def test_an_unknown_task_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = str(converted.layout("bert", "assembled"))
    with pytest.raises(ValueError, match=r"Got task 'cooking'; '.*assembled' has adapters for clustering, retrieval"):
        convert(model, str(tmp_path / "x"), "merged", task="cooking")
    with pytest.raises(ValueError, match=r"Got no task for the layout merged; .* --task=clustering"):
        convert(model, str(tmp_path / "x"), "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_adapters_is_refused(converted: Converted, tmp_path: Path) -> None:
    merged = str(converted.layout("qwen3", "merged-retrieval"))
    with pytest.raises(ValueError, match=r"which has no adapters to merge. SentenceTransformer loads it as it is"):
        convert(merged, str(tmp_path / "x"), "merged")
    for layout in ("switching", "jina_v5"):
        with pytest.raises(ValueError, match="which has no adapters; this layout is one of adapters"):
            convert(merged, str(tmp_path / "x"), layout)  # type: ignore[arg-type]


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither config.json nor adapter_config.json"):
        convert(str(tmp_path), str(tmp_path / "x"), "merged")
    with pytest.raises(ValueError, match="Got the model 'ada/model', which is no local folder"):
        convert("ada/model", str(tmp_path / "x"), "merged")


def test_an_output_that_is_there_is_replaced_only_where_asked(converted: Converted, tmp_path: Path) -> None:
    model = str(converted.layout("bert", "assembled"))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"which is there already. Choose another, or set overwrite"):
        convert(model, str(tmp_path), "merged", task="retrieval")
    assert (tmp_path / "mine.txt").is_file()
    (tmp_path / "mine.txt").rename(tmp_path / "lightning_jv5.json")
    convert(model, str(tmp_path), "merged", task="retrieval", overwrite=True)
    assert (tmp_path / "lightning_jv5.json").read_text() != "precious"
