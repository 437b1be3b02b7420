"""One test of everything that takes arrays, over every array library: type and device in = out.

`array_api_strict` has a second device, so that what forgets a device fails on a CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
import pytest

from cmstats import (
    CCA,
    ConditionalGaussian,
    Moments,
    MomentsSearchCV,
    TwoViewPipeline,
    retrieval_report,
    search,
)
from cmstats.arrays import is_array, to_numpy
from cmstats.kernels import covariance, whitening

PLACES = ["numpy", "torch", "array_api_strict", "array_api_strict:device1"]
KINDS = ["cosine", "weighted_cosine", "csa", "likelihood_ratio"]


class Place:
    """An array library and a device: `place(a)` is `a` there."""

    def __init__(self, name: str) -> None:
        library, _, device = name.partition(":")
        self.xp = pytest.importorskip(library)
        if library == "torch":
            self.xp = pytest.importorskip("array_api_compat.torch")
        self.device = self.xp.Device(device) if device else None

    def __call__(self, a: Any, dtype: str = "float64") -> Any:
        a = np.asarray(a).astype(dtype)
        if self.device is not None:
            return self.xp.asarray(a, device=self.device)
        return self.xp.asarray(a.copy())

    def owns(self, a: Any) -> bool:
        one = self(np.ones(1))
        same = type(a) is type(one)
        return same and array_api_compat.device(a) == array_api_compat.device(one)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


rng = np.random.default_rng(5)
X = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)) + 2
Y = X[:, :3] @ rng.normal(size=(3, 3)) + 2 * rng.normal(size=(80, 3))
W = rng.integers(1, 4, 80).astype(float)
Q = X @ rng.normal(size=(5, 5)) / 3
LABELS = np.arange(80) % 4

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "plain": lambda: CCA(),
    "number": lambda: CCA(2, shrinkage=0.3),
    "pair": lambda: CCA(shrinkage=(0.1, 0.7), scale=True),
    "auto": lambda: CCA(shrinkage="auto"),
    "scaled_auto": lambda: CCA(shrinkage="auto", scale=True),
    "cv": lambda: CCA(shrinkage="cv", cv=2),
    "svd": lambda: CCA(solver="svd"),
    "svd_cv": lambda: CCA(solver="svd", shrinkage=("cv", 0.1), cv=2),
    "search": lambda: MomentsSearchCV(CCA(2), {"shrinkage": [0.1, "auto"], "scale": [True, False]}),
    "pipeline": lambda: TwoViewPipeline(CCA(shrinkage=0.2)),
    "gaussian": lambda: ConditionalGaussian(),
    "gaussian_rank": lambda: ConditionalGaussian(rank=2, shrinkage=(0.1, 0.3), scale=True),
}


METHODS: dict[str, Callable[..., Any]] = {
    "transform x": lambda est, put: est.transform(put(X[:9])),
    "transform y": lambda est, put: est.transform(y=put(Y[:7])),
    "transform": lambda est, put: est.transform(put(X[:9]), put(Y[:7])),
    "inverse_transform": lambda est, put: est.inverse_transform(est.transform(put(X[:9]))),
    "predict": lambda est, put: est.predict(put(X[:9])),
    "predict std": lambda est, put: est.predict(put(X[:9]), return_std=True, return_cov=True),
    "decision_function": lambda est, put: est.decision_function(put(X[:9])),
    "fuse x": lambda est, put: est.fuse(put(X[:9])),
    "fuse y": lambda est, put: est.fuse(y=put(Y[:7])),
    "fuse": lambda est, put: est.fuse(put(X[:7]), put(Y[:7])),
    "score": lambda est, put: est.score(put(X), put(Y)),
    "score_samples": lambda est, put: est.score_samples(put(X[:9]), put(Y[:9])),
    "score_tasks": lambda est, put: est.score_tasks(put(X), put(Y)),
    "embed": lambda est, put: est.embed(put(X[:9]), put(Y[:7])),
    "similarity": lambda est, put: est.similarity(put(X[:9]), put(Y[:7])),
    "logpdf": lambda est, put: est.logpdf(put(X[:9]), put(Y[:9])),
    "outlier_scores": lambda est, put: est.outlier_scores(put(X[:9]), put(Y[:9])),
    "responsibilities": lambda est, put: est.responsibilities(put(X[:9]), put(Y[:9])),
    "mutual_information": lambda est, put: est.mutual_information(),
    "sample": lambda est, put: est.sample(put(X[:4]), n_samples=3, random_state=0),
    "condition": lambda est, put: est.condition(on={"y": put(Y[:7])}).means,
    "condition logpdf": lambda est, put: est.condition(on={}).logpdf(x=put(X[:7])),
    "condition sample": lambda est, put: est.condition(on={"x": put(X[:3])}).sample(
        2, random_state=0
    )["y"],
    **{
        f"embed {kind}": lambda est, put, kind=kind: est.embed(put(X[:9]), put(Y[:7]), kind=kind)
        for kind in KINDS
    },
    **{
        f"similarity {kind}": lambda est, put, kind=kind: est.similarity(
            put(X[:9]), put(Y[:7]), kind=kind
        )
        for kind in KINDS
    },
}
"""What is called on every estimator that has it: the first word is the method's name."""

