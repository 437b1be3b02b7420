"""DeepCCA, ContrastiveAligner and ASIF: objectives, training, seeds, arrays in and out."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import cross_val_score

from cmstats import CCA, retrieval_report
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA


class Torch:
    """Is torch, loaded when a test asks for it: that takes seconds, and the quick set does not."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of which the collection of tests asks everything
            raise AttributeError(name)
        return getattr(importlib.import_module("torch"), name)


torch: Any = Torch() if importlib.util.find_spec("torch") else None
needs_torch = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small products are slower on many threads of torch, and sums then depend on them."""
    here = [item for item in request.session.items if item.path == request.path]
    if torch is None or not any(item.get_closest_marker("torch") for item in here):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(n: int = 400, d: int = 6, noise: float = 0.2, seed: int = 0) -> tuple[Any, Any]:
    """Views of 12 and 9 features that share a latent of d dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    x = z @ rng.normal(size=(d, 12)) + noise * rng.normal(size=(n, 12)) + 3
    y = z @ rng.normal(size=(d, 9)) + noise * rng.normal(size=(n, 9))
    return x, y


X, Y = pairs()
SHORT: dict[str, Any] = {"max_epochs": 4, "random_state": 0}


def models(**more: Any) -> dict[str, Any]:
    """One short model of each kind."""
    out: dict[str, Any] = {"asif": ASIF(k=20, power=4)}
    if torch is not None:
        out["deep_cca"] = DeepCCA(3, hidden=(8,), **{**SHORT, **more})
        out["aligner"] = ContrastiveAligner(6, **{**SHORT, **more})
        out["deep_aligner"] = ContrastiveAligner(
            6, hidden=(10, 7), activation="tanh", **{**SHORT, **more}
        )
    return out


def quiet_fit(model: Any, x: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


NAMES = ["asif", *(pytest.param(name, marks=needs_torch) for name in ("deep_cca", "aligner"))]
DEEP = [pytest.param(name, marks=needs_torch) for name in ("deep_cca", "aligner", "deep_aligner")]


# ------------------------------------------------------------------------------- contract


@pytest.mark.slow
# ----------------------------------------------------------------------------- objectives
@needs_torch
def test_contrastive_loss_and_gradient_equal_cross_entropies() -> None:
    from cmstats.baselines.training import ContrastiveLoss

    g = torch.Generator().manual_seed(3)
    u, v = (torch.randn(17, 5, generator=g, dtype=torch.float64) for _ in range(2))
    ours, theirs = ([t.clone().requires_grad_() for t in (u, v)] for _ in range(2))
    objective = ContrastiveLoss(0.2, "cpu")
    loss = objective.loss(*ours)
    loss.backward()

    log_scale = torch.tensor(np.log(5.0), dtype=torch.float32, requires_grad=True)
    a, b = (t / t.norm(dim=1, keepdim=True) for t in theirs)
    logits, partner = log_scale.exp() * (a @ b.T), torch.arange(17)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(logits, partner) + entropy(logits.T, partner)) / 2
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(objective.log_scale.grad, log_scale.grad)
    for t, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(t.grad, reference.grad, atol=1e-9, rtol=1e-7)


@needs_torch
def test_temperature_does_not_fall_below_a_hundredth() -> None:
    from cmstats.baselines.training import ContrastiveLoss

    objective = ContrastiveLoss(0.01, "cpu")
    with torch.no_grad():
        objective.log_scale += 5
    assert objective.temperature == pytest.approx(0.01)


@needs_torch
@pytest.mark.parametrize("shrinkage", [1e-4, 0.3])
def test_correlation_loss_is_the_sum_of_shrunken_correlations(shrinkage: float) -> None:
    from cmstats.baselines.training import CorrelationLoss

    u, v = X[:, :4], Y[:, :4]
    loss = CorrelationLoss(shrinkage, "correlation").loss(torch.tensor(u), torch.tensor(v))
    expected = CCA(shrinkage=shrinkage).fit(u, v).singular_values_.sum()
    assert -float(loss) == pytest.approx(expected, abs=1e-9)


