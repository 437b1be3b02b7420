"""Arrays of any namespace: dtypes, validation, linear algebra that the standard lacks."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.sparse

from cmstats import arrays as _array
from cmstats.arrays import (
    check_matrix,
    count_nonfinite,
    namespace,
    result_dtype,
    take_rows,
    to_numpy,
    warn,
)
from cmstats.kernels.linalg import qr_r, solve_triangular, svd
from cmstats.rows import chunks as streams
from cmstats.rows.chunks import project

strict = pytest.importorskip("array_api_strict")
DEVICE_1 = strict.Device("device1")


def test_the_namespace_is_that_of_the_arrays(xp: types.ModuleType, to_xp: Any) -> None:
    a = to_xp(np.eye(3))
    assert namespace(a, None, a) is namespace(a)
    assert type(namespace(a).zeros((1,))) is type(a)


def test_frames_lists_and_sparse_matrices_count_as_numpy() -> None:
    for a in (pd.DataFrame(np.eye(2)), [[1.0]], scipy.sparse.eye(3, format="csr")):
        assert _array.is_numpy(namespace(a))


def test_arrays_of_two_libraries_or_two_devices_do_not_mix() -> None:
    with pytest.raises(TypeError, match="one array library and on one device"):
        namespace(np.eye(2), strict.eye(2))
    with pytest.raises(TypeError, match="device1"):
        namespace(strict.eye(2), strict.eye(2, device=DEVICE_1))


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("longdouble", "float64"),
        ("int64", "float64"),
        ("int8", "float64"),
        ("uint8", "float64"),
        ("bool", "float64"),
    ],
)
def test_results_of_data_have_the_dtype_promised(given: str, result: str) -> None:
    assert result_dtype(np.zeros(1, given)) == np.dtype(result)


@pytest.mark.torch
def test_results_of_torch_data_have_the_dtype_promised() -> None:
    torch = pytest.importorskip("torch")
    for given, result in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
    ):
        assert result_dtype(torch.zeros(1, dtype=given)) == result


def test_to_numpy_copies_from_every_place(to_xp: Any, rng: np.random.Generator) -> None:
    a = rng.normal(size=(3, 2))
    assert np.array_equal(to_numpy(to_xp(a)), a)
    assert np.array_equal(to_numpy(strict.asarray(a, device=DEVICE_1)), a)


@pytest.mark.torch
def test_a_device_without_double_precision_is_one_sentence(monkeypatch: Any) -> None:
    torch = pytest.importorskip("torch")
    info = types.SimpleNamespace(dtypes=lambda device=None: {"float32": torch.float32})
    xp = _array.namespace(torch.ones(1))
    monkeypatch.setattr(xp, "__array_namespace_info__", lambda: info)
    _array._has_double.cache_clear()
    try:
        with pytest.raises(TypeError, match=r"X is on torch on cpu, which has no double precision"):
            _array.check_matrix(torch.ones((5, 2)), "X")
    finally:
        _array._has_double.cache_clear()


@pytest.mark.torch
def test_to_numpy_leaves_gradients_behind() -> None:
    torch = pytest.importorskip("torch")
    assert to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_a_matrix_of_another_library_comes_back_as_it_is(to_xp: Any) -> None:
    a = to_xp(np.eye(3))
    assert check_matrix(a, "X") is a


def test_a_vector_is_one_column(to_xp: Any) -> None:
    assert check_matrix(to_xp(np.arange(3.0)), "y").shape == (3, 1)


def test_sparse_matrices_stay_sparse() -> None:
    out = check_matrix(scipy.sparse.coo_array(np.eye(3)), "X")
    assert scipy.sparse.issparse(out)
    assert out.format == "csr"


def test_values_that_are_not_finite_are_counted_and_located(to_xp: Any) -> None:
    a = np.zeros((4, 3))
    a[2, 1], a[3, 0], a[3, 2] = np.nan, np.inf, -np.inf
    assert count_nonfinite(to_xp(a), 10) == (1, 2, (12, 1))
    assert count_nonfinite(to_xp(np.zeros((4, 3)))) == (0, 0, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_sentence_names_the_view_the_count_and_the_first(to_xp: Any, bad: float) -> None:
    a = np.zeros((4, 3))
    a[1, 2] = bad
    with pytest.raises(ValueError, match=r"^text has 1 .* value, the first at row 1, column 2"):
        check_matrix(to_xp(a), "text")


def test_infinities_of_both_signs_raise_no_second_warning(to_xp: Any) -> None:
    a = np.zeros((4, 3))
    a[0, 0], a[1, 0] = np.inf, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="2 infinite values"):
            check_matrix(to_xp(a), "X")


def test_values_whose_sum_overflows_are_finite() -> None:
    a = np.full((4, 3), 1e308)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_matrix(a, "X") is a


def test_nonfinite_values_of_a_sparse_matrix_are_located_in_the_matrix() -> None:
    dense = np.zeros((5, 4))
    dense[3, 2], dense[1, 1] = np.nan, 1.0
    with pytest.raises(ValueError, match="1 NaN value, the first at row 3, column 2"):
        check_matrix(scipy.sparse.csc_array(dense), "X")


@pytest.mark.parametrize("like", [np.asarray, strict.asarray])
def test_complex_values_raise(like: Any) -> None:
    with pytest.raises(ValueError, match="Complex data not supported"):
        check_matrix(like(np.eye(2) * 1j), "X")


@pytest.mark.parametrize(
    "a",
    [
        np.array([["a", "b"]]),
        [["1", "b"]],
        pd.DataFrame({"a": [1.0, 2.0], "b": ["cat", "dog"]}),
        np.array([[object()]]),
        pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}),
    ],
)
def test_what_is_not_numeric_raises_one_sentence(a: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^X"):
        check_matrix(a, "X")


def test_numbers_held_as_objects_are_read() -> None:
    assert check_matrix(np.array([[1, 2.5]], dtype=object), "X").dtype == np.float64


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 2, 2)])
def test_shapes_without_rows_columns_or_of_three_axes_raise(
    to_xp: Any, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"^X"):
        check_matrix(to_xp(np.zeros(shape)), "X")


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_triangular_solves_equal_scipys(
    to_xp: Any, rng: np.random.Generator, lower: bool, transpose: bool
) -> None:
    a = rng.normal(size=(4, 4)) + 4 * np.eye(4)
    a = np.tril(a) if lower else np.triu(a)
    b = rng.normal(size=(4, 2))
    out = solve_triangular(to_xp(a), to_xp(b), lower=lower, transpose=transpose)
    expected = scipy.linalg.solve_triangular(a, b, lower=lower, trans=int(transpose))
    np.testing.assert_allclose(to_numpy(out), expected, atol=1e-13)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_svd_multiplies_back(to_xp: Any, rng: np.random.Generator, shape: tuple[int, int]) -> None:
    a = rng.normal(size=shape)
    u, s, vt = (to_numpy(part) for part in svd(to_xp(a)))
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-13)


@pytest.mark.parametrize("failures", [1, 2])
def test_svd_falls_back_when_lapack_does_not_converge(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    a = rng.normal(size=(6, 4))
    real, calls = np.linalg.svd, []

    def fails_at_first(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) <= failures:
            raise np.linalg.LinAlgError("SVD did not converge")
        return real(*args, **kwargs)

    monkeypatch.setattr(np.linalg, "svd", fails_at_first)
    u, s, vt = svd(a)
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-13)
    np.testing.assert_allclose(u.T @ u, np.eye(4), atol=1e-13)


def test_qr_r_is_a_root(to_xp: Any, rng: np.random.Generator) -> None:
    a = rng.normal(size=(9, 4))
    R = to_numpy(qr_r(to_xp(a)))
    assert R.shape == (4, 4)
    np.testing.assert_allclose(R.T @ R, a.T @ a, atol=1e-12)


def test_rows_are_taken_by_slice_and_by_position(to_xp: Any, rng: np.random.Generator) -> None:
    a = rng.normal(size=(9, 4))
    assert np.array_equal(to_numpy(take_rows(to_xp(a), slice(2, 5))), a[2:5])
    at = np.array([4, 0, 8])
    assert np.array_equal(to_numpy(take_rows(to_xp(a), to_xp(at))), a[at])


def test_project_centres_before_it_multiplies(to_xp: Any, rng: np.random.Generator) -> None:
    X = (rng.normal(size=(50, 4)) + 1000).astype(np.float32)
    mean, W = X.astype(float).mean(axis=0), rng.normal(size=(4, 2))
    out = to_numpy(project(to_xp(X), to_xp(mean), to_xp(W)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (X.astype(float) - mean) @ W, atol=1e-3)


def test_project_of_a_sparse_matrix_equals_that_of_the_dense_one(rng: np.random.Generator) -> None:
    X = scipy.sparse.random(30, 6, 0.3, format="csr", random_state=1)
    mean, W = rng.normal(size=6), rng.normal(size=(6, 2))
    np.testing.assert_allclose(project(X, mean, W), project(X.toarray(), mean, W), atol=1e-13)


def test_project_in_runs_of_rows_equals_project_at_once(
    to_xp: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, mean, W = (to_xp(rng.normal(size=s)) for s in ((3000, 6), 6, (6, 2)))
    whole = to_numpy(project(X, mean, W))
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(to_numpy(project(X, mean, W)), whole, atol=1e-14)


def test_cupy_is_not_imported_without_a_cupy_array() -> None:
    assert not any(name.split(".")[0] in ("cupy", "cupyx") for name in sys.modules)


def test_a_warning_points_at_the_first_line_outside_of_the_package() -> None:
    inside = {"__name__": "cmstats.somewhere", "warn": warn}
    exec("def outer():\n    inner()\ndef inner():\n    warn('beware', FutureWarning)", inside)
    with pytest.warns(FutureWarning, match="beware") as caught:
        inside["outer"]()
    assert caught[0].filename == __file__


def test_a_warning_appears_each_time_it_applies_and_obeys_the_filters() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once for each line, as in a notebook
        for _ in range(3):
            warn("the same sentence")
    assert [w.filename for w in caught] == [__file__] * 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warn("the same sentence")
    assert not caught
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="the same sentence"):
            warn("the same sentence")


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"a": [1.0, 2.0]}, TypeError, "a dict"),
        ((row for row in [[1.0]]), TypeError, "a generator"),
        ("image.npy", ValueError, "the text 'image.npy'"),
    ],
)
def test_what_is_no_matrix_at_all_is_named(given: Any, error: Any, what: str) -> None:
    with pytest.raises(error, match=f"X is {what}, and every argument must be a real number"):
        check_matrix(given, "X")
