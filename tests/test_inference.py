"""Tests, intervals, bootstrap and interpretation: published numbers, references, simulations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from contract.places import Place
from scipy import stats
from sklearn.cross_decomposition import PLSCanonical
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from cmstats import (
    CCA,
    ConditionalGaussian,
    Moments,
    MomentsSearchCV,
    TwoViewPipeline,
    compare,
    load_linnerud,
    suggest_models,
)
from cmstats.arrays import to_numpy
from cmstats.baselines import ASIF
from cmstats.inference import (
    bootstrap,
    canonical_correlation_test,
    component_stability,
    correlation_intervals,
    loadings_table,
    permutation_test,
    redundancy,
)
from cmstats.inference import permutation as permutation_module
from cmstats.inference.exchangeability import STATISTICS, reflect
from cmstats.inference.intervals import _population, jackknife_error
from cmstats.inference.refits import alignment
from cmstats.metrics import linear_cka, recall_at_k

pytestmark = pytest.mark.ordinary

LINNERUD = load_linnerud(return_X_y=True)


def views(
    n: int, p: int, q: int, rho: Any = (), *, seed: Any = 0, tails: float | None = None
) -> tuple[Any, Any]:
    """Independent columns but for pairs of the first with correlations `rho`."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape) if tails is None else rng.standard_t(tails, shape)

    root = np.sqrt(np.asarray(rho, dtype=float))
    k = len(root)
    z, X, Y = draw(n, k), draw(n, p), draw(n, q)
    for a in (X, Y):
        a[:, :k] = root * z + np.sqrt(1 - root**2) * a[:, :k]
    return X, Y


@pytest.fixture(scope="module")
def mmreg(data_file: Callable[[str], Path]) -> Any:
    path = data_file("mmreg.npz")
    with np.load(path) as file:
        return CCA().fit(file["X"], file["Y"])


# --------------------------------------------------------------- reference distributions
@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (5, 2)])
def test_equal_to_statsmodels(shape: tuple[int, int]) -> None:
    """Where p and q differ only Wilks' lambda: their F takes q - p for p - q in Rao's factor."""
    multivariate = pytest.importorskip("statsmodels.multivariate.cancorr")
    X, Y = views(80, *shape, (0.6,))
    theirs = multivariate.CanCorr(Y, X)
    ours = CCA(min(shape)).fit(X, Y)
    table = canonical_correlation_test(ours)
    np.testing.assert_allclose(ours.correlations_, theirs.cancorr, rtol=1e-10)
    steps = theirs.corr_test().stats.astype(float)
    np.testing.assert_allclose(table["wilks"], steps["Wilks' lambda"], rtol=1e-10)
    if shape[0] == shape[1]:
        for mine, name in (("F", "F Value"), ("df2", "Den DF"), ("p", "Pr > F")):
            np.testing.assert_allclose(table[f"wilks_{mine}"], steps[name], rtol=1e-8, atol=1e-14)


def test_the_table_says_what_it_assumes() -> None:
    X, Y = views(60, 2, 2, (0.6,))
    table = canonical_correlation_test(CCA().fit(X, Y))
    for shown in (table, table[["wilks", "wilks_p"]], table.round(3)):
        assert str(shown).endswith("is for others. roy_p is a lower bound.")
        assert "For normal rows" in shown._repr_html_()


def test_linnerud_is_that_of_sas_proc_cancorr() -> None:
    table = canonical_correlation_test(CCA().fit(*LINNERUD))

    def column(name: str, digits: int) -> list[float]:
        return [round(float(v), digits) for v in table[name]]

    assert column("correlation", 8) == [0.79560815, 0.20055604, 0.07257029]
    assert column("wilks", 8) == [0.35039053, 0.95472266, 0.99473355]
    assert column("wilks_F", 2) == [2.05, 0.18, 0.08]
    assert column("wilks_df1", 0) == [9, 4, 1]
    assert column("wilks_df2", 3) == [34.223, 30, 16]
    assert column("wilks_p", 4) == [0.0635, 0.9491, 0.7748]
    first = table.loc[1]
    assert round(first["pillai"], 8) == 0.67848151
    assert round(first["hotelling_lawley"], 8) == 1.77194146
    assert round(first["roy"], 8) == 1.72473874
    expected = {
        "pillai": (1.56, 9, 48, 0.1551),
        "hotelling_lawley": (2.64, 9, 19.053, 0.0357),
        "roy": (9.20, 3, 16, 0.0009),
    }
    for name, (F, df1, df2, p) in expected.items():
        assert round(first[f"{name}_F"], 2) == F
        assert first[f"{name}_df1"] == df1
        assert round(first[f"{name}_df2"], 3) == df2
        assert round(first[f"{name}_p"], 4) == p


def test_mmreg_is_that_of_r_ccp(mmreg: CCA) -> None:
    table = canonical_correlation_test(mmreg)
    published = {
        "correlation": ([0.4640861, 0.1675092, 0.1039911], 7),
        "wilks": ([0.7543611, 0.9614300, 0.9891858], 7),
        "wilks_F": ([11.715733, 2.944459, 2.164612], 6),
        "wilks_df1": ([15, 8, 3], 0),
        "wilks_df2": ([1634.653, 1186, 594], 3),
        "hotelling_lawley": ([0.31429738, 0.03980175, 0.01093238], 8),
        "pillai": ([0.25424936, 0.03887348, 0.01081416], 8),
    }
    for name, (values, digits) in published.items():
        assert [round(float(v), digits) for v in table[name]] == values, name
    # CCP reports Roy's root as the squared correlation.
    assert round(float(table["roy"][1] / (1 + table["roy"][1])), 7) == 0.2153759
    assert round(float(table["pillai_F"][1]), 6) == 11.000571
    assert table["pillai_df2"][1] == 1782


def test_one_against_one_is_the_t_test_of_a_correlation() -> None:
    X, Y = views(30, 1, 1, (0.4,))
    row = canonical_correlation_test(CCA().fit(X, Y)).loc[1]
    p = stats.pearsonr(X[:, 0], Y[:, 0]).pvalue
    for name in ("wilks", "pillai", "hotelling_lawley", "roy"):
        assert row[f"{name}_p"] == pytest.approx(p, rel=1e-9)


def test_one_response_is_the_f_test_of_a_regression() -> None:
    X, Y = views(40, 4, 1, (0.5,))
    residual = Y - Y.mean() - (X - X.mean(0)) @ np.linalg.lstsq(X - X.mean(0), Y - Y.mean())[0]
    share = float(1 - residual.var() / Y.var())
    F = share / 4 / ((1 - share) / 35)
    row = canonical_correlation_test(CCA().fit(X, Y)).loc[1]
    for name in ("wilks", "pillai", "hotelling_lawley", "roy"):
        assert row[f"{name}_F"] == pytest.approx(F, rel=1e-9)
        assert (row[f"{name}_df1"], row[f"{name}_df2"]) == (4, 35)


def test_mckeons_f_has_the_traces_mean_and_variance() -> None:
    """E U = p q / a and its known variance (Seber 1984), a = n - 2 - p - q."""
    n, p, q = 40, 3, 4
    U, a = 1.7, n - 2 - p - q
    r = np.full(3, (U / 3 / (1 + U / 3)) ** 0.5)
    row = canonical_correlation_test(correlations=r, n=n, p=p, q=q).loc[1]
    df1, df2, scale = (row[f"hotelling_lawley_{k}"] for k in ("df1", "df2", "F"))
    scale = row["hotelling_lawley"] / scale  # U = scale * F
    assert scale * stats.f.mean(df1, df2) == pytest.approx(p * q / a)
    variance = 2 * p * q * (a + q) * (a + p) / (a**2 * (a - 2) * (a + 1))
    assert scale**2 * stats.f.var(df1, df2) == pytest.approx(variance)