@needs_torch
def test_gradient_of_the_correlation_loss_is_right_where_correlations_coincide() -> None:
    from cmstats.baselines.training import CorrelationLoss

    g = torch.Generator().manual_seed(0)
    u = torch.randn(30, 3, generator=g, dtype=torch.float64, requires_grad=True)
    v = torch.randn(30, 3, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(CorrelationLoss(0.1, "correlation").loss, (u, v))
    same = u.detach().clone().requires_grad_()  # all correlations are equal
    CorrelationLoss(0.1, "correlation").loss(same, u.detach()).backward()
    assert bool(torch.isfinite(same.grad).all())


@pytest.mark.slow
# -------------------------------------------------------------------------------- quality
@pytest.mark.ordinary
@needs_torch
def test_deep_cca_without_hidden_layers_reaches_linear_cca() -> None:
    x, y = pairs(600, noise=1.5, seed=1)
    linear = CCA(3).fit(x[:450], y[:450])
    model = DeepCCA(3, hidden=(), dropout=0.0, batch_size=225, random_state=0)
    model.fit(x[:450], y[:450])
    np.testing.assert_allclose(model.correlations_, linear.correlations_, atol=0.02)
    assert model.score(x[450:], y[450:]) == pytest.approx(linear.score(x[450:], y[450:]), abs=0.02)


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("monitor", ["correlation", "retrieval"])
def test_validation_scores_are_those_of_the_model_on_the_rows_held_out(monitor: Any) -> None:
    model = DeepCCA(3, hidden=(8,), monitor=monitor, refit=False, max_epochs=3, random_state=0)
    quiet_fit(model, X, Y)
    seed = int(np.random.RandomState(0).randint(2**31 - 8))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(seed)).numpy()
    held, train = order[:40], order[40:]
    outputs = [model.x_encoder_(X, "X"), model.y_encoder_(Y, "y")]
    cca = CCA(3, shrinkage=0.01).fit(*(a[train] for a in outputs))
    new = [a[held] for a in outputs]
    expected = cca.score(*new)
    if monitor == "retrieval":
        expected = retrieval_report(*cca.embed(*new, kind="weighted_cosine")).loc["mean", "MRR"]
    assert model.best_score_ == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@needs_torch
def test_deep_cca_finds_what_is_not_linear() -> None:
    rng = np.random.default_rng(0)
    z = rng.uniform(-2, 2, size=(800, 1))
    x = np.hstack([z, rng.normal(size=(800, 2))])
    y = np.hstack([z**2, rng.normal(size=(800, 2))])
    model = DeepCCA(1, hidden=(64,), random_state=0).fit(x[:600], y[:600])
    assert CCA(1).fit(x[:600], y[:600]).score(x[600:], y[600:]) < 0.3
    assert model.score(x[600:], y[600:]) > 0.9


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("hidden", [(), (32,)])
def test_aligner_finds_every_partner_on_easy_data(hidden: tuple[int, ...]) -> None:
    x, y = pairs(500, noise=0.0, seed=2)
    model = ContrastiveAligner(16, hidden=hidden, dropout=0.0, max_epochs=100, random_state=0)
    quiet_fit(model, x[:400], y[:400])
    report = retrieval_report(*model.embed(x[400:], y[400:]))
    assert report.loc["mean", "R@1"] >= (0.98 if hidden else 1.0)
    assert model.score(x[400:], y[400:]) == pytest.approx(report.loc["mean", "MRR"])


@pytest.mark.slow
@needs_torch
def test_aligner_is_as_good_as_cca_on_emoji() -> None:
    from cmstats import load_emoji

    image, text = load_emoji(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(image))
    train, test = order[468:], order[:468]
    model = ContrastiveAligner(max_epochs=12, patience=12, random_state=0)
    quiet_fit(model, image[train], text[train])
    assert model.score(image[test], text[test]) > 0.28  # CCA: 0.33; chance: 0.015


