"""How long the command line takes before it does anything, against the import it cannot avoid.

    python benchmarks/startup.py               measure, print the table, write startup.json
    python benchmarks/startup.py --markdown    print the table of startup.json again

All commands are measured in turn, in another order in every round, so that a busy moment of the machine hits all alike.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from record import HERE, caption, load, pin, provenance, save, table
from tqdm import tqdm

MOST_SECONDS = 0.5
MOST_RATIO = 1.15


class Case(NamedTuple):
    """One command: the words after ``python``, the status it ends with, and whether it must not import torch."""

    name: str
    words: list[str]
    status: int = 0
    instant: bool = False


BASELINE = Case("import LightningCLI", ["-c", "from lightning.pytorch.cli import LightningCLI"])
PROGRAM = ["-m", "lightning_jv5"]
CASES = [
    BASELINE,
    Case("fit --help", [*PROGRAM, "fit", "--help"]),
    Case("fit --config small.yaml --print_config", [*PROGRAM, "fit", "--config=small.yaml", "--print_config"]),
    Case("--help", [*PROGRAM, "--help"], instant=True),
    Case("--version", [*PROGRAM, "--version"], instant=True),
    Case("unknown command", [*PROGRAM, "fti"], status=2, instant=True),
    Case("unknown config", [*PROGRAM, "fit", "--config=smal.yaml"], status=2, instant=True),
    Case("import lightning_jv5", ["-c", "import lightning_jv5"], instant=True),
]


class Took(NamedTuple):
    """Seconds of one command: on the wall, and of the processor, which other people's work disturbs less."""

    wall: float
    cpu: float


def measure(case: Case, folder: str) -> Took:
    """Return what one command took; an unexpected status is an error, not a quick run."""
    search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    started, busy_before = time.perf_counter(), _children_seconds()
    done = subprocess.run(
        [sys.executable, *case.words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    took = Took(time.perf_counter() - started, _children_seconds() - busy_before)
    if done.returncode != case.status:
        raise RuntimeError(
            f"{case.name} ended with status {done.returncode}, not {case.status}:\n{done.stderr[-2000:]}"
        )
    return took


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(result: dict[str, Any]) -> str:
    """Return the table and where it is from."""
    wall, cpu = result["seconds"], result["cpu_seconds"]
    rows = []
    for case in CASES:
        # in pairs: both of a pair ran within a minute, on a machine as busy
        ratio, cpu_ratio = (
            statistics.median(own / base for own, base in zip(of[case.name], of[BASELINE.name], strict=True))
            for of in (wall, cpu)
        )
        seconds = statistics.median(wall[case.name])
        met = seconds < MOST_SECONDS if case.instant else ratio <= MOST_RATIO
        target = f"< {MOST_SECONDS} s" if case.instant else f"<= {MOST_RATIO}x"
        spread = f"{min(wall[case.name]):.2f} - {max(wall[case.name]):.2f}"
        rows.append(
            [case.name, f"{seconds:.2f}", spread, f"{ratio:.2f}x", f"{cpu_ratio:.2f}x"]
            + (["", ""] if case is BASELINE else [target, "yes" if met else "NO"])
        )
    header = ["command", "median s", "min - max", "ratio", "CPU ratio", "target", "met"]
    return f"{table(header, rows)}\n\n{caption(result['made'])}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (one more comes before them)")
    parser.add_argument("--cpus", type=int, default=2, help="processor cores to use")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(report(load("startup")))
        return
    pin(arguments.cpus)
    shuffle = random.Random(0)
    took: dict[str, list[Took]] = {case.name: [] for case in CASES}
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=(arguments.repeats + 1) * len(CASES), unit="command") as bar,
    ):
        for number in range(arguments.repeats + 1):
            for case in shuffle.sample(CASES, len(CASES)):
                bar.set_description(case.name)
                measured = measure(case, folder)
                if number:  # the first round fills the file cache and compiles our modules
                    took[case.name].append(measured)
                bar.update()
    made = provenance(f"python benchmarks/startup.py --repeats {arguments.repeats}")
    result = {
        "made": made,
        "seconds": {name: [round(one.wall, 3) for one in values] for name, values in took.items()},
        "cpu_seconds": {name: [round(one.cpu, 3) for one in values] for name, values in took.items()},
    }
    save("startup", result)
    print(report(result))


if __name__ == "__main__":
    main()