@pytest.mark.parametrize("planted", [0, 2])
def test_chi_square_of_bartlett_and_lawley_is_nominal_under_the_null(planted: int) -> None:
    rho = (0.95, 0.9)[:planted]
    p = []
    for i in range(60):
        X, Y = (np.linalg.qr(a - a.mean(0))[0] for a in views(60, 6, 4, rho, seed=i))
        r = np.linalg.svd(X.T @ Y, compute_uv=False)
        test = canonical_correlation_test(correlations=np.minimum(r, 1), n=60, p=6, q=4)
        p.append(test["chi2_p"].iloc[planted])
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_correlations_and_counts_are_as_good_as_a_model() -> None:
    cca = CCA().fit(*LINNERUD)
    table = canonical_correlation_test(correlations=cca.correlations_, n=20, p=3, q=3)
    pd.testing.assert_frame_equal(table, canonical_correlation_test(cca))


@pytest.mark.parametrize(
    "model",
    [
        CCA(1),
        CCA(2, scale=True),
        CCA(solver="svd"),
        TwoViewPipeline(CCA(), x=StandardScaler()),
        MomentsSearchCV(CCA(), {"scale": [True]}, cv=2),
    ],
    ids=str,
)
def test_every_correlation_is_tested_whatever_the_model_keeps(model: Any) -> None:
    expected = canonical_correlation_test(CCA().fit(*LINNERUD))
    found = canonical_correlation_test(model.fit(*LINNERUD))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-7)


def test_weights_count_rows() -> None:
    X, Y = views(40, 3, 2, (0.5,))
    w = np.random.default_rng(1).integers(1, 4, 40)
    a = canonical_correlation_test(CCA().fit(X, Y, sample_weight=w))
    b = canonical_correlation_test(CCA().fit(np.repeat(X, w, axis=0), np.repeat(Y, w, axis=0)))
    pd.testing.assert_frame_equal(a, b)


def test_nuisance_variables_cost_rows() -> None:
    """Partial CCA: as if on n - r residual rows, as lm(Y ~ Z + X) has it."""
    X, Y = views(50, 3, 1, (0.4,))
    Z = np.random.default_rng(3).standard_normal((50, 2))
    m = Moments.from_data(x=X, y=Y, z=Z).partial_out("z")
    row = canonical_correlation_test(CCA().fit_moments(m), n_nuisance=2).loc[1]

    def rss(*columns: Any) -> float:
        A = np.column_stack([np.ones(50), *columns])
        return float(np.sum((Y - A @ np.linalg.lstsq(A, Y)[0]) ** 2))

    F = (rss(Z) - rss(Z, X)) / 3 / (rss(Z, X) / 44)
    assert row["wilks_F"] == pytest.approx(F)
    assert row["wilks_df2"] == 44


def test_dependent_columns_count_by_their_rank() -> None:
    X, Y = views(40, 3, 2, (0.5,))
    with pytest.warns(UserWarning, match="depend on each other"):
        cca = CCA().fit(np.c_[X, X[:, :1] - X[:, 1:2]], Y)
    expected = canonical_correlation_test(CCA().fit(X, Y))
    pd.testing.assert_frame_equal(canonical_correlation_test(cca), expected, rtol=1e-7)


