"""Small packages that can be parsed, but would fail if they were imported."""

import subprocess
import sys
from pathlib import Path

NOUNS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jungle", "kettle"]
TOOLS = ["anvil", "brush", "chisel", "drill", "easel", "file", "gauge", "hoist", "iron", "jack", "knife", "lathe"]
PLACES = ["attic", "barn", "cellar", "dock", "entry", "foyer", "gate", "hall", "inlet", "jetty", "kiosk", "loft"]


def write_package(folder: Path, modules: int, functions: int = 8) -> None:
    """Write modules of some functions and a class with as many methods, each documented in words of its own."""
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    for module in range(modules):
        lines = [f"def f{number}():\n{_docstring(folder.name, module, number, '    ')}" for number in range(functions)]
        lines.append("class Kept:")
        methods = range(functions, 2 * functions)
        lines += [
            f"    def m{number}(self):\n{_docstring(folder.name, module, number, '        ')}" for number in methods
        ]
        (folder / f"house{module}.py").write_text("\n".join(lines) + "\n")


def _docstring(package: str, module: int, number: int, indent: str) -> str:
    noun, tool = NOUNS[number % 11], TOOLS[(number // 11 + module) % 12]
    place = PLACES[(5 * number + module) % 12]
    mark = f"{package[::-1]}{'abcdefgh'[module]}{'abcdefghijklmnop'[number]}"
    return (
        f'{indent}"""Hang the {noun}{mark} over {mark}{tool} in {place}{mark}.\n\n'
        f"{indent}Then {mark} turn{mark} every {place}{mark} {tool}{mark} until {noun}{mark} agrees with it{mark}.\n"
        f'{indent}"""\n'
    )


def printed_elsewhere(code: str, folder: Path, cache: Path) -> str:
    """Return what code prints in a process of its own that finds packages in a folder."""
    environment = {"LIGHTNING_JV5_CACHE": str(cache), "PYTHONHASHSEED": "7", "PYTHONPATH": f"{Path.cwd()}:{folder}"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return ran.stdout.strip()
