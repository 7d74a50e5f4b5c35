"""What benchmarks share: on what machine and code they ran, and their table as text."""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOAD_BEFORE = os.getloadavg()[0]  # what others were running on the machine: wall times mean little beside it


def provenance(command: str) -> dict[str, Any]:
    """Say when, with what code and on what kind of machine a benchmark ran; no host names and no paths."""
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "../lightning_jv5", "../configs"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": (commit.stdout.strip() or "unknown") + ("+changes" if changed.stdout.strip() else ""),
        "command": command,
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_used": len(os.sched_getaffinity(0)),
        "load_before": round(LOAD_BEFORE, 1),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "lightning": importlib.metadata.version("lightning"),
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def pin(cpus: int) -> None:
    """Use only so many of the processors this process may use: the last ones, as others tend to start at 0."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])


def save(name: str, result: dict[str, Any]) -> None:
    """Write ``<name>.json`` beside the scripts."""
    (HERE / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def load(name: str) -> dict[str, Any]:
    """Read what :func:`save` wrote."""
    result: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return result


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, readable as it is in a terminal; all but the first align right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def caption(made: dict[str, Any]) -> str:
    """Return one line that says where the numbers of a table come from."""
    return (
        f"{made['date']}, commit {made['commit']}, `{made['command']}`; "
        f"{made['cpu']}, {made['cpus_used']} of {made['cpus']} cores, load {made['load_before']} before; "
        f"Python {made['python']}, torch {made['torch']}, lightning {made['lightning']}."
    )


def run_on_data(
    name: str,
    measure: Callable[[Path, Path], dict[str, Any]],
    markdown: Callable[[dict[str, Any]], str],
    doc: str | None,
) -> None:
    """Run a script whose data sets are given: measure and save, unless only the last table is asked for; print it.

    Args:
        name: Of the script, of what it saves, and of its folder of work.
        measure: Takes the folder of the data sets and that of work.
        markdown: Makes the table of what was saved.
        doc: What ``--help`` says.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument(
        "--work", type=Path, default=Path(f"runs/benchmark_{name}"), help="where runs and scores are kept"
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if not options.markdown:
        if options.data is None:
            parser.error("--data DIR is needed to measure")
        pin(options.cpus)
        result = measure(options.data.absolute(), options.work)
        save(name, result | {"made": provenance(f"python benchmarks/{name}.py --data DIR")})
    print(markdown(load(name)))
