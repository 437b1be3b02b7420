"""The package is as CONTRIBUTING.md describes it: its folders, the sizes of models, equations."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cmstats"
ENTRIES = {
    "arrays", "datasets", "kernels", "rows", "moments", "metrics", "inference", "models",
    "baselines", "model_selection", "plotting", "report",
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
pytestmark = [
    pytest.mark.ordinary,
    pytest.mark.skipif(not FILES, reason="the sources of the package are not here"),
]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def code_lines(path: Path, node: ast.ClassDef) -> set[int]:
    """The numbers of the lines of a class that are neither blank, nor comments, nor docstrings."""
    documented: set[int] = set()
    for one in ast.walk(node):
        kinds = (ast.ClassDef, ast.FunctionDef)
        if isinstance(one, kinds) and ast.get_docstring(one, clean=False) is not None:
            documented |= set(range(one.body[0].lineno, (one.body[0].end_lineno or 0) + 1))
    lines = path.read_text().splitlines()
    inside = range(node.lineno, (node.end_lineno or 0) + 1)
    return {i for i in inside if lines[i - 1].strip(" ")[:1] not in ("", "#")} - documented


@functools.cache
def classes() -> list[tuple[Path, ast.ClassDef]]:
    """Each class of a module, and each in such a class, with its file."""
    found = []
    for path in FILES:
        bodies: list[list[ast.stmt]] = [parsed(path).body]
        for body in bodies:
            inner = [node for node in body if isinstance(node, ast.ClassDef)]
            found += [(path, node) for node in inner]
            bodies += [node.body for node in inner]
    return found


def test_the_package_has_twelve_entries() -> None:
    found = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith("__")}
    assert found - {"py.typed"} == ENTRIES


def test_no_class_is_long() -> None:
    long = {}
    for path, node in classes():
        inside = range(node.lineno, (node.end_lineno or 0) + 1)
        most = 400 if node.name == "Moments" else 250
        if len(inside) > most and (size := len(code_lines(path, node))) > most:
            long[node.name] = size
    assert not long


def test_every_equation_is_short() -> None:
    solves = {
        node.name: method.end_lineno - method.lineno + 1
        for _, node in classes()
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "_solve" and method.end_lineno
    }
    assert len(solves) >= 6
    assert not {
        name: lines for name, lines in solves.items() if lines > 25 and name != "MomentsModel"
    }


def test_products_are_written_as_in_formulas() -> None:
    prefix = [
        path.name for path in FILES if "xp.matmul(" in (text := path.read_text())
        or "xp.matrix_transpose(" in text
    ]  # fmt: skip
    assert not prefix


def test_no_module_assigns_a_name_twice() -> None:
    for path in FILES:
        seen: set[str] = set()
        for node in parsed(path).body:
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            names = {e.id for t in targets for e in ast.walk(t) if isinstance(e, ast.Name)}
            assert not names & seen, f"{path.name}: {names & seen}"
            seen |= names
