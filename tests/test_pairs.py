"""Wrong pairs with an error rate, and the probability of a match."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.frozen import FrozenEstimator

from cmstats import CCA, ConditionalGaussian, NystroemMap, check_pairs, match_probability
from cmstats.inference.scores import standardized_vectors
from cmstats.inference.wrong_pairs import (
    estimated_rates,
    false_discoveries,
    rank_p_values,
    wrong_share_bound,
)
from cmstats.report.cli import main

MODEL = ConditionalGaussian(shrinkage=0.1)


def planted(
    n: int, share: float, seed: int, *, noise: float = 0.4, clean: int = 0
) -> tuple[Any, Any, Any]:
    """Pairs of which a share is wrong, none of the first `clean`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 8))
    X, y = (z + noise * rng.normal(size=z.shape) for _ in range(2))
    wrong = np.zeros(n, dtype=bool)
    at = clean + rng.permutation(n - clean)[: round(share * (n - clean))]
    wrong[at] = True
    y[at] = y[np.roll(at, 1)]
    return X, y, wrong


# ---------------------------------------------------------------------------- the statistics
def test_standardized_vectors_standardise_the_matrix() -> None:
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(40, 5)) + 3, rng.normal(size=(60, 5)) - 1
    S = U @ V.T
    for _ in range(2):
        S = (S - S.mean(axis=1, keepdims=True)) / S.std(axis=1, keepdims=True)
        S = (S - S.mean(axis=0)) / S.std(axis=0)
    P, Q = standardized_vectors(U, V)
    np.testing.assert_allclose(P @ Q.T, S, atol=1e-8)


def test_rows_that_fit_everything_alike_are_0() -> None:
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(10, 3)), rng.normal(size=(12, 3))
    V[:, 0] = 2.0
    U[3] = [5.0, 0.0, 0.0]
    P, Q = standardized_vectors(U, V, rounds=1)
    assert np.isfinite(P @ Q.T).all()


def test_benjamini_hochberg_is_scipys() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(size=80), rng.uniform(size=20) / 1000])
    for rate in (0.05, 0.1, 0.5):
        order = np.sort(p)
        passed = np.flatnonzero(order <= rate * np.arange(1, 101) / 100)
        expected = p <= order[passed[-1]]
        np.testing.assert_array_equal(false_discoveries(p, rate), expected)
        np.testing.assert_array_equal(expected, false_discovery_control(p) <= rate)
    assert not false_discoveries(np.array([]), 0.1).size


def test_the_p_values_of_wrong_pairs_are_uniform_and_of_right_pairs_small() -> None:
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4))
    p = rank_p_values(U, V)
    assert abs(np.mean(p <= 0.2) - 0.2) < 0.04
    assert np.median(rank_p_values(U, U)) < 0.05
    np.testing.assert_allclose(rank_p_values(np.ones((5, 1)), np.ones((5, 1))), 1.0)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_the_bound_of_the_share_holds(share: float) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        wrong = round(500 * share)
        p = np.concatenate([rng.uniform(size=wrong), rng.uniform(size=500 - wrong) ** 8])
        held.append(wrong_share_bound(p))
    assert np.mean(np.array(held) >= share) >= 0.9
    assert np.mean(held) < share + 0.25
    assert wrong_share_bound(np.ones(20)) == 1.0


def test_estimated_rates_grow_along_the_ranking() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(size=900) - 4, rng.normal(size=5000)
    scores = np.concatenate([right, rng.normal(size=100)])
    rates = estimated_rates(scores, wrong)
    order = np.argsort(-scores)
    assert (np.diff(rates[order]) >= 0).all()
    assert rates[order][50] < 0.2
    assert rates[order][-1] > 0.8


