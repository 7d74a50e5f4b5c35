"""What makes sign codes better: spread-out regularisation (GOR), or binary consistency; on the main job.

    python benchmarks/binary.py                 measure, print the table, write binary.json
    python benchmarks/binary.py --markdown      print the table of binary.json again

Each variant is small.yaml with a term more; all share the docstrings, the teacher's vectors and the seed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml
from record import caption, load, pin, provenance, save, table
from small import run, value

DISTILL = {
    "loss": {
        "class_path": "lightning_jv5.losses.EmbeddingDistillation",
        "init_args": {"projection": {"input_dim": 384, "output_dim": 384}},
    }
}
VARIANTS: dict[str, dict[str, float]] = {
    "distillation alone": {},
    "+ 1 SpreadOut": {"SpreadOut": 1.0},
    "+ 0.1 BinaryConsistency": {"BinaryConsistency": 0.1},
    "+ 1 BinaryConsistency": {"BinaryConsistency": 1.0},
    "+ 10 BinaryConsistency": {"BinaryConsistency": 10.0},
}


def report(result: dict[str, Any]) -> str:
    """Return the table and where it is from."""
    rows = []
    for name, rows_of in result["rows"].items():
        measured = {"rows": rows_of}
        cells = [name]
        for dim in (384, 128):
            floats, bits = (value(measured, "student_after", precision, dim) for precision in ("float", "binary"))
            cells += [f"{floats:.4f}", f"{bits:.4f}", f"{floats - bits:+.4f}"]
        rows.append(cells)
    header = ["small.yaml", "384 float", "384 bits", "drop", "128 float", "128 bits", "drop"]
    return f"{table(header, rows)}\n\n{caption(result['made'])}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=2, help="processor cores, and threads, to use")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(report(load("binary")))
        return
    pin(arguments.cpus)
    result: dict[str, Any] = {"made": provenance("python benchmarks/binary.py"), "rows": {}}
    with tempfile.TemporaryDirectory() as name:
        for number, (variant, more) in enumerate(VARIANTS.items()):
            folder = Path(name) / f"run{number}"
            folder.mkdir()
            terms = {"distill": DISTILL} | {
                loss.lower(): {"weight": weight, "loss": {"class_path": f"lightning_jv5.losses.{loss}"}}
                for loss, weight in more.items()
            }
            overlay = folder / "terms.yaml"
            overlay.write_text(yaml.safe_dump({"model": {"objective": {"terms": terms}}}))
            print(f"\n== {variant} ==", flush=True)
            measured = run(Path(name) / "cache", folder, arguments.cpus, ["--config", str(overlay)])
            result["rows"][variant] = measured["rows"]
            save("binary", result)
    print(f"\n{report(result)}")


if __name__ == "__main__":
    main()
