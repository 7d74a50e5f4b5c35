"""The adapters of small_recipe.yaml over three seeds: how far each carries the student of the main job, and how surely.

    python benchmarks/small_adapters.py                 train, print the table, write small_adapters.json
    python benchmarks/small_adapters.py --markdown      print the table of small_adapters.json again

Each is an ordinary `fit` from the same exported student, with another seed of the order, of the adapter's start and
of dropout. The margin is the gain of the whole embeddings on the adapter's own held-out task; its standard error is
that of the mean over seeds.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import caption, load, pin, provenance, save, table

ADAPTERS = ("retrieval", "text_matching", "clustering", "classification")


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lightning_jv5", *words], check=True)


def student(work: Path) -> Path:
    """Train and export the student that all start from."""
    folder = work / "student"
    if not folder.is_dir():
        command("fit", "--config=small.yaml", f"--runs={work / 'runs'}")
        checkpoint = work / "runs" / "small" / "version_0" / "checkpoints" / "last.ckpt"
        command("export", f"--ckpt_path={checkpoint}", f"--output={folder}")
    return folder


def measure(start: Path, work: Path, adapter: str, seed: int) -> dict[str, Any]:
    run = work / "runs" / f"{adapter}-{seed}"
    summary = run / "version_0" / "summary.json"
    if not summary.is_file():
        seeds = [f"--{key}={seed}" for key in ("seed_everything", "data.seed", "model.seed")]
        begun = time.perf_counter()
        words = [f"--config=small_{adapter}.yaml", f"--from={start}", f"--runs={run.parent}", f"--name={run.name}"]
        command("fit", *words, *seeds)
        (run / "seconds.txt").write_text(str(time.perf_counter() - begun))
    rows = [row for row in json.loads(summary.read_text())["rows"] if row["precision"] == "float" and row["dim"] == 384]
    values = {row["model"]: row["value"] for row in rows}
    [task] = {row["task"] for row in rows}
    return {
        "adapter": adapter,
        "seed": seed,
        "task": task,
        "seconds": float((run / "seconds.txt").read_text()),
    } | values


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for adapter in ADAPTERS:
        runs = [run for run in result["runs"] if run["adapter"] == adapter]
        gains = [run["student_after"] - run["student_before"] for run in runs]
        margin = statistics.mean(gains)
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        lines.append(
            [
                adapter.replace("_", "-"),
                runs[0]["task"],
                f"{runs[0].get('teacher', math.nan):.4f}",
                f"{statistics.mean(run['student_before'] for run in runs):.4f}",
                f"{statistics.mean(run['student_after'] for run in runs):.4f}",
                f"{margin:+.4f}",
                f"{error:.4f}",
                f"{margin / error:.1f}" if error else "-",
                "yes" if margin > 2 * error else "no",
                f"{statistics.median(run['seconds'] for run in runs):.0f}",
            ]
        )
    header = ["adapter", "task", "teacher", "student", "with adapter", "gain", "its SE", "gain / SE", "> 2 SE", "s"]
    return table(header, lines) + "\n\n" + caption(result["made"]) + f" {len(result['seeds'])} seeds."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark_small_adapters"), help="where runs go")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if not options.markdown:
        pin(options.cpus)
        os.environ.setdefault("OMP_NUM_THREADS", str(options.cpus))
        start = student(options.work)
        seeds = list(range(options.seeds))
        runs = [measure(start, options.work, adapter, seed) for seed in seeds for adapter in ADAPTERS]
        made = provenance(f"python benchmarks/small_adapters.py --seeds {options.seeds}")
        save("small_adapters", {"seeds": seeds, "runs": runs, "made": made})
    print(markdown(load("small_adapters")))


if __name__ == "__main__":
    main()
