"""The main job as a user runs it, ``fit --config small.yaml`` on two cores: its time, its memory and its result.

    python benchmarks/small.py                 measure, print the table, write small.json
    python benchmarks/small.py --markdown      print the table of small.json again

A cold run begins with an empty cache; a warm one finds the docstrings and the teacher's vectors of the cold one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from record import HERE, caption, load, pin, provenance, save, table

WORDS = ["-m", "lightning_jv5", "fit", "--config", "small.yaml"]
HEAD_OF_TABLE = ("dim  precision", "of teacher")  # the whole table is printed at once


def run(cache: Path, folder: Path, threads: int, words: list[str]) -> dict[str, Any]:
    """Run the job once; its output goes to this terminal as it comes, bars and all."""
    search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "LIGHTNING_JV5_CACHE": str(cache),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": search,
        "PYTHONUNBUFFERED": "1",
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *WORDS, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    tree = TreeMemory(process.pid)
    tree.start()
    table_after = None
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if table_after is None and all(part in line for part in HEAD_OF_TABLE):
            table_after = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    tree.stop()
    if process.returncode or table_after is None:
        raise SystemExit(
            f"The job ended with status {process.returncode} and {'no' if table_after is None else 'a'} table"
        )
    [summary] = folder.glob("runs/*/version_0/summary.json")
    return {
        "seconds": round(table_after, 1),
        "seconds_to_exit": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(max(usage.ru_maxrss * 1024, tree.peak) / 1e9, 2),
        "rows": json.loads(summary.read_text())["rows"],
    }


class TreeMemory(threading.Thread):
    """Watch the resident memory of a process and all below it, where psutil is there to tell."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self._ended = pid, 0, threading.Event()

    def run(self) -> None:
        try:
            import psutil
        except ImportError:  # then the largest single process has to do, from wait4
            return
        while not self._ended.wait(0.2):
            try:
                root = psutil.Process(self.pid)
                resident = sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))
            except psutil.Error:
                continue
            self.peak = max(self.peak, resident)

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()
        self.join()


def value(run: dict[str, Any], model: str, precision: str, dim: int = 384) -> float:
    """Return one number of a summary."""
    wanted = (model, precision, dim)
    [found] = [row["value"] for row in run["rows"] if (row["model"], row["precision"], row["dim"]) == wanted]
    return float(found)


def report(result: dict[str, Any]) -> str:
    """Return the table of times and scores, the table of dims, and where they are from."""
    cold, warm = result["cold"], result["warm"]
    runs = cold + warm

    def seconds(runs: list[dict[str, Any]]) -> list[float]:
        return [run["seconds"] for run in runs]

    rows = []
    for name, values, most in (("cold", seconds(cold), 300.0), ("warm", seconds(warm), 240.0)):
        if values:
            middle = statistics.median(values)
            spread = f"{min(values):.0f} - {max(values):.0f}"
            rows.append(
                [f"seconds to the table, {name}", f"{middle:.0f}", spread, f"< {most:.0f}", _met(max(values) < most)]
            )
    for name, kind in (("cold", cold), ("warm", warm)):  # of all threads: tells a busy machine from slow code
        if kind:
            busy = [run["cpu_seconds"] for run in kind]
            spread = f"{min(busy):.0f} - {max(busy):.0f}"
            rows.append([f"CPU seconds, {name}", f"{statistics.median(busy):.0f}", spread, "", ""])
    peaks = [run["peak_gb"] for run in runs]
    rows.append(
        ["peak memory, GB", f"{max(peaks):.2f}", f"{min(peaks):.2f} - {max(peaks):.2f}", "< 3", _met(max(peaks) < 3)]
    )
    scores = [
        ("teacher, float", "teacher", "float", "about 0.70", None),
        ("student before, float", "student_before", "float", "about 0.25", None),
        ("student after, float", "student_after", "float", ">= 0.50", 0.50),
        ("student before, binary", "student_before", "binary", "about 0.26", None),
        ("student after, binary", "student_after", "binary", ">= 0.42", 0.42),
    ]
    for name, model, precision, target, least in scores:
        values = [value(run, model, precision) for run in runs]
        met = "" if least is None else _met(min(values) >= least)
        spread = f"{min(values):.4f} - {max(values):.4f}"
        rows.append([f"nDCG@10, {name}", f"{statistics.median(values):.4f}", spread, target, met])
    if len(warm) > 1:
        same = all(run["rows"] == warm[0]["rows"] for run in warm)
        rows.append(["warm runs give the same numbers", "yes" if same else "no", "", "yes", _met(same)])
        if cold:
            same = cold[0]["rows"] == warm[0]["rows"]
            rows.append(["cold and warm give the same numbers", "yes" if same else "no", "", "yes", _met(same)])
    header = ["small.yaml", "median", "min - max", "target", "met"]
    made = f"{caption(result['made'])} Runs: {len(cold)} cold, {len(warm)} warm."
    return f"{table(header, rows)}\n\nThe last run, nDCG@10:\n\n{_dims(runs[-1])}\n\n{made}"


def _met(met: bool) -> str:
    return "yes" if met else "NO"


def _dims(run: dict[str, Any]) -> str:
    rows = []
    models = ("teacher", "student_before", "student_after")
    for precision in ("float", "binary"):
        for dim in sorted({row["dim"] for row in run["rows"]}, reverse=True):
            values = [value(run, model, precision, dim) for model in models]
            rows.append([f"{dim}, {precision}", *(f"{value:.4f}" for value in values), f"{values[2] / values[0]:.1%}"])
    return table(["dimensions", "teacher", "before", "after", "of teacher"], rows)


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="warm runs")
    parser.add_argument("--cold", type=int, default=1, help="cold runs, among the warm ones; the first is cold")
    parser.add_argument("--cpus", type=int, default=2, help="processor cores, and threads, to use")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    arguments, words = parser.parse_known_args()
    if arguments.markdown:
        print(report(load("small")))
        return
    if arguments.cold < 1 or arguments.repeats < 1:
        parser.error("need at least one cold and one warm run")
    pin(arguments.cpus)
    # cold, warm, cold, warm, ..., then what is left of the longer
    longest = max(arguments.cold, arguments.repeats)
    plan = [
        kind
        for number in range(longest)
        for kind, count in (("cold", arguments.cold), ("warm", arguments.repeats))
        if number < count
    ]
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    command = f"python benchmarks/small.py --cold {arguments.cold} --repeats {arguments.repeats}"
    result = {"made": provenance(" ".join([command, *words])), **runs}
    with tempfile.TemporaryDirectory() as name:
        for number, kind in enumerate(plan):
            folder = Path(name) / f"run{number}"
            folder.mkdir()
            if kind == "cold":
                cache = folder / "cache"
            print(f"\n== run {number + 1} of {len(plan)}: {kind} ==", flush=True)
            runs[kind].append(run(cache, folder, arguments.cpus, words))
            save("small", result)  # after each: half an hour is long, and what was measured is worth keeping
            print(f"== {kind}: {runs[kind][-1]['seconds']:.0f} s, {runs[kind][-1]['peak_gb']:.2f} GB ==", flush=True)
    print(f"\n{report(result)}")


if __name__ == "__main__":
    main()
