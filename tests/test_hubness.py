"""Correction of hubness: the corrected score is a plain inner product, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from cmstats import CCA, compare, load_emoji, retrieval_report, search
from cmstats.metrics import HubnessCorrection, mean_reciprocal_rank

METHODS = ("csls", "inverted_softmax", "sinkhorn")


def embeddings(seed: int, n: int, d: int = 6, noise: float = 0.7) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) + 0.5
    return z + noise * rng.normal(size=(n, d)), z + noise * rng.normal(size=(n, d))


BANK, TEST = embeddings(0, 60), embeddings(1, 25)


def hubness_by_hand(a: Any, bank: Any, method: str, T: float, potentials: Any) -> Any:
    scores = a @ bank.T
    if method == "csls":
        return np.sort(scores, axis=1)[:, -10:].mean(axis=1)
    return T * np.log(np.mean(np.exp((scores + potentials) / T), axis=1))


@pytest.mark.parametrize("method", METHODS)
def test_the_inner_product_is_the_corrected_score(method: str) -> None:
    hubs = HubnessCorrection(method).fit(*BANK)  # type: ignore[arg-type]
    u, v = hubs.transform(*TEST)
    assert u.shape[1] == TEST[0].shape[1] + 2
    T = getattr(hubs, "temperature_", 1.0)
    f, g = (getattr(hubs, f"{view}_potentials_", np.zeros(60)) for view in "xy")
    r_y = hubness_by_hand(TEST[0], BANK[1], method, T, g)
    r_x = hubness_by_hand(TEST[1], BANK[0], method, T, f)
    gain = 2 if method == "csls" else 1
    expected = gain * TEST[0] @ TEST[1].T - r_y[:, None] - r_x[None, :]
    np.testing.assert_allclose(u @ v.T, expected, atol=1e-12)
    np.testing.assert_array_equal(hubs.transform(TEST[0]), u)
    np.testing.assert_array_equal(hubs.transform(V=TEST[1]), v)


def test_sinkhorn_makes_both_sides_of_the_bank_count_alike() -> None:
    hubs = HubnessCorrection("sinkhorn").fit(*BANK)
    scores = BANK[0] @ BANK[1].T + hubs.x_potentials_[:, None] + hubs.y_potentials_
    mass = np.exp(scores / hubs.temperature_)
    np.fill_diagonal(mass, 0)
    np.testing.assert_allclose(mass.sum(axis=0) / 59, 1, rtol=1e-12)
    np.testing.assert_allclose(mass.sum(axis=1) / 59, 1, rtol=0.03)
    with pytest.warns(ConvergenceWarning, match="raise temperature"):
        HubnessCorrection("sinkhorn", temperature=1e-3).fit(*BANK)


@pytest.mark.parametrize("method", METHODS)
def test_an_item_of_the_bank_is_compared_with_the_other_pairs(method: str) -> None:
    """Also where it comes in single precision, or twice in the bank."""
    U, V = (np.concatenate([a, a[:1]]) for a in BANK)
    hubs = HubnessCorrection(method, temperature=2.0).fit(U, V)  # type: ignore[arg-type]
    u = hubs.transform(U[[0, 5]])
    for row, same in ((0, [0, 60]), (1, [5])):
        others = np.delete(V, same, axis=0)
        g = np.delete(getattr(hubs, "y_potentials_", np.zeros(61)), same)
        expected = hubness_by_hand(U[same[:1]], others, method, 2.0, g)[0]
        assert -u[row, -2] == pytest.approx(expected, abs=1e-12)
    single = HubnessCorrection(method, temperature=2.0).fit(*(a.astype(np.float32) for a in (U, V)))  # type: ignore[arg-type]
    again = single.transform((U[[0, 5]] * (1 + 1e-7)).astype(np.float32))
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, u, rtol=1e-5, atol=1e-4)


def test_a_bank_of_one_item_over_and_over_is_finite() -> None:
    same = np.ones((20, 3))
    for method in METHODS:
        u, v = HubnessCorrection(method).fit(same, same).transform(same, same)  # type: ignore[arg-type]
        assert np.isfinite(u).all()
        assert np.isfinite(v).all()


@pytest.mark.ordinary
def test_the_correction_finds_more_partners_on_real_pairs() -> None:
    image, text = load_emoji(return_X_y=True)
    cca = CCA(shrinkage=0.8).fit(image[::2], text[::2])
    u, v = cca.embed(image[1::2], text[1::2])
    plain = retrieval_report(u, v).loc["mean", "MRR"]
    for method in METHODS:
        hubs = HubnessCorrection(method, size=500, random_state=0)
        hubs.fit(*cca.embed(image[::2], text[::2]))
        assert len(hubs.x_bank_) == 500
        assert retrieval_report(u, v, hubness=hubs).loc["mean", "MRR"] > plain + 0.01


def test_search_and_report_take_it_in_both_directions() -> None:
    hubs = HubnessCorrection().fit(*BANK)
    u, v = hubs.transform(*TEST)
    for queries, (a, b), (c, d) in (("x", TEST, (u, v)), ("y", TEST[::-1], (v, u))):
        for found, expected in zip(
            search(a, b, 5, hubness=hubs, queries=queries),  # type: ignore[arg-type]
            search(c, d, 5),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)
    first, _ = search(TEST[0][3], TEST[1], 5, hubness=hubs)
    np.testing.assert_array_equal(first, search(u[3], v, 5)[0])
    report = retrieval_report(*TEST, hubness=hubs)
    assert report.loc["x -> y", "MRR"] == mean_reciprocal_rank(u, v)
    assert report.loc["y -> x", "MRR"] == mean_reciprocal_rank(v, u)


def test_an_index_for_inner_products_serves_the_vectors() -> None:
    faiss = pytest.importorskip("faiss")
    hubs = HubnessCorrection(random_state=0).fit(*(a.astype(np.float32) for a in BANK))
    u, v = hubs.transform(*(a.astype(np.float32) for a in TEST))
    index = faiss.IndexFlatIP(v.shape[1])
    index.add(np.ascontiguousarray(v))
    scores, indices = index.search(np.ascontiguousarray(u), 10)
    expected, best = search(u, v, 10)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, best, atol=1e-4)


def test_compare_fits_a_bank_for_each_model_and_fold() -> None:
    X, y = embeddings(2, 80)
    models = {"CCA": CCA(3, shrinkage=0.3)}
    hubs = HubnessCorrection(k=5)
    tables = [compare(models, X, y, cv=2, random_state=0, hubness=h) for h in (None, hubs)]
    assert not hasattr(hubs, "x_bank_")
    assert tables[0].loc["CCA", "MRR"] != tables[1].loc["CCA", "MRR"]
    with pytest.raises(TypeError, match="must be a HubnessCorrection"):
        compare(models, X, y, hubness="csls")  # type: ignore[arg-type]


def test_the_bank_is_a_uniform_sample_of_what_was_seen() -> None:
    U = np.arange(3000.0)[:, None]
    whole = HubnessCorrection(size=100, random_state=0).fit(U, U)
    parts = HubnessCorrection(size=100, random_state=0)
    for at in range(0, 3000, 700):
        parts.partial_fit(U[at : at + 700], U[at : at + 700])
    for hubs in (whole, parts):
        assert hubs.n_seen_ == 3000
        kept = hubs.x_bank_[:, 0]
        assert len(kept) == len(set(kept)) == 100
        np.testing.assert_array_equal(kept, hubs.y_bank_[:, 0])
        counts = np.histogram(kept, bins=3, range=(0, 3000))[0]
        assert counts.min() > 15


def test_wrong_input_is_named() -> None:
    hubs = HubnessCorrection().fit(*BANK)
    with pytest.raises(ValueError, match=r"one shape, got \(60, 6\) and \(25, 6\)"):
        HubnessCorrection().fit(BANK[0], TEST[1])
    with pytest.raises(ValueError, match="1 pair: at least 2"):
        HubnessCorrection().fit(BANK[0][:1], BANK[1][:1])
    with pytest.raises(ValueError, match="3 columns, but those of the bank have 6"):
        hubs.transform(TEST[0][:, :3])
    with pytest.raises(ValueError, match="3 columns"):
        hubs.partial_fit(TEST[0][:, :3], TEST[1][:, :3])
    with pytest.raises(ValueError, match="give U, V or both"):
        hubs.transform()
    with pytest.raises(ValueError, match="NaN"):
        hubs.transform(TEST[0] * np.nan)
    with pytest.raises(NotFittedError):
        search(*TEST, hubness=HubnessCorrection())
    with pytest.raises(TypeError, match="fitted HubnessCorrection"):
        retrieval_report(*TEST, hubness="csls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a score matrix"):
        retrieval_report(np.eye(3), hubness=hubs)
    with pytest.raises(ValueError, match="queries must be"):
        search(*TEST, hubness=hubs, queries="images")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method"):
        HubnessCorrection("cosine").fit(*BANK)  # type: ignore[arg-type]


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
@pytest.mark.parametrize("method", METHODS)
def test_vectors_stay_in_the_library_of_the_embeddings(library: str, method: str) -> None:
    xp = pytest.importorskip(library)
    hubs = HubnessCorrection(method).fit(*map(xp.asarray, BANK))  # type: ignore[arg-type]
    found = hubs.transform(*map(xp.asarray, (TEST[0], BANK[1])))
    expected = HubnessCorrection(method).fit(*BANK).transform(TEST[0], BANK[1])  # type: ignore[arg-type]
    for a, b in zip(found, expected, strict=True):
        assert type(a) is type(xp.asarray(b))
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-12)
