"""Moments, kernels and metrics over every array library; see `contract` for the models."""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.places import Place, another

import cmstats
from cmstats import CCA, Moments, retrieval_report, search
from cmstats.arrays import to_numpy
from cmstats.kernels import covariance, whitening

pytestmark = pytest.mark.ordinary

rng = np.random.default_rng(5)
X = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)) + 2
Y = X[:, :3] @ rng.normal(size=(3, 3)) + 2 * rng.normal(size=(80, 3))
W = rng.integers(1, 4, 80).astype(float)
Q = X @ rng.normal(size=(5, 5)) / 3
LABELS = np.arange(80) % 4


def assert_same(found: dict[str, Any], expected: dict[str, Any], place: Place) -> None:
    for name, b in expected.items():
        a = found[name]
        assert isinstance(a, float) if isinstance(b, float) else place.owns(a), name
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(to_numpy(a), b, atol=1e-10 * scale, err_msg=name)


@pytest.mark.parametrize("form", ["scatter", "root"])
def test_moments_stay_where_the_data_are(place: Place, form: Any, tmp_path: Any) -> None:
    def numbers(put: Callable[[Any], Any]) -> dict[str, Any]:
        x, y, z, w = put(X), put(Y), put(Q[:, :2]), put(W)
        m = Moments.from_data(x=x, y=y, z=z, sample_weight=w, form=form)
        folds = Moments.folds(cv=4, x=x, y=y, z=z, form=form)
        batches = Moments.from_batches(
            ({"x": put(X[i : i + 9]), "y": put(Y[i : i + 9])} for i in range(0, 80, 9)), form=form
        )
        parts = m.partial_out("z")
        selected = m.select("y", "x")
        standardized = m.standardized()
        out: dict[str, Any] = {}
        for label, one in {
            "data": m, "fold": folds[2], "batches": batches, "parts": parts,
            "selected": selected, "standardized": standardized, "merged": folds[0] + folds[3],
        }.items():  # fmt: skip
            out |= {
                f"{label} mean": one.mean("x"),
                f"{label} cov": one.cov("x", "y"),
                f"{label} own": one.cov("x"),
                f"{label} var": one.variance("y"),
                f"{label} shrinkage": one.ledoit_wolf("x"),
                f"{label} n": one.n,
                f"{label} projected": one.projected_scatter("x", "y", put(np.eye(3)[:, :2])),
            }
        m.save(tmp_path / "m.npz")
        out["saved"] = place_of(Moments.load(tmp_path / "m.npz").cov("x", "y"), put)
        return out

    def place_of(a: Any, put: Callable[[Any], Any]) -> Any:
        return put(a)

    assert_same(numbers(place), numbers(lambda a: a), place)


def test_kernels_stay_where_the_data_are(place: Place) -> None:
    n, mean, S = covariance.scatter(place(X), place(W))
    assert isinstance(n, float)
    assert place.owns(mean)
    assert place.owns(S)
    W_ = whitening.factor(S)
    assert place.owns(W_.weights)
    assert place.owns(W_.apply(place(X)))
    np.testing.assert_allclose(to_numpy(S), covariance.scatter(X, W)[2], atol=1e-9)


def test_retrieval_takes_embeddings_from_anywhere(place: Place) -> None:
    expected, found = CCA(3).fit(X, Y), CCA(3).fit(place(X), place(Y))
    U, V = found.embed(place(X), place(Y))
    frame = retrieval_report(U, V, labels=LABELS)
    np.testing.assert_allclose(frame, retrieval_report(*expected.embed(X, Y), labels=LABELS))
    indices, scores = search(U, V, k=3)
    assert place.owns(scores)
    np.testing.assert_array_equal(to_numpy(indices), search(*expected.embed(X, Y), k=3)[0])


def test_ill_conditioned_data_are_solved_by_the_root(place: Place) -> None:
    A = X.copy()
    A[:, 1] = A[:, 0] + 1e-6 * Q[:, 0]
    found, expected = CCA().fit(place(A), place(Y)), CCA().fit(A, Y)
    assert found.moments_.form == "root"
    np.testing.assert_allclose(to_numpy(found.correlations_), expected.correlations_, atol=1e-8)


def test_moments_of_two_libraries_do_not_mix(place: Place) -> None:
    other = another(place)
    for call in (
        lambda: Moments.from_data(x=place(X)) + Moments.from_data(x=other(X)),
        lambda: Moments.from_data(x=place(X), y=other(Y)),
    ):
        with pytest.raises(TypeError, match="one array library and on one device"):
            call()


def test_weights_lie_where_the_rows_do_or_are_numpys() -> None:
    here, there = Place("array_api_strict"), Place("array_api_strict:device1")
    with pytest.raises(TypeError, match="one array library and on one device"):
        CCA().fit(there(X), there(Y), sample_weight=here(W))


@functools.cache
def uses_of_cupy() -> list[tuple[str, ast.Call | None]]:
    """What the package takes of CuPy, as "cuda.Stream", and how it is called where it is."""
    uses = []
    for path in sorted(Path(cmstats.__file__).parent.rglob("*.py")):
        source = path.read_text()
        if "cp." not in source and "cupy." not in source:
            continue
        nodes = list(ast.walk(ast.parse(source)))
        called = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if isinstance(node, ast.Attribute):
                found = re.fullmatch(r"(?:self\.)?(?:cp|cupy)\.([\w.]+)", ast.unparse(node))
                if found:
                    uses.append((found[1], called.get(id(node))))
    return uses


def misused(module: Any) -> list[str]:
    """What a module lacks of this, or does not take."""
    wrong = []
    for name, call in uses_of_cupy():
        try:
            found = operator.attrgetter(name)(module)
            if call is None or any(isinstance(a, ast.Starred) for a in call.args):
                continue
            given = {k.arg: None for k in call.keywords if k.arg is not None}
            inspect.signature(found).bind(*call.args, **given)
        except (AttributeError, TypeError) as error:
            wrong.append(f"{name}: {error}")
        except ValueError:  # a compiled function without a signature
            continue
    return wrong


def test_what_is_called_of_cupy_is_what_it_takes() -> None:
    taken = {name for name, _ in uses_of_cupy()}
    assert {"empty", "cuda.Event", "cuda.memory.OutOfMemoryError"} < taken
    # NumPy takes the same calls of what it has.
    assert {each.partition(":")[0] for each in misused(np)} == {
        name for name in taken if not hasattr(np, name.partition(".")[0])
    }
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert misused(cupy) == []
