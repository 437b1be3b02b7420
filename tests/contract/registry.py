"""The models, each enrolled once; what a property needs to know of one is said here.

A new model is one entry. Its `rows` are what `fit` takes: `pair` (two views, or features and
targets), `alone` (one view), `several` (a list of views). What can be seen of its public methods
and of the signature of `fit` is not said twice.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmstats import (
    CCA,
    PLS,
    ConditionalGaussian,
    ConditionalGaussianMixture,
    ConformalRetriever,
    CrossModalRetriever,
    ExactKernelMap,
    KernelCCA,
    LinearAutoencoder,
    Moments,
    MomentsSearchCV,
    MultitaskRegressor,
    MultiviewCCA,
    NystroemMap,
    OrthogonalMap,
    PrototypeClassifier,
    RandomFourierMap,
    SemanticMatching,
    SparseCCA,
    TwoViewPipeline,
)
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA

from .places import DTYPES, PLACES
from .rows import (
    Rows,
    aligned,
    alone,
    arrays_of,
    assert_same,
    fitted_numbers,
    pair,
    several,
    several_aligned,
    unlabelled,
    with_gaps,
    with_holes,
)

KINDS = ("cosine", "weighted_cosine", "csa", "likelihood_ratio")


@dataclass(frozen=True)
class Model:
    """One enrolled model."""

    name: str
    make: Callable[[], Any]
    rows: Callable[..., Rows] = unlabelled
    _: KW_ONLY
    main: bool = False
    """The entry of its class on which the properties run that no parameter changes."""
    folds: Any = None
    """The `cv` by which "cv" or a search deals the rows to folds."""
    form: str = "scatter"
    """The representation of moments that `fit` solves in."""
    kinds: tuple[str, ...] = ()
    """The kinds of similarity and of embedding."""
    without: tuple[str, ...] = ()
    """Calls that mean nothing here: keys of `CALLS`, or methods."""
    seeded: str = ""
    """Why the order of the rows matters."""
    by_row: bool = False
    """Whether it has fitted attributes for single rows or for a basis that depends on them."""
    mapped: bool = False
    """Whether its moments are those of mapped rows."""
    batches: bool = True
    """Whether `partial_fit` takes batches, where there is one."""
    dask: str = "fit"
    """What takes Dask arrays: "fit" and the outputs, the "outputs" alone, or nothing."""
    sparse: bool = True
    whole: bool = False
    """Whether `fit` reads all rows at once, however they are held."""
    in_memory: tuple[str, ...] = ()
    """Methods that read all rows at once, which slices cannot give."""
    one: Callable[[], Any] | None = None
    """How it is made where y is one column, if its parameters then have to be others."""
    torch: bool = False
    """Whether it is trained with torch."""
    atol: float = 1e-10
    """How far two ways to one model may differ."""
    atol32: float = 2e-3
    """How far single precision may."""
    signless: tuple[str, ...] = ()
    """Results whose columns have the signs that the array library gave them."""
    chooses_by: str = ""
    """The method by whose value on held-out moments "cv" chooses, if not by the score; "MRR" of
    the held-out rows, or their "correlation"."""
    unsteady: tuple[str, ...] = ()
    """Results that single precision does not determine."""
    heavy: bool = False
    """Whether its properties are all in the slow set: each fit is many, or trains a network."""
    quick: bool = True
    """Whether its properties are in the quick set, if it is `main`; not where fits take long."""
    broken: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Tests that fail today, each with the reason: expected failures, strictly."""

    # ------------------------------------------------------------------- what it has
    @functools.cached_property
    def cls(self) -> type:
        return type(self.make())

    def has(self, method: str) -> bool:
        return method not in self.without and hasattr(self.make(), method)

    @functools.cached_property
    def door(self) -> tuple[Any, ...]:
        """The method that takes its rows, which classes of one base share, and which views."""
        method: Any = getattr(self.cls, "_blocks", None) or self.cls.fit
        return (method.__qualname__, *self.rows(5).views)

    @property
    def moments(self) -> bool:
        return self.has("fit_moments")

    @property
    def solves_both_ways(self) -> bool:
        """Whether a parameter chooses the representation of moments."""
        return "solver" in self.make().get_params()

    @property
    def partial(self) -> bool:
        return self.batches and self.has("partial_fit")

    @property
    def score(self) -> bool:
        return self.has("score")

    @functools.cached_property
    def weights(self) -> bool:
        return "sample_weight" in inspect.signature(self.make().fit).parameters or isinstance(
            self.make(), TwoViewPipeline
        )

    @functools.cached_property
    def missing(self) -> bool:
        """Whether the rows have holes."""
        return any(np.isnan(v).any() for v in self.rows().views.values())

    @functools.cached_property
    def many(self) -> bool:
        """Whether all views go into the first argument."""
        return "view0" in self.rows(5).views

    # ------------------------------------------------------------------- what is done
    def args(self, rows: Rows) -> tuple[Any, ...]:
        views = tuple(rows.views.values())
        return (list(views),) if "view0" in rows.views else views

    def labels(self, rows: Rows) -> dict[str, Any]:
        return {} if rows.labels is None else {"labels": rows.labels}

    def batch(self, rows: Rows) -> Any:
        """What a stream yields."""
        args = self.args(rows)
        return args[0] if len(args) == 1 and self.many else args

    def fit(self, rows: Rows, weights: Any = None, est: Any = None, method: str = "fit") -> Any:
        est = self.make() if est is None else est
        given = {} if weights is None else {"sample_weight": weights}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return getattr(est, method)(*self.args(rows), **self.labels(rows), **given)

    def score_of(self, est: Any, rows: Rows, weights: Any = None) -> float:
        given = {} if weights is None else {"sample_weight": weights}
        return float(est.score(*self.args(rows), **self.labels(rows), **given))

    def moments_of(self, est: Any, rows: Rows, weights: Any = None, folds: Any = None) -> Any:
        """The moments of rows, as the estimator `est` would take them; in folds where asked."""
        blocks = dict(rows.views)
        if self.mapped:
            blocks = {"x": est.x_map_.transform(rows.x), "y": est.y_map_.transform(rows.y)}
        how: dict[str, Any] = {"form": self.form, "sample_weight": weights}
        if self.missing:
            how = {"sample_weight": weights, "missing": "em"}
        if folds is not None:
            return Moments.folds(cv=folds, **how, **blocks)
        return Moments.from_data(**how, **blocks)

    def fresh(self, fitted: Any) -> Any:
        """An estimator to fit to moments: unfitted, but for the maps where moments need them."""
        return copy.deepcopy(fitted) if self.mapped else clone(fitted)

    def fold_ids(self, n: int) -> Any:
        """The fold of each row."""
        if isinstance(self.folds, int):
            return np.arange(n) % self.folds
        ids = np.empty(n, dtype=int)
        for k, (_, test) in enumerate(self.folds.split(np.empty(n))):
            ids[test] = k
        return ids

    def calls(
        self, est: Any, rows: Rows, only: Any = (), *, without: Any = ()
    ) -> dict[str, list[Any]]:
        """What every method (some only, or without some) returns of rows: arrays and numbers."""

        def wanted(name: str) -> bool:
            method = name.partition(" ")[0]
            return method not in without and (
                not only or (method in only and name != "predict std")
            )

        named = self.named_calls(est, rows)
        return {name: arrays_of(call()) for name, call in named if wanted(name)}

    def separate_calls(self, est: Any, rows: Rows, view: str = "") -> list[Callable[[], Any]]:
        """Each call for itself; those only that read the view of that name."""
        reads = {"x": READ_X, "y": READ_Y}.get(view)
        named = self.named_calls(est, rows)
        if view.startswith("view"):
            reads = {"transform", "fuse", "score", "embed"}
        return [call for name, call in named if reads is None or name in reads]

    def named_calls(self, est: Any, rows: Rows) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Every call that means something here."""
        for name, call in CALLS_OF_MANY.items() if self.many else CALLS.items():
            method, _, rest = name.partition(" ")
            if {name, method} & {*self.without} or not hasattr(est, method):
                continue
            if rest.startswith("kind=") and rest[5:] not in self.kinds:
                continue
            if "y" not in rows.views and not self.many and name not in CALLS_OF_ONE:
                continue
            if call is _predict_spread and not _returns_spread(est):
                continue
            yield name, functools.partial(call, est, rows)

    def outcome(self, est: Any, rows: Rows) -> dict[str, list[Any]]:
        """`everything` that can be compared between fits to other orders of the rows."""
        return (
            self.calls(est, rows.take(slice(0, 9))) if self.by_row else self.everything(est, rows)
        )

    def compare(self, found: Any, expected: Any, atol: float = 0.0, without: Any = ()) -> None:
        """Assert that the results of two ways to one model are equal."""
        assert_same(found, expected, max(self.atol, atol), without, self.signless)

    def everything(self, est: Any, rows: Rows) -> dict[str, list[Any]]:
        """What it was fitted to be and what it returns."""
        return {**fitted_numbers(est), **self.calls(est, rows.take(slice(0, 9)))}


def _returns_spread(est: Any) -> bool:
    model = getattr(est, "best_estimator_", getattr(est, "model_", est))
    return "return_std" in inspect.signature(model.predict).parameters


def _predict_spread(est: Any, r: Rows) -> Any:
    return est.predict(r.x, return_std=True, return_cov=True)


def _region(est: Any, r: Rows) -> Any:
    region = copy.copy(est).calibrate(r.x, r.y).predict_region(r.x, 0.5, kind="intervals")
    return region.lower, region.upper


def _score(est: Any, r: Rows) -> Any:
    given = {} if r.labels is None else {"labels": r.labels}
    return float(est.score(*r.views.values(), **given))


CALLS: dict[str, Callable[[Any, Rows], Any]] = {
    "transform x": lambda est, r: est.transform(r.x),
    "transform y": lambda est, r: est.transform(y=r.y),
    "transform": lambda est, r: est.transform(r.x, r.y),
    "inverse_transform": lambda est, r: est.inverse_transform(
        est.transform(r.x) if hasattr(est, "transform") else est.predict(r.x)
    ),
    "predict": lambda est, r: est.predict(r.x),
    "predict std": _predict_spread,
    "decision_function": lambda est, r: est.decision_function(r.x),
    "fuse x": lambda est, r: est.fuse(r.x),
    "fuse y": lambda est, r: est.fuse(y=r.y),
    "fuse": lambda est, r: est.fuse(r.x, r.y),
    "score": _score,
    "score_samples": lambda est, r: est.score_samples(*r.views.values()),
    "score_tasks": lambda est, r: est.score_tasks(r.x, r.y),
    "score_by_band": lambda est, r: est.score_by_band(r.x, r.y),
    "score_moments_by_band": lambda est, r: est.score_moments_by_band(
        Moments.from_data(x=r.x, y=r.y, missing=getattr(est, "missing", "error"))
    ),
    "embed": lambda est, r: est.embed(r.x, r.y),
    "embed x": lambda est, r: est.embed(r.x),
    "embed y": lambda est, r: est.embed(y=r.y),
    "similarity": lambda est, r: est.similarity(r.x, r.y),
    "search": lambda est, r: est.search(r.x, r.y, k=3),
    "search y": lambda est, r: est.search(r.x, r.y, k=3, queries="y"),
    "logpdf": lambda est, r: est.logpdf(r.x, r.y),
    "outlier_scores": lambda est, r: est.outlier_scores(r.x, r.y),
    "responsibilities x": lambda est, r: est.responsibilities(r.x),
    "responsibilities": lambda est, r: est.responsibilities(r.x, r.y),
    "mutual_information": lambda est, r: est.mutual_information(),
    "mutual_information each": lambda est, r: est.mutual_information(per_component=True),
    "sample": lambda est, r: est.sample(r.x, random_state=0),
    "sample several": lambda est, r: est.sample(r.x, n_samples=3, random_state=0),
    "predict_region": lambda est, r: _region(est, r),
    "predict_proba": lambda est, r: est.predict_proba(r.x),
    "retention": lambda est, r: est.retention(r.x, r.y, k=3),
    "p_values": lambda est, r: est.p_values(r.x, r.y),
    "predict_set": lambda est, r: est.predict_set(r.x, r.y),
    "set_sizes": lambda est, r: est.set_sizes(r.x, r.y),
    "abstain": lambda est, r: est.abstain(r.x, r.y),
    "aic": lambda est, r: float(est.aic(r.x, r.y)),
    "bic": lambda est, r: float(est.bic(r.x, r.y)),
    "condition": lambda est, r: est.condition(on={"y": r.y}).means,
    "condition logpdf": lambda est, r: est.condition(on={}).logpdf(x=r.x),
    "condition sample": lambda est, r: est.condition(on={"x": r.x}).sample(2, random_state=0)["y"],
    **{
        f"{method} kind={kind}": lambda est, r, method=method, kind=kind: getattr(est, method)(
            r.x, r.y, kind=kind
        )
        for method in ("embed", "similarity")
        for kind in (*KINDS, "inner_product")
    },
}
"""What is called on every estimator that has it: the first word is the method's name."""

