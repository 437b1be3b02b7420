"""Bad rows get one sentence and the right exception, and leave nothing half-fitted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.utils.validation import check_is_fitted

from .registry import Model, every, fitted
from .rows import Rows


def put(a: Any, **values: Any) -> Any:
    """A copy with some entries replaced: ``put(a, r3c1=nan)``."""
    out = np.array(a)
    for at, value in values.items():
        row, column = at[1:].split("c")
        out[int(row), int(column)] = value
    return out


def fails(model: Model, error: Any, match: str, rows: Rows, method: str = "fit") -> None:
    """That sentence and no warning, and an estimator that is not fitted."""
    est = model.make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(error, match=match) as caught:
            model.fit(rows, None, est, method)
    sentence = str(caught.value)
    assert "LAPACK" not in sentence
    assert "\n" not in sentence.strip() or "Reshape your data" in sentence  # scikit-learn's
    with pytest.raises(NotFittedError):
        check_is_fitted(est)


def name_of(view: str) -> str:
    """How a sentence names a view."""
    return {"x": "[xX]"}.get(view, view)


def each_view(model: Model) -> Any:
    rows = model.rows()
    return [(name, a, rows) for name, a in rows.views.items()]


@every(lambda m: not m.missing, variants=False)
def test_values_that_are_not_finite_are_counted_and_located(model: Model) -> None:
    for name, a, rows in each_view(model):
        for bad, sentence in (
            (put(a, r3c1=np.nan), "has 1 NaN value, the first at row 3, column 1"),
            (put(a, r5c2=np.inf), "has 1 infinite value, the first at row 5, column 2"),
            (
                put(a, r3c1=np.nan, r9c0=np.nan, r2c2=-np.inf),
                "has 2 NaN and 1 infinite values, the first at row 2, column 2",
            ),
            (
                put(a, r3c1=np.inf, r4c1=-np.inf),
                "has 2 infinite values, the first at row 3, column 1",
            ),
        ):
            if model.name.startswith("multitask") and name == "y" and "NaN" in sentence:
                continue  # a target that was not observed
            fails(model, ValueError, f"{name_of(name)} {sentence}", rows.but(name, bad))


@every(lambda m: not m.missing, variants=False)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_single_and_half_precision_that_is_not_finite_is_located(model: Model, dtype: Any) -> None:
    for name, a, rows in each_view(model):
        bad = rows.but(name, put(a, r3c1=np.inf)).map(lambda v: v.astype(dtype))
        fails(model, ValueError, f"{name_of(name)} has 1 infinite value, .* row 3, column 1", bad)


@every(lambda m: not m.missing, variants=False)
def test_every_call_locates_values_that_are_not_finite(model: Model) -> None:
    est = fitted(model)
    for name, a, rows in each_view(model):
        if model.name.startswith("multitask") and name == "y":
            continue
        bad = rows.but(name, put(a, r3c1=np.nan))
        sentence = f"{name_of(name)} has 1 NaN value, the first at row 3, column 1"
        for call in model.separate_calls(est, bad, name):
            with pytest.raises(ValueError, match=sentence):
                call()
        if model.partial:
            fails(model, ValueError, sentence, bad, "partial_fit")


@every(lambda m: m.missing)
def test_infinite_values_are_never_missing_ones(model: Model) -> None:
    for name, a, rows in each_view(model):
        fails(model, ValueError, f"{name_of(name)} has 1 infinite value, .* row 7, column 1",
              rows.but(name, put(a, r7c1=np.inf)))  # fmt: skip


@every(lambda m: len(m.rows(5).views) > 1, variants=False)
def test_lengths_that_differ_raise_with_both_shapes(model: Model) -> None:
    rows = model.rows()
    *_, last = rows.views
    short = rows.but(last, rows.views[last][1:])
    shapes = rf"\(90, \d\).*\(89, {rows.views[last].shape[1]}\)"
    fails(model, ValueError, f"inconsistent numbers of samples: .*{shapes}", short)
    if model.partial:
        fails(model, ValueError, shapes, short, "partial_fit")
    for method in ("fuse", "logpdf"):
        if model.has(method) and not model.many:
            with pytest.raises(ValueError, match=r"90 rows and y .*89|inconsistent numbers"):
                getattr(fitted(model), method)(*short.views.values())
    if model.score:
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples|the two sides have"):
            model.score_of(fitted(model), short)


@every(variants=False)
def test_complex_values_text_and_three_axes_raise(model: Model) -> None:
    for name, a, rows in each_view(model):
        fails(model, ValueError, "(?i)complex", rows.but(name, a * 1j))
        frame = pd.DataFrame({"a": a[:, 0], "name": ["cat"] * len(a)})
        for text in (np.array([["a", "b"]] * len(a)), [["1.0", "dog"]] * len(a), frame):
            fails(model, (ValueError, TypeError), "(?i)number|text|string", rows.but(name, text))
        fails(model, ValueError, "two-dimensional|dim 3|3D|1D array", rows.but(name, a[:, :, None]))


NO_MATRIX = {
    "None": (None, "None|requires y"),
    "text": ("rows.csv", "the text 'rows.csv'.* read the file first"),
    "path": (Path("rows.csv"), "the path 'rows.csv'.* read the file first"),
    "dict": ({"a": [1]}, r"\['a'\]|views|is the number 1|1D array|shape"),
    "set": ({1.0, 2.0}, "is a set"),
    "generator": ((i for i in "ab"), r"numpy.stack\(list\("),
    "number": (np.float64(3.5), "the number 3.5"),
    "saved object": (np.array({"rows": 1}), r"take what it holds, \w+.item\(\)"),
    "estimator": (LinearRegression(), "is a LinearRegression"),
}


@every(lambda m: m.cls.__name__ != "TwoViewPipeline", variants=False)
def test_what_is_no_matrix_at_all_is_named(model: Model) -> None:
    for name, _, rows in each_view(model):
        for what, (given, match) in NO_MATRIX.items():
            if what in ("generator", "set") and name == "x" and "y" not in rows.views:
                continue  # a stream of batches
            fails(model, (ValueError, TypeError), match, rows.but(name, given))


@every(lambda m: not m.many and m.cls.__name__ != "TwoViewPipeline", variants=False)
def test_a_vector_for_x_raises(model: Model) -> None:
    rows = model.rows()
    fails(model, ValueError, "(?s)1D array|two-dimensional", rows.but("x", rows.x[:, 0]))


@every(variants=False)
def test_no_row_no_column_and_one_row_raise(model: Model) -> None:
    rows = model.rows()
    fails(model, ValueError, r"0 sample|minimum of 1|0 row", rows.take(slice(0, 0)))
    for name, a, _ in each_view(model):
        fails(model, ValueError, "0 feature", rows.but(name, a[:, :0]))
    if model.cls.__name__ not in ("ExactKernelMap", "NystroemMap", "RandomFourierMap"):
        one = rows.take(slice(0, 1))
        fails(model, ValueError, r"(?i)sample|row|fold", one)


@every(lambda m: "y" in m.rows(5).views, variants=False)
def test_no_second_view_raises(model: Model) -> None:
    rows = model.rows()
    fails(model, ValueError, "requires y|second view|y is None", rows.but("y", None))


@every(variants=False)
def test_the_wrong_width_raises_with_both_widths(model: Model) -> None:
    est = fitted(model)
    for name, a, rows in each_view(model):
        width = a.shape[1]
        narrow = rows.but(name, a[:, : width - 1])
        few = width - 1
        sentence = (
            rf"has {few} features, (but .* )?expect(ing|ed) {width}|of {few} features|"
            rf"shape \({len(a)}, {few}\), expected \(1, {width}\)"
        )
        for call in model.separate_calls(est, narrow, name):
            with pytest.raises(ValueError, match=sentence):
                call()


@every(variants=False)
def test_use_before_fit_raises(model: Model) -> None:
    rows = model.rows()
    for call in model.separate_calls(model.make(), rows):
        with pytest.raises(NotFittedError):
            call()
    if model.has("score_moments") and not model.mapped:
        with pytest.raises(NotFittedError):
            model.make().score_moments(model.moments_of(None, rows))


@every(lambda m: m.has("similarity"), variants=False)
def test_a_similarity_of_one_view_raises(model: Model) -> None:
    est, rows = fitted(model), model.rows()
    first, *rest = rows.views.values()
    for given in (
        ([[first, *(None for _ in rest)]],) if model.many else ((first, None), (None, rest[0]))
    ):
        with pytest.raises(ValueError, match=r"two views|second view"):
            est.similarity(*given)


@every(lambda m: m.has("score_moments") and not m.mapped, variants=False)
def test_what_is_no_moments_raises(model: Model) -> None:
    est = fitted(model)
    for given in (None, model.rows(), "moments", 3):
        with pytest.raises(TypeError, match="Moments"):
            est.score_moments(given)
        with pytest.raises(TypeError, match="Moments"):
            model.fresh(est).fit_moments(given)


@every(lambda m: not m.labels(m.rows(5)), variants=False)
def test_dates_are_no_numbers(model: Model) -> None:
    pl = pytest.importorskip("polars")
    for name, a, rows in each_view(model):
        for date in (pd.Timestamp("2020-01-01"), pd.Timedelta(1, "s")):
            frame = pd.DataFrame(a).set_axis([f"{name}{j}" for j in range(a.shape[1])], axis=1)
            frame[f"{name}1"] = date
            for given in (frame, pl.from_pandas(frame)):
                fails(model, (ValueError, TypeError), f"column '{name}1'", rows.but(name, given))
        objects = [[*row[:-1], np.datetime64("2020-01-01")] for row in a.tolist()]
        fails(model, (ValueError, TypeError), "number", rows.but(name, objects))
