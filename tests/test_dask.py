"""Dask in: the same numbers as in memory. Lazy out: nothing is computed before it is asked for."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import Normalizer, StandardScaler

from cmstats import (
    CCA,
    ConditionalGaussian,
    ConditionalGaussianMixture,
    KernelCCA,
    LinearAutoencoder,
    Moments,
    MomentsSearchCV,
    MultitaskRegressor,
    MultiviewCCA,
    NystroemMap,
    SemanticMatching,
    TwoViewPipeline,
)
from cmstats.baselines import DeepCCA
from cmstats.kernels.threads import cores, one_core
from cmstats.models.delegated import DelegatedOutputs

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.dask
N, P, Q = 300, 6, 4
UNEVEN = (100, 1, 1, 50, 148)


def _views(n=N, p=P, q=Q):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 3))
    X = z @ rng.standard_normal((3, p)) + rng.standard_normal((n, p)) + 5
    return X, z @ rng.standard_normal((3, q)) + rng.standard_normal((n, q))


X, Y = _views()
DX = da.from_array(X, chunks=(UNEVEN, (4, 2)))
DY = da.from_array(Y, chunks=(70, Q))


def _same(a: Moments, b: Moments, tolerance=1e-10):
    assert (a.names, a.form, a.rows) == (b.names, b.form, b.rows)
    assert a.n == pytest.approx(b.n, rel=1e-14)
    for name in a.names:
        np.testing.assert_allclose(a.mean(name), b.mean(name), rtol=tolerance, atol=tolerance)
        for other in a.names:
            S, T = a.scatter(name, other), b.scatter(name, other)
            np.testing.assert_allclose(S, T, atol=tolerance * np.abs(T).max())


# ------------------------------------------------------------------------------ moments
@pytest.mark.parametrize("form", ["scatter", "root"])
@pytest.mark.parametrize("chunks", [UNEVEN, (1,) * N, (N,), (299, 1), (0, 150, 0, 150, 0)])
def test_moments_of_any_chunks_are_those_in_memory(form, chunks):
    dX = da.from_array(X, chunks=(N, P)).rechunk((chunks, (P,)))
    if 0 in chunks:
        dX = da.concatenate([da.from_array(X[a:b], chunks=(N, P)) for a, b in _ends(chunks)])
    seen = Moments.from_data(x=dX, y=DY, form=form)
    _same(seen, Moments.from_data(x=X, y=Y, form=form))
    expected = Moments.from_data(x=X, y=Y, form=form).ledoit_wolf("x")
    assert seen.ledoit_wolf("x") == pytest.approx(expected, rel=1e-9)


def _ends(chunks):
    ends = np.cumsum([0, *chunks])
    return list(itertools.pairwise(ends))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_moments_of_half_and_single_precision(dtype):
    a = Moments.from_data(x=DX.astype(dtype), y=DY.astype(dtype))
    _same(a, Moments.from_data(x=X.astype(dtype), y=Y.astype(dtype)), 1e-6)


@pytest.mark.parametrize("cv", [5, KFold(3, shuffle=True, random_state=0)])
@pytest.mark.parametrize("form", ["scatter", "root"])
def test_folds_are_dealt_by_the_number_of_the_row(cv, form):
    found = Moments.folds(cv=cv, form=form, x=DX, y=DY)
    expected = Moments.folds(cv=cv, form=form, x=X, y=Y)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        _same(a, b)


@pytest.mark.parametrize("dasked", [False, True])
def test_weights_count_rows(dasked):
    w = np.random.default_rng(1).integers(0, 4, N).astype(float)
    w[:102] = 0  # whole chunks without weight
    weights = da.from_array(w, chunks=31) if dasked else w
    _same(
        Moments.from_data(x=DX, y=DY, sample_weight=weights),
        Moments.from_data(x=X, y=Y, sample_weight=w),
    )
    for a, b in zip(
        Moments.folds(x=DX, sample_weight=weights), Moments.folds(x=X, sample_weight=w), strict=True
    ):
        _same(a, b)
    with pytest.raises(ValueError, match="zero everywhere"):
        Moments.from_data(x=DX, sample_weight=weights * 0)
    with pytest.raises(ValueError, match="one weight a row"):
        Moments.from_data(x=DX, sample_weight=weights[:-1])
    with pytest.raises(ValueError, match="negative"):
        Moments.from_data(x=DX, sample_weight=weights - 1)


def test_targets_need_no_products():
    blocks = {"x": X, "y": Y}
    chunked = {name: da.from_array(a, chunks=(17, -1)) for name, a in blocks.items()}
    expected = Moments.from_data(**blocks)
    folds = Moments.folds(**chunked, cv=3, diagonal="y")
    for found in (Moments.from_data(**chunked, diagonal="y"), folds[0] + folds[1] + folds[2]):
        assert found.diagonal == "y"
        np.testing.assert_allclose(found.scatter("x", "y"), expected.scatter("x", "y"), atol=1e-9)
        np.testing.assert_allclose(found.variance("y"), expected.variance("y"), rtol=1e-12)
    with pytest.raises(ValueError, match=r"got x, y$"):  # before any chunk is read
        Moments.from_data(**chunked, diagonal="x")


def test_incomplete_rows_are_tables_of_patterns():
    gaps = X.copy()
    gaps[np.random.default_rng(2).random(X.shape) < 0.1] = np.nan
    dX = da.from_array(gaps, chunks=(37, P))
    a = Moments.from_data(x=dX, y=DY, missing="em")
    b = Moments.from_data(x=gaps, y=Y, missing="em")
    np.testing.assert_allclose(a.cov("x", "y"), b.cov("x", "y"), atol=1e-10)
    model = CCA(2, missing="em").fit(dX, DY)
    memory = CCA(2, missing="em").fit(gaps, Y)
    np.testing.assert_allclose(model.correlations_, memory.correlations_, atol=1e-10)
    lazy = model.transform(dX)
    np.testing.assert_allclose(lazy.compute(), memory.transform(gaps), atol=1e-8)
    gaussian = ConditionalGaussian(missing="em").fit(dX, DY)
    cov = gaussian.predict(dX, return_cov=True)[1]
    assert cov.shape == (N, Q, Q)
    expected = gaussian.predict(gaps, return_cov=True)[1]
    np.testing.assert_allclose(cov.compute(), expected, atol=1e-10)


def test_other_arrays_beside_a_dask_array_are_cut_like_it():
    expected = Moments.from_data(x=X, y=Y)
    _same(Moments.from_data(x=DX, y=Y), expected)
    _same(Moments.from_data(x=X, y=DY), expected)
    _same(Moments.from_data(x=DX, y=pd.DataFrame(Y)), expected)
    _same(Moments.from_data(x=DX, y=DY[:, 0]), Moments.from_data(x=X, y=Y[:, 0]))
    sparse = DX.rechunk((50, P)).map_blocks(scipy.sparse.csr_matrix)
    _same(Moments.from_data(x=sparse), Moments.from_data(x=X))
    with pytest.raises(TypeError, match="sparse matrix beside a Dask array"):
        Moments.from_data(x=DX, y=scipy.sparse.csr_matrix(Y))


def test_chunks_of_unknown_length_are_measured():
    keep = X[:, 0] > 5
    dX = DX.rechunk((50, P))
    dX = dX[dX[:, 0] > 5]
    assert np.isnan(dX.shape[0])
    _same(Moments.from_data(x=dX), Moments.from_data(x=X[keep]))
    assert np.isnan(dX.shape[0])  # what was handed in is as it was


# --------------------------------------------------------------------------- estimators
@pytest.mark.parametrize(
    "model",
    [
        CCA(2, shrinkage="auto", scale=True),
        MomentsSearchCV(CCA(2), {"shrinkage": [0.1, 0.5]}, cv=KFold(5)),
        TwoViewPipeline(CCA(2), x=Normalizer()),
    ],
    ids=lambda m: type(m).__name__,
)
def test_fit_score_and_outputs_equal_those_in_memory(model):
    lazy, memory = clone(model).fit(DX, DY), clone(model).fit(X, Y)
    assert lazy.score(DX, DY) == pytest.approx(memory.score(X, Y), abs=1e-10)
    for name in ("transform", "predict", "fuse", "embed"):
        if not hasattr(memory, name):
            continue
        found, expected = getattr(lazy, name)(DX), getattr(memory, name)(X)
        assert isinstance(found, da.Array)
        assert found.chunks[0] == UNEVEN
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found.compute(), expected, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.1, pytest.param("cv", marks=pytest.mark.slow)])
def test_many_views(shrinkage):
    Z = X[:, :3] + Y[:, :3]
    dZ = da.from_array(Z, chunks=40)
    memory = MultiviewCCA(2, shrinkage=shrinkage).fit([X, Y, Z])
    lazy = MultiviewCCA(2, shrinkage=shrinkage).fit([DX, DY, dZ])
    parts = MultiviewCCA(2, shrinkage=shrinkage)
    for cut in (slice(0, 52), slice(52, N)):
        parts.partial_fit([DX[cut], DY[cut], dZ[cut]])
    for model in (lazy, parts):
        assert model.score([DX, DY, dZ]) == pytest.approx(memory.score([X, Y, Z]), abs=1e-10)
        u, none, v = model.transform([DX, None, dZ])
        assert none is None
        np.testing.assert_allclose(u.compute(), memory.transform([X, None, Z])[0], atol=1e-9)
        assert v.chunks[0] == UNEVEN
    found = lazy.predict({"view0": DX, "view2": dZ})["view1"]
    expected = memory.predict({"view0": X, "view2": Z})["view1"]
    np.testing.assert_allclose(found.compute(), expected, atol=1e-9)
    block = lazy.similarity([DX, None, Z[:5]])
    np.testing.assert_allclose(block.compute(), memory.similarity([X, None, Z[:5]]), atol=1e-9)


def test_targets_with_gaps():
    gaps = Y.copy()
    gaps[3:50, 1], gaps[200:, 2] = np.nan, np.nan
    memory = MultitaskRegressor().fit(X, gaps)
    lazy = MultitaskRegressor().fit(DX, da.from_array(gaps, chunks=(70, Q)))
    np.testing.assert_allclose(lazy.coef_, memory.coef_, atol=1e-10)
    splits = list(KFold(3).split(X))
    np.testing.assert_allclose(
        MultitaskRegressor(cv=splits).fit(DX, DY).coef_,
        MultitaskRegressor(cv=splits).fit(X, Y).coef_,
        atol=1e-10,
    )


def test_densities_and_their_spread():
    memory = ConditionalGaussian().fit(X, Y)
    mean, std = memory.predict(DX, return_std=True)
    assert mean.chunks == std.chunks == (UNEVEN, (Q,))
    for found, expected in zip((mean, std), memory.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found.compute(), expected)
    cov = memory.predict(DX, return_cov=True)[1]
    np.testing.assert_allclose(cov, memory.covariance_)  # the same for every row
    for name in ("logpdf", "outlier_scores"):
        found = getattr(memory, name)(DX, DY)
        assert found.chunks == (UNEVEN,)
        np.testing.assert_allclose(found.compute(), getattr(memory, name)(X, Y), atol=1e-9)


def test_kernel_maps_are_lazy_and_their_moments_those_in_memory():
    map_x, map_y = (NystroemMap(rank=5, random_state=0).fit(a[:30]) for a in (X, Y))
    lazy = map_x.transform(da.from_array(X, chunks=(13, -1)))
    assert isinstance(lazy, da.Array)
    np.testing.assert_allclose(lazy.compute(), map_x.transform(X), atol=1e-12)
    found = CCA(2, shrinkage=0.1).fit(lazy, map_y.transform(da.from_array(Y, chunks=(17, -1))))
    expected = CCA(2, shrinkage=0.1).fit(map_x.transform(X), map_y.transform(Y))
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-10)


@pytest.mark.parametrize("chunked", [False, True])
def test_similarity_is_lazy_by_blocks(chunked):
    model = CCA(2, shrinkage=0.1).fit(X, Y)
    y = DY[:100] if chunked else Y[:100]
    found = model.similarity(DX, y, kind="likelihood_ratio")
    assert found.chunks == (UNEVEN, (70, 30) if chunked else (100,))
    expected = model.similarity(X, Y[:100], kind="likelihood_ratio")
    np.testing.assert_allclose(found.compute(), expected, atol=1e-9)


def test_types_stay():
    model = CCA(2).fit(DX, DY)
    assert model.transform(DX.astype(np.float32)).dtype == np.float32
    assert model.transform(DX.astype(np.float16)).compute().dtype == np.float32
    assert model.x_weights_.dtype == np.float64
    one = MultitaskRegressor().fit(DX, DY[:, 0])
    assert one.predict(DX).shape == one.predict(X).shape


# ------------------------------------------------------------------------------- frames
def _frames():
    left = pd.DataFrame(X, columns=list("abcdef"))
    right = pd.DataFrame(Y, columns=list("wxyz"))
    return left, right


def test_frames_in_and_out():
    left, right = _frames()
    dleft, dright = dd.from_pandas(left, npartitions=4), dd.from_pandas(right, npartitions=3)
    model, memory = CCA(2, shrinkage="cv").fit(dleft, dright), CCA(2, shrinkage="cv")
    memory.fit(left, right)
    np.testing.assert_allclose(model.correlations_, memory.correlations_, atol=1e-10)
    assert list(model.feature_names_in_) == list("abcdef")
    assert list(model.y_feature_names_in_) == list("wxyz")
    u = model.transform(dleft)
    assert isinstance(u, da.Array)
    assert np.isnan(u.shape[0])  # the length of a frame is not known without reading it
    np.testing.assert_allclose(u.compute(), memory.transform(left), atol=1e-9)
    frame = model.set_output(transform="pandas").transform(dleft)
    assert frame.divisions == dleft.divisions
    memory.set_output(transform="pandas")
    pd.testing.assert_frame_equal(frame.compute(), memory.transform(left))
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(dleft.rename(columns={"a": "other"}))


def test_frames_of_nullable_numbers_and_of_text():
    left, _ = _frames()
    nullable = left.astype("Float64").assign(a=np.arange(N))
    expected = Moments.from_data(x=left.assign(a=np.arange(N)))
    _same(Moments.from_data(x=dd.from_pandas(nullable, npartitions=3)), expected)
    series = dd.from_pandas(left["b"], npartitions=3)
    _same(Moments.from_data(x=series), Moments.from_data(x=left["b"]))
    text = dd.from_pandas(left.assign(a="cat"), npartitions=3)
    with pytest.raises(ValueError, match="not numbers, in column 'a'"):
        CCA(2).fit(text, DY)


# ------------------------------------------------------------------------- only on compute
def _raises(block):
    raise RuntimeError("this chunk was computed")


def test_nothing_is_computed_before_it_is_asked_for():
    untouched = DX.map_blocks(_raises, dtype=float, meta=np.empty((0, 0)))
    model = ConditionalGaussian().fit(X, Y)
    lazy = [
        model.predict(untouched, return_std=True)[1],
        model.embed(untouched),
        model.logpdf(untouched, DY),
        model.similarity(untouched, Y),
        CCA(2).fit(X, Y).transform(untouched),
    ]
    for result in lazy:
        with pytest.raises(RuntimeError, match="this chunk was computed"):
            result.compute()
    with pytest.raises(ValueError, match="X has 3 features"):
        model.predict(untouched[:, :3])
    for wrong, words in [
        ((untouched, DY[:-1]), r"X has shape \(300, 6\) and y has shape \(299, 4\)"),
        ((untouched, DY.astype(complex)), "Complex data not supported"),
        ((untouched, DY.astype("U3")), "not real numbers"),
        ((untouched[:, :, None], DY), "1D array|two-dimensional"),
    ]:
        with pytest.raises(ValueError, match=words):
            CCA(2).fit(*wrong)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.logpdf(untouched, DY[:-1])


def test_a_result_is_of_the_model_as_it_was():
    model = CCA(2).fit(X, Y)
    expected = model.transform(X)
    lazy = model.transform(DX)
    model.fit(X[:50], Y[:50])
    np.testing.assert_allclose(lazy.compute(), expected)


def test_the_model_is_in_the_graph_once():
    model = CCA(2).fit(X, Y)
    few, many = (
        len(pickle.dumps(dict(model.transform(da.zeros((n * 10, P), chunks=(10, P))).dask)))
        for n in (10, 20)
    )
    assert (many - few) / 10 < len(pickle.dumps(model)) / 2


def test_values_that_are_not_finite_are_named_with_row_and_chunk():
    for value, words in ((np.nan, "1 NaN value"), (np.inf, "1 infinite value")):
        bad = X.copy()
        bad[160, 2] = value
        dX = da.from_array(bad, chunks=(UNEVEN, P))
        where = f"x has {words}, the first at row 160, column 2.*in Dask chunk 4"
        for fit in (
            lambda dX: Moments.from_data(x=dX, y=DY),
            lambda dX: Moments.folds(x=dX, y=DY),
            lambda dX: CCA(2).fit(dX, DY),
            lambda dX: MultitaskRegressor().fit(dX, DY),
        ):
            with pytest.raises(ValueError, match=where):
                fit(dX)
        with pytest.raises(ValueError, match=r"row 8.*in Dask chunk 4, whose first row is row 152"):
            CCA(2).fit(X, Y).transform(dX).compute()


def test_what_needs_rows_in_memory_says_so():
    labels = np.arange(N) % 3
    mixture = ConditionalGaussianMixture(2, random_state=0).fit(X, Y)
    semantic = SemanticMatching(LogisticRegression()).fit(X, Y, labels)
    for call in (
        lambda: mixture.fit(DX, DY),
        lambda: mixture.score(DX, DY),
        lambda: mixture.sample(DX),
        lambda: semantic.fit(DX, DY, labels),
        lambda: KernelCCA(2).fit(DX, DY),
    ):
        with pytest.raises(TypeError, match=r"needs its rows in memory.*Dask"):
            call()
    np.testing.assert_allclose(mixture.logpdf(DX, DY).compute(), mixture.logpdf(X, Y))
    np.testing.assert_allclose(semantic.embed(DX).compute(), semantic.embed(X), atol=1e-12)
    assert (semantic.predict(DX).compute() == semantic.predict(X)).all()
    kernel = KernelCCA(2, rank=20, approximation="nystroem", random_state=0).fit(X, Y)
    np.testing.assert_allclose(kernel.transform(DX).compute(), kernel.transform(X), atol=1e-9)
    with pytest.raises(TypeError, match="FrozenEstimator"):
        TwoViewPipeline(CCA(2), x=StandardScaler()).fit(DX, DY)


@pytest.mark.parametrize(
    "kind",
    [CCA, ConditionalGaussian, ConditionalGaussianMixture, KernelCCA, LinearAutoencoder,
     MultitaskRegressor, MultiviewCCA, NystroemMap, SemanticMatching, DeepCCA],
)  # fmt: skip
def test_every_output_takes_dask_data_or_says_that_it_does_not(kind):
    names = [name for name in vars(DelegatedOutputs) if not name.startswith("_")]
    found = [inspect.getattr_static(kind, name, None) for name in (*names, "inverse_transform")]
    methods = [method for method in found if inspect.isfunction(method)]
    assert methods
    assert [method.__name__ for method in methods if not hasattr(method, "__wrapped__")] == []


def test_rows_beside_a_dask_array_are_left_as_they_are():
    model = ConditionalGaussian(missing="em", shrinkage=0.1).fit(X, Y)
    beside = Y.copy()
    found = model.logpdf(DX, beside)
    np.testing.assert_array_equal(beside, Y)
    np.testing.assert_allclose(found.compute(), model.logpdf(X, Y), atol=1e-9)


# ----------------------------------------------------------------------------- the tree
def test_results_of_tasks_do_not_grow_with_the_rows():
    sizes: dict[int, int] = {}
    for rows in (2000, 16000):
        found = []

        class Sizes(dask.callbacks.Callback):
            def _posttask(self, key, result, dsk, state, worker, found=found):
                if str(key[0]).startswith(("moments", "merge")):
                    found.append(len(pickle.dumps(result)))

        dX = da.random.default_rng(0).standard_normal((rows, 20), chunks=(500, 20))
        with Sizes():
            Moments.folds(cv=3, x=dX)
        sizes[rows] = max(found)
    assert sizes[16000] <= sizes[2000] + 500
    assert sizes[16000] < 2 * 3 * 8 * 20**2 + 5000


def test_the_tree_is_fixed_by_the_chunks():
    dX = DX.rechunk((10, P))
    first, again = (Moments.folds(x=dX, y=DY) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.scatter("x", "y"), b.scatter("x", "y"))


def test_a_task_runs_on_one_core():
    before = cores()
    with one_core():
        assert cores() == 1
    assert cores() == before


# --------------------------------------------------------------------------- distributed
@pytest.fixture(scope="module")
def client():
    settings = {"distributed.worker.daemon": True, "distributed.comm.timeouts.connect": "30s"}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.subprocess
def test_worker_processes_find_the_same(client):
    assert len(client.ncores()) == 2
    with client.as_current():
        lazy = CCA(2, shrinkage="cv").fit(DX, DY)
        memory = CCA(2, shrinkage="cv").fit(X, Y)
        np.testing.assert_allclose(lazy.correlations_, memory.correlations_, atol=1e-10)
        np.testing.assert_allclose(lazy.transform(DX).compute(), memory.transform(X), atol=1e-9)
        bad = X.copy()
        bad[200, 0] = np.nan
        with pytest.raises(ValueError, match=r"row 200, column 0.*in Dask chunk 4"):
            CCA(2).fit(da.from_array(bad, chunks=(UNEVEN, P)), DY)


def _slow(block):
    time.sleep(0.1)
    return block


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_changes_nothing(client):
    with client.as_current():
        dX = da.from_array(X, chunks=(15, P)).map_blocks(_slow, meta=np.empty((0, 0)))
        expected = Moments.folds(cv=2, x=DX.rechunk((15, P)), y=DY)
        before = client.run(os.getpid)
        killed = next(iter(before.values()))
        timer = threading.Timer(0.6, os.kill, (killed, signal.SIGKILL))
        timer.start()
        found = Moments.folds(cv=2, x=dX, y=DY)
        timer.join()
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.scatter("x", "y"), b.scatter("x", "y"))
            np.testing.assert_array_equal(a.scatter("x"), b.scatter("x"))
        assert killed not in client.run(os.getpid).values()