CALLS_OF_ONE = {"transform x", "inverse_transform", "score", "score_samples"}
OF_NO_ROWS = {"mutual_information", "mutual_information each"}
READ_Y = {name for name in CALLS if "_x" not in name} - {
    *("transform x", "inverse_transform", "predict", "predict std", "decision_function", "fuse x"),
    "predict_proba",
    *("embed x", "responsibilities x", "sample", "sample several", "condition logpdf"),
    *("condition sample", *OF_NO_ROWS),
}  # fmt: skip
READ_X = set(CALLS) - {"transform y", "fuse y", "embed y", "condition", *OF_NO_ROWS}


def _some(r: Rows, *left_out: int) -> list[Any]:
    return [None if i in left_out else v for i, v in enumerate(r.views.values())]


CALLS_OF_MANY: dict[str, Callable[[Any, Rows], Any]] = {
    "transform": lambda est, r: est.transform(_some(r)),
    "transform some": lambda est, r: est.transform(_some(r, 1)),
    "inverse_transform": lambda est, r: est.inverse_transform(est.transform(_some(r, 1))),
    "predict": lambda est, r: est.predict(_some(r, 0)),
    "predict two": lambda est, r: est.predict(_some(r, 1, 2)),
    "fuse": lambda est, r: est.fuse(_some(r)),
    "fuse some": lambda est, r: est.fuse(_some(r, 2)),
    "score": lambda est, r: float(est.score(_some(r))),
    "embed": lambda est, r: est.embed(_some(r)),
    "similarity": lambda est, r: est.similarity(_some(r, 2)),
    **{
        f"{method} kind={kind}": lambda est, r, method=method, kind=kind: getattr(est, method)(
            _some(r, 2), kind=kind
        )
        for method in ("embed", "similarity")
        for kind in ("cosine", "weighted_cosine", "eigenvalue_cosine")
    },
}
"""The same where all views go into one argument."""