def test_a_perfect_correlation_has_p_zero() -> None:
    table = canonical_correlation_test(correlations=[1.0, 0.0], n=30, p=3, q=2)
    assert table["wilks"][1] == 0
    assert np.isinf(table["roy"][1])
    for name in ("chi2", "wilks", "pillai", "hotelling_lawley", "roy"):
        assert table[f"{name}_p"][1] < 1e-3
        assert table[f"{name}_p"][2] == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "either a fitted CCA or correlations"),
        ({"correlations": [0.5]}, "need n, p and q"),
        ({"correlations": [0.5, 1.2], "n": 30, "p": 2, "q": 3}, r"lie in \[0, 1\]"),
        ({"correlations": [0.5, np.nan], "n": 30, "p": 2, "q": 3}, r"lie in \[0, 1\]"),
        ({"correlations": [0.5, -0.2], "n": 30, "p": 2, "q": 3}, r"lie in \[0, 1\]"),
        ({"correlations": [0.5], "n": 30, "p": 2, "q": 3}, "there are 2"),
        ({"correlations": [0.5], "n": 30, "p": 0, "q": 3}, "p=0 must be a whole number"),
        ({"correlations": [0.5, 0.1], "n": 5, "p": 2, "q": 3}, "at least 6 rows"),
        ({"correlations": [0.5], "n": 30, "p": 1, "q": 1, "n_nuisance": -1}, "n_nuisance=-1"),
    ],
)
def test_bad_counts_and_correlations_are_one_sentence(kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical_correlation_test(**kwargs)


def test_models_the_distributions_do_not_hold_for_are_refused() -> None:
    with pytest.raises(ValueError, match="use permutation_test"):
        canonical_correlation_test(CCA(shrinkage=0.1).fit(*LINNERUD))
    with pytest.raises(ValueError, match="leave them out"):
        canonical_correlation_test(CCA().fit(*LINNERUD), n=20)
    with pytest.raises(Exception, match="not fitted"):
        canonical_correlation_test(CCA())
    with pytest.warns(UserWarning, match="whatever the data"):
        wide = CCA().fit(*views(8, 5, 4))
    with pytest.raises(ValueError, match="at least 10 rows"):
        canonical_correlation_test(wide)


# ----------------------------------------------------------------------- permutations
def naive_statistics(K: Any, steps: int) -> dict[str, Any]:
    out: dict[str, list[float]] = {"wilks": [], "pillai": [], "roy": []}
    for k in range(steps):
        r = np.linalg.svd(K[k:, k:], compute_uv=False)
        out["wilks"].append(-np.sum(np.log(1 - r**2)))
        out["pillai"].append(np.sum(r**2))
        out["roy"].append(r[0])
    return {name: np.array(values) for name, values in out.items()}


@pytest.mark.parametrize("shape", [(6, 4), (5, 5), (7, 1)])
def test_one_product_serves_the_statistics_of_all_steps(shape: tuple[int, int]) -> None:
    K = np.random.default_rng(0).standard_normal((3, *shape)) / 8
    for steps in {1, shape[1]}:
        for name, statistic in STATISTICS.items():
            found = statistic(K, steps, False)
            for one, block in zip(found, K, strict=True):
                np.testing.assert_allclose(one, naive_statistics(block, steps)[name], rtol=1e-8)


def test_steps_equal_those_on_residual_views() -> None:
    """Each step by hand: the later canonical variates of both views, permuted and correlated."""
    X, Y = views(40, 5, 3, (0.8,))
    found, null = permutation_test(
        X, Y, statistic="all", n_permutations=19, random_state=4, return_null=True
    )
    cca = CCA().fit(X, Y)
    entropy = np.random.RandomState(4).randint(0, 2**32, size=4, dtype=np.uint32)
    keys = permutation_module._orders(entropy, 0, 19, 40, None)
    x, y = X - X.mean(0), Y - Y.mean(0)
    for k in range(3):
        # What is left of each view after its first k variates, whatever the basis.
        left = []
        for a, w in ((x, cca.x_weights_), (y, cca.y_weights_)):
            u = a @ w[:, :k]
            rest = a - u @ np.linalg.lstsq(u, a)[0] if k else a
            left.append(np.linalg.svd(rest, full_matrices=False)[0][:, : a.shape[1] - k])
        for i, key in enumerate(keys):
            r = np.linalg.svd(left[0].T @ left[1][np.argsort(key)], compute_uv=False)
            bartlett = 1 + k / (39 - 4.5)
            expected = {
                "wilks": np.prod(1 - r**2) ** bartlett,
                "pillai": np.sum(r**2) * 39 / (39 - k),
                "roy": np.sqrt(1 - (1 - r[0] ** 2) ** bartlett),
            }
            for name, value in expected.items():
                assert null[name][i, k] == pytest.approx(value, rel=1e-7), (name, k)
    test = canonical_correlation_test(cca)
    np.testing.assert_allclose(found.loc["wilks", "value"], test["wilks"], rtol=1e-7)
    np.testing.assert_allclose(found.loc["pillai", "value"], test["pillai"], rtol=1e-7)
    np.testing.assert_allclose(found.loc["roy", "value"], cca.correlations_, rtol=1e-7)


def test_p_values_are_counts_and_grow_with_the_step() -> None:
    X, Y = views(60, 4, 3, (0.7,))
    table, null = permutation_test(X, Y, n_permutations=99, random_state=0, return_null=True)
    expected = (1 + (null <= table["wilks"].to_numpy()).sum(axis=0)) / 100
    np.testing.assert_array_equal(table["p_step"], expected)
    np.testing.assert_array_equal(table["p_value"], np.maximum.accumulate(expected))
    assert table["p_value"][1] == 0.01
    assert table["p_value"][2] > 0.05


def test_results_do_not_depend_on_batches_views_or_names(monkeypatch: Any) -> None:
    X, Y = views(50, 4, 3, (0.5,))
    table, null = permutation_test(X, Y, n_permutations=50, random_state=7, return_null=True)
    monkeypatch.setattr(permutation_module, "HOST_BYTES", 1)
    again = permutation_test(
        pd.DataFrame(X), pd.DataFrame(Y), n_permutations=50, random_state=7, return_null=True
    )
    np.testing.assert_allclose(again[1], null)
    pd.testing.assert_frame_equal(again[0], table)
    assert not np.allclose(
        permutation_test(X, Y, n_permutations=50, random_state=8, return_null=True)[1], null
    )


@pytest.mark.slow
@pytest.mark.parametrize("tails", [None, 3.0])
@pytest.mark.parametrize("nuisance", [False, True])
def test_p_values_are_uniform_under_the_null(tails: float | None, nuisance: bool) -> None:
    p: list[Any] = []
    for i in range(120):
        X, Y = views(30, 4, 3, seed=i, tails=tails)
        Z = None
        if nuisance:  # both views depend on Z: only its removal makes them unrelated
            Z = np.random.default_rng([i, 1]).standard_normal((30, 3))
            X, Y = X + 2 * Z @ np.ones((3, 4)), Y + Z @ np.ones((3, 3))
        table = permutation_test(
            X, Y, Z=Z, statistic="all", n_permutations=39, n_components=1, random_state=i
        )
        p.append(table["p_value"].to_numpy())
    for column in np.array(p).T:
        counts = np.histogram(column, bins=[0, 0.2, 0.4, 0.6, 0.8, 1.01])[0]
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.slow
def test_rejections_past_a_true_component_are_nominal() -> None:
    """100 rows, 20 and 15 features: the naive test of later correlations rejects at .2 or more."""
    rejected, naive = np.zeros(3), 0
    for i in range(160):
        X, Y = views(100, 20, 15, (0.9,), seed=[i, 9])
        table = permutation_test(
            X, Y, statistic="all", n_permutations=39, n_components=2, random_state=i
        )
        rejected += table["p_value"].to_numpy()[1::2] <= 0.05
        if i < 60:
            U, V = (np.linalg.svd(a - a.mean(0), full_matrices=False)[0] for a in (X, Y))
            orders = np.argsort(np.random.default_rng(i).random((40, 100)), axis=1)
            null = np.linalg.svd(U.T @ V[orders], compute_uv=False)[:, 1]
            naive += (null >= table.loc[("roy", 2), "value"]).sum() < 2
    # .05 with a binomial standard error of .0126
    assert (rejected / 160 < 0.05 + 3.5 * 0.0172).all(), rejected
    assert (rejected / 160 > 0.005).all(), rejected
    assert naive / 60 > 0.12


def test_nuisance_residuals_are_orthonormal_turns_of_the_residual_maker() -> None:
    rng = np.random.default_rng(0)
    Z = np.linalg.qr(np.c_[np.ones(12), rng.standard_normal((12, 2))])[0]
    H = reflect(Z, np.eye(12))
    np.testing.assert_allclose(H @ H.T, np.eye(12), atol=1e-14)
    np.testing.assert_allclose(H, H.T, atol=1e-14)
    np.testing.assert_allclose(H[:, 3:] @ H[:, 3:].T, np.eye(12) - Z @ Z.T, atol=1e-14)
    # Theil's: no other basis has residuals nearer to the rows themselves.
    values = np.linalg.eigvalsh(H[3:, 3:])
    assert (values > -1e-14).all()


def test_observed_values_are_those_of_partial_cca() -> None:
    X, Y = views(40, 3, 3, (0.6,))
    Z = np.c_[X[:, 0] + Y[:, 0], np.ones(40), np.arange(40.0)]
    table = permutation_test(X, Y, Z=Z, n_permutations=9, random_state=0)
    partial = Moments.from_data(x=X, y=Y, z=Z).partial_out("z")
    expected = CCA().fit_moments(partial).correlations_
    np.testing.assert_allclose(table["correlation"], expected, atol=1e-9)


def test_rows_stay_in_their_blocks() -> None:
    blocks = np.array(list("abcabcaabb"))
    codes = np.sort(pd.factorize(blocks)[0])
    keys = permutation_module._orders(np.arange(4, dtype=np.uint32), 0, 200, 10, codes)
    orders = np.argsort(keys, axis=1)
    np.testing.assert_array_equal(codes[orders], np.broadcast_to(codes, (200, 10)))
    assert len({tuple(order) for order in orders}) > 100
    # A difference between blocks in both views is no correlation within them.
    shift = np.repeat([0.0, 8.0], 20)[:, None]
    X, Y = views(40, 2, 2, seed=2)
    whole = permutation_test(X + shift, Y + shift, random_state=0, n_permutations=199)
    within = permutation_test(
        X + shift, Y + shift, blocks=shift[:, 0], random_state=0, n_permutations=199
    )
    assert whole["p_value"][1] < 0.01
    assert within["p_value"][1] > 0.05


def test_equal_values_count_as_exceeding() -> None:
    """Two equal columns of two values: many permutations give a correlation of exactly 1."""
    x = np.repeat([0.0, 1.0], 3)[:, None]
    table = permutation_test(x, x, statistic="all", n_permutations=2000, random_state=0)
    # 2 of the 20 ways to choose three of six give |r| = 1
    np.testing.assert_allclose(table["p_value"], 0.1, atol=0.03)


def test_shrinkage_tests_wide_views() -> None:
    X, Y = views(40, 60, 30, (0.95,), seed=1)
    X[:, 0] *= 4
    Y[:, 0] *= 4
    table = permutation_test(X, Y, shrinkage="auto", n_components=2, random_state=0)
    assert table["p_value"][1] < 0.01
    expected = CCA(2, shrinkage="auto").fit(X, Y).singular_values_
    np.testing.assert_allclose(table["singular_value"], expected, rtol=1e-6)
    X, Y = views(200, 6, 5, (0.3,), seed=1)
    found = permutation_test(X, Y, shrinkage=(0.2, 0.4), n_permutations=9)["singular_value"]
    np.testing.assert_allclose(
        found, CCA(shrinkage=(0.2, 0.4)).fit(X, Y).singular_values_, atol=1e-10
    )


def test_ill_conditioned_and_constant_columns_are_right(rng: Any) -> None:
    X, Y = views(60, 3, 3, (0.7, 0.4))
    near = np.c_[X, X[:, :1] + 1e-7 * rng.standard_normal((60, 1)), np.full(60, 3.0)]
    found = permutation_test(near, Y, n_permutations=9, random_state=0)
    expected = CCA(solver="svd").fit(near[:, :4], Y).correlations_
    np.testing.assert_allclose(found["correlation"], expected, atol=1e-7)


@pytest.mark.parametrize("statistic", ["wilks", "pillai", "roy"])
@pytest.mark.parametrize("options", ["plain", "nuisance", "blocks", "shrinkage"])
def test_permutations_run_where_the_data_are(
    place: Place,
    statistic: Any,
    options: str,
) -> None:
    X, Y = views(40, 3, 4, (0.5,))
    Z = X[:, :1] ** 2 + Y[:, :1]

    def run(put: Any) -> Any:
        more: dict[str, Any] = {
            "plain": {},
            "nuisance": {"Z": put(Z)},
            "blocks": {"blocks": np.arange(40) % 2},
            "shrinkage": {"shrinkage": "auto"},
        }[options]
        return permutation_test(
            put(X), put(Y), statistic=statistic, n_permutations=20, random_state=3,
            return_null=True, **more,
        )  # fmt: skip

    expected, found = run(lambda a: a), run(place)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-8)
    pd.testing.assert_frame_equal(found[0], expected[0])
    single = run(lambda a: place(a, "float32"))
    np.testing.assert_allclose(single[1], expected[1], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_permutations": 0}, "n_permutations=0 must be a whole number, 1 or more"),
        ({"n_permutations": True}, "n_permutations=True"),
        ({"statistic": "hotelling"}, "statistic='hotelling' is unknown"),
        ({"n_components": 4}, "between 1 and 3 steps"),
        ({"shrinkage": "cv"}, "has seen the pairing"),
        ({"shrinkage": 1.0}, r"a float in \[0, 1\)"),
        ({"shrinkage": -0.5}, "out of range"),
        ({"blocks": np.arange(20)}, "no row can be exchanged"),
        ({"blocks": np.zeros(7)}, "one label, not missing, for each of the 20 rows"),
        ({"Z": np.eye(20)[:, :19]}, "leaves too few of the 20 rows"),
        ({"Z": np.zeros((19, 1))}, "inconsistent numbers of samples"),
        ({"Z": np.full((20, 1), np.nan)}, "Z has 20 NaN"),
    ],
)
def test_bad_permutation_requests_are_one_sentence(kwargs: Any, message: str) -> None:
    X, Y = views(20, 4, 3)
    with pytest.raises(ValueError, match=message):
        permutation_test(X, Y, **kwargs)


