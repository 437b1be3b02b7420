"""Classification from class names: the formula, temperature, offsets, labelled items, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from cmstats import (
    CCA,
    ConditionalGaussian,
    NystroemMap,
    PrototypeClassifier,
    SemanticMatching,
    compare,
)
from cmstats.metrics import expected_calibration_error
from cmstats.models.prototypes import UNKNOWN, matched_offsets

CLASSES = ["cat", "dog", "owl"]


def data(n: int, seed: int) -> tuple[Any, Any, Any]:
    """Items of three classes in two views; the names of classes are the centres of the second."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 6)) * 1.2
    codes = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    z = centres[codes] + rng.normal(size=(n, 6))
    x, y = z + 0.7 * rng.normal(size=z.shape), z + 0.5 * rng.normal(size=z.shape)
    return x, y, np.array(CLASSES)[codes]


TEXTS = np.random.default_rng(99).normal(size=(3, 6)) * 1.2
FEATURES = dict(zip(CLASSES, TEXTS, strict=True))
MODEL = ConditionalGaussian(shrinkage=0.05)


def test_probabilities_are_those_of_the_formula() -> None:
    X, y, _ = data(400, 0)
    model = MODEL.fit(X, y)
    prior = np.array([0.5, 0.3, 0.2])
    found = PrototypeClassifier(
        FrozenEstimator(model), FEATURES, prior=prior, temperature=2.0, offsets=False
    ).fit(X)
    expected = softmax(model.similarity(X, TEXTS) / 2 + np.log(prior), axis=1)
    np.testing.assert_allclose(found.predict_proba(X), expected, atol=1e-10)
    assert found.classes_.tolist() == CLASSES
    assert (found.predict(X) == np.array(CLASSES)[expected.argmax(axis=1)]).all()


def test_no_label_is_needed_and_few_help() -> None:
    X, y, labels = data(600, 0)
    Xt, _, truth = data(600, 1)
    zero = PrototypeClassifier(MODEL, FEATURES, random_state=0).fit(X, y)
    assert zero.n_labelled_ == 0
    assert zero.score(Xt, truth) > 0.7
    few = np.full(600, None, dtype=object)
    for c in CLASSES:
        at = np.flatnonzero(labels == c)[:20]
        few[at] = c
    wrong = dict(zip(CLASSES, TEXTS[[1, 2, 0]] * 0.3, strict=True))  # names that mislead
    lost = PrototypeClassifier(MODEL, wrong, random_state=0).fit(X, y)
    moved = PrototypeClassifier(MODEL, wrong, random_state=0).fit(X, y, few)
    assert moved.n_labelled_ == 60
    assert moved.score(Xt, truth) > lost.score(Xt, truth) + 0.2
    fixed = PrototypeClassifier(MODEL, wrong, prior_strength=np.inf, random_state=0)
    np.testing.assert_allclose(fixed.fit(X, y, few).prototypes_, lost.prototypes_)


@pytest.mark.ordinary
def test_held_out_items_say_how_much_a_name_is_worth() -> None:
    X, y, labels = data(600, 0)

    def strength(features: Any, shots: int, model: Any = MODEL) -> float:
        few = np.full(600, None, dtype=object)
        for c in CLASSES:
            few[np.flatnonzero(labels == c)[:shots]] = c
        found = PrototypeClassifier(model, features, random_state=0).fit(X, y, few)
        return float(found.prior_strength_)

    wrong = dict(zip(CLASSES, TEXTS[[1, 2, 0]] * 0.3, strict=True))
    for model in (MODEL, FrozenEstimator(MODEL.fit(X, y))):
        assert strength(wrong, 20, model) <= 3.0 < strength(FEATURES, 20, model)
        assert strength(FEATURES, 1, model) == UNKNOWN  # a class has no item to hold out
    assert PrototypeClassifier(MODEL, FEATURES).fit(X, y).prior_strength_ == np.inf


def test_all_labelled_items_alone_are_linear_discriminants() -> None:
    X, y, labels = data(500, 0)
    model = MODEL.fit(X, y)
    found = PrototypeClassifier(
        FrozenEstimator(model), FEATURES, prior_strength=0.0, temperature=1.0, offsets=False,
        prior=np.ones(3),
    ).fit(X, None, labels)  # fmt: skip
    r = model.singular_values_
    u = model.embed(X)[:, : len(r)] / np.sqrt(r / (1 - r**2))
    means = np.stack([u[labels == c].mean(axis=0) for c in CLASSES])
    logits = (u / (1 - r**2)) @ means.T - 0.5 * (means**2 / (1 - r**2)).sum(axis=1)
    np.testing.assert_allclose(found.predict_proba(X), softmax(logits, axis=1), atol=1e-8)


def test_offsets_give_every_class_its_prior() -> None:
    rng = np.random.default_rng(0)
    logits, prior = rng.normal(size=(500, 4)) * 3, np.array([0.4, 0.3, 0.2, 0.1])
    b = matched_offsets(logits, prior)
    np.testing.assert_allclose(softmax(logits + b, axis=1).mean(axis=0), prior, atol=1e-4)
    X, y, labels = data(600, 0)
    known = np.array([(labels == c).mean() for c in CLASSES])
    found = PrototypeClassifier(MODEL, FEATURES, prior=known, random_state=0).fit(X, y)
    np.testing.assert_allclose(found.predict_proba(X).mean(axis=0), known, atol=0.03)
    assert not PrototypeClassifier(MODEL, FEATURES, random_state=0).fit(X, y).offsets_.any()