# ------------------------------------------------------------------------------ the models
def _cca(**parameters: Any) -> Callable[[], Any]:
    return functools.partial(CCA, **parameters)


def _search(est: Any, grid: Any) -> Callable[[], Any]:
    cv = KFold(3, shuffle=True, random_state=0)
    return lambda: MomentsSearchCV(clone(est), grid, cv=cv)


def _kernel(**parameters: Any) -> Callable[[], Any]:
    given = {"n_components": 3, "shrinkage": 0.05, "random_state": 0, **parameters}
    return functools.partial(KernelCCA, **given)


def _mixture(kind: Any, **parameters: Any) -> Callable[[], Any]:
    return functools.partial(
        ConditionalGaussianMixture, 2, covariance_type=kind, random_state=0, tol=1e-2, **parameters
    )


LATENT = ("fuse", "fuse x", "fuse y", "embed", "embed x", "embed y")
CLASSIFIER = make_pipeline(StandardScaler(), LogisticRegression(C=0.7))
SHORT: dict[str, Any] = {"max_epochs": 3, "random_state": 0}
DRAWN = "rows are drawn at random"
SVD: dict[str, Any] = {"form": "root"}
ALPHAS = (1.0, 30.0, 1e3)


def _models() -> Iterator[Model]:
    # ------------------------------------------------------------------------------ CCA
    two: dict[str, Any] = {"kinds": KINDS}
    yield Model("cca", _cca(), main=True, **two)
    yield Model("cca-scale", _cca(scale=True), **two)
    yield Model("cca-ridge", _cca(shrinkage=0.3, n_components=3), **two)
    yield Model("cca-pair", _cca(shrinkage=(0.0, 0.6)), **two)
    yield Model("cca-auto", _cca(shrinkage="auto"), **two)
    yield Model("cca-auto-scale", _cca(shrinkage="auto", scale=True), **two)
    yield Model("cca-mixed", _cca(shrinkage=("auto", 0.2), scale=True, n_components=2), **two)
    yield Model("cca-full", _cca(shrinkage=1.0), **two)
    yield Model("cca-cv-pair", _cca(shrinkage=("cv", 0.1), scale=True, cv=3), folds=3, **two)
    yield Model("cca-cv", _cca(shrinkage="cv"), folds=5, **two)
    yield Model("cca-svd", _cca(solver="svd"), **SVD, **two)
    yield Model("cca-svd-scale", _cca(solver="svd", scale=True, shrinkage=0.3), **SVD, **two)
    yield Model("cca-svd-auto", _cca(solver="svd", shrinkage="auto"), **SVD, **two)
    cv: dict[str, Any] = {"shrinkage": "cv", "cv": 3, "n_components": 2}
    yield Model("cca-svd-cv", _cca(solver="svd", **cv), folds=3, **SVD, **two)
    holes = with_holes(unlabelled)
    yield Model("cca-em", _cca(missing="em", n_components=2, shrinkage=0.3), holes, **two)
    auto = _cca(missing="em", shrinkage="auto")
    yield Model("cca-em-auto", auto, holes, **two)
    yield Model("cca-em-cv", _cca(missing="em", shrinkage="cv", cv=3), holes, folds=3, **two)
    scaled = _cca(missing="em", scale=True, shrinkage=(0.1, 0.4))
    yield Model("cca-em-scale", scaled, holes, **two)

    ranks: dict[str, Any] = {"shrinkage": "cv", "cv": 3, "scoring": "mrr"}
    rows_only: dict[str, Any] = {"folds": 3, "without": ("fit_moments",), "chooses_by": "MRR"}
    yield Model("cca-mrr", _cca(**ranks), **rows_only, **two)
    yield Model("cca-mrr-two", _cca(**ranks, n_components=2, scale=True), **rows_only, **two)
    near: dict[str, Any] = {"target": "aligned", "shrinkage": 0.6}
    yield Model("cca-aligned", _cca(**near), aligned, **two)
    pair_of = _cca(**{**near, "shrinkage": (0.2, 1.0)}, scale=True, n_components=2)
    yield Model("cca-aligned-pair", pair_of, aligned, **two)
    svd = _cca(target="aligned", solver="svd", shrinkage="cv", cv=3)
    yield Model("cca-aligned-svd-cv", svd, aligned, folds=3, **SVD, **two)
    some = with_holes(aligned)
    yield Model("cca-aligned-em", _cca(**near, missing="em"), some, **two)

    # ------------------------------------------------------------------------------ PLS
    yield Model("pls", functools.partial(PLS, 2), main=True, one=functools.partial(PLS, 1),
                in_memory=("predict_region",))  # fmt: skip
    yield Model("pls-cv", functools.partial(PLS, "cv", cv=3), folds=3)
    canonical = functools.partial(PLS, 2, mode="canonical", scale=False, missing="em")
    yield Model("pls-canonical-em", canonical, holes)
    yield Model("pls-svd", functools.partial(PLS, 3, mode="svd"))

    # ------------------------------------------------------------------------------ sparse
    sparse = functools.partial(SparseCCA, 2, tol=1e-12, max_iter=20_000)
    plain = functools.partial(sparse, alpha=0.05, max_iter=2000)
    one = functools.partial(SparseCCA, 1, tol=1e-12, alpha=0.05)
    yield Model("sparse", plain, main=True, one=one, **two)
    yield Model("sparse-cv", functools.partial(sparse, cv=3), folds=3, **two)
    yield Model("sparse-em", functools.partial(sparse, alpha=0.05, missing="em"), holes, **two)
    yield Model("sparse-pmd", functools.partial(sparse, alpha=0.3, method="pmd"), **two)
    yield Model("sparse-soft", functools.partial(sparse, alpha=0.1, method="soft"), **two)

    # ----------------------------------------------------------------------- orthogonal maps
    yield Model("orthogonal", OrthogonalMap, main=True, in_memory=("predict_region",))
    yield Model("orthogonal-cv", functools.partial(OrthogonalMap, alpha="cv", cv=3), folds=3)
    yield Model("orthogonal-em", functools.partial(OrthogonalMap, alpha=3.0, missing="em"), holes)

    # ------------------------------------------------------------------------ several views
    kinds = {"kinds": ("cosine", "weighted_cosine", "eigenvalue_cosine")}

    def multiview(**parameters: Any) -> Callable[[], Any]:
        return functools.partial(MultiviewCCA, **parameters)

    yield Model("multiview", multiview(n_components=3), several, main=True, **kinds)
    yield Model("multiview-ridge", multiview(shrinkage=0.2, n_components=3), several, **kinds)
    mixed = multiview(shrinkage=(0.1, "auto", 0.3), scale=True, n_components=3)
    yield Model("multiview-mixed", mixed, several, **kinds)
    yield Model("multiview-mcia", multiview(method="mcia", n_components=2), several, **kinds)
    yield Model("multiview-cv", multiview(**cv), several, folds=3, **kinds)
    gcca = multiview(method="gcca", shrinkage=0.2, n_components=3)
    yield Model("multiview-gcca", gcca, several, **kinds)
    auto = multiview(solver="svd", shrinkage="auto", n_components=3)
    yield Model("multiview-svd", auto, several, **SVD, **kinds)
    full = multiview(method="gcca", solver="svd", shrinkage=1.0, n_components=3)
    yield Model("multiview-svd-full", full, several, **SVD, **kinds)
    many_holes = with_holes(several)
    yield Model("multiview-em", multiview(missing="em", n_components=2), many_holes, **kinds)
    yield Model("multiview-em-cv", multiview(missing="em", **cv), many_holes, folds=3, **kinds)

    yield Model("multiview-mrr", multiview(**ranks, n_components=2), several, **rows_only, **kinds)
    yield Model("multiview-aligned", multiview(**near), several_aligned, **kinds)

    # ------------------------------------------------------------------------------ kernels
    def kernel(name: str, *, main: bool = False, **parameters: Any) -> Model:
        own = {"folds", "without", "form", "seeded", "by_row", "batches", "broken", "unsteady",
               "heavy"} & {*parameters}  # fmt: skip
        extra = {k: parameters.pop(k) for k in own}
        extra = {"atol": 1e-8, "atol32": 2e-2, **extra}
        made = _kernel(**parameters)
        return Model(name, made, main=main, kinds=KINDS, mapped=True, dask="outputs", quick=False,
                     **extra)  # fmt: skip

    # The seeded maps choose landmarks by number of row; exact ones have none to choose.
    draws = {"seeded": DRAWN}
    landmarks: dict[str, Any] = {"approximation": "nystroem", "rank": 20, "gamma": 0.02, **draws}
    exact: dict[str, Any] = {"approximation": "exact", "gamma": 0.02, "batches": False,
                             "by_row": True}  # fmt: skip
    yield kernel("kernel", main=True, **landmarks)
    yield kernel("kernel-exact", **exact)
    yield kernel("kernel-kmeans", landmarks="kmeans", **landmarks)
    yield kernel("kernel-pivoted", landmarks="pivoted_cholesky", **landmarks)
    yield kernel("kernel-raw", orthonormal=False, **landmarks)
    yield kernel("kernel-rff", approximation="rff", rank=30, gamma=0.02, **draws)
    yield kernel("kernel-auto", shrinkage="auto", **landmarks)
    yield kernel("kernel-svd", solver="svd", form="root", **landmarks)
    own = {"folds": 3, "without": ("fit_moments",)}
    open_: dict[str, Any] = {"gamma": "cv", "n_components": "cv", "shrinkage": "cv", "cv": 3}
    # In single precision a map may have fewer coordinates.
    bases = [f"{view}_{what}_" for view in "xy" for what in ("weights", "loadings",
             "cross_loadings", "mean")]  # fmt: skip
    yield kernel("kernel-choice", **{**landmarks, **open_}, batches=False, heavy=True,
                 unsteady=(*bases, "x_weights_", "y_weights_"), **own)  # fmt: skip
    yield kernel("kernel-mrr", **ranks, **own, **landmarks)
    yield kernel("kernel-cv", shrinkage="cv", cv=3, folds=3, **landmarks)

    # ---------------------------------------------------------------------------- densities
    def gaussian(
        name: str,
        rows: Any = unlabelled,
        *,
        main: bool = False,
        folds: Any = None,
        broken: Any = (),
        by: str = "ratio_moments",
        **parameters: Any,
    ) -> Model:
        without = ("condition",) if "missing" in parameters else ()  # it takes complete rows
        return Model(name, functools.partial(ConditionalGaussian, **parameters), rows, main=main,
                     folds=folds, without=without, signless=LATENT,
                     chooses_by=by,
                     in_memory=("predict", "logpdf", "outlier_scores", "predict_region"),
                     broken=dict(broken))  # fmt: skip

    yield gaussian("gaussian", shrinkage=0.2, main=True)
    yield gaussian("gaussian-cv", cv=3, folds=3)
    yield gaussian("gaussian-cv-scale", scale=True, cv=3, folds=3)
    yield gaussian("gaussian-rank", rank=2, shrinkage=(0.1, 0.3), scale=True)
    yield gaussian("gaussian-auto", shrinkage="auto")
    yield gaussian("gaussian-correlation", scoring="correlation", cv=3, folds=3, by="correlation")
    yield gaussian("gaussian-aligned-cv", aligned, target="aligned", cv=3, folds=3)
    yield gaussian("gaussian-em", holes, missing="em", shrinkage=0.1)
    yield gaussian("gaussian-em-cv", holes, missing="em", cv=3, folds=3)
    em: dict[str, Any] = {"dask": "outputs", "atol": 1e-7, "atol32": 5e-3, "quick": False,
                          "in_memory": ("predict_region",)}  # fmt: skip
    # The start changes none of the properties: one k-means here, the best of four elsewhere.
    yield Model("mixture", _mixture("full", n_init=1), main=True, **em)
    yield Model("mixture-tied", _mixture("tied"), **em)
    yield Model("mixture-diagonal", _mixture("diagonal"), **em)
    yield Model("mixture-low-rank", _mixture("low_rank", rank=2), signless=("loadings_",), **em)

    # ------------------------------------------------------------------------- autoencoders
    def autoencoder(name: str, *, main: bool = False, holed: bool = False, **p: Any) -> Model:
        target = p.get("target", "self")
        rows = alone if target == "self" else unlabelled
        without = ("transform y", "transform", "fuse y", "fuse x") if target == "cross" else ()
        more = SVD if p.get("solver") == "svd" else {}
        made = functools.partial(LinearAutoencoder, **p, **({"missing": "em"} if holed else {}))
        return Model(name, made, with_holes(rows) if holed else rows, main=main,
                     without=without, **more)  # fmt: skip

    yield autoencoder("self", main=True, n_components=2)
    yield autoencoder("self-pca")
    yield autoencoder("self-alpha", alpha=0.4)
    yield autoencoder("self-noise", corruption=0.3)
    yield autoencoder("self-noise-rank", corruption=0.3, n_components=2, scale=True)
    both: dict[str, Any] = {"alpha": 0.05, "corruption": 0.2, "scale": True, "n_components": 3}
    yield autoencoder("self-both", **both, solver="svd")
    yield autoencoder("self-em", n_components=2, holed=True)
    yield autoencoder("cross", target="cross", main=True)
    yield autoencoder("cross-rank", target="cross", n_components=2, scale=True)
    noise: dict[str, Any] = {"n_components": 2, "alpha": 0.3, "corruption": 0.2}
    yield autoencoder("cross-noise", target="cross", **noise)
    yield autoencoder("cross-svd", target="cross", solver="svd")
    yield autoencoder("cross-em", target="cross", n_components=2, holed=True)
    yield autoencoder("joint", target="joint", n_components=3, main=True)
    yield autoencoder("joint-all", target="joint")
    yield autoencoder("joint-alpha", target="joint", alpha=0.03, scale=True, solver="svd")
    yield autoencoder("joint-noise", target="joint", n_components=3, corruption=0.3)
    yield autoencoder("joint-em", target="joint", n_components=2, holed=True)

    # --------------------------------------------------------------------------- regression
    def tasks(**parameters: Any) -> Callable[[], Any]:
        return functools.partial(MultitaskRegressor, **parameters)

    search: dict[str, Any] = {"alphas": ALPHAS, "cv": 3}
    yield Model("multitask", tasks(alpha=0.7), main=True, in_memory=("predict_region",))
    yield Model("multitask-cv", tasks(), folds=5)
    yield Model("multitask-origin", tasks(fit_intercept=False, **search), folds=3)
    yield Model("multitask-each", tasks(alpha=(0.5, 1.0, 3.0, 10.0)))
    yield Model("multitask-rank", tasks(rank=2, **search), folds=3)
    yield Model("multitask-rank-cv", tasks(rank="cv", **search), folds=3)
    yield Model("multitask-rank-alpha", tasks(rank="cv", alpha=5.0, cv=3), folds=3)
    yield Model("multitask-svd", tasks(solver="svd", **search), folds=3, **SVD)
    yield Model("multitask-least", tasks(alpha=0.0, solver="svd"), **SVD)
    gaps = {"without": ("fit_moments", "score_moments")}  # its targets are grouped by their rows
    yield Model("multitask-gaps", tasks(alpha=1.0), with_gaps, **gaps)
    yield Model("multitask-gaps-cv", tasks(**search), with_gaps, folds=3, **gaps)
    yield Model("multitask-em", tasks(missing="em", alpha=1.0), holes)
    yield Model("multitask-em-cv", tasks(missing="em", **search), holes, folds=3)

    bands: dict[str, Any] = {"bands": {"first": slice(2), "rest": slice(2, None)}}
    drawn: dict[str, Any] = {**bands, "band_weights": 5, "random_state": 0, **search}
    fixed: dict[str, Any] = {**bands, "band_weights": (0.2, 0.8), "alpha": 2.0}
    yield Model("multitask-bands", tasks(**fixed))
    yield Model("multitask-bands-cv", tasks(**drawn), folds=3)
    yield Model("multitask-bands-svd", tasks(solver="svd", fit_intercept=False, **drawn),
                folds=3, **SVD)  # fmt: skip
    yield Model("multitask-bands-gaps", tasks(**drawn), with_gaps, folds=3,
                without=(*gaps["without"], "score_moments_by_band"))  # fmt: skip
    yield Model("multitask-bands-em", tasks(missing="em", **drawn), holes, folds=3)

    # ------------------------------------------------------------- searches and pipelines
    grid = {"shrinkage": [0.1, "auto"], "scale": [True, False]}
    halves = KFold(3, shuffle=True, random_state=0)
    yield Model("search", _search(CCA(2), grid), main=True, heavy=True, folds=halves,
                one=_search(CCA(1), grid), **two)  # fmt: skip
    ridge = {"shrinkage": [0.1, 0.4]}
    yield Model("search-gaussian", _search(ConditionalGaussian(), ridge), folds=halves,
                signless=LATENT)  # fmt: skip
    yield Model("search-multiview", _search(MultiviewCCA(2), ridge), several, folds=halves, **kinds)
    yield Model("search-multitask", _search(MultitaskRegressor(), {"alpha": [0.1, 9.0]}),
                folds=halves)  # fmt: skip
    conformal = functools.partial(ConformalRetriever, CCA(shrinkage=0.2), random_state=0)
    yield Model("conformal", functools.partial(conformal, confidence=0.5), main=True, seeded=DRAWN,
                dask="", atol32=0.5)  # fmt: skip
    yield Model("pipeline", lambda: TwoViewPipeline(CCA(shrinkage=0.2)), main=True, **two)

    retriever = functools.partial(CrossModalRetriever, time_budget=0, cv=3, random_state=0)
    yield Model("retriever", retriever, main=True, dask="outputs", seeded="draws folds",
                by_row=True, heavy=True)  # fmt: skip

    # ------------------------------------------------------------------------ classification
    semantic = {"kinds": ("inner_product", "cosine"), "dask": "outputs", "atol": 1e-5,
                "sparse": False, "quick": False}  # fmt: skip
    anywhere = "its classifiers hold NumPy's arrays: rows may come from any place"
    broken = {
        "test_calls_take_rows_from_the_place_of_fit": anywhere,
        "test_score_takes_rows_from_the_place_of_fit": anywhere,
    }
    plain = functools.partial(SemanticMatching, CLASSIFIER)
    yield Model("semantic", plain, pair, main=True, broken=broken, **semantic)
    correlated = functools.partial(SemanticMatching, CLASSIFIER, correlate=CCA(2))
    yield Model("semantic-cca", correlated, pair, **semantic)

    texts = np.random.default_rng(0).normal(size=(3, 4)) * 4 + 5
    names = functools.partial(PrototypeClassifier, CCA(shrinkage=0.2), cv=3, random_state=0)
    yield Model("prototypes", functools.partial(names, texts), main=True, seeded=DRAWN, dask="",
                without=("predict", "score"), one=functools.partial(names, texts[:, :1]),
                broken={"test_a_column_that_two_views_share_is_warned_of": "the y of this test is "
                        "wider than the features of its classes"},
                atol32=1e-2, quick=False)  # fmt: skip

    # ----------------------------------------------------------------------------- baselines
    yield Model("asif", lambda: ASIF(k=20, power=4), main=True, dask="outputs",
                seeded="an anchor is a row")  # fmt: skip
    trained: dict[str, Any] = {"torch": True, "seeded": DRAWN, "dask": "outputs", "atol32": 2e-3}
    deep = functools.partial(DeepCCA, 3, hidden=(8,), **SHORT)
    yield Model("deep-cca", deep, main=True, heavy=True, kinds=KINDS, **trained)
    aligner = functools.partial(ContrastiveAligner, 6, **SHORT)
    yield Model("aligner", aligner, main=True, heavy=True, **trained)

    # --------------------------------------------------------------------------------- maps
    def feature_map(name: str, made: Any, *, main: bool = False, seeded: str = DRAWN,
                    unsteady: tuple[str, ...] = (), broken: Any = (),
                    whole: bool = False) -> Model:  # fmt: skip
        return Model(name, made, alone, main=main, seeded=seeded, by_row=True, dask="outputs",
                     atol=1e-8, atol32=5e-3, unsteady=unsteady, whole=whole,
                     broken=dict(broken))  # fmt: skip

    rank: dict[str, Any] = {"rank": 9, "random_state": 0}
    first = "the coordinates are those of the first rows"
    yield feature_map("map-exact", lambda: ExactKernelMap("rbf", gamma=0.02), main=True, seeded="",
                      whole=True, unsteady=("transform x",))  # fmt: skip
    cholesky = functools.partial(ExactKernelMap, "laplacian", basis="cholesky")
    yield feature_map("map-cholesky", cholesky, seeded=first)
    deficient = functools.partial(ExactKernelMap, "linear", basis="cholesky")
    yield feature_map("map-deficient", deficient, seeded=first)
    nystroem = functools.partial(NystroemMap, "rbf", **rank)
    yield feature_map("map-nystroem", nystroem, main=True)
    uniform = functools.partial(NystroemMap, "polynomial", **rank)
    yield feature_map("map-uniform", uniform)
    kmeans = functools.partial(NystroemMap, "rbf", landmarks="kmeans", **rank)
    yield feature_map("map-kmeans", kmeans, unsteady=("transform x", "landmarks_"))
    pivoted = functools.partial(NystroemMap, "rbf", landmarks="pivoted_cholesky", **rank)
    yield feature_map("map-pivoted", pivoted)
    raw = functools.partial(NystroemMap, "cosine", orthonormal=False, **rank)
    yield feature_map("map-raw", raw)
    fourier = functools.partial(RandomFourierMap, "laplacian", **rank)
    yield feature_map("map-rff", fourier, main=True, seeded="")


