"""Published results, to the digits that were printed, on published data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmstats import CCA, Moments, MultitaskRegressor, canonical_correlation_test, loadings_table

pytestmark = pytest.mark.ordinary


def table(columns: int, text: str) -> np.ndarray:
    """The numbers of a text, a row after the other."""
    return np.array(text.split(), float).reshape(-1, columns)


# Belsley, Kuh and Welsch (1980), Regression Diagnostics: savings of 50 countries, 1960 to 1970.
# R's LifeCycleSavings: savings ratio, % under 15, % over 75, disposable income and its growth.
SAVINGS = table(
    5,
    """
11.43 29.35 2.87 2329.68 2.87  12.07 23.32 4.41 1507.99 3.93  13.17 23.80 4.43 2108.47 3.82
5.75 41.89 1.67 189.13 0.22    12.88 42.19 0.83 728.47 4.56   8.79 31.72 2.85 2982.88 2.43
0.60 39.74 1.34 662.86 2.67    11.90 44.75 0.67 289.52 6.51   4.98 46.64 1.06 276.65 3.08
10.78 47.64 1.14 471.24 2.80   16.85 24.42 3.93 2496.53 3.99  3.59 46.31 1.19 287.77 2.19
11.24 27.84 2.37 1681.25 4.32  12.64 25.06 4.70 2213.82 4.52  12.55 23.31 3.35 2457.12 3.44
10.67 25.62 3.10 870.85 6.28   3.01 46.05 0.87 289.71 1.48    7.70 47.32 0.58 232.44 3.19
1.27 34.03 3.08 1900.10 1.12   9.00 41.31 0.96 88.94 1.54     11.34 31.16 4.19 1139.95 2.99
14.28 24.52 3.48 1390.00 3.54  21.10 27.01 1.91 1257.28 8.21  3.98 41.74 0.91 207.68 5.81
10.35 21.80 3.73 2449.39 1.57  15.48 32.54 2.47 601.05 8.12   10.25 25.95 3.67 2231.03 3.62
14.65 24.71 3.25 1740.70 7.66  10.67 32.61 3.17 1487.52 1.76  7.30 45.04 1.21 325.54 2.48
4.44 43.56 1.20 568.56 3.61    2.02 41.18 1.05 220.56 1.03    12.70 44.19 1.28 400.06 0.67
12.78 46.26 1.12 152.01 2.00   12.49 28.96 2.85 579.51 7.48   11.14 31.94 2.28 651.11 2.19
13.30 31.92 1.52 250.96 2.00   11.77 27.74 2.87 768.79 4.35   6.86 21.44 4.54 3299.49 3.01
14.13 23.49 3.73 2630.96 2.70  5.13 43.42 1.08 389.66 2.96    2.81 46.12 1.21 249.87 1.13
7.81 23.27 4.46 1813.93 2.01   7.56 29.81 3.43 4001.89 2.45   9.22 46.40 0.90 813.39 0.53
18.56 45.25 0.56 138.33 5.14   7.72 41.12 1.73 380.47 10.23   9.24 28.13 2.72 766.54 1.88
8.89 43.69 2.07 123.58 16.71   4.71 47.20 0.66 242.69 5.08
""",
)

# Timm (1975), Multivariate Analysis, table 4.7.1: 69 kindergarten children (Rohwer).
# Columns: SAT, PPVT, Raven; n, s, ns, na, ss.
ROHWER = table(
    8,
    """
