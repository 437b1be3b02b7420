"""scikit-learn's contract, for every estimator."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from cmstats import CCA, ConditionalGaussian, MomentsSearchCV, TwoViewPipeline


class RenamedCCA(CCA):
    """CCA under a name that scikit-learn does not special-case."""


def expected_failures(estimator: Any) -> dict[str, str]:
    # scikit-learn asks the class named "CCA" to return both views from fit_transform.
    if type(estimator) is CCA:
        reason = "scikit-learn special-cases the class name CCA; RenamedCCA passes"
        return {
            "check_transformer_general": reason,
            "check_transformer_data_not_an_array": reason,
        }
    return {}


@parametrize_with_checks(
    [
        CCA(),
        RenamedCCA(),
        RenamedCCA(solver="svd", scale=True, shrinkage="auto"),
        RenamedCCA(shrinkage="cv", cv=2),
        ConditionalGaussian(),
        ConditionalGaussian(rank=1, shrinkage="auto", scale=True),
        TwoViewPipeline(RenamedCCA()),
        MomentsSearchCV(RenamedCCA(), {"shrinkage": [0.1, 0.5]}, cv=2),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)