def test_views_without_a_test_are_refused() -> None:
    X, Y = views(8, 5, 4)
    with pytest.raises(ValueError, match="set shrinkage for both views"):
        permutation_test(X, Y)
    with pytest.raises(ValueError, match="no column of y varies"):
        permutation_test(X, np.ones((8, 2)))
    with pytest.raises(ValueError, match="no column of X varies"):
        permutation_test(X[:, :1], Y[:, :1], Z=2 * X[:, :1] + 1)


# -------------------------------------------------------------------------- intervals
def test_jackknife_error_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).standard_normal(60)
    parts = np.array([np.delete(x, i).mean() for i in range(60)])[:, None]
    error = jackknife_error(np.array([x.mean()]), parts, np.ones(60))[1]
    assert error[0] == pytest.approx(x.std(ddof=1) / 60**0.5)


def test_folds_of_different_sizes_weigh_by_size() -> None:
    """For a mean the pseudo-values are the folds' own means."""
    x, sizes = np.random.default_rng(0).standard_normal(60), np.array([10, 20, 5, 25])
    folds = np.split(x, np.cumsum(sizes)[:-1])
    parts = [np.concatenate([*folds[:j], *folds[j + 1 :]]).mean() for j in range(4)]
    error = jackknife_error(np.array([x.mean()]), np.array(parts)[:, None], sizes)[1][0]
    means = np.array([f.mean() for f in folds])
    expected = np.mean((means - x.mean()) ** 2 / (60 / sizes - 1)) ** 0.5
    assert error == pytest.approx(expected)


def test_bias_is_that_of_the_limit() -> None:
    """One large sample at fixed p / n: the estimate is the truth, the sample value is not."""
    X, Y = views(2000, 200, 150, (0.8, 0.6), seed=5)
    r = CCA(2).fit(X, Y).correlations_
    assert r[1] > 0.63
    np.testing.assert_allclose(_population(r, 200, 150, 2000), [0.8, 0.6], atol=0.04)
    # Plain and multiple correlation: unchanged, and the adjusted R2.
    assert _population(np.array([0.4]), 1, 1, 50.0)[0] == pytest.approx(0.4)
    adjusted = 1 - (1 - 0.25) / (1 - 4 / 49)
    assert _population(np.array([0.5]), 5, 1, 50.0)[0] == pytest.approx(adjusted**0.5)


@pytest.mark.slow
def test_coverage_is_near_nominal() -> None:
    """90% intervals at rho sqrt(n) of 7 and 11, p + q = n / 8."""
    hits = np.zeros(2)
    for i in range(60):
        X, Y = views(200, 15, 10, (0.8, 0.5), seed=[i, 4])
        table = correlation_intervals(X, Y, n_components=2, level=0.9)
        hits += (table["lower"] <= [0.8, 0.5]) & (table["upper"] >= [0.8, 0.5])
    # A binomial error is .039; the percentile bootstrap's .24 and .00 are far below.
    assert (hits / 60 > 0.9 - 3 * 0.039).all(), hits / 60


def test_rows_and_fold_moments_give_the_same_intervals() -> None:
    X, Y = views(90, 3, 2, (0.7,))
    expected = correlation_intervals(X, Y, cv=7)
    pd.testing.assert_frame_equal(
        correlation_intervals(Moments.folds(cv=7, x=X, y=Y)), expected, rtol=1e-8
    )
    root = correlation_intervals(Moments.folds(cv=7, x=X, y=Y, form="root"))
    pd.testing.assert_frame_equal(root, expected, rtol=1e-7)


def test_one_pair_of_variables_is_fishers_interval() -> None:
    X, Y = views(3000, 1, 1, (0.6,))
    found = correlation_intervals(X, Y, cv=50).loc[1]
    r = np.corrcoef(X[:, 0], Y[:, 0])[0, 1]
    half = stats.norm.ppf(0.975) / (3000 - 3) ** 0.5
    assert found["estimate"] == pytest.approx(r)
    assert found["lower"] == pytest.approx(np.tanh(np.arctanh(r) - half), abs=0.012)
    assert found["upper"] == pytest.approx(np.tanh(np.arctanh(r) + half), abs=0.012)


def test_intervals_of_partial_correlations_equal_those_of_residuals() -> None:
    X, Y = views(400, 2, 2, (0.7,))
    Z = np.random.default_rng(77).standard_normal((400, 1))
    found = correlation_intervals(X + 3 * Z, Y - 2 * Z, Z=Z)
    assert found["correlation"][1] == pytest.approx(0.7, abs=0.1)
    np.testing.assert_allclose(found, correlation_intervals(X, Y), atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["constant", "its double", "levels"])
def test_nuisance_variables_are_counted_by_their_rank(more: str) -> None:
    X, Y = views(90, 3, 2, (0.7,))
    Z = np.eye(3)[np.arange(90) % 3][:, :2]  # the third level is 1 less the others
    column = {"constant": np.full(90, 1e8 / 3), "its double": 2 * Z[:, 0] + 5,
              "levels": 1 - Z.sum(axis=1)}[more]  # fmt: skip
    wide = np.column_stack([Z, column])
    expected = correlation_intervals(X, Y, Z=Z)
    np.testing.assert_allclose(correlation_intervals(X, Y, Z=wide), expected, rtol=1e-9)
    folds = Moments.folds(cv=20, x=X, y=Y, z=wide)
    np.testing.assert_allclose(correlation_intervals(folds), expected, rtol=1e-9)
    tests = [permutation_test(X, Y, Z=z, n_permutations=19, random_state=0) for z in (Z, wide)]
    np.testing.assert_allclose(tests[0]["wilks"], tests[1]["wilks"], rtol=1e-9)
    for form in ("scatter", "root"):
        first, *others = Moments.folds(form=form, cv=20, x=X, y=Y, z=wide)
        for whole in (Moments.from_data(form=form, x=X, y=Y, z=wide), sum(others, start=first)):
            m = whole.partial_out("z")
            assert m.nuisance_rank == 2
            few = Moments.from_data(x=X, y=Y, z=Z).partial_out("z")
            np.testing.assert_allclose(
                canonical_correlation_test(CCA().fit_moments(m)),
                canonical_correlation_test(CCA().fit_moments(few)), rtol=1e-8,
            )  # fmt: skip