def test_asif_searches_for_what_suits_the_data() -> None:
    model = ASIF(random_state=0).fit(X[:300], Y[:300])
    assert model.cv_scores_.shape == (4, 4, 5)
    at = np.unravel_index(model.cv_scores_.mean(axis=2).argmax(), (4, 4))
    assert model.k_ == model.cv_neighbours_[at[0]]
    assert model.power_ == model.cv_powers_[at[1]]
    assert model.score(X[300:], Y[300:]) > 0.3


# ----------------------------------------------------------------------------------- ASIF
@pytest.mark.parametrize("center", [False, True])
def test_asif_equals_a_loop_by_hand(center: bool) -> None:
    model = ASIF(k=7, power=3.0, center=center).fit(X[:60], Y[:60])
    U, V = model.transform(X[60:70], Y[60:70])
    for view, anchors, found in ((X, X[:60], U), (Y, Y[:60], V)):
        mean = anchors.mean(axis=0) if center else np.zeros(anchors.shape[1])
        for i in range(10):
            item, cosines = view[60 + i] - mean, []
            for anchor in anchors - mean:
                cosines.append(item @ anchor / np.sqrt(item @ item) / np.sqrt(anchor @ anchor))
            expected = np.zeros(60)
            for j in np.argsort(cosines)[-7:]:
                expected[j] = max(cosines[j], 0.0) ** 3.0
            np.testing.assert_allclose(found[i], expected, atol=1e-12)
            assert np.count_nonzero(found[i]) <= 7
    S = model.similarity(X[60:70], Y[60:75])
    assert S.shape == (10, 15)
    expected = U[2] @ V[4] / np.linalg.norm(U[2]) / np.linalg.norm(V[4])
    assert S[2, 4] == pytest.approx(expected)


def test_asif_does_not_depend_on_block_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ASIF(k=7, power=3.0).fit(X[:60], Y[:60])
    whole = model.transform(X)
    monkeypatch.setattr("cmstats.baselines.asif.BLOCK_BYTES", 1)
    np.testing.assert_allclose(model.transform(X), whole, atol=1e-14)


def test_asif_takes_some_of_the_pairs_as_anchors() -> None:
    model = ASIF(k=5, power=2, n_anchors=30, random_state=1).fit(X, Y)
    assert model.x_anchors_.shape == (30, 12)
    assert model.transform(X).shape == (400, 30)
    assert len(model.get_feature_names_out()) == model.n_components_ == 30
    again = ASIF(k=5, power=2, n_anchors=30, random_state=1).fit(X, Y)
    np.testing.assert_array_equal(again.x_anchors_, model.x_anchors_)
    with pytest.raises(ValueError, match=r"n_anchors=401 is too large: there are 400"):
        ASIF(n_anchors=401).fit(X, Y)


def test_asif_of_a_constant_view_is_finite() -> None:
    model = ASIF(k=3, power=2).fit(np.ones((20, 2)), Y[:20])
    assert np.isfinite(model.similarity(np.ones((4, 2)), Y[:4])).all()


# ------------------------------------------------------------------------------- training
@pytest.mark.parametrize("name", DEEP)
def test_seeds_reproduce_to_the_bit(name: str) -> None:
    state = torch.random.get_rng_state()
    one, two, other = (quiet_fit(models(random_state=seed)[name], X, Y) for seed in (7, 7, 8))
    assert np.array_equal(one.transform(X), two.transform(X))
    assert one.history_.equals(two.history_)
    assert not np.array_equal(one.transform(X), other.transform(X))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's numbers are used up


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_early_stopping_restores_the_best_epoch(name: str) -> None:
    long = models(max_epochs=99, patience=3, learning_rate=0.05, refit=False)[name]
    quiet_fit(long, X, Y)
    scores = long.history_["validation_score"]
    assert long.n_iter_ == len(scores)
    assert scores[long.best_epoch_] == scores.max()
    assert long.best_score_ == scores.max()
    assert long.n_iter_ < 99
    assert long.n_iter_ == long.best_epoch_ + 3
    # The weights are those of a run that ends there.
    short = clone(long).set_params(max_epochs=long.best_epoch_)
    quiet_fit(short, X, Y)
    assert short.best_epoch_ == long.best_epoch_
    assert np.array_equal(short.transform(X), long.transform(X))


