"""fit = fit_moments and score = score_moments: moments are all a model of moments needs."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest

from cmstats import Moments, MomentsSearchCV

from .registry import Model, every, fitted, known, weightings, weights_of
from .rows import Rows


@every(lambda m: m.moments)
def test_fit_is_fit_moments(model: Model) -> None:
    rows = model.rows()
    for weighted in weightings(model):
        est, w = fitted(model, weighted), weights_of(len(rows)) if weighted else None
        found = model.fresh(est).fit_moments(model.moments_of(est, rows, w, model.folds))
        model.compare(model.everything(found, rows), known(model, weighted))


@every(lambda m: m.moments and m.folds is None, variants=None)
def test_folds_are_merged_where_nothing_is_chosen(model: Model) -> None:
    rows, est = model.rows(), fitted(model)
    found = model.fresh(est).fit_moments(model.moments_of(est, rows, folds=4))
    model.compare(model.everything(found, rows), known(model))


@every(lambda m: m.moments and m.folds is None, variants=None)
def test_parts_add_up(model: Model) -> None:
    rows, est = model.rows(), fitted(model)
    parts = [rows.take(slice(a, b)) for a, b in ((0, 31), (31, 32), (32, len(rows)))]
    total = functools.reduce(operator.add, (model.moments_of(est, part) for part in parts))
    found = model.fresh(est).fit_moments(total)
    model.compare(model.everything(found, rows), known(model))


@every(lambda m: m.moments)
def test_score_is_score_moments(model: Model) -> None:
    rows, est = model.rows(60, seed=1), fitted(model)
    for w in (None, weights_of(len(rows))):
        expected = est.score_moments(model.moments_of(est, rows, w))
        assert model.score_of(est, rows, w) == pytest.approx(expected, abs=model.atol)


@every(lambda m: m.moments and not m.mapped and not m.missing)
def test_the_identities_hold_at_condition_1e4(model: Model) -> None:
    def mixed(rows: Rows) -> Rows:
        first, v = next(iter(rows.views.items()))
        p = v.shape[1]
        turn = np.linalg.qr(np.random.default_rng(5).normal(size=(p, p)))[0]
        scaled = (v - v.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(v.T))).T
        return rows.but(first, scaled * np.geomspace(1, 1e-4, p) @ turn)

    rows, test = mixed(model.rows()), mixed(model.rows(60, seed=1))
    w = weights_of(len(rows)) if model.weights else None
    est = model.fit(rows, w)
    found = model.fresh(est).fit_moments(model.moments_of(est, rows, w, model.folds))
    some = ("predict", "inverse_transform", "score_samples", "score")
    model.compare(model.calls(found, rows, some), model.calls(est, rows, some), 1e-8)
    expected = est.score_moments(model.moments_of(est, test))
    assert model.score_of(est, test) == pytest.approx(expected, abs=1e-9)


@every(lambda m: m.moments and not m.mapped and not m.missing and m.solves_both_ways)
def test_both_representations_give_one_model(model: Model) -> None:
    rows = model.rows()
    found, expected = (
        model.fit(rows, None, model.make().set_params(solver=solver))
        for solver in ("moments", "svd")
    )
    found, expected = (model.everything(e, rows) for e in (found, expected))
    model.compare(found, expected, 1e-8, ("condition_",))


@every(lambda m: m.moments and not m.mapped, variants=False)
def test_moments_of_other_widths_and_names_raise(model: Model) -> None:
    est, rows = fitted(model), model.rows()
    first, v = next(iter(rows.views.items()))
    with pytest.raises(ValueError, match=r"features|width"):
        est.score_moments(model.moments_of(est, rows.but(first, v[:, :-1])))
    with pytest.raises((KeyError, ValueError), match=r"block|view"):
        est.score_moments(Moments.from_data(other=v))


@every(lambda m: m.moments and m.folds is not None, variants=None)
def test_one_moments_has_no_folds(model: Model) -> None:
    est = fitted(model)
    with pytest.raises(ValueError, match=r"fold|split"):
        model.fresh(est).fit_moments(model.moments_of(est, model.rows()))


@every(lambda m: m.moments and not m.mapped and m.cls is not MomentsSearchCV, variants=False)
def test_what_is_no_moments_raises(model: Model) -> None:
    for wrong in (next(iter(model.rows().views.values())), "x"):
        with pytest.raises(TypeError, match="takes Moments"):
            model.fresh(fitted(model)).fit_moments(wrong)