49 48 8 1 2 6 12 16      47 76 13 5 14 14 30 27   11 40 13 0 10 21 16 16
9 52 9 0 2 5 17 8        69 63 15 2 7 11 26 17    35 82 14 2 15 21 34 25
6 71 21 0 1 20 23 18     8 68 8 0 0 10 19 14      49 74 11 0 0 7 16 13
8 70 15 3 2 21 26 25     47 70 15 8 16 15 35 24   6 61 11 5 4 7 15 14
14 54 12 1 12 13 27 21   30 55 13 2 1 12 20 17    4 54 10 3 12 20 26 22
24 40 14 0 2 5 14 8      19 66 13 7 12 21 35 27   45 54 10 0 6 6 14 16
22 64 14 12 8 19 27 26   16 47 16 3 9 15 18 10    32 48 16 0 7 9 14 18
37 52 14 4 6 20 26 26    47 74 19 4 9 14 23 23    5 57 12 0 2 4 11 8
6 57 10 0 1 16 15 17     60 80 11 3 8 18 28 21    58 78 13 1 18 19 34 23
6 70 16 2 11 9 23 11     16 47 14 0 10 7 12 8     45 94 19 8 10 28 32 32
9 63 11 2 12 5 25 14     69 76 16 7 11 18 29 21   35 59 11 2 5 10 23 24
19 55 8 0 1 14 19 12     58 74 14 1 0 10 18 18    58 71 17 6 4 23 31 26
79 54 14 0 6 6 15 14     24 68 15 0 10 8 21 22    8 82 11 7 3 21 28 21
88 82 13 7 9 17 31 30    82 91 18 6 11 16 27 25   90 82 13 20 7 21 28 16
77 100 15 4 11 18 32 29  58 100 13 6 7 17 26 23   14 96 12 5 2 11 22 23
1 63 10 3 5 14 24 20     98 91 18 16 12 16 27 30  8 87 10 5 3 17 25 24
88 105 21 2 11 10 26 22  4 87 14 1 4 14 25 19     14 76 16 11 5 18 27 22
38 66 14 0 0 3 16 11     4 74 15 5 8 11 12 15     64 68 13 1 6 10 28 23
88 98 16 1 9 12 30 18    14 63 15 0 13 13 19 16   99 94 16 4 6 14 27 19
50 82 18 4 5 16 21 24    36 89 15 1 6 15 23 28    88 80 19 5 8 14 25 24
14 61 11 4 5 11 16 22    24 102 20 5 7 17 26 15   24 71 12 0 4 8 16 14
24 102 16 4 17 21 27 31  50 96 13 5 8 20 28 26    8 55 16 4 7 19 20 13
98 96 18 4 7 10 23 19    98 74 15 2 6 14 25 17    50 78 19 5 10 18 27 26
""",
)

# NAG Library, routine G03ADF, section 10: columns 2 and 3 are x, 1 and 4 are y.
NAG = table(
    4,
    """
80.0 58.4 14.0 21.0  75.0 59.2 15.0 27.0  78.0 60.3 15.0 27.0  75.0 57.4 13.0 22.0
79.0 59.5 14.0 26.0  78.0 58.1 14.5 26.0  75.0 58.0 12.5 23.0  64.0 55.5 11.0 22.0
80.0 59.2 12.5 22.0
""",
)

# NIST StRD, Longley (1967): employment; deflator, GNP, unemployed, armed forces, population, year.
LONGLEY = table(
    7,
    """
