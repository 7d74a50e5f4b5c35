import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_jv5

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    requirement
    for requirement in map(
        Requirement, [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    )
    if requirement.name != PROJECT["name"]
]
# A constraint is a line name==version; the rest is comments
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)$")


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    found = [PIN.match(line) for line in lines]
    assert all(found), f"{name} has lines that pin nothing: {lines}"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def test_package_says_that_it_is_typed() -> None:
    assert (Path(lightning_jv5.__file__).parent / "py.typed").is_file()


def test_version_is_that_of_the_installed_package() -> None:
    assert importlib.metadata.version("lightning-jv5") == lightning_jv5.__version__


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_requirement_has_a_lower_bound_and_a_fitting_pin(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} & {">=", "=="}
    assert requirement.specifier.contains(pins("constraints.txt")[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", list(map(Requirement, PROJECT["dependencies"])), ids=str)
def test_lowest_set_is_the_lower_bounds(requirement: Requirement) -> None:
    lowest = pins("constraints-lowest.txt")[canonicalize_name(requirement.name)]
    assert f">={lowest}" in {str(specifier) for specifier in requirement.specifier}


def test_compromised_lightning_releases_are_refused() -> None:
    (lightning,) = [requirement for requirement in REQUIREMENTS if requirement.name == "lightning"]
    assert not any(lightning.specifier.contains(version) for version in ("2.6.2", "2.6.3"))


def test_package_is_imported_without_torch_and_lightning() -> None:
    code = "import sys, lightning_jv5; print([name for name in ('torch', 'lightning') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    assert lightning_jv5.__all__
    for name in lightning_jv5.__all__:
        assert getattr(lightning_jv5, name) is not None