def test_nuisance_that_is_a_column_of_a_view_takes_it_away() -> None:
    X, Y = views(90, 3, 2, (0.7,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correlation_intervals(X, Y, Z=X[:, :1])
    expected = correlation_intervals(X[:, 1:], Y, Z=X[:, :1])
    np.testing.assert_allclose(found.loc[:2], expected, rtol=1e-7)


def test_tests_of_weights_that_add_up_to_one_count_the_rows() -> None:
    X, Y = views(90, 3, 2, (0.7,))
    found = canonical_correlation_test(CCA().fit(X, Y, sample_weight=np.full(90, 1 / 90)))
    np.testing.assert_allclose(found, canonical_correlation_test(CCA().fit(X, Y)), rtol=1e-9)


def test_a_statistic_that_is_a_method_is_named() -> None:
    X, Y = views(30, 2, 2)
    with pytest.raises(ValueError, match="CCA has no fitted attribute 'score'"):
        bootstrap(CCA(), X, Y, "score", n_resamples=3)


@pytest.mark.parametrize("what", ["captions", "series"])
def test_rows_that_are_not_independent_are_warned_of(what: str) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 200, 4))
    item = np.repeat(np.arange(40), 5)
    if what == "captions":
        X, match = X[item], "100% of the rows of X have an exact copy"
    else:
        X, Y, match = np.cumsum(X, 0), np.cumsum(Y, 0), "neighbouring rows of X and of y resemble"
    frame = pd.DataFrame(X, columns=list("abcd"))
    with pytest.warns(UserWarning, match=f"{match}.*p-values are too small"):
        permutation_test(X, Y, n_permutations=9)
    with pytest.warns(UserWarning, match=f"{match}.*pass groups="):
        bootstrap(CCA(), frame, Y, "x_weights_", n_resamples=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = [f"image {i}" for i in item]
        if what == "captions":
            bootstrap(CCA(), frame, Y, "x_weights_", n_resamples=3, groups=labels)
            permutation_test(X, Y, n_permutations=9, blocks=labels)
        permutation_test(X[::5], rng.standard_normal((40, 2)), n_permutations=9)
        permutation_test(np.eye(4)[item % 4], rng.integers(1, 6, (200, 2)), n_permutations=9)


def test_weighted_intervals_count_rows_twice() -> None:
    X, Y = views(60, 2, 2, (0.7,))
    ids = np.arange(60) % 6
    splits = [(np.flatnonzero(ids != k), np.flatnonzero(ids == k)) for k in range(6)]
    doubled = [tuple(np.r_[s, s + 60] for s in pair) for pair in splits]
    found = correlation_intervals(X, Y, cv=splits, sample_weight=np.full(60, 2.0))
    expected = correlation_intervals(np.r_[X, X], np.r_[Y, Y], cv=doubled)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8)


def test_ill_conditioned_intervals_take_the_root(rng: Any) -> None:
    X, Y = views(80, 2, 2, (0.7,))
    X = np.c_[X, X[:, :1] + 1e-7 * rng.standard_normal((80, 1))]
    found = correlation_intervals(X, Y, cv=8)["correlation"]
    np.testing.assert_allclose(found, CCA(solver="svd").fit(X, Y).correlations_, atol=1e-7)


def test_intervals_are_computed_where_the_data_are(place: Place) -> None:
    X, Y = views(60, 3, 2, (0.7,))
    found = correlation_intervals(place(X), place(Y), cv=6)
    pd.testing.assert_frame_equal(found, correlation_intervals(X, Y, cv=6), rtol=1e-7)


def gapped(X: Any, Y: Any, share: float, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return tuple(np.where(random.random(a.shape) < share, np.nan, a) for a in (X, Y))


@pytest.mark.parametrize("function", [correlation_intervals, permutation_test])
def test_em_of_complete_rows_changes_nothing(function: Any) -> None:
    X, Y = views(80, 3, 2, (0.7,))
    given = {} if function is correlation_intervals else {"random_state": 0, "n_permutations": 49}
    found = function(X, Y, Z=X[:, :1] + Y[:, :1], missing="em", **given)
    pd.testing.assert_frame_equal(found, function(X, Y, Z=X[:, :1] + Y[:, :1], **given))


@pytest.mark.slow
def test_intervals_of_incomplete_rows_are_about_the_models_estimate() -> None:
    """From rows, weighted rows and the moments of folds; most gaps are in one view here."""
    X, Y = views(400, 3, 2, (0.8, 0.5))
    A, B = gapped(X, Y, 0.15)
    B[300:] = np.nan
    found = correlation_intervals(A, B, cv=8, missing="em")
    expected = CCA(missing="em").fit(A, B).correlations_
    np.testing.assert_allclose(found["correlation"], expected, rtol=1e-8)
    np.testing.assert_allclose(found["estimate"], correlation_intervals(X, Y)["estimate"], atol=0.1)
    assert ((found["lower"] < [0.8, 0.5]) & (found["upper"] > [0.8, 0.5])).all()
    folds = Moments.folds(cv=8, x=A, y=B, missing="em")
    pd.testing.assert_frame_equal(correlation_intervals(folds), found)
    kept = np.arange(400) % 3 > 0
    cv = PredefinedSplit(np.arange(400) % 5)
    weighted = correlation_intervals(A, B, cv=cv, missing="em", sample_weight=2.0 * kept)
    twice, ids = (
        np.repeat(np.flatnonzero(kept), 2),
        PredefinedSplit(np.repeat(np.arange(400)[kept] % 5, 2)),
    )
    rows = correlation_intervals(A[twice], B[twice], cv=ids, missing="em")
    pd.testing.assert_frame_equal(weighted, rows, rtol=1e-6)


def test_incomplete_rows_count_where_they_have_both_views() -> None:
    """Rows without y tell nothing of the number of pairs, which corrects the bias."""
    X, Y = views(120, 8, 6, (0.8,))
    more = np.random.default_rng(1).standard_normal((480, 8))
    A, B = np.r_[X, more], np.r_[Y, np.full((480, 6), np.nan)]
    ids = np.r_[np.arange(120), np.arange(480)] % 6
    found = correlation_intervals(A, B, cv=PredefinedSplit(ids), missing="em")
    pairs = correlation_intervals(X, Y, cv=PredefinedSplit(ids[:120]))
    np.testing.assert_allclose(found["estimate"], pairs["estimate"], atol=0.05)


def test_weights_that_sum_to_one_give_the_same_intervals() -> None:
    X, Y = views(60, 3, 2, (0.7,))
    expected = correlation_intervals(X, Y, cv=6)
    found = correlation_intervals(X, Y, cv=6, sample_weight=np.full(60, 1 / 60))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8)


