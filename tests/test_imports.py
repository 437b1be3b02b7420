"""What importing the package loads, and which of its parts may import which."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cmstats

pytestmark = pytest.mark.ordinary

PACKAGE = Path(cmstats.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = [
    "arrays",
    "datasets",
    "kernels",
    "rows",
    "moments",
    "metrics",
    "inference",
    "models",
    "baselines",
    "model_selection",
    "plotting",
    "report",
]
"""Each imports only what stands above it."""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.subprocess
def test_the_package_and_its_command_line_load_no_other_library() -> None:
    out = run("""
import sys
before = set(sys.modules)
import cmstats
from cmstats.report.cli import main
assert main(["--version"]) == 0
assert main(["--help"]) == 0
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print("loaded", sorted(new - set(sys.stdlib_module_names)))
""")
    assert f"cmstats {cmstats.__version__}" in out
    assert out.splitlines()[-1] == "loaded ['cmstats']"


@pytest.mark.slow
@pytest.mark.subprocess
def test_cca_and_the_kernels_load_and_fit_without_the_heavy_libraries() -> None:
    """Compared with what scikit-learn loads by itself, which in some versions includes pandas."""
    run("""
import sys
import sklearn.base
before = set(sys.modules)
from cmstats import CCA
from cmstats.kernels import covariance, gram, mixture, normal, ranks, whitening
import numpy as np
X = np.random.default_rng(0).normal(size=(20, 3))
CCA().fit(X, X[:, :2] ** 2)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
heavy = {"numba", "pandas", "torch", "matplotlib", "dask", "distributed", "pyarrow", "cupy"}
assert not new & heavy, new & heavy
""")


def test_every_public_name_and_every_folder_is_an_attribute() -> None:
    for name in [*cmstats.__all__, *FOLDERS]:
        assert getattr(cmstats, name) is not None
        assert name in dir(cmstats)
    with pytest.raises(AttributeError, match="module 'cmstats' has no attribute 'CAC'"):
        _ = cmstats.CAC  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'CAC'"):
        from cmstats import CAC  # type: ignore[attr-defined]  # noqa: F401


def _lists(path: Path) -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
    """What a lazy package says to type checkers, to `lazy`, and in ``__all__``."""
    package = ".".join(["cmstats", *path.parent.relative_to(PACKAGE).parts])
    tree = ast.parse(path.read_text())
    checked: dict[str, set[str]] = {}
    loaded: dict[str, set[str]] = {}
    public: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and node.orelse:
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                assert line.module is not None
                module = line.module.removeprefix(f"{package}.")
                checked.setdefault(module, set()).update(a.name for a in line.names)
            call = node.orelse[0]
            assert isinstance(call, ast.Assign)
            assert isinstance(call.value, ast.Call)
            names = ast.literal_eval(call.value.args[1])
            loaded = {module: set(group) for module, group in names.items()}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = set(ast.literal_eval(node.value))
    return checked, loaded, public


LAZY = [p for p in FILES if p.name == "__init__.py" and "= lazy(" in p.read_text()]


@pytest.mark.parametrize("path", LAZY, ids=lambda p: p.parent.name)
def test_the_lists_of_a_lazy_package_agree(path: Path) -> None:
    checked, loaded, public = _lists(path)
    assert checked == loaded
    modules = {p.stem for p in path.parent.iterdir()}
    names = set().union(*loaded.values())
    assert names == public - {"__version__"} - modules
    # Importing a submodule sets the attribute of its name: a public name may not be the same.
    assert not names & modules


@functools.cache
def _imports(path: Path) -> list[tuple[str, list[str]]]:
    """The modules of this package that a file imports anywhere, and the names taken of each."""
    return [*_imported(path)]


def _imported(path: Path) -> Iterator[tuple[str, list[str]]]:
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((a.name, []) for a in node.names if a.name.startswith("cmstats"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cmstats"):
            assert node.level == 0
            assert node.module is not None
            submodules = [
                a.name
                for a in node.names
                if (PACKAGE.parent / node.module.replace(".", "/") / f"{a.name}.py").exists()
            ]
            yield from ((f"{node.module}.{name}", []) for name in submodules)
            names = [a.name for a in node.names if a.name not in submodules]
            if names:
                yield node.module, names


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in a module, also of functions and classes; not those for type checkers."""
    blocks = ("body", "orelse", "handlers", "finalbody", "cases")
    checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for block in blocks[1:] if checking else blocks:
        for inner in getattr(node, block, ()):
            yield inner
            yield from _statements(inner)


def _folder(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts else ""


def test_imports_run_downward_and_take_public_names() -> None:
    wrong = []
    for path in FILES:
        here = _folder(path.relative_to(PACKAGE).parts)
        for module, names in _imports(path) if not here.startswith("__") else ():
            there = _folder(tuple(module.split(".")[1:]))
            private = any(n.startswith("_") for n in (*module.split("."), *names))
            if not there:  # what the package says of itself; the last folder may ask for all
                allowed = here == FOLDERS[-1] or set(names) <= {"lazy", "__version__"}
            else:
                downward = FOLDERS.index(there) < FOLDERS.index(here)
                allowed = there == here or (downward and not private)
            if not allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {names} of {module}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        name = ".".join(["cmstats", *path.relative_to(PACKAGE).with_suffix("").parts])
        name = name.removesuffix(".__init__")
        if name != "cmstats":
            graph[name] = {module for module, _ in _imports(path)} - {"cmstats"}
    graphlib.TopologicalSorter(graph).prepare()
