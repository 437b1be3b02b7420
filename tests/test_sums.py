"""`Scatter` and `Root` answer the same questions, and `Shrunk` is the formula it states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmstats import Moments
from cmstats.moments.sums import Root, Scatter

N, P, Q = 40, 5, 3


@pytest.fixture
def data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P)) @ np.diag([1.0, 3.0, 0.2, 5.0, 1.0]) + 2.0
    X[:, 2] = 7.0  # constant
    Y = X[:, :Q] + rng.normal(size=(N, Q)) - 1.0
    return {"x": X, "y": Y, "sample_weight": rng.integers(1, 4, N).astype(float)}


@pytest.fixture
def pair(data: dict[str, Any]) -> tuple[Scatter, Root]:
    scatter, root = (Moments.from_data(form=form, **data).sums for form in ("scatter", "root"))  # type: ignore[arg-type]
    assert isinstance(scatter, Scatter)
    assert isinstance(root, Root)
    return scatter, root


X, Y = slice(0, P), slice(P, P + Q)


def squared(weights: Any) -> Any:
    """``W W'`` does not depend on the rotation of whitened coordinates."""
    return weights @ weights.T


QUESTIONS = {
    "scatter": lambda s: s.scatter(X, Y),
    "squares": lambda s: s.squares(X),
    "project": lambda s: s.project(X, Y, np.arange(2.0 * Q).reshape(Q, 2)),
    "trace of the squared gram": lambda s: np.sum(s.gram(X) ** 2),
    "constant": lambda s: s.constant(X),
    "whiten": lambda s: squared(s.whiten(Y).weights),
    "whiten, shrunken": lambda s: (
        s.scatter(Y, X) @ squared(s.whiten(X, keep=0.7, ridge=0.3).weights)
    ),
    "whiten, one ridge a column": lambda s: squared(
        s.whiten(Y, keep=0.5, ridge=np.array([0.1, 0.2, 0.3]), ddof=0).weights
    ),
    "log determinant": lambda s: s.whiten(Y).log_determinant,
    "against": lambda s: s.against(X, Y, s.whiten(Y)) @ s.whiten(Y).weights.T,
    "principal values": lambda s: s.principal(X, 3)[0],
    "principal vectors": lambda s: squared(s.principal(X, 3)[1]),
    "leading": lambda s: squared(s.whiten_leading(X, 0.9).weights),
    "spectrum": lambda s: s.spectrum(X, Y).vectors @ s.spectrum(X, Y).cross,
    "smallest eigenvalue": lambda s: s.spectrum(X, Y).smallest,
    "residuals": lambda s: s.least_squares(X, Y).errors(np.full((P, Q), 0.1)),
    "residuals in a basis": lambda s: s.least_squares(X, Y, np.eye(P)[:, :2]).errors(
        np.full((2, Q), 0.1)
    ),
    "normal equations": lambda s: np.hstack(s.least_squares(X, Y).normal_equations(np.eye(P))),
    "take": lambda s: s.take(np.array([6, 0, 4])).scatter(slice(0, 3), slice(0, 3)),
    "scaled": lambda s: s.scaled(np.arange(1.0, P + Q + 1)).scatter(X, Y),
    "about the origin": lambda s: s.about_origin().scatter(X, Y),
    "partial_out": lambda s: s.partial_out(Y, np.arange(P))[0].scatter(X, X),
    "merged": lambda s: (s + s.take(np.arange(P + Q))).scatter(X, Y),
    "norms": lambda s: (s + s).norms.fourth,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_both_representations_answer_alike(name: str, pair: tuple[Scatter, Root]) -> None:
    first, second = (np.asarray(QUESTIONS[name](sums), dtype=float) for sums in pair)
    scale = max(1.0, float(np.abs(first).max()))
    np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-11 * scale)