@pytest.mark.slow
def test_incomplete_views_are_tested_by_draws(place: Place) -> None:
    X, Y = views(150, 3, 2, (0.9,))
    A, B = gapped(X, Y, 0.2)
    A[:10], B[10:15] = np.nan, np.nan
    given = {"missing": "em", "random_state": 0, "n_permutations": 99}
    found = permutation_test(A, B, blocks=np.arange(150) % 3, **given)
    assert next(iter(found)) == "imputed_correlation"
    assert found["p_value"][1] == 0.01
    assert found["p_value"][2] > 0.05
    assert found["imputed_correlation"][1] < CCA(missing="em").fit(A, B).correlations_[0]
    moved = permutation_test(place(A), place(B), blocks=np.arange(150) % 3, **given)
    pd.testing.assert_frame_equal(found, moved, rtol=1e-6)
    shrunk = permutation_test(A, B, shrinkage="auto", **given)
    assert next(iter(shrunk)) == "imputed_singular_value"


@pytest.mark.slow
@pytest.mark.parametrize("nuisance", [False, True])
def test_gaps_in_the_same_rows_of_both_views_are_no_correlation(nuisance: bool) -> None:
    """Conditional means in place of draws reject a quarter of such independent views at .05."""
    random = np.random.default_rng(3)
    p = []
    for seed in range(40):
        X, Y = random.standard_normal((60, 3)), random.standard_normal((60, 2))
        Z = random.standard_normal((60, 2)) if nuisance else None
        if nuisance:
            X, Y = X + Z[:, :1], Y + Z
        X[:30, :2], Y[:30, :1] = np.nan, np.nan
        found = permutation_test(
            X, Y, Z=Z, missing="em", n_permutations=39, n_components=1, random_state=seed
        )
        p.append(found["p_value"][1])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.1) < 0.25


@pytest.mark.parametrize("function", [correlation_intervals, permutation_test])
def test_missing_is_said_in_one_of_two_ways(function: Any) -> None:
    X, Y = views(60, 2, 2)
    A, B = gapped(X, Y, 0.1)
    with pytest.raises(ValueError, match=r"NaN values.*or set missing='em'"):
        function(A, B)
    for wrong in (True, None, "drop"):
        with pytest.raises(ValueError, match="missing must be 'error' or 'em', got"):
            function(X, Y, missing=wrong)
    A[:30], B[30:] = np.nan, np.nan
    with pytest.raises(ValueError, match=r"(?i)never observed in the same row|both X and y"):
        function(A, B, missing="em")
    if function is permutation_test:
        with pytest.raises(ValueError, match=r"Z has .* NaN values"):
            function(X, Y, Z=np.full(60, np.nan), missing="em")


def test_bad_intervals_are_one_sentence() -> None:
    X, Y = views(20, 9, 8)
    with pytest.raises(ValueError, match="some sample correlations 1"):
        correlation_intervals(X, Y, cv=4)
    with pytest.raises(ValueError, match="level=1 must lie between 0 and 1"):
        correlation_intervals(X, Y, level=1)
    for wrong in (2.5, "cv"):
        with pytest.raises(ValueError, match="Expected `cv` as an integer"):
            correlation_intervals(X[:, :2], Y[:, :2], cv=wrong)
    with pytest.raises(TypeError, match="takes X and y, or a list of the Moments"):
        correlation_intervals(X)
    with pytest.raises(ValueError, match="between 1 and 2 are possible"):
        correlation_intervals(X[:, :3], Y[:, :2], n_components=3)
    with pytest.raises(ValueError, match="every column of x or of y is constant"):
        correlation_intervals(X[:, :2], np.ones(20))
    with pytest.raises(ValueError, match="cv=20 folds of 10 rows"):
        correlation_intervals(X[:10, :1], Y[:10, :1])


# -------------------------------------------------------------------------- bootstrap
def slope(model: CCA) -> float:
    return float(model.predict(np.array([[1.0]]))[0, 0] - model.predict(np.array([[0.0]]))[0, 0])


@pytest.mark.filterwarnings("ignore:.*scipy.*")
def test_bca_is_scipys() -> None:
    """The same distribution and a jackknife that leaves out single rows."""
    X, Y = views(25, 1, 1, (0.5,), seed=3)
    y = Y**3  # a skewed statistic
    found = bootstrap(
        CCA(), X, y, slope, method="bca", n_resamples=99, level=0.9, cv=25, random_state=0
    )

    def statistic(a: Any, b: Any, axis: int = -1) -> Any:
        a, b = (v - v.mean(axis=axis, keepdims=True) for v in (a, b))
        return np.sum(a * b, axis=axis) / np.sum(a * a, axis=axis)

    given = stats._resampling.BootstrapResult(None, found.distribution, None)
    expected = stats.bootstrap(
        (X[:, 0], y[:, 0]), statistic, paired=True, vectorized=True, method="BCa", n_resamples=0,
        confidence_level=0.9, bootstrap_result=given,
    ).confidence_interval  # fmt: skip
    assert float(found.estimate) == pytest.approx(statistic(X[:, 0], y[:, 0]))
    assert float(found.lower) == pytest.approx(expected.low, rel=1e-8)
    assert float(found.upper) == pytest.approx(expected.high, rel=1e-8)


@pytest.mark.slow
def test_percentile_intervals_have_the_spread_of_theory() -> None:
    X, Y = views(200, 1, 1, (0.5,), seed=3)
    found = bootstrap(CCA(), X, Y, slope, n_resamples=300, random_state=0)
    residual = Y[:, 0] - Y.mean() - float(found.estimate) * (X[:, 0] - X.mean())
    error = (residual.var(ddof=2) / X.var() / 200) ** 0.5
    assert float(found.standard_error) == pytest.approx(error, rel=0.15)
    assert float(found.upper - found.lower) == pytest.approx(3.92 * error, rel=0.2)


