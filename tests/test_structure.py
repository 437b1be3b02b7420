"""The package is as CONTRIBUTING.md describes it: its folders, the sizes of models, equations."""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cmstats"
ENTRIES = {
    "arrays", "datasets", "kernels", "rows", "moments", "metrics", "inference", "models",
    "baselines", "model_selection", "plotting", "report",
}  # fmt: skip
SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
pytestmark = [
    pytest.mark.ordinary,
    pytest.mark.skipif(not FILES, reason="the sources of the package are not here"),
]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that are neither blank, nor comments, nor docstrings."""
    source, tree = path.read_text(), parsed(path)
    documented: set[int] = set()
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    kept: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            kept |= set(range(token.start[0], token.end[0] + 1))
    return kept - documented


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Each class with its file."""
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                yield path, node


def test_the_package_has_twelve_entries() -> None:
    found = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith("__")}
    assert found - {"py.typed"} == ENTRIES


def test_no_class_is_long() -> None:
    long = {}
    for path, node in classes():
        inside = range(node.lineno, (node.end_lineno or 0) + 1)
        most = 400 if node.name == "Moments" else 250
        # Telling code from comments takes long: it is done where the lines in all are too many.
        if len(inside) > most and (size := len(code_lines(path) & set(inside))) > most:
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
        for node in ast.parse(path.read_text()).body:
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            names = {e.id for t in targets for e in ast.walk(t) if isinstance(e, ast.Name)}
            assert not names & seen, f"{path.name}: {names & seen}"
            seen |= names
