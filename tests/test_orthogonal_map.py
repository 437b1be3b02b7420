"""OrthogonalMap: SciPy's Procrustes, ridge regression toward it, and what an index keeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize

from cmstats import OrthogonalMap

rng = np.random.default_rng(2)
X = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)) + 3
Y = X @ rng.normal(size=(5, 7)) + rng.normal(size=(60, 7))
A, B = X - X.mean(0), Y - Y.mean(0)


def test_square_maps_are_scipys() -> None:
    R, total = orthogonal_procrustes(A, B[:, :5])
    found = OrthogonalMap().fit(X, Y[:, :5])
    np.testing.assert_allclose(found.rotation_, R, rtol=1e-12, atol=1e-12)
    assert found.scale_ == pytest.approx(total / (A**2).sum(), rel=1e-12)
    np.testing.assert_allclose(found.inverse_transform(found.predict(X)), X, atol=1e-10)
    plain = OrthogonalMap(scale=False).fit(X, Y[:, :5])
    np.testing.assert_allclose(plain.predict(X), A @ R + Y[:, :5].mean(0), atol=1e-11)


def test_of_narrower_into_wider_it_is_least_squares_among_orthonormal_rows() -> None:
    found = OrthogonalMap().fit(X, Y)
    Q = found.rotation_
    np.testing.assert_allclose(Q @ Q.T, np.eye(5), atol=1e-12)
    error = ((B - found.scale_ * A @ Q) ** 2).sum()
    for _ in range(20):
        other = np.linalg.qr(Q.T + 0.01 * rng.normal(size=(7, 5)))[0].T
        other *= np.sign((other * Q).sum(axis=1))[:, None]
        c = (B * (A @ other)).sum() / (A**2).sum()
        assert error < ((B - c * A @ other) ** 2).sum()


def test_of_wider_into_narrower_it_maximises_the_trace_and_scales_best() -> None:
    found = OrthogonalMap().fit(Y, X)
    Q, c = found.rotation_, found.scale_
    np.testing.assert_allclose(Q.T @ Q, np.eye(5), atol=1e-12)
    assert (Q * (B.T @ A)).sum() == pytest.approx(np.linalg.svd(B.T @ A)[1].sum())
    best = minimize(lambda a: ((A - a[0] * B @ Q) ** 2).sum(), [1.0]).x[0]
    assert c == pytest.approx(best, rel=1e-5)


def test_a_constant_view_is_said() -> None:
    with pytest.warns(UserWarning, match="every column of x is constant: all rows are mapped to"):
        found = OrthogonalMap().fit(np.ones_like(X), Y)
    np.testing.assert_allclose(found.predict(X[:2]), np.broadcast_to(Y.mean(0), (2, Y.shape[1])))


@pytest.mark.filterwarnings("ignore:the rows determine only")
@pytest.mark.parametrize("pair", [(X, Y), (Y, X), (X[:4], Y[:4])], ids=["wider", "narrower", "few"])
def test_a_penalty_is_ridge_regression_toward_the_map(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    a, b = x - x.mean(0), y - y.mean(0)
    Q = OrthogonalMap().fit(x, y)
    for alpha in (0.3, 20.0):
        found = OrthogonalMap(alpha=alpha).fit(x, y)
        M = a.T @ a + alpha * np.eye(a.shape[1])
        by_hand = np.linalg.solve(M, a.T @ b + alpha * Q.scale_ * Q.rotation_)
        np.testing.assert_allclose(found.coef_, by_hand.T, atol=1e-9)
        np.testing.assert_allclose(found.predict(x), a @ by_hand + y.mean(0), atol=1e-9)
    far = OrthogonalMap(alpha=1e12).fit(x, y)
    np.testing.assert_allclose(far.coef_, Q.coef_, atol=1e-7)


def test_the_penalty_is_chosen_by_held_out_r2() -> None:
    found = OrthogonalMap(alpha="cv", cv=4).fit(X, Y)
    ids = np.arange(len(X)) % 4
    by_hand = [
        np.mean([
            OrthogonalMap(alpha=alpha).fit(X[ids != k], Y[ids != k]).score(X[ids == k], Y[ids == k])
            for k in range(4)
        ])
        for alpha in found.cv_alphas_
    ]  # fmt: skip
    np.testing.assert_allclose(found.cv_scores_.mean(axis=1), by_hand, atol=1e-9)
    assert found.alpha_ == found.cv_alphas_[int(np.argmax(by_hand))]


def test_retention_counts_the_neighbours_that_survive() -> None:
    new = Y[:, :5]
    found = OrthogonalMap().fit(X[:30], new[:30])
    x, y = found.predict(X[30:]), new[30:]
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)]
    shared = 0
    for i in range(30):
        lists = []
        for a in unit:
            score = unit[1] @ a[i]
            score[i] = -np.inf
            lists.append(set(np.argsort(-score)[:4]))
        shared += len(lists[0] & lists[1])
    assert found.retention(X[30:], new[30:], k=4) == pytest.approx(shared / 120)
    for k in (0, 30, 2.5, True):
        with pytest.raises(ValueError, match="between 1 and 29 neighbours"):
            found.retention(X[30:], new[30:], k=k)


def test_directions_that_the_rows_do_not_determine_are_said() -> None:
    with pytest.warns(UserWarning, match="every column of y is constant"):
        found = OrthogonalMap().fit(X, np.ones((60, 5)))
    np.testing.assert_allclose(found.predict(X), 1.0)
    with pytest.warns(UserWarning, match="only 3 of the 5 directions"):
        few = OrthogonalMap().fit(X[:4], Y[:4, :5])
    np.testing.assert_allclose(np.linalg.svd(few.rotation_)[1], [1, 1, 1, 0, 0], atol=1e-12)


def test_three_points_of_the_nag_library() -> None:
    """The example of g03bcc."""
    X = np.array([[0.63, 0.58], [1.36, 0.39], [1.01, 1.76]])
    Y = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    found = OrthogonalMap().fit(X, Y)
    np.testing.assert_allclose(found.rotation_, [[0.967, 0.254], [-0.254, 0.967]], atol=6e-4)
    assert found.scale_ == pytest.approx(1.556, abs=6e-4)
    fitted = [[-0.093, 0.024], [1.080, 0.026], [0.013, 1.950]]
    np.testing.assert_allclose(found.predict(X), fitted, atol=6e-4)
    assert ((found.predict(X) - Y) ** 2).sum() == pytest.approx(0.019, abs=6e-4)