def test_groups_are_drawn_whole() -> None:
    """The variance of a mean of groups is that of their means, however many rows each has."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(60), 5)
    X = np.repeat(rng.normal(size=(60, 1)), 5, axis=0)
    Y = X + rng.normal(size=(300, 1))

    def mean(model: Any) -> float:
        return float(model.x_mean_[0])

    def error(n: int = 100, **groups: Any) -> float:
        found = bootstrap(CCA(), X, Y, mean, n_resamples=n, random_state=0, **groups)
        return float(found.standard_error)

    expected = X[::5].std() / 60**0.5
    assert error(groups=g) == pytest.approx(expected, rel=0.1)
    assert error(9, groups=g.astype(str)) == error(9, groups=g)
    assert error(50) < 0.6 * expected  # 300 rows are no 300 items
    found = bootstrap(CCA(), X, Y, mean, n_resamples=9, method="bca", groups=g, random_state=0)
    assert float(found.lower) < float(found.upper)


def test_copies_of_a_row_are_in_one_fold_of_a_fit_without_weights() -> None:
    seen = []

    class Rows(CCA):
        def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
            seen.append((X, groups))
            return super().fit(X, y, groups=groups)

    X, Y = views(40, 3, 2, (0.8, 0.5))
    bootstrap(Rows(1, shrinkage="cv"), X, Y, "x_weights_", n_resamples=3, random_state=0)
    for rows, groups in seen[1:]:
        assert np.array_equal(rows, X[groups])


def test_weighted_refits_equal_refits_to_the_rows() -> None:
    """A model without sample weights gets repeated rows: the same resamples, the same numbers."""

    class Rows(CCA):
        def fit(self, X: Any, y: Any) -> Any:
            return super().fit(X, y)

    X, Y = views(40, 3, 2, (0.8, 0.5))
    a = bootstrap(CCA(2), X, Y, "x_weights_", n_resamples=10, random_state=1, method="bca")
    b = bootstrap(Rows(2), X, Y, "x_weights_", n_resamples=10, random_state=1, method="bca")
    np.testing.assert_allclose(a.distribution, b.distribution, atol=1e-8)
    np.testing.assert_allclose(a.lower, b.lower, atol=1e-8)


def test_sample_weights_are_rows() -> None:
    X, Y = views(50, 1, 1, (0.7,))
    error = [
        float(
            bootstrap(
                CCA(), X, Y, slope, sample_weight=w, n_resamples=80, random_state=0
            ).standard_error
        )
        for w in (None, np.full(50, 4.0))
    ]
    assert 0.4 < error[1] / error[0] < 0.6  # four times the rows, half the error


@pytest.mark.parametrize("align", ["procrustes", "match"])
def test_alignment_removes_flips_and_exchanges(align: Any) -> None:
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((30, 4)))[0] for _ in range(2))
    turn = np.eye(4)[:, [2, 0, 3, 1]] * [1, -1, -1, 1]
    found = alignment((U, V), (U @ turn, V @ turn), align)
    np.testing.assert_allclose(found, turn.T, atol=1e-12)


def test_procrustes_is_the_nearest_rotation_of_both_views() -> None:
    from scipy.linalg import orthogonal_procrustes

    rng = np.random.default_rng(0)
    reference, found = (tuple(rng.standard_normal((2, 30, 3))) for _ in range(2))
    expected = orthogonal_procrustes(np.vstack(found), np.vstack(reference))[0]
    np.testing.assert_allclose(alignment(reference, found, "procrustes"), expected, atol=1e-12)


def test_nearly_equal_components_have_finite_errors_only_when_aligned() -> None:
    X, Y = views(300, 3, 3, (0.8, 0.79), seed=2)
    spread = {
        align: bootstrap(
            CCA(2), X, Y, "x_loadings_", n_resamples=40, align=align, random_state=0
        ).standard_error.max()
        for align in ("procrustes", "match", None)
    }
    assert spread["procrustes"] < 0.15
    assert spread["match"] <= spread[None]
    assert spread[None] > 0.3


def test_retrieval_on_held_out_rows_has_an_interval() -> None:
    X, Y = views(150, 5, 5, (0.95, 0.9, 0.8))
    found = bootstrap(
        CCA(3), X[:100], Y[:100], lambda m: recall_at_k(*m.embed(X[100:], Y[100:]), k=5),
        n_resamples=30, random_state=0,
    )  # fmt: skip
    assert 0 < float(found.lower) <= float(found.upper) <= 1
    assert list(found.to_frame().columns) == ["estimate", "standard_error", "lower", "upper"]


def test_frames_carry_the_users_names() -> None:
    X, Y = (pd.DataFrame(a) for a in views(40, 2, 2, (0.8, 0.5)))
    X.columns, Y.columns = ["height", "weight"], ["age", "pulse"]
    found = bootstrap(CCA(), X, Y, "y_loadings_", n_resamples=5, random_state=0).to_frame()
    assert found.index.names == ["feature", "component"]
    assert found.index.to_list()[1] == ("age", 2)


def test_other_estimators_and_chosen_shrinkage_are_refitted() -> None:
    X, Y = views(60, 3, 3, (0.8,))
    pls = bootstrap(PLSCanonical(1), X, Y, "x_weights_", n_resamples=10, random_state=0)
    assert pls.estimate.shape == (3, 1)
    chosen = bootstrap(
        CCA(1, shrinkage="cv", cv=3), X, Y, "x_weights_", n_resamples=5, random_state=0
    )
    assert np.isfinite(chosen.standard_error).all()


@pytest.mark.slow
def test_bootstrap_runs_where_the_data_are(place: Place) -> None:
    X, Y = views(20, 3, 2, (0.7, 0.3))
    for method in ("percentile", "bca"):
        a, b = (
            bootstrap(
                CCA(), put(X), put(Y), "x_weights_", n_resamples=3, method=method, random_state=0
            )
            for put in (place, to_numpy)
        )
        np.testing.assert_allclose(a.distribution, b.distribution, atol=1e-8)
        np.testing.assert_allclose(a.lower, b.lower, atol=1e-8)


def test_correlations_warn() -> None:
    with pytest.warns(UserWarning, match="use correlation_intervals"):
        bootstrap(CCA(1), *LINNERUD, "correlations_", n_resamples=3, random_state=0)


def test_warnings_of_many_fits_are_said_once() -> None:
    X, Y = views(12, 6, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bootstrap(CCA(2), X, Y, "x_weights_", n_resamples=8, random_state=0)
    said = [str(w.message) for w in caught if "in a resample" in str(w.message)]
    assert len(said) == len(set(said)) > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_resamples": 1}, "n_resamples=1 must be a whole number, 2 or more"),
        ({"method": "basic"}, "method='basic' is unknown"),
        ({"align": "rotate"}, "align='rotate' is unknown"),
        ({"level": 95}, "level=95 must lie between 0 and 1"),
        ({"statistic": "weights_"}, "no fitted attribute 'weights_'"),
        ({"y": LINNERUD[1][:7]}, "inconsistent numbers of samples"),
    ],
)
def test_bad_bootstraps_are_one_sentence(kwargs: Any, message: str) -> None:
    given = {"X": LINNERUD[0], "y": LINNERUD[1], "statistic": "x_weights_", **kwargs}
    with pytest.raises(ValueError, match=message):
        bootstrap(CCA(), **given)


def test_a_statistic_is_a_number_or_an_array() -> None:
    X, Y = views(40, 3, 2, (0.7, 0.3))
    found = [
        bootstrap(CCA(), X, Y, of, n_resamples=5, random_state=0).distribution
        for of in (
            lambda m: m.correlations_[0],
            lambda m: float(m.correlations_[0]),
            lambda m: np.float64(m.correlations_[0]),
            lambda m: np.asarray(m.correlations_[0]),
        )
    ]
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])
    listed = bootstrap(CCA(), X, Y, lambda m: list(m.correlations_), n_resamples=3)
    assert listed.distribution.shape == (3, 2)


def test_resamples_that_cannot_be_used_are_counted_and_left_out() -> None:
    X, Y = views(7, 4, 4, (0.9,))
    with pytest.warns(UserWarning, match=r"of 60 resamples could not be used and are left out"):
        found = bootstrap(CCA(4), X, Y, "x_weights_", n_resamples=60, random_state=0)
    assert 0 < found.n_failed <= 30
    assert len(found.distribution) == 60 - found.n_failed
    assert np.isfinite(found.distribution).all()
    with pytest.warns(UserWarning, match="left out"):
        table = component_stability(CCA(4), X, Y, n_resamples=60, random_state=0)
    assert np.isfinite(table.to_numpy()).all()
    with pytest.raises(ValueError, match=r"of 60 resamples could not be used, too many to leave"):
        bootstrap(CCA(4), X[:5], Y[:5], "x_weights_", n_resamples=60, random_state=0)

    def sometimes(model: Any, calls: list[int] = []) -> float:  # noqa: B006 - counts the calls
        calls.append(1)
        return float("nan") if len(calls) == 4 else model.correlations_[0]

    with pytest.warns(UserWarning, match="1 of 9 resamples .* not finite"):
        assert bootstrap(CCA(), X, Y, sometimes, n_resamples=9).n_failed == 1


def test_a_fit_that_fails_in_a_resample_is_one_of_those() -> None:
    X, Y = views(60, 2, 2, (0.6,))

    class Fails(CCA):
        def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Any:
            seen.append(1)
            if len(seen) % every == 0:
                raise ValueError("a rare category is absent")
            return super().fit(X, y, sample_weight, groups)

    seen: list[int] = []
    every = 5
    with pytest.warns(UserWarning, match="2 of 10 resamples .* left out; the first: a rare"):
        found = bootstrap(Fails(1), X, Y, "x_weights_", n_resamples=10, random_state=0)
    assert found.distribution.shape == (8, 2, 1)


def test_components_are_compared_of_models_that_have_them() -> None:
    X, Y = views(30, 3, 2, (0.7,))
    with pytest.raises(TypeError, match="ConditionalGaussian has no components in two views"):
        component_stability(ConditionalGaussian(), X, Y, n_resamples=3)


def test_a_choice_by_folds_without_groups_is_warned_of() -> None:
    X, Y = views(40, 3, 2, (0.7,))
    with pytest.warns(UserWarning, match="copies of a row in a resample fall into different"):
        bootstrap(ASIF(), X, Y, lambda m: m.k_, n_resamples=2)


@pytest.mark.dask
def test_dask_rows_are_refused_where_they_have_to_be_in_memory() -> None:
    da = pytest.importorskip("dask.array")
    X, Y = (da.from_array(a) for a in views(40, 3, 2, (0.7,)))
    for call in (
        lambda: bootstrap(CCA(), X, Y, "x_weights_", n_resamples=3),
        lambda: component_stability(CCA(), X, Y, n_resamples=3),
        lambda: permutation_test(X, Y),
        lambda: compare({"CCA": CCA()}, X, Y),
        lambda: suggest_models(X, Y),
    ):
        with pytest.raises(ValueError, match=r"needs its rows in memory: pass X.compute\(\)"):
            call()


def test_stability_tells_firm_components_from_noise() -> None:
    X, Y = views(300, 4, 4, (0.9, 0.7), seed=1)
    table = component_stability(CCA(), X, Y, n_resamples=30, random_state=0)
    assert (table.loc[:2, ["x_cosine", "y_cosine"]] > 0.95).to_numpy().all()
    assert (table.loc[3:, ["x_cosine", "y_cosine"]] < 0.95).to_numpy().all()
    assert (table.loc[2, ["x_subspace", "y_subspace"]] > 0.95).all()
    # All four span the whole view.
    np.testing.assert_allclose(table.loc[4, ["x_subspace", "y_subspace"]], 1.0)
    near = component_stability(
        CCA(3), *views(400, 3, 3, (0.8, 0.79)), n_resamples=30, random_state=0
    )
    assert near["x_subspace"][2] - near["x_cosine"][2] > 0.03


# --------------------------------------------------------------------- interpretation
def test_redundancy_is_that_of_sas_proc_cancorr() -> None:
    table = redundancy(CCA().fit(*LINNERUD)).round(4)
    published = {
        "r2": [0.6330, 0.0402, 0.0053],
        "y_adequacy": [0.4508, 0.2470, 0.3022],
        "y_redundancy": [0.2854, 0.0099, 0.0016],
        "y_redundancy_total": [0.2854, 0.2953, 0.2969],
        "x_adequacy": [0.4081, 0.4345, 0.1574],
        "x_redundancy": [0.2584, 0.0175, 0.0008],
        "x_redundancy_total": [0.2584, 0.2758, 0.2767],
        "x_adequacy_total": [0.4081, 0.8426, 1.0000],
    }
    for name, values in published.items():
        np.testing.assert_allclose(table[name], values, atol=1.1e-4, err_msg=name)


def test_mmreg_loadings_are_the_published(mmreg: CCA) -> None:
    found = loadings_table(mmreg)["loading"].loc["x"].to_numpy()
    published = [
        [-0.90404631, -0.3896883, -0.1756227],
        [-0.02084327, -0.7087386, 0.7051632],
        [-0.56715106, 0.3508882, 0.7451289],
    ]
    np.testing.assert_allclose(np.abs(found), np.abs(published), atol=1e-7)


@pytest.mark.parametrize("shrinkage", [0.0, 0.4])
def test_explained_shares_are_multiple_correlations(shrinkage: float) -> None:
    X, Y = views(60, 4, 3, (0.8, 0.5))
    X = X @ np.random.default_rng(1).standard_normal((4, 4))
    cca = CCA(2, shrinkage=shrinkage).fit(X, Y)
    U, V = cca.transform(X, Y)
    table = loadings_table(cca)
    for view, data in (("x", X), ("y", Y)):
        for name, variates in (("communality", (U, V)[view == "y"]), ("r2", (V, U)[view == "y"])):
            for k in (1, 2):
                for j, column in enumerate((data - data.mean(0)).T):
                    left = column - variates[:, :k] @ np.linalg.lstsq(variates[:, :k], column)[0]
                    share = 1 - np.sum(left**2) / np.sum(column**2)
                    found = table.loc[(view, f"{view}{j}"), (name, k)]
                    assert found == pytest.approx(share, abs=1e-9)
    totals = redundancy(cca)
    assert totals["x_redundancy_total"][2] == pytest.approx(table.loc["x"][("r2", 2)].mean())


def test_redundancy_index_is_adequacy_times_squared_correlation() -> None:
    table = redundancy(CCA().fit(*views(60, 4, 3, (0.8, 0.5))))
    for view in ("x", "y"):
        expected = table[f"{view}_adequacy"] * table["r2"]
        np.testing.assert_allclose(table[f"{view}_redundancy"], expected)
        assert table[f"{view}_adequacy_total"].iloc[-1] <= 1 + 1e-12
    # The smaller view is spanned by its variates.
    assert table["y_adequacy_total"].iloc[-1] == pytest.approx(1)


def test_tables_carry_the_users_names_and_come_from_any_library(place: Place) -> None:
    X, Y = views(60, 3, 2, (0.8, 0.5))
    frames = (pd.DataFrame(X, columns=list("abc")), pd.DataFrame(Y, columns=["d", "e"]))
    named = loadings_table(CCA().fit(*frames))
    assert named.index.to_list() == [("x", "a"), ("x", "b"), ("x", "c"), ("y", "d"), ("y", "e")]
    assert named["weight"].columns.to_list() == [1, 2]
    found = CCA().fit(place(X), place(Y))
    np.testing.assert_allclose(loadings_table(found), named, atol=1e-10)
    np.testing.assert_allclose(redundancy(found), redundancy(CCA().fit(X, Y)), atol=1e-10)


def test_models_without_loadings_are_refused() -> None:
    with pytest.raises(TypeError, match="has no loadings"):
        loadings_table(PLSCanonical(1).fit(*LINNERUD))


def test_counts_that_are_none_raise_one_sentence() -> None:
    for bad in ({"n": np.nan}, {"p": "a"}, {"correlations": "abc"}, {"n_nuisance": "z"}):
        given: dict[str, Any] = {"correlations": [0.5], "n": 30, "p": 1, "q": 1} | bad
        with pytest.raises(ValueError, match=next(iter(bad))):
            canonical_correlation_test(**given)


def test_intervals_keep_groups_together_and_deal_the_rows_that_have_weight() -> None:
    X, Y = views(60, 2, 2, (0.5,))
    g = np.arange(60) // 6
    found = correlation_intervals(X, Y, cv=5, groups=g)
    expected = correlation_intervals(X, Y, cv=PredefinedSplit(g % 5))
    pd.testing.assert_frame_equal(found, expected)
    kept = np.arange(60) % 5 > 0  # the others are in no fold
    found = correlation_intervals(X, Y, cv=5, sample_weight=kept * 1.0)
    pd.testing.assert_frame_equal(found, correlation_intervals(X[kept], Y[kept], cv=5))


def test_weights_that_add_up_to_one_are_as_many_rows_as_there_are() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    Y = X + rng.normal(size=(60, 3))
    w = rng.uniform(0.5, 2, 60)
    w *= 60 / w.sum()

    def leading(model: CCA) -> Any:
        return model.correlations_[0]

    def spread(weights: Any) -> Any:
        how = {"n_resamples": 5, "random_state": 0, "sample_weight": weights}
        found = bootstrap(CCA(1), X, Y, leading, **how)
        stable = component_stability(CCA(1), X, Y, **how)
        return [*found.distribution, *stable.to_numpy(float).ravel()]

    for scale in (1 / 60, 1e-200):
        np.testing.assert_allclose(spread(w * scale), spread(w), rtol=1e-9)
        found = linear_cka(X, Y, debiased=True, sample_weight=w * scale)
        assert found == pytest.approx(linear_cka(X, Y, debiased=True, sample_weight=w))
    with pytest.raises(ValueError, match="more than can be drawn"):
        spread(w * 1e200)
