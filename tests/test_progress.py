"""Every call that takes a while shows a bar where it is asked to, and nothing otherwise."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cmstats import (
    CCA,
    ConditionalGaussianMixture,
    CrossModalRetriever,
    Moments,
    MomentsSearchCV,
    bootstrap,
    compare,
    correlation_intervals,
    map_rows,
    permutation_test,
    write_shards,
)
from cmstats.inference import component_stability
from cmstats.model_selection.comparison import learning_curves

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*rows:UserWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3))
Y = X[:, :2] + RNG.standard_normal((60, 2))

Call = Callable[[Any], Any]
PASSES: dict[str, Call] = {
    "Moments.from_data": lambda shown: Moments.from_data(x=X, y=Y, progress=shown),
    "Moments.from_batches": lambda shown: Moments.from_batches([(X, Y)], progress=shown),
    "Moments.folds": lambda shown: Moments.folds(x=X, y=Y, progress=shown),
    "Moments.folds_from_batches": lambda shown: Moments.folds_from_batches(
        [(X, Y)], progress=shown
    ),
    "map_rows": lambda shown: list(map_rows(lambda a: a, X, rows=20, progress=shown)),
    "write_shards": lambda shown: write_shards(tempfile.mkdtemp(), X, names="a", progress=shown),
}
CALLS: dict[str, Call] = {
    "permutation_test": lambda shown: permutation_test(X, Y, n_permutations=5, verbose=shown),
    "correlation_intervals": lambda shown: correlation_intervals(X, Y, cv=4, verbose=shown),
    "bootstrap": lambda shown: bootstrap(CCA(1), X, Y, "x_weights_", n_resamples=3, verbose=shown),
    "component_stability": lambda shown: component_stability(
        CCA(1), X, Y, n_resamples=3, verbose=shown
    ),
    "compare": lambda shown: compare({"CCA": CCA(1)}, X, Y, cv=2, verbose=shown),
    "learning_curves": lambda shown: learning_curves(
        {"CCA": CCA(1)}, X, Y, sizes=[20], cv=2, verbose=shown
    ),
    "MomentsSearchCV": lambda shown: MomentsSearchCV(
        CCA(1), {"shrinkage": [0.1, 0.5]}, verbose=shown
    ).fit(X, Y),
    "CrossModalRetriever": lambda shown: CrossModalRetriever(
        time_budget=0, cv=2, random_state=0, verbose=shown
    ).fit(X, Y),
    "ConditionalGaussianMixture": lambda shown: ConditionalGaussianMixture(
        2, max_iter=2, random_state=0, verbose=shown
    ).fit(X, Y),
    "ContrastiveAligner": lambda shown: _trained("ContrastiveAligner", shown),
    "DeepCCA": lambda shown: _trained("DeepCCA", shown),
}


TRAINED = ("ContrastiveAligner", "DeepCCA")


def _trained(name: str, shown: Any) -> Any:
    pytest.importorskip("torch", exc_type=ImportError)
    from cmstats import baselines

    return getattr(baselines, name)(1, max_epochs=2, random_state=0, verbose=shown).fit(X, Y)


def _taking_it() -> set[str]:
    """The public callables that have the parameter, by name."""
    found = set()
    modules = ("cmstats", *(f"cmstats.{m}" for m in ("metrics", "inference", "baselines",
               "datasets", "plotting", "model_selection", "moments", "rows")))  # fmt: skip
    for path in modules:
        module = importlib.import_module(path)
        for name in module.__all__:
            thing = getattr(module, name)
            called = {name: thing} if callable(thing) else {}
            if thing is Moments:
                called |= {f"Moments.{n}": getattr(thing, n) for n in dir(thing) if n[0] != "_"}
            for label, each in called.items():
                try:
                    parameters = inspect.signature(each).parameters
                except (TypeError, ValueError):
                    continue
                if {"verbose", "progress"} & set(parameters):
                    found.add(label)
    return found


every_call = pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=name, marks=[pytest.mark.torch] * (name in TRAINED))
        for name, call in {**PASSES, **CALLS}.items()
    ],
)


def test_every_call_that_shows_a_bar_is_here() -> None:
    assert _taking_it() <= {*PASSES, *CALLS}


@every_call
def test_a_bar_is_shown_where_it_is_asked_for(call: Call, capsys: Any) -> None:
    call(False)
    assert not capsys.readouterr().err
    for shown in (True, 1):
        call(shown)
        assert "00:0" in capsys.readouterr().err


@every_call
def test_what_is_neither_true_nor_false_is_refused(call: Call) -> None:
    with pytest.raises(ValueError, match=r"(progress|verbose).* must be"):
        call("yes")


@pytest.mark.slow
@pytest.mark.subprocess
def test_tqdms_environment_silences_all_of_them() -> None:
    code = (
        "from cmstats.rows.progress import progress_bar\n"
        "with progress_bar(True, 'rows', 'row', total=3) as bar: bar.update(3)"
    )
    for disabled in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TQDM_DISABLE": disabled},
            capture_output=True,
            check=True,
        )
        assert bool(done.stderr) == (not disabled)