MODELS: list[Model] = list(_models())


# ----------------------------------------------------------------------- how they are tested
def every(
    where: Callable[[Model], bool] = lambda model: True,
    *,
    variants: bool | None = True,
    door: bool = False,
) -> Callable[[Any], Any]:
    """A property of every model for which `where` is true.

    With ``variants=None`` of one entry only of each class with and without folds or missing
    entries, with ``variants=False`` of one entry of each class: where parameters change nothing.
    The entries that ``variants=None`` leaves out are otherwise in the slow set. With ``door=True``
    the ordinary set has one class of those that share the method which takes the rows: a property
    of that method.
    """

    def marked(test: Any) -> Any:
        test.holds, test.variants, test.door = where, variants, door
        return test

    return marked


def _chosen(models: list[Model], test: Any) -> tuple[list[Model], set[str]]:
    """The entries that a test runs for, and the names of those in the ordinary set."""
    models = [model for model in models if test.holds(model)]
    if test.variants is False:
        models = [model for model in models if model.main]
    one: dict[Any, str] = {}
    first: dict[Any, str] = {}
    fixed = {model.cls for model in models if model.folds is None}
    for model in sorted(models, key=lambda model: not model.main):
        one.setdefault((model.cls, model.folds is None, model.missing), model.name)
        # The base completes and deals rows: beside fits without, two classes show both.
        chooses = model.folds is not None and not model.missing
        apart = model.missing or (chooses and model.cls in fixed)
        if not apart or model.cls in (CCA, MultitaskRegressor):
            first.setdefault((model.cls, chooses, model.missing), model.name)
    kept = {model.name for model in models if model.main} | {*one.values()}
    if test.variants is None:
        models = [model for model in models if model.name in kept]
    heavy = {model.name for model in models if model.heavy}
    ordinary = ({*first.values()} | {m.name for m in models if m.main}) - heavy
    if test.door:
        doors: dict[Any, str] = {}
        for model in sorted(models, key=lambda model: not model.main):
            if model.name in ordinary:
                doors.setdefault(model.door, model.name)
        ordinary &= {*doors.values()}
    return models, ordinary


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Hand each model in turn to a test with the argument `model` (a hook of `conftest`).

    A test that also has the argument `at` gets it in several places: the array library with its
    device, and the precision. One instance of each class goes to most of them; each variant goes
    to one, in rotation, so that each place sees many.
    """
    if "model" not in metafunc.fixturenames or not hasattr(metafunc.function, "holds"):
        return
    placed = "at" in metafunc.fixturenames
    given = []
    models = getattr(metafunc.module, "MODELS", MODELS)
    chosen, ordinary = _chosen(models, metafunc.function)
    for model in chosen:
        slow = model.name not in ordinary
        number = models.index(model)
        name = metafunc.function.__name__
        reason = model.broken.get(name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        for at in _places(number, model) if placed else [()]:
            torch = model.torch or "torch" in at
            later = slow or (model.main and at and at not in ORDINARY_PLACES)
            quick = model.main and model.quick
            pace = [pytest.mark.slow] if later else [] if quick else [pytest.mark.ordinary]
            given.append(
                pytest.param(
                    *(model, at) if placed else (model,),
                    marks=[
                        *marks,
                        *([pytest.mark.torch] if torch else []),
                        *pace,
                    ],
                    id="-".join([model.name, *at]),
                )
            )
    metafunc.parametrize(["model", "at"] if placed else ["model"], given)


ORDINARY_PLACES = [("torch", "float32"), ("array_api_strict:device1", "float64")]
"""Where one instance of each class goes in the ordinary set; the slow set has the others."""


def _places(number: int, model: Model) -> list[tuple[str, str]]:
    places = [p for p in itertools.product(PLACES, DTYPES) if p != ("numpy", "float64")]
    if model.main:
        return [p for p in places if "strict" not in p[0] or p[1] == "float64"]
    return [places[number % len(places)]]


def weightings(model: Model) -> list[bool]:
    """Without and with weights; for a variant one of the two."""
    if not model.weights:
        return [False]
    return [False, True] if model.main else [len(model.name) % 2 == 0]


@functools.cache
def fitted(model: Model, weighted: bool = False) -> Any:
    """The model fitted to its rows, once; not to be changed."""
    rows = model.rows()
    return model.fit(rows, weights_of(len(rows)) if weighted else None)


@functools.cache
def known(model: Model, weighted: bool = False) -> dict[str, list[Any]]:
    """`everything` of `fitted` on its rows, once; not to be changed."""
    return model.everything(fitted(model, weighted), model.rows())


def weights_of(n: int) -> Any:
    """Whole numbers from 0 to 3."""
    return np.random.default_rng(3).integers(0, 4, n).astype(float)
