"""Displays: they hold the numbers they draw, and draw in any axes."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from cmstats import (
    CCA,
    ConditionalGaussian,
    ConformalRetriever,
    MomentsSearchCV,
    TwoViewPipeline,
    match_probability,
)
from cmstats.inference import bootstrap, correlation_intervals, loadings_table, permutation_test
from cmstats.metrics import recall_at_k
from cmstats.model_selection.comparison import compare, learning_curves
from cmstats.plotting import (
    BootstrapDisplay,
    ComparisonDisplay,
    ConditionalCalibrationDisplay,
    ConformalSetDisplay,
    CorrelationDisplay,
    JointEmbeddingDisplay,
    LearningCurvesDisplay,
    LoadingsDisplay,
    MatchCalibrationDisplay,
    PrecisionRecallCurveDisplay,
    RecallCurveDisplay,
    RetrievalDisplay,
    ShrinkagePathDisplay,
)

pytestmark = pytest.mark.ordinary


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    Z = rng.normal(size=(120, 4))
    return Z + rng.normal(size=Z.shape), Z @ rng.normal(size=(4, 6)) + rng.normal(size=(120, 6))


def _render(display: Any) -> None:
    """Drawing is lazy: an artist that cannot be drawn fails only here."""
    display.figure_.canvas.draw()


def test_correlations_are_those_of_the_columns_of_transform(views: Any) -> None:
    X, Y = views
    cca = CCA(shrinkage=0.1).fit(X[:80], Y[:80])
    display = CorrelationDisplay.from_estimator(cca, X[80:], Y[80:])
    U, V = cca.transform(X[80:], Y[80:])
    expected = [np.corrcoef(u, v)[0, 1] for u, v in zip(U.T, V.T, strict=True)]
    np.testing.assert_allclose(display.held_out, expected, atol=1e-10)
    np.testing.assert_allclose(display.train, cca.correlations_)
    np.testing.assert_allclose(
        CorrelationDisplay.from_predictions(U, V).held_out, expected, atol=1e-10
    )
    _render(display)


def test_correlations_of_a_pipeline_and_of_a_search(views: Any) -> None:
    X, Y = views
    scale = StandardScaler()
    pipeline = TwoViewPipeline(CCA(2), x=scale, y=scale).fit(X, Y)
    search = MomentsSearchCV(CCA(2), {"shrinkage": [0.1, 0.2]}, cv=3).fit(X, Y)
    for estimator in (pipeline, search):
        display = CorrelationDisplay.from_estimator(estimator, X, Y)
        # On the training rows the two are the same.
        np.testing.assert_allclose(display.held_out, display.train, atol=1e-8)


def test_correlations_need_both_views_or_neither(views: Any) -> None:
    X, Y = views
    cca = CCA(2).fit(X, Y)
    assert CorrelationDisplay.from_estimator(cca).held_out is None
    with pytest.raises(ValueError, match="both X and y"):
        CorrelationDisplay.from_estimator(cca, X)
    with pytest.raises(ValueError, match="held_out or train"):
        CorrelationDisplay()


def test_displays_draw_in_the_axes_given(views: Any) -> None:
    X, Y = views
    cca = CCA(3, shrinkage="cv").fit(X, Y)
    _, axes = plt.subplots(1, 3)
    made = [
        CorrelationDisplay.from_estimator(cca, X, Y, ax=axes[0]),
        JointEmbeddingDisplay.from_estimator(cca, X, Y, ax=axes[1]),
        ShrinkagePathDisplay.from_estimator(cca, ax=axes[2]),
    ]
    for display, ax in zip(made, axes, strict=True):
        assert display.ax_ is ax
        assert display.figure_ is ax.figure
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    assert len(plt.get_fignums()) == 1


def test_joint_embedding_shows_the_components_asked_for(views: Any) -> None:
    X, Y = views
    cca = CCA(3).fit(X, Y)
    display = JointEmbeddingDisplay.from_estimator(cca, X, Y, components=(2, 0))
    np.testing.assert_allclose(display.U, cca.transform(X)[:, [2, 0]])
    assert display.ax_.get_xlabel().startswith("variate 3")
    with pytest.raises(ValueError, match="has 3"):
        JointEmbeddingDisplay.from_estimator(cca, X, Y, components=(0, 3))


def test_joint_embedding_names_every_label_or_counts_the_rare(rng: np.random.Generator) -> None:
    U = rng.normal(size=(60, 2))
    few = JointEmbeddingDisplay.from_predictions(U, U, labels=np.repeat(["a", "b"], 30))
    words = [t.get_text() for t in few.ax_.get_legend().get_texts()]
    assert words == ["x", "y", "a pair", "a", "b"]
    many = JointEmbeddingDisplay.from_predictions(U, U, labels=np.arange(60) % 12)
    assert many.ax_.get_legend().get_texts()[-1].get_text() == "4 other labels"
    gaps = np.where(np.arange(60) % 2, 1.0, np.nan)
    missing = JointEmbeddingDisplay.from_predictions(U, U, labels=gaps)
    assert missing.ax_.get_legend().get_texts()[-1].get_text() == "no label"
    for display in (few, many, missing):
        _render(display)
    with pytest.raises(ValueError, match="one a row"):
        JointEmbeddingDisplay(U, U, labels=np.zeros(3))
    with pytest.raises(ValueError, match="shapes"):
        JointEmbeddingDisplay(U, U[:5])


def test_retrieval_finds_and_marks_the_partner(rng: np.random.Generator) -> None:
    U = np.eye(5)
    pictures = rng.integers(0, 255, size=(5, 8, 8, 3), dtype=np.uint8)
    words = list("abcde")
    to_text = RetrievalDisplay.from_predictions(
        U, U, queries=pictures, candidates=words, partners=range(5), k=2
    )
    assert [row[0] for row in to_text.results] == words
    assert to_text.hits[:, 0].all()
    assert not to_text.hits[:, 1].any()
    to_pictures = RetrievalDisplay.from_predictions(
        U[:2], U, queries=["a long query of many words that wraps", "b"], candidates=pictures, k=3
    )
    assert len(to_pictures.ax_.images) == 6
    _render(to_text)
    _render(to_pictures)
    with pytest.raises(ValueError, match="3 queries for 5"):
        RetrievalDisplay.from_predictions(U, U, queries=words[:3], candidates=words)


def test_retrieval_from_estimator_searches_the_view_asked_for(views: Any) -> None:
    X, Y = views
    cca = CCA(3, shrinkage=0.1).fit(X, Y)
    names = [f"item {i}" for i in range(len(X))]
    scores = cca.similarity(X, Y, kind="cosine")
    x = RetrievalDisplay.from_estimator(
        cca, X, Y[:3], queries=names[:3], candidates=names, kind="cosine", k=1
    )
    y = RetrievalDisplay.from_estimator(
        cca, X[:3], Y, queries=names[:3], candidates=names, find="y", kind="cosine", k=1
    )
    assert [row[0] for row in x.results] == [names[i] for i in scores[:, :3].argmax(axis=0)]
    assert [row[0] for row in y.results] == [names[i] for i in scores[:3].argmax(axis=1)]
    with pytest.raises(ValueError, match="find"):
        RetrievalDisplay.from_estimator(cca, X, Y, queries=names, candidates=names, find="z")


def test_path_of_a_search_and_of_cca_agree(views: Any) -> None:
    X, Y = views
    cca = CCA(2, shrinkage="cv", cv=4).fit(X, Y)
    fold = np.arange(len(X)) % 4
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)]
    search = MomentsSearchCV(CCA(2), {"shrinkage": cca.cv_shrinkages_}, cv=splits).fit(X, Y)
    one, two = (ShrinkagePathDisplay.from_estimator(e) for e in (cca, search))
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-10)
    assert one.best == two.best == tuple(cca.shrinkage_)


def test_path_takes_zero_pairs_and_formulas(views: Any) -> None:
    X, Y = views
    grid = [{"shrinkage": [0.0, 0.1, (0.1, 0.3), "auto"], "n_components": [1, 2]}]
    search = MomentsSearchCV(CCA(), grid, cv=3).fit(X, Y)
    display = ShrinkagePathDisplay.from_estimator(search)
    assert len(display.shrinkages) == 6  # "auto" is no place on the axis
    assert display.ax_.get_xscale() == "symlog"
    _render(display)
    with pytest.raises(ValueError, match="searched no shrinkage"):
        ShrinkagePathDisplay.from_estimator(CCA().fit(X, Y))
    with pytest.raises(ValueError, match="nothing to draw"):
        ShrinkagePathDisplay([(0.1, 0.1)], [[np.nan, 1.0]])


def test_no_matplotlib_is_one_sentence(views: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"cmstats\[report\]"):
        CorrelationDisplay([0.5]).plot()


def _line(ax: Any, label: str) -> np.ndarray:
    """The heights of the line with this start of its label."""
    (line,) = [a for a in ax.lines if str(a.get_label()).startswith(label)]
    return np.asarray(line.get_ydata())


def test_null_band_and_intervals_are_those_of_the_results(views: Any) -> None:
    X, Y = views
    table, null = permutation_test(
        X, Y, statistic="roy", n_permutations=39, return_null=True, random_state=0
    )
    intervals = correlation_intervals(X, Y, cv=5)
    display = CorrelationDisplay.from_results((table, null), intervals=intervals, level=0.9)
    np.testing.assert_allclose(display.band, np.quantile(null, [0.05, 0.95], axis=0))
    np.testing.assert_allclose(
        _line(display.ax_, "training, p"), display.train[table["p_value"] <= 0.1]
    )
    _render(display)
    wilks = permutation_test(X, Y, n_permutations=9, return_null=True, random_state=0)
    with pytest.raises(ValueError, match="statistic='roy'"):
        CorrelationDisplay.from_results(wilks)
    with pytest.raises(TypeError, match="correlation_intervals"):
        CorrelationDisplay(intervals=[0.1])


def test_heatmap_and_circle_show_the_loadings(views: Any) -> None:
    X, Y = views
    cca = CCA().fit(X, Y)
    heat = LoadingsDisplay.from_estimator(cca, components=[2, 0])
    drawn = np.concatenate([cca.x_loadings_[:, [2, 0]], cca.y_loadings_[:, [2, 0]]])
    np.testing.assert_allclose(heat.ax_.images[0].get_array(), drawn)
    circle = LoadingsDisplay.from_estimator(cca, kind="circle", max_features=2)
    points = np.concatenate([c.get_offsets() for c in circle.ax_.collections[:2]])
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(cca.x_loadings_[:, :2], axis=0))
    assert len(circle.ax_.texts) == 4
    _render(heat)
    _render(circle)


def test_loadings_say_what_is_wrong(views: Any) -> None:
    cca = CCA(2).fit(*views)
    with pytest.raises(NotFittedError):
        LoadingsDisplay.from_estimator(CCA())
    for wrong, match in (
        ({"kind": "square"}, "kind="),
        ({"quantity": "size"}, "quantity="),
        ({"components": [2]}, "model has 2"),
        ({"components": [1], "kind": "circle"}, "two components"),
        ({"quantity": "weight", "kind": "circle"}, "of correlations"),
        ({"max_features": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            LoadingsDisplay.from_estimator(cca, **wrong)
    with pytest.raises(TypeError, match="loadings_table"):
        LoadingsDisplay({"loading": 1})
    assert LoadingsDisplay(loadings_table(cca)).plot().correlations is None


def test_bootstrap_lines_are_the_intervals(views: Any) -> None:
    X, Y = views
    result = bootstrap(CCA(2), X, Y, "x_loadings_", n_resamples=20, random_state=0)
    display = BootstrapDisplay.from_results(result, component=1)
    segments = np.array(display.ax_.collections[0].get_segments())
    np.testing.assert_allclose(segments[:, :, 0].T, [result.lower[:, 1], result.upper[:, 1]])
    assert display.labels == ["x0", "x1", "x2", "x3"]
    _render(display)
    with pytest.raises(TypeError, match="BootstrapResult"):
        BootstrapDisplay({"estimate": 1})
    with pytest.raises(ValueError, match="has 2"):
        BootstrapDisplay(result, component=2)
    with pytest.raises(ValueError, match="1 labels for 4"):
        BootstrapDisplay(result, labels=["a"])


def test_recall_curve_is_recall_at_each_k(rng: np.random.Generator) -> None:
    U = rng.normal(size=(40, 5))
    V = U + rng.normal(size=U.shape)
    display = RecallCurveDisplay.from_predictions(U, V, k=12, names=("a", "b"))
    np.testing.assert_allclose(
        _line(display.ax_, "a → b"), [recall_at_k(U, V, k=k) for k in range(1, 13)]
    )
    np.testing.assert_allclose(_line(display.ax_, "chance"), np.arange(1, 13) / 40)
    with pytest.raises(ValueError, match="k=0"):
        RecallCurveDisplay.from_predictions(U, V, k=0)
    with pytest.raises(NotFittedError):
        RecallCurveDisplay.from_estimator(CCA(), U, V)


def test_precision_is_scikit_learns_with_ties(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 6, size=(30, 30)).astype(float)
    labels = rng.integers(0, 3, size=30)
    display = PrecisionRecallCurveDisplay.from_predictions(scores, labels=labels)
    each = [average_precision_score(labels == c, s) for c, s in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(display.mean_average_precision[0], np.mean(each))
    # At full recall every candidate down to the last relevant one counts.
    last = [
        (labels == c).sum() / (s >= s[labels == c].min()).sum()
        for c, s in zip(labels, scores, strict=True)
    ]
    np.testing.assert_allclose(display.precision[0, -1], np.mean(last))
    np.testing.assert_allclose(_line(display.ax_, "x → y"), display.precision[0])
    with pytest.raises(ValueError, match="give labels"):
        PrecisionRecallCurveDisplay.from_predictions(scores, labels=None)


def test_coverage_counts_values_in_central_intervals(views: Any) -> None:
    X, Y = views
    model = ConditionalGaussian(shrinkage=0.1).fit(X[:80], Y[:80])
    display = ConditionalCalibrationDisplay.from_estimator(model, X[80:], Y[80:])
    mean, std = model.predict(X[80:], return_std=True)
    half = np.mean(np.abs(Y[80:] - mean) <= 0.67448975 * std)
    np.testing.assert_allclose(display.actual[9], half)
    np.testing.assert_allclose(_line(display.ax_, "held out"), display.actual)
    histogram = ConditionalCalibrationDisplay(display.pit).plot(kind="histogram", n_bins=10)
    heights = [bar.get_height() for bar in histogram.ax_.patches]
    np.testing.assert_allclose(heights, np.histogram(display.pit, 10, (0, 1), density=True)[0])
    with pytest.raises(ValueError, match="kind="):
        display.plot(kind="line")
    with pytest.raises(ValueError, match="not positive"):
        ConditionalCalibrationDisplay.from_predictions([1.0], [1.0], [0.0])
    with pytest.raises(TypeError, match="no standard deviations"):
        ConditionalCalibrationDisplay.from_estimator(CCA(2).fit(X, Y), X, Y)


def test_curves_and_comparison_show_the_tables(views: Any) -> None:
    X, Y = views
    models = {"one": CCA(1, shrinkage=0.1), "three": CCA(3, shrinkage=0.1)}
    common = {"cv": 2, "random_state": 0}
    curves = learning_curves(models, X, Y, sizes=[20, 60], **common)
    display = LearningCurvesDisplay.from_results(curves, metric="R@10")
    expected = curves.query("metric == 'R@10' and model == 'three'")["mean"]
    np.testing.assert_allclose(display.ax_.containers[1][0].get_ydata(orig=False), expected)
    table = compare(models, X, Y, baseline="one", memory=False, **common)
    comparison = ComparisonDisplay.from_results(table)
    np.testing.assert_allclose(comparison.ax_.containers[0][0].get_xdata(orig=False), table["MRR"])
    np.testing.assert_allclose(comparison.standard_errors, table["MRR_se"])
    with pytest.raises(ValueError, match="none of the curves"):
        LearningCurvesDisplay(curves, metric="R@7")
    with pytest.raises(TypeError, match="learning_curves"):
        LearningCurvesDisplay(table)
    with pytest.raises(TypeError, match="compare"):
        ComparisonDisplay(curves)
    with pytest.raises(ValueError, match="no column"):
        ComparisonDisplay(table, metric="device")


def test_torch_is_copied_to_the_host(views: Any) -> None:
    torch = pytest.importorskip("torch")
    X, Y = views
    Xt, Yt = torch.asarray(X), torch.asarray(Y)
    cca, same = CCA(3).fit(Xt, Yt), CCA(3).fit(X, Y)
    heat = LoadingsDisplay.from_estimator(cca)
    np.testing.assert_allclose(heat.values["x"], same.x_loadings_, atol=1e-10)
    one = PrecisionRecallCurveDisplay.from_estimator(cca, Xt, Yt, labels=np.arange(120) % 3)
    two = PrecisionRecallCurveDisplay.from_estimator(same, X, Y, labels=np.arange(120) % 3)
    np.testing.assert_allclose(one.precision, two.precision, atol=1e-10)
    RecallCurveDisplay.from_estimator(cca, Xt, Yt, k=5)
    CorrelationDisplay.from_estimator(cca, Xt, Yt)
    model = ConditionalGaussian(shrinkage=0.1).fit(Xt, Yt)
    ConditionalCalibrationDisplay.from_estimator(model, Xt, Yt)


def test_path_of_one_view_names_the_other(views: Any) -> None:
    grid = {"shrinkage": [(s, 0.1) for s in (0.01, 0.1, 0.3)]}
    search = TwoViewPipeline(MomentsSearchCV(CCA(2), grid, cv=3)).fit(*views)
    display = ShrinkagePathDisplay.from_estimator(search)
    words = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert words == ["shrinkage of x, 0.1 for y"]


def test_conformal_sets_and_match_probabilities_are_drawn() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 4))
    X, Y = z + 0.3 * rng.normal(size=z.shape), z + 0.3 * rng.normal(size=z.shape)
    retriever = ConformalRetriever(CCA(), random_state=0).fit(X[:300], Y[:300])
    display = ConformalSetDisplay.from_estimator(retriever, X[300:], Y[300:], kind="coverage")
    sizes = retriever.set_sizes(X[300:], Y[300:], confidence=0.9)
    at = int(np.argmin(np.abs(display.confidence - 0.9)))
    assert display.confidence[at] == pytest.approx(0.9)
    assert display.size[at] == pytest.approx(sizes.mean())
    assert display.coverage is not None
    assert display.coverage[at] == retriever.predict_set(X[300:], Y[300:]).diagonal().mean()
    few = display.confidence < 0.95
    assert (display.size[few] <= display.confidence[few] * display.n_candidates).all()
    unpaired = ConformalSetDisplay(retriever.p_values(X[300:], Y[:50]), paired=False).plot()
    with pytest.raises(ValueError, match="coverage needs pairs"):
        unpaired.plot(kind="coverage")
    with pytest.raises(ValueError, match="p_values has shape"):
        ConformalSetDisplay(retriever.p_values(X[300:], Y[:50]))
    found = match_probability(X, Y, prior=0.3, model=CCA(), random_state=0)
    drawn = MatchCalibrationDisplay.from_results(found)
    assert drawn.brier == pytest.approx(found.brier)
    assert drawn.weights.sum() == pytest.approx(1)
    assert (drawn.weights * drawn.observed).sum() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="mismatched must be a vector of probabilities"):
        MatchCalibrationDisplay([0.5], [2.0])
    with pytest.raises(TypeError, match="match_probability returns"):
        MatchCalibrationDisplay.from_results(found.probability)