# ------------------------------------------------------------------------------- check_pairs
def test_with_clean_pairs_wrong_ones_are_flagged() -> None:
    X, y, wrong = planted(700, 0.1, 0, clean=300, noise=0.2)
    table = check_pairs(X, y, clean=np.arange(300), model=MODEL, random_state=0)
    assert list(table.columns) == [
        "score", "p_value", "flagged", "verified", "estimated_rate", "best_row",
    ]  # fmt: skip
    assert table["flagged"][wrong].mean() > 0.9
    assert table["flagged"][~wrong].sum() <= 8
    assert table["p_value"][:300].isna().all()
    assert not table["flagged"][:300].any()
    assert table["verified"][:300].all()
    assert table["verified"][wrong].sum() <= 2
    assert not (table["verified"] & table["flagged"]).any()
    assert wrong[300:].mean() < table.attrs["share_bound"] < 0.2
    assert table.attrs["n_clean"] == 300
    # The partner of a wrong pair stands in another row, most often in another fold.
    before = planted(700, 0.0, 0, clean=300, noise=0.2)[1]
    partner = [np.flatnonzero((y == row).all(axis=1))[0] for row in before[wrong]]
    assert np.mean(table["best_row"][wrong] == partner) > 0.8
    by_mask = check_pairs(X, y, clean=np.arange(700) < 300, model=MODEL, random_state=0)
    assert by_mask.equals(table)


def test_without_clean_pairs_nothing_is_flagged() -> None:
    X, y, wrong = planted(400, 0.1, 0)
    table = check_pairs(X, y, model=MODEL, random_state=0)
    assert not table["flagged"].any()
    assert table["p_value"].isna().all()
    worst = table.sort_values("score", ascending=False).index[: wrong.sum()]
    assert wrong[worst].mean() > 0.8
    assert table.attrs["share_bound"] > 0.1
    assert table.attrs["separation"] > 0.85


def test_groups_stay_in_one_fold_and_frozen_models_are_not_fitted() -> None:
    X, y, _ = planted(300, 0.1, 0)
    table = check_pairs(X, y, model=CCA(), groups=np.arange(300) // 3, random_state=0, cv=3)
    assert np.isfinite(table["score"]).all()
    fitted = FrozenEstimator(CCA().fit(*planted(300, 0.0, 1)[:2]))
    assert check_pairs(X, y, model=fitted, random_state=0).attrs["separation"] > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.2])
def test_false_discoveries_are_as_few_as_promised(share: float) -> None:
    false, any_flagged, kept, bounds = [], [], [], []
    for seed in range(40):
        X, y, wrong = planted(800, share, seed, noise=0.7, clean=300)
        table = check_pairs(X, y, clean=np.arange(300), model=MODEL, random_state=seed)
        flagged, verified = table["flagged"].to_numpy(), table["verified"].to_numpy()
        false.append((flagged & ~wrong).sum() / max(flagged.sum(), 1))
        any_flagged.append(flagged.any())
        kept.append((verified & wrong).sum() / max(verified.sum(), 1))
        bounds.append(table.attrs["share_bound"] >= wrong[300:].mean())
    assert np.mean(false) <= 0.12
    assert np.mean(kept) <= 0.1
    assert np.mean(bounds) >= 0.9
    if share == 0:
        assert np.mean(any_flagged) <= 0.15


def test_bad_input_of_a_check_is_one_sentence() -> None:
    X, y, _ = planted(60, 0.0, 0)
    for wrong in (0, 1.0, 2, True):
        with pytest.raises(ValueError, match=r"fdr=.* must lie between 0 and 1"):
            check_pairs(X, y, fdr=wrong)
    with pytest.raises(ValueError, match=r"8 clean pairs are too few for fdr=0\.1: at least 9"):
        check_pairs(X, y, clean=np.arange(8))
    with pytest.raises(ValueError, match="clean names row 60, the rows are 0 to 59"):
        check_pairs(X, y, clean=np.arange(1, 61))
    with pytest.raises(ValueError, match="all pairs are clean"):
        check_pairs(X, y, clean=np.ones(60, dtype=bool))
    with pytest.raises(ValueError, match=r"clean has shape \(3,\)"):
        check_pairs(X, y, clean=[True, False, True])
    with pytest.raises(ValueError, match="clean must hold the numbers of rows"):
        check_pairs(X, y, clean=[0.5, 2.0])
    with pytest.raises(TypeError, match="NystroemMap ranks nothing"):
        check_pairs(X, y, model=NystroemMap())
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check_pairs(X, y[1:])
    with pytest.raises(ValueError, match="X has 1 NaN value"):
        check_pairs(np.where(np.arange(480).reshape(60, 8) == 3, np.nan, X), y)
    with pytest.raises(ValueError, match="at least 3 are needed"):
        check_pairs(X, y, model=CCA(), cv=30)


