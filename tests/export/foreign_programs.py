"""A program without lightning_jv5 that runs the programs of model cards and keeps the embeddings that they compute.

``python foreign_programs.py plan.json output.safetensors``: the plan has ``[working folder, program]`` by name.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

KEPT = ("query_embeddings", "embeddings", "short", "bits")


def run(program: str) -> dict[str, Tensor]:
    variables: dict[str, object] = {}
    exec(program, variables)
    return {name: torch.as_tensor(variables[name]) for name in KEPT if name in variables}


def main(plan: str, output: str) -> None:
    found: dict[str, Tensor] = {}
    for name, (folder, program) in json.loads(Path(plan).read_text(encoding="utf-8")).items():
        os.chdir(folder)
        found |= {f"{name}/{kept}": tensor.contiguous() for kept, tensor in run(program).items()}
    assert "lightning_jv5" not in sys.modules
    save_file(found, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