60323 83.0 234289 2356 1590 107608 1947   61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949   61187 89.5 284599 3351 1650 110929 1950
63221 96.2 328975 2099 3099 112075 1951   63639 98.1 346999 1932 3594 113270 1952
64989 99.0 365385 1870 3547 115094 1953   63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955  67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957  66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959  69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961  70551 116.9 554894 4007 2827 130081 1962
""",
)
CERTIFIED = [
    15.0618722713733, -0.358191792925910e-01, -2.02022980381683, -1.03322686717359,
    -0.511041056535807e-01, 1829.15146461355,
]  # fmt: skip

CHICKEN_BONES = """
1     .505  .569  .602
.505  1     .422  .467
.569  .422  1     .926
.602  .467  .926  1
"""
JOHNSON_AND_WICHERN_10_1 = """
1  .4 .5 .6
.4 1  .3 .4
.5 .3 1  .2
.6 .4 .2 1
"""


def test_cancor_of_r() -> None:
    cca = CCA().fit(SAVINGS[:, 1:3], SAVINGS[:, [0, 3, 4]])
    np.testing.assert_allclose(cca.correlations_, [0.8247966, 0.3652762], atol=5e-8)


def test_candisc_on_rohwer() -> None:
    test = canonical_correlation_test(CCA().fit(ROHWER[:, 3:], ROHWER[:, :3]))
    np.testing.assert_allclose(test["correlation"], [0.67033, 0.38366, 0.25065], atol=5e-6)
    np.testing.assert_allclose(test["wilks"], [0.44011, 0.79923, 0.93718], atol=5e-6)


def test_canoncorr_of_matlab_on_carbig() -> None:
    """The example of its documentation, on the 392 complete rows of the 406 cars.

    The Auto MPG data of the StatLib library (Quinlan 1993); the same rows are complete there.
    """
    cars = pd.read_csv(Path(__file__).parent / "carbig.csv")
    cca = CCA().fit(cars.iloc[:, :3], cars.iloc[:, 3:])
    A, B = cca.x_weights_, cca.y_weights_
    np.testing.assert_array_equal(cca.correlations_.round(4), [0.8782, 0.6328])
    signs = np.sign(A[0])
    assert f"{signs[0] * A[2, 0]:.4e}" == "-2.4737e-05"
    np.testing.assert_array_equal(
        (signs * A).round(4), [[0.0025, 0.0048], [0.0202, 0.0409], [-0.0, -0.0027]]
    )
    np.testing.assert_array_equal((signs * B).round(4), [[-0.1666, -0.3637], [-0.0916, 0.1078]])


def test_nag_g03adf() -> None:
    test = canonical_correlation_test(CCA().fit(NAG[:, 1:3], NAG[:, [0, 3]]))
    np.testing.assert_allclose(test["correlation"], [0.9570, 0.3624], atol=5e-5)
    np.testing.assert_allclose(test["chi2"].iloc[0], 14.3914, atol=5e-5)
    # Of the second it prints .7744, with Bartlett's factor of the first; Lawley's is .7873.
    second = -np.log1p(-(test["correlation"].iloc[1] ** 2))
    np.testing.assert_allclose(5.5 * second, 0.7744, atol=5e-5)
    assert list(test["chi2_df"]) == [4, 1]


@pytest.mark.parametrize(
    ("matrix", "n", "expected", "digits"),
    [(CHICKEN_BONES, 276, [0.631, 0.057], 3), (JOHNSON_AND_WICHERN_10_1, 100, [0.74, 0.03], 2)],
)
def test_published_correlation_matrices(
    matrix: str, n: int, expected: list[float], digits: int
) -> None:
    R = np.loadtxt(io.StringIO(matrix))
    cca = CCA().fit_moments(Moments.from_covariance(R, n, blocks={"x": 2, "y": 2}))
    np.testing.assert_array_equal(cca.correlations_.round(digits), expected)
    names = ["skull length", "skull breadth", "femur", "tibia"]
    named = pd.DataFrame(R, index=names, columns=names)
    cca = CCA().fit_moments(Moments.from_covariance(named, n, blocks={"x": 2, "y": 2}))
    assert list(cca.feature_names_in_) == names[:2]
    assert list(cca.y_feature_names_in_) == names[2:]
    assert len(canonical_correlation_test(cca)) == 2


def test_ridge_without_penalty_on_longley() -> None:
    X, y = LONGLEY[:, 1:], LONGLEY[:, 0]
    fitted = MultitaskRegressor(alpha=0.0, solver="svd").fit(X, y)
    np.testing.assert_allclose(fitted.coef_.ravel(), CERTIFIED, rtol=1e-12)
    np.testing.assert_allclose(fitted.intercept_, -3482258.63459582, rtol=1e-12)


def test_moments_of_a_covariance_are_those_of_the_rows() -> None:
    X, y = SAVINGS[:, 1:3], SAVINGS[:, [0, 3, 4]]
    rows = np.hstack([X, y])
    m = Moments.from_covariance(np.cov(rows.T), 50, mean=rows.mean(axis=0), blocks={"x": 2, "y": 3})
    expected = Moments.from_data(x=X, y=y)
    np.testing.assert_allclose(m.cov("x", "y"), expected.cov("x", "y"), rtol=1e-12)
    np.testing.assert_allclose(m.mean("y"), expected.mean("y"), rtol=1e-12)
    both, found = m + expected, CCA(shrinkage=0.1).fit_moments(m)
    assert both.n == 100
    np.testing.assert_allclose(found.transform(X), CCA(shrinkage=0.1).fit(X, y).transform(X))


def test_names_of_columns_survive_batches_sums_files_and_regression(tmp_path: Path) -> None:
    frame = pd.DataFrame(SAVINGS, columns=["sr", "pop15", "pop75", "dpi", "ddpi"])
    x, y, z = frame[["pop15", "pop75"]], frame[["dpi", "ddpi"]], frame[["sr"]]
    parts = [{"x": x[i::2], "y": y[i::2], "z": z[i::2]} for i in range(2)]
    m = Moments.from_batches(parts) + Moments.from_data(x=x, y=y, z=z)
    m.partial_out("z").save(tmp_path / "m.npz")
    loaded = Moments.load(tmp_path / "m.npz")
    assert loaded.column_names == {"x": ("pop15", "pop75"), "y": ("dpi", "ddpi")}
    assert list(loadings_table(CCA().fit_moments(loaded)).loc["y"].index) == ["dpi", "ddpi"]
    with pytest.raises(
        ValueError, match="column 0 of x is 'pop15' in one group of rows and 'pop75'"
    ):
        _ = m + Moments.from_data(x=x[["pop75", "pop15"]], y=y, z=z)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n": 1}, "n=1 must be the number of rows, more than 1"),
        ({"n": True}, "n=True must be"),
        ({"n": float("nan")}, "n=nan must be"),
        ({"S": np.eye(4)[:3]}, r"S has shape \(3, 4\): a covariance matrix is square"),
        ({"S": np.eye(3)}, "have 4 columns, but S has 3"),
        ({"S": np.eye(4) + np.eye(4, k=1)}, r"not symmetric: S\[0, 1\] = 1, but S\[1, 0\] = 0"),
        ({"S": -np.eye(4)}, r"S\[0, 0\] = -1 is a negative variance"),
        ({"S": np.eye(4) + np.fliplr(np.eye(4)) * 1.5}, "not positive semi-definite"),
        ({"S": np.full((4, 4), np.nan)}, "S has 16 NaN values"),
        ({"S": [["a"] * 4] * 4}, "not numbers"),
        ({"mean": [1.0, 2.0]}, r"mean has shape \(2,\), expected \(4,\)"),
        ({"mean": [1.0, np.inf, 0.0, 0.0]}, "mean has 1 infinite value"),
        ({"blocks": {}}, "must say how many columns each block has"),
        ({"blocks": {"x": 2, "cv": 2}}, "'cv' cannot name a block"),
        ({"blocks": {"x": 4, "y": 0}}, "block 'y' has 0 columns"),
        ({"blocks": [2, 2]}, "must say how many columns"),
        (
            {"S": pd.DataFrame(np.eye(4), columns=list("abcd"), index=list("abdc"))},
            "different names",
        ),
    ],
)
def test_what_is_no_covariance_is_one_sentence(change: dict[str, object], match: str) -> None:
    given = {"S": np.eye(4), "n": 10, "blocks": {"x": 2, "y": 2}, **change}
    with pytest.raises(ValueError, match=match):
        Moments.from_covariance(given.pop("S"), given.pop("n"), **given)  # type: ignore[arg-type]