def test_the_command_writes_the_suspects(tmp_path: Path, capsys: Any) -> None:
    X, y, _ = planted(200, 0.1, 0, clean=100)
    names = {"image": X, "text": y, "clean": np.arange(100)}
    for name, a in names.items():
        np.save(tmp_path / f"{name}.npy", a)
    image, text, clean = (str(tmp_path / f"{name}.npy") for name in names)
    out = tmp_path / "suspects.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["check", image, text, "--out", str(out), "--clean", clean]) == 0
        said = capsys.readouterr().out
        assert "an upper bound, with 90% confidence" in said
        assert "are flagged; at most 10% of these are expected to be right" in said
        lines = out.read_text().splitlines()
        assert lines[0] == "row,score,p_value,flagged,verified,estimated_rate,best_row"
        assert len(lines) == 201
        scores = [float(line.split(",")[1]) for line in lines[1:]]
        assert scores == sorted(scores, reverse=True)
        assert main(["check", image, text, "--out", str(out)]) == 2
        assert "exists" in capsys.readouterr().err
        assert main(["check", image, text, "--out", str(out), "--force"]) == 0
        assert "a ranking with an estimated rate" in capsys.readouterr().out
        assert main(["check", image, text, "--fdr", "2", "--out", str(tmp_path / "b.csv")]) == 2
        assert not (tmp_path / "b.csv").exists()


# ------------------------------------------------------------------------- match_probability
def test_match_probabilities_are_calibrated_at_the_prior() -> None:
    X, y, _ = planted(1500, 0.0, 0, noise=0.9)
    found = match_probability(X, y, prior=0.2, model=MODEL, random_state=0)
    p = np.concatenate([found.probability, found.mismatched])
    weight = np.repeat([0.2, 0.8], 1500) / 1500
    match = np.arange(3000) < 1500
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (low <= p) & (p < high)
        share = weight[inside & match].sum() / weight[inside].sum()
        assert abs(share - np.average(p[inside], weights=weight[inside])) < 0.06
    assert found.brier == pytest.approx(np.sum(weight * (p - match) ** 2))
    assert found.brier < 0.7 * found.brier_prior
    np.testing.assert_array_equal(np.asarray(found), found.probability)


def test_probabilities_between_records_find_the_partner() -> None:
    X, y, _ = planted(500, 0.0, 0)
    found = match_probability(X, y, prior=1 / 50, model=MODEL, random_state=0)
    new_x, new_y, _ = planted(50, 0.0, 1)
    between = found.between(new_x, new_y[:40])
    assert between.shape == (50, 40)
    assert between[:40].diagonal().mean() > 0.4
    assert np.median(between) < 0.01
    surer = match_probability(X, y, prior=0.5, model=MODEL, random_state=0)
    assert (surer.between(new_x, new_y[:40]) > between).all()
    frozen = FrozenEstimator(MODEL.fit(X, y))
    again = match_probability(new_x, new_y, model=frozen, random_state=0)
    assert again.model is frozen
    assert again.brier < 0.15
    with pytest.raises(ValueError, match="prior=0 must lie between 0 and 1"):
        match_probability(X, y, prior=0)


def test_captions_of_one_image_are_together_in_the_choice_within_a_fold() -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(60), 5)
    Z = rng.normal(size=(60, 2))
    image, caption = Z[of] @ np.ones((2, 3)) + rng.normal(size=(60, 3))[of], Z[of] + 0.1
    caption = caption + rng.normal(size=caption.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pairs(image, caption, groups=of, model=CCA(shrinkage="cv"), random_state=0)
    found = match_probability(image, caption, groups=of, random_state=0)
    assert max(map(len, repr(found).splitlines())) <= 80
