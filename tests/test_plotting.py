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
from sklearn.preprocessing import StandardScaler

from cmstats import CCA, MomentsSearchCV, TwoViewPipeline
from cmstats.plotting import (
    CorrelationDisplay,
    JointEmbeddingDisplay,
    RetrievalDisplay,
    ShrinkagePathDisplay,
)


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