@needs_torch
def test_refit_trains_on_all_rows_for_the_best_number_of_epochs() -> None:
    apart = quiet_fit(ContrastiveAligner(6, refit=False, **SHORT), X, Y)
    again = quiet_fit(ContrastiveAligner(6, **SHORT), X, Y)
    assert again.history_.equals(apart.history_)
    assert again.best_epoch_ == apart.best_epoch_
    assert not np.allclose(again.transform(X), apart.transform(X))


@needs_torch
def test_without_validation_rows_all_epochs_run() -> None:
    model = ContrastiveAligner(6, validation_fraction=0.0, **SHORT).fit(X, Y)
    assert model.n_iter_ == model.best_epoch_ == 4
    assert np.isnan(model.best_score_)
    assert model.history_["validation_score"].isna().all()
    assert model.history_["loss"].iloc[-1] < model.history_["loss"].iloc[0]


@needs_torch
def test_a_score_that_still_rises_is_told() -> None:
    model = ContrastiveAligner(6, max_epochs=2, learning_rate=1e-3, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"still rising at max_epochs=2"):
        model.fit(X, Y)


@needs_torch
def test_a_loss_that_diverges_is_told() -> None:
    with pytest.raises(ValueError, match="loss was not finite after the first epoch"):
        DeepCCA(3, learning_rate=1e30, random_state=0).fit(X, Y)
    model = DeepCCA(3)
    with pytest.raises(NotFittedError):
        model.transform(X)


@needs_torch
def test_fit_trains_inside_inference_mode() -> None:
    expected = quiet_fit(ContrastiveAligner(6, **SHORT), X, Y).transform(X)
    with torch.inference_mode():
        found = quiet_fit(ContrastiveAligner(6, **SHORT), X, Y).transform(X)
    np.testing.assert_array_equal(found, expected)


@needs_torch
def test_threads_of_torch_are_left_as_they_were() -> None:
    torch.set_num_threads(2)
    try:
        quiet_fit(ContrastiveAligner(6, **SHORT), X, Y)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@needs_torch
def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    quiet_fit(ContrastiveAligner(6, verbose=True, **SHORT), X, Y)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "loss" in shown


@needs_torch
def test_parameters_are_counted() -> None:
    linear = quiet_fit(ContrastiveAligner(6, **SHORT), X, Y)
    assert linear.n_parameters_ == (12 * 6 + 6) + (9 * 6 + 6) + 1
    deep = quiet_fit(DeepCCA(3, hidden=(8,), **SHORT), X, Y)
    count = sum(d * (8 + 3) + (8 + 3) + 8 * 3 + 3 for d in (12, 9))
    assert deep.n_parameters_ == count
    asif = ASIF(k=3, power=2).fit(X, Y)
    assert asif.n_parameters_ == 401 * (12 + 9)


# ------------------------------------------------------------------- arrays in and out


