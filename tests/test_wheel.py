"""What a built wheel contains: the package with its data and licences, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
    ),
    pytest.mark.skipif(
        not (ROOT / "pyproject.toml").exists(), reason="the tests are not in a checkout"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", out]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("cmstats-*.whl")
    return zipfile.Path(path)


@pytest.fixture(scope="module")
def names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_every_file_of_the_package_is_inside(names: set[str]) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cmstats").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc")
    }
    assert {name for name in names if name.startswith("cmstats/")} == package


def test_data_template_and_type_marker_are_inside(names: set[str]) -> None:
    wanted = {"cmstats/py.typed", "cmstats/report/page.html"}
    wanted |= {
        f"cmstats/datasets/data/{name}" for name in ("emoji.npz", "emoji_sheet.webp", "README.md")
    }
    assert wanted <= names


def test_licences_are_inside_beside_the_data_and_in_the_metadata(names: set[str]) -> None:
    licences = {path.name for path in (ROOT / "cmstats/datasets/data/LICENSES").iterdir()}
    assert licences == {"Apache-2.0.txt", "OFL-1.1.txt", "Unicode-DFS-2016.txt"}
    assert {f"cmstats/datasets/data/LICENSES/{name}" for name in licences} <= names
    declared = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert declared == licences | {"LICENSE"}


def test_nothing_else_is_inside(names: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cmstats"}
    strangers = {"tests", "scripts", "benchmarks", "notebooks", "build_emoji.py"}
    assert not [name for name in names if strangers & set(Path(name).parts)]


def test_the_command_and_the_licence_expression_are_declared(wheel: zipfile.Path) -> None:
    (info,) = (path for path in wheel.iterdir() if path.name.endswith(".dist-info"))
    assert "cmstats = cmstats.report.cli:main" in (info / "entry_points.txt").read_text()
    metadata = (info / "METADATA").read_text()
    assert (
        "License-Expression: BSD-3-Clause AND OFL-1.1 AND Apache-2.0 AND Unicode-DFS-2016"
        in metadata
    )