NOT_ARRAYS = {
    # fitting, and what it returns or takes is no array of rows
    "fit", "partial_fit", "fit_moments", "score_moments", "ratio_moments", "fit_transform",
    "correlations_on", "set_output", "get_params", "set_params", "get_feature_names_out",
    "get_metadata_routing", "aic", "bic",
}  # fmt: skip


def calls(est: Any, put: Callable[[Any], Any]) -> dict[str, Any]:
    """What every method of a fitted estimator returns, and its fitted arrays."""
    model = getattr(est, "best_estimator_", getattr(est, "model_", est))
    out: dict[str, Any] = {}
    for name, call in METHODS.items():
        method, _, rest = name.partition(" ")
        takes = inspect.signature(getattr(model, method, calls)).parameters
        wanted = {"std": "return_std", "y": "y"}.get(rest, "kind" if rest in KINDS else None)
        if hasattr(model, method) and hasattr(est, method) and (not wanted or wanted in takes):
            out[name] = call(est, put)
    names = {name for cls in type(model).__mro__ for name in vars(cls)} | set(vars(model))
    for name in sorted(n for n in names if n.endswith("_") and not n.startswith("_")):
        value = getattr(model, name)
        if is_array(value) and "float" in str(value.dtype) and name != "cv_scores_":
            out[name] = value
    return out


def assert_same(found: dict[str, Any], expected: dict[str, Any], place: Place, dtype: str) -> None:
    atol = 1e-10 if dtype == "float64" else 2e-3
    for name, values in expected.items():
        pairs = (
            zip(found[name], values, strict=True)
            if isinstance(values, tuple)
            else ((found[name], values),)
        )
        for a, b in pairs:
            if isinstance(b, float):
                assert isinstance(a, float), name
            else:
                assert place.owns(a), f"{name} is a {type(a)}"
                if not name.endswith("_"):
                    assert dtype in str(a.dtype), f"{name} is {a.dtype}"
            scale = max(1.0, float(np.abs(b).max()))
            np.testing.assert_allclose(to_numpy(a), b, atol=atol * scale, err_msg=name)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("weighted", [False, True])
def test_estimators_stay_where_the_data_are(
    place: Place, dtype: str, name: str, weighted: bool
) -> None:
    def put(a: Any) -> Any:
        return place(a, dtype)

    w = {"sample_weight": W} if weighted else {}
    expected = calls(ESTIMATORS[name]().fit(X, Y, **w), lambda a: a)
    given = {"sample_weight": place(W)} if weighted else {}
    found = calls(ESTIMATORS[name]().fit(put(X), put(Y), **given), put)
    assert_same(found, expected, place, dtype)


@pytest.mark.parametrize("name", ["plain", "auto", "cv", "svd"])
def test_partial_fits_stay_where_the_data_are(place: Place, name: str) -> None:
    found, expected = ESTIMATORS[name](), ESTIMATORS[name]().fit(X, Y, W)
    for a, b in ((0, 13), (13, 14), (14, 80)):
        found.partial_fit(place(X[a:b]), place(Y[a:b]), place(W[a:b]))
    assert_same(calls(found, place), calls(expected, lambda a: a), place, "float64")


def test_weights_may_be_numpys(place: Place) -> None:
    found = CCA().fit(place(X), place(Y), sample_weight=W)
    np.testing.assert_allclose(
        to_numpy(found.correlations_), CCA().fit(X, Y, W).correlations_, atol=1e-12
    )


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

    assert_same(numbers(place), numbers(lambda a: a), place, "")


def test_kernels_stay_where_the_data_are(place: Place) -> None:
    n, mean, S = covariance.scatter(place(X), place(W))
    assert isinstance(n, float)
    assert place.owns(mean)
    assert place.owns(S)
    W_ = whitening.factor(S)
    assert place.owns(W_.weights)
    assert place.owns(W_.apply(place(X)))
    np.testing.assert_allclose(to_numpy(S), covariance.scatter(X, W)[2], atol=1e-9)


def test_one_dimensional_y_is_one_column(place: Place) -> None:
    found, expected = CCA().fit(place(X), place(Y[:, 0])), CCA().fit(X, Y[:, 0])
    prediction = found.predict(place(X))
    assert place.owns(prediction)
    assert prediction.shape == (80,)
    np.testing.assert_allclose(to_numpy(prediction), expected.predict(X), atol=1e-10)
    assert found.transform(y=place(Y[:, 0])).shape == (80, 1)


