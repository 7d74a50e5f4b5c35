"""The command line. What needs no torch is answered here, at once; the rest is LightningCLI's."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lightning_jv5 import __version__
from lightning_jv5.config_files import check_keys, config_names, find_config, packaged_configs

COMMANDS = {
    "fit": "train: distil a student, with evaluation on the way",
    "validate": "score a model on the tasks in data.val: a table, and scores.json in the run's folder",
    "test": "score a model on the tasks in data.test",
    "predict": "encode a corpus (data.predict)",
    "export": "write the model folder of a run: what the next stage starts from",
    "assemble": "join a model and its adapters to one folder",
    "convert": "write a model folder in a layout that others load: merged, switching, jina_v5",
    "onnx": "write a model as one ONNX graph, from token ids to embeddings",
    "push": "upload a model folder to the hub",
    "recipe": "train stage after stage, assemble the model, score every stage",
    "embed": "write a data set with the vectors of a model as columns",
    "mine": "find hard negatives for pairs or a BEIR folder",
    "search": "search a corpus in a page that shows what fewer dims and bits cost",
}
_NEEDS_TRAINER = {"fit", "validate", "test", "predict"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: ``python -m lightning_jv5 <command> --config <name or file> [--key=value ...]``.

    Args:
        arguments: The words after the program's name; by default those of this process.

    Raises:
        SystemExit: With status 2 after a message of one line if the arguments or the config are wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_overview())
        raise SystemExit(0 if words else 2)
    if words[0] in {"-V", "--version"}:
        print(f"lightning_jv5 {__version__}")
        raise SystemExit(0)
    command = words[0]
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        fail(f"no command {command}.{hint} There are: {', '.join(COMMANDS)}.")
    try:
        words, configs = _resolve_configs(words[1:])
    except ValueError as error:
        fail(str(error))

    # Lightning alone takes seconds to import
    home = importlib.import_module(f"lightning_jv5.{'lightning_cli' if command in _NEEDS_TRAINER else 'data_commands'}")
    home.run(command, words, configs)


def fail(message: str) -> NoReturn:
    """Print an error of one line and exit with status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def _resolve_configs(words: list[str]) -> tuple[list[str], list[Path]]:
    """Replace config names by the files they stand for."""
    resolved, configs = [], []
    rest = iter(words)
    for word in rest:
        flag, equals, name = word.partition("=")
        if flag not in {"--config", "-c"}:
            resolved.append(word)
            continue
        if not equals:
            following = next(rest, None)
            if following is None:
                raise ValueError(f"{flag} needs the name of a config, such as small.yaml.")
            name = following
        configs.append(find_config(name))
        check_keys(configs[-1])
        resolved.append(f"--config={configs[-1]}")
    return resolved, configs


def _overview() -> str:
    commands = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    configs = "\n".join(f"  {name}" for name in config_names(packaged_configs()))
    return f"""usage: python -m lightning_jv5 <command> --config <name or file> [--config ...] [--key=value ...]

Train compact text-embedding models the jina-embeddings-v5-text way.

commands:
{commands}

configs that come with the package (a file of that name in the current folder wins):
{configs}

examples:
  python -m lightning_jv5 fit --config small.yaml
  python -m lightning_jv5 fit --config small.yaml --trainer.max_steps=20 --name=try
  python -m lightning_jv5 fit --config small.yaml --ckpt_path=last       continue the newest checkpoint
  python -m lightning_jv5 fit --config small.yaml --print_config         show every setting and its default
  python -m lightning_jv5 fit --help                                     every key, with its meaning (takes seconds)
  python -m lightning_jv5 fit --model.help lightning_jv5.EmbeddingModule
  python -m lightning_jv5 validate --config evaluate.yaml --model.student.path DIR     score any model folder
  python -m lightning_jv5 embed --source lightning_jv5.data.LocalFiles --source.paths pairs.jsonl \\
      --model.path Qwen/Qwen3-Embedding-4B --output pairs-qwen3                teacher vectors, once and for all
  python -m lightning_jv5 mine --pairs lightning_jv5.data.BeirFolder --pairs.path scifact \\
      --model.path Qwen/Qwen3-Embedding-0.6B --output scifact-mined            hard negatives
  python -m lightning_jv5 search --model DIR --corpus texts.jsonl              a search page on this machine

lightning_jv5 {__version__}; --version prints this alone."""