def test_rotated_blocks_are_no_wider_than_the_root_is_high() -> None:
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=(8, 30)), rng.normal(size=(8, 3))
    m = Moments.from_data(form="root", x=A, y=B)
    turned = m.rotated()
    assert turned.width("x") == m.sums.matrix.shape[0] < 30
    assert turned.width("y") == 3
    singular = (np.linalg.svd(one.scatter("x", "y"))[1] for one in (m, turned))
    np.testing.assert_allclose(*singular, rtol=1e-10)
    plain = Moments.from_data(x=A, y=B)
    np.testing.assert_array_equal(plain.rotated().scatter("x", "y"), plain.scatter("x", "y"))


@pytest.mark.parametrize("form", ["scatter", "root"])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0, (0.2, 0.6), "auto"])
def test_shrunk_moments_are_the_formula(
    form: Any, scale: bool, shrinkage: Any, data: dict[str, Any]
) -> None:
    m = Moments.from_data(form=form, **data)
    found = m.shrunk(shrinkage, scale=scale)
    sample = m.standardized() if scale else m
    if shrinkage == "auto":
        assert found.shrinkage == (sample.ledoit_wolf("x"), sample.ledoit_wolf("y"))
    sx, sy = found.shrinkage
    C = sample.cov("x")
    expected = (1 - sx) * C + sx * np.trace(C) / P * np.eye(P)
    np.testing.assert_allclose(found.cov("x"), expected, rtol=1e-12, atol=1e-14)
    gain = ((1 - sx) * (1 - sy)) ** 0.5
    np.testing.assert_allclose(found.cov("x", "y"), gain * sample.cov("x", "y"), atol=1e-14)
    W = np.arange(2.0 * P).reshape(P, 2)
    for a, b, V in (("x", "x", W), ("y", "x", W), ("x", "y", W[:Q])):
        np.testing.assert_allclose(found.project(a, b, V), found.cov(a, b) @ V, atol=1e-11)
    x, y = found.whiten("x"), found.whiten("y")
    np.testing.assert_allclose(x.weights.T @ found.cov("x") @ x.weights, np.eye(x.rank), atol=1e-9)
    np.testing.assert_allclose(
        x.cross(y), x.weights.T @ sample.cov("x", "y") @ y.weights, atol=1e-10
    )
    np.testing.assert_allclose(x.against("y"), sample.cov("y", "x") @ x.weights, atol=1e-10)
    assert found.whiten("x") is x
    assert found.ranks == {"x": x.rank, "y": y.rank}
    assert found.condition == max(x.condition, y.condition)
    std = np.sqrt(m.variance("x"))
    std[2] = 1.0  # constant
    np.testing.assert_allclose(found.units("x"), std if scale else np.ones(P), rtol=1e-12)


def test_shrunk_of_wide_data_forms_no_matrix_of_their_width() -> None:
    rng = np.random.default_rng(2)
    A, B = rng.normal(size=(6, 50_000)), rng.normal(size=(6, 2))
    found = Moments.from_data(form="root", x=A, y=B).shrunk((0.5, 0.1))
    x, y = found.whiten("x"), found.whiten("y")  # 50 000 x 50 000 would take 20 GB
    assert x.cross(y).shape == (5, 2)
    assert found.project("x", "x", x.weights).shape == (50_000, 5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"shrinkage": "cv"}, "chosen on fold moments"),
        ({"shrinkage": 2.0}, "out of range"),
        ({"shrinkage": (0.1,)}, "one value or"),
        ({"shrinkage": 0.1, "target": "elsewhere"}, "is unknown"),
    ],
)
def test_what_cannot_be_shrunk_is_one_sentence(
    call: dict[str, Any], sentence: str, data: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Moments.from_data(**data).shrunk(**call)


def test_other_blocks_do_not_take_part_where_entries_are_missing(data: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    Y = data["y"].copy()
    Y[rng.random(Y.shape) < 0.2] = np.nan
    m = Moments.from_data(x=data["x"], y=Y, z=rng.normal(size=(N, 2)), missing="em")
    found = m.shrunk("auto", blocks=("x", "y"))
    assert found.shrinkage == (m.ledoit_wolf("x"), m.ledoit_wolf("y"))
    alone = m.select("x", "y")
    np.testing.assert_array_equal(found.sample.cov("x", "y"), alone.cov("x", "y"))