def test_retrieval_takes_embeddings_from_anywhere(place: Place) -> None:
    expected, found = CCA(3).fit(X, Y), CCA(3).fit(place(X), place(Y))
    U, V = found.embed(place(X), place(Y))
    frame = retrieval_report(U, V, labels=LABELS)
    np.testing.assert_allclose(frame, retrieval_report(*expected.embed(X, Y), labels=LABELS))
    indices, scores = search(U, V, k=3)
    assert place.owns(scores)
    np.testing.assert_array_equal(to_numpy(indices), search(*expected.embed(X, Y), k=3)[0])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers_become_float64(place: Place, dtype: str) -> None:
    A = (np.abs(X) * 3).astype(dtype) if dtype != "bool" else X > 2
    found, expected = CCA().fit(place(A, dtype), place(Y)), CCA().fit(A, Y)
    np.testing.assert_allclose(
        to_numpy(found.transform(place(A, dtype))), expected.transform(A), atol=1e-9
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("solver", ["moments", "svd", "auto"])
def test_degenerate_data_stay_where_they_are(place: Place, solver: Any) -> None:
    constant = np.c_[X, np.ones(80), X[:, :1]]
    wide = rng.normal(size=(20, 30))
    for a, b in ((constant, Y), (X * 0 + 1, Y), (wide, wide[:, :20] + rng.normal(size=(20, 20)))):
        found = CCA(solver=solver).fit(place(a), place(b))
        expected = CCA(solver=solver).fit(a, b)
        assert place.owns(found.x_weights_)
        assert place.owns(found.correlations_)
        np.testing.assert_allclose(to_numpy(found.correlations_), expected.correlations_, atol=1e-7)


def test_ill_conditioned_data_are_solved_by_the_root(place: Place) -> None:
    A = X.copy()
    A[:, 1] = A[:, 0] + 1e-6 * Q[:, 0]
    found, expected = CCA().fit(place(A), place(Y)), CCA().fit(A, Y)
    assert found.moments_.form == "root"
    np.testing.assert_allclose(to_numpy(found.correlations_), expected.correlations_, atol=1e-8)


def test_bad_values_raise_the_same_sentences(place: Place) -> None:
    bad = X.copy()
    bad[3, 1], bad[5, 0] = np.nan, np.inf
    sentence = r"has 1 NaN and 1 infinite values, the first at row 3, column 1"
    fitted = CCA().fit(place(X), place(Y))
    for call in (CCA().fit, CCA(solver="svd").fit, fitted.score, fitted.partial_fit):
        with pytest.raises(ValueError, match=f"x {sentence}"):
            call(place(bad), place(Y))
    with pytest.raises(ValueError, match=f"X {sentence}"):
        fitted.transform(place(bad))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        CCA().fit(place(X), place(Y[:5]))


def test_libraries_and_devices_do_not_mix(place: Place) -> None:
    if place.xp.__name__ == "numpy":
        other: Any = Place("array_api_strict")
    else:
        other = Place("numpy")
    fitted = CCA().fit(place(X), place(Y))
    for call in (
        lambda: CCA().fit(place(X), other(Y)),
        lambda: fitted.transform(other(X)),
        lambda: fitted.predict(other(X)),
        lambda: fitted.transform(place(X), other(Y)),
        lambda: fitted.score(other(X), other(Y)),
        lambda: fitted.partial_fit(other(X), other(Y)),
        lambda: Moments.from_data(x=place(X)) + Moments.from_data(x=other(X)),
        lambda: Moments.from_data(x=place(X), y=other(Y)),
    ):
        with pytest.raises(TypeError, match="one array library and on one device"):
            call()


def test_two_devices_of_one_library_do_not_mix() -> None:
    here, there = Place("array_api_strict"), Place("array_api_strict:device1")
    fitted = CCA().fit(there(X), there(Y))
    for call in (
        lambda: CCA().fit(here(X), there(Y)),
        lambda: fitted.transform(here(X)),
        lambda: fitted.score(here(X), here(Y)),
        lambda: CCA().fit(there(X), there(Y), sample_weight=here(W)),
    ):
        with pytest.raises(TypeError, match="one array library and on one device"):
            call()


def test_tensors_with_gradients_are_data_like_others() -> None:
    place = Place("torch")
    a, b = place(X).requires_grad_(), place(Y)
    found = CCA(shrinkage="auto").fit(a, b)
    np.testing.assert_allclose(
        to_numpy(found.correlations_), CCA(shrinkage="auto").fit(X, Y).correlations_, atol=1e-10
    )
    found.transform(a, b)


def test_half_precision_tensors_give_float32() -> None:
    place = Place("torch")
    for half in (place.xp.float16, place.xp.bfloat16):
        a, b = place(X).to(half), place(Y).to(half)
        found = CCA().fit(a, b)
        expected = CCA().fit(to_numpy(a.to(place.xp.float64)), to_numpy(b.to(place.xp.float64)))
        np.testing.assert_allclose(to_numpy(found.correlations_), expected.correlations_, atol=1e-4)
        assert found.transform(a).dtype == place.xp.float32


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_every_public_method_is_covered_here(make: Callable[[], Any]) -> None:
    """A method added to an estimator needs a line in `METHODS`."""
    covered = {name.partition(" ")[0] for name in METHODS} | NOT_ARRAYS
    for name, _ in inspect.getmembers(type(make()), inspect.isfunction):
        if not name.startswith("_") and "request" not in name:
            assert name in covered, f"{name} is not tested over the libraries"