def test_the_temperature_calibrates() -> None:
    X, y, labels = data(800, 0)
    Xt, _, truth = data(800, 1)
    sharp = dict(zip(CLASSES, TEXTS * 3, strict=True))  # names are no captions
    few = np.where(np.arange(800) < 100, labels, None)
    how: dict[str, Any] = {"prior_strength": np.inf, "random_state": 0}
    errors: dict[Any, float] = {}
    for t in (1.0, "auto"):
        found = PrototypeClassifier(MODEL, sharp, temperature=t, **how).fit(X, y, few)
        p = found.predict_proba(Xt)
        at = np.searchsorted(found.classes_, truth)
        errors[t] = -np.log(p[np.arange(800), at]).mean()
    assert errors["auto"] < 0.8 * errors[1.0]
    assert found.temperature_ > 1


def test_classes_may_have_several_texts_and_any_names() -> None:
    X, y, _ = data(300, 0)
    twice = {c: np.stack([t, t]) for c, t in FEATURES.items()}
    one, two = (
        PrototypeClassifier(MODEL, f, temperature=1.0, cv=2, random_state=0).fit(X, y)
        for f in (FEATURES, twice)
    )
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-10)
    listed = PrototypeClassifier(
        MODEL, TEXTS[::-1], classes=["owl", "dog", "cat"], prior=[0.2, 0.3, 0.5], random_state=0
    ).fit(X, y)
    assert listed.classes_.tolist() == CLASSES
    np.testing.assert_allclose(listed.class_prior_, [0.5, 0.3, 0.2])
    numbered = PrototypeClassifier(CCA(), TEXTS, random_state=0).fit(X, y)
    assert set(numbered.predict(X)) == {0, 1, 2}


def test_similarities_that_are_no_ratio_are_calibrated_too() -> None:
    class Cosine(CCA):
        def embed(self, X: Any = None, y: Any = None) -> Any:
            return super().embed(X, y, kind="cosine")

    X, y, labels = data(500, 0)
    Xt, _, truth = data(300, 1)
    found = PrototypeClassifier(Cosine(), FEATURES, random_state=0).fit(X, y, labels)
    assert found.temperature_ < 1
    assert found.score(Xt, truth) > 0.7
    p = found.predict_proba(Xt)
    assert expected_calibration_error(p, truth, classes=found.classes_) < 0.12


def test_calibration_error_of_certain_guesses() -> None:
    p = np.eye(2)[[0, 0, 0, 1]]
    assert expected_calibration_error(p, [0, 1, 0, 1]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="none of the classes"):
        expected_calibration_error(p, [0, 1, 0, 2])


def test_bad_input_of_prototypes_is_one_sentence() -> None:
    X, y, labels = data(60, 0)
    with pytest.raises(TypeError, match="NystroemMap ranks nothing"):
        PrototypeClassifier(NystroemMap(), FEATURES).fit(X, y)
    with pytest.raises(ValueError, match="label 'cow' is none of the classes"):
        PrototypeClassifier(CCA(), FEATURES).fit(X, y, np.where(labels == "cat", "cow", labels))
    with pytest.raises(ValueError, match="at least two classes"):
        PrototypeClassifier(CCA(), TEXTS[:1]).fit(X, y)
    with pytest.raises(ValueError, match="names of the classes repeat"):
        PrototypeClassifier(CCA(), TEXTS, classes=["a", "a", "b"]).fit(X, y)
    with pytest.raises(ValueError, match="2 classes for 3 rows"):
        PrototypeClassifier(CCA(), TEXTS, classes=["a", "b"]).fit(X, y)
    with pytest.raises(ValueError, match="prior must hold one positive number"):
        PrototypeClassifier(CCA(), TEXTS, prior=[1, 0, 1]).fit(X, y)
    with pytest.raises(ValueError, match="the target y is None"):
        PrototypeClassifier(CCA(), TEXTS).fit(X)
    with pytest.raises(ValueError, match="nothing to choose the temperature by"):
        PrototypeClassifier(FrozenEstimator(CCA().fit(X, y)), TEXTS).fit(X)
    with pytest.raises(ValueError, match="y has 5 features"):
        PrototypeClassifier(CCA(), TEXTS[:, :5]).fit(X, y)
    with pytest.raises(ValueError, match="give labels"):
        PrototypeClassifier(CCA(), TEXTS, random_state=0).fit(X, y).score(X)


def test_a_comparison_of_classifiers_has_those_of_all_labels_beside() -> None:
    X, y, labels = data(300, 0)
    models = {
        "names": PrototypeClassifier(MODEL, FEATURES, cv=2),
        "CCA": CCA(2, shrinkage=0.1),
        "semantic matching": SemanticMatching(LogisticRegression()),  # instead of the default one
    }
    how: dict[str, Any] = {"labels": labels, "cv": 2, "random_state": 0, "memory": False}
    table = compare(models, X, y, task="classification", baseline="names", **how)
    beside = ["semantic matching", "logistic regression, x", "logistic regression, y"]
    assert list(table.index) == ["names", "CCA", *beside, "raw cosine"]
    assert table.attrs["metric"] == "accuracy"
    accuracy = table["accuracy"]
    assert (accuracy[["names", *beside]] > 0.7).all()
    assert np.isnan(accuracy["CCA"])
    assert accuracy["semantic matching"] >= accuracy["logistic regression, x"]
    with pytest.raises(ValueError, match="needs labels"):
        compare(models, X, y, task="classification")
    with pytest.raises(ValueError, match="task='sorting' is unknown"):
        compare(models, X, y, task="sorting")  # type: ignore[arg-type]