@pytest.mark.parametrize("name", NAMES)
def test_offsets_and_units_of_a_view_do_not_matter(name: str) -> None:
    one = quiet_fit(models()[name], X, Y)
    two = quiet_fit(models()[name], 1000 * X + 1e5, Y)
    np.testing.assert_allclose(two.transform(1000 * X + 1e5), one.transform(X), atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_models_stand_in_scikit_learns_cross_validation(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(models()[name], X, Y, cv=3, error_score="raise")
    assert np.isfinite(scores).all()


@needs_torch
@pytest.mark.parametrize("kind", ["cosine", "weighted_cosine", "csa", "likelihood_ratio"])
def test_embeddings_multiply_to_similarities(kind: Any) -> None:
    model = quiet_fit(models()["deep_cca"], X, Y)
    U, V = model.embed(X[:8], Y[:6], kind=kind)
    np.testing.assert_allclose(U @ V.T, model.similarity(X[:8], Y[:6], kind=kind), atol=1e-12)
    np.testing.assert_allclose(model.embed(y=Y[:6], kind=kind), V)
    variates = model.transform(X)
    np.testing.assert_allclose(variates.std(axis=0, ddof=1), 1, atol=1e-8)


# ------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("name", NAMES)
def test_bad_data_get_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"n_samples=1: one sample has no variance"):
        models()[name].fit(X[:1], Y[:1])
    fitted = quiet_fit(models()[name], X, Y)
    with pytest.raises(ValueError, match="give X, y or both"):
        fitted.embed()
    with pytest.raises(ValueError, match="requires y to be passed"):
        fitted.score(X, None)


@needs_torch
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DeepCCA(10, batch_size=10), r"batch_size=10 must be above n_components=10"),
        (DeepCCA(hidden=(8, 0)), r"hidden=\(8, 0\) must hold the widths of layers"),
        (ContrastiveAligner(device="abacus"), r"device='abacus' is no device of torch"),
        (ContrastiveAligner(dropout=1.0), "The 'dropout' parameter of ContrastiveAligner"),
        (DeepCCA(shrinkage=0.0), "The 'shrinkage' parameter of DeepCCA"),
        (ContrastiveAligner(temperature=0.0), "The 'temperature' parameter"),
    ],
)
def test_bad_parameters_get_one_sentence(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


@needs_torch
def test_cuda_that_is_not_there_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=r"device='cuda', but torch finds no CUDA device"):
        ContrastiveAligner(device="cuda").fit(X, Y)


@pytest.mark.gpu
@pytest.mark.parametrize("name", DEEP)
def test_training_on_a_gpu_is_training(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    host = quiet_fit(models(max_epochs=30, device="cuda")[name], X, Y)
    assert host.device_.startswith("cuda")
    assert isinstance(host.transform(X), np.ndarray)
    x, y = (torch.tensor(a, device="cuda") for a in (X, Y))
    there = quiet_fit(models(max_epochs=30)[name], x, y)
    assert there.transform(x).is_cuda
    here = quiet_fit(models(max_epochs=30)[name], X, Y)
    assert there.score(x, y) == pytest.approx(here.score(X, Y), abs=0.1)


@needs_torch
@pytest.mark.parametrize("constant", ["x", "y"])
@pytest.mark.parametrize("make", [DeepCCA, ContrastiveAligner])
def test_a_view_that_does_not_vary_is_told(make: Any, constant: str) -> None:
    x, y = (np.full((50, 4), 0.1), Y[:50]) if constant == "x" else (X[:50], np.full((50, 3), 7.0))
    model = make(2, **SHORT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y)
    assert any(f"every column of {constant} is constant" in str(w.message) for w in caught)
    assert np.isfinite(model.transform(X if constant == "y" else x)).all()


@needs_torch
def test_components_beyond_the_rank_are_left_out() -> None:
    with pytest.warns(UserWarning, match=r"only 1 of n_components=4 exist"):
        model = DeepCCA(4, hidden=(), max_epochs=3, refit=False, random_state=0).fit(X, Y[:, 0])
    assert model.transform(X).shape == (400, 1)


@pytest.mark.parametrize("make", [DeepCCA, ContrastiveAligner])
def test_without_torch_the_sentence_says_what_to_install(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it then fails
    monkeypatch.delitem(sys.modules, "cmstats.baselines.training", raising=False)
    with pytest.raises(
        ImportError, match=rf"{make.__name__} is trained with torch.*cmstats\[deep\]"
    ):
        make().fit(X, Y)


@needs_torch
def test_predicting_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = quiet_fit(models()["deep_cca"], X, Y)
    expected = model.embed(X, Y)
    monkeypatch.setitem(sys.modules, "torch", None)
    for a, b in zip(model.embed(X, Y), expected, strict=True):
        assert np.array_equal(a, b)
