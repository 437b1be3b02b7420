"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from .registry import Model, every
from .rows import Rows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def wrong(rows: Rows) -> Iterator[Rows]:
    """Rows that no fit takes."""
    for name, a in rows.views.items():
        infinite = np.array(a)
        infinite[3, 1] = np.inf
        yield rows.but(name, infinite)
        yield rows.but(name, a * 1j)
        if len(rows.views) > 1:
            yield rows.but(name, a[1:])
            yield rows.but(name, a[1:, :2])


def public(est: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(est).items() if k.endswith("_") and k[0] != "_"}


@contextlib.contextmanager
def left_as_it_was(model: Model, est: Any, rows: Rows) -> Iterator[Callable[[], None]]:
    """Assert that an estimator has the attributes and gives the results that it had.

    What is yielded asserts after each failure that it holds the same objects; that nothing was
    written into these is seen by the results at the end.
    """
    held, results = public(est), model.everything(est, rows)

    def holds_the_same() -> None:
        now = public(est)
        assert held.keys() == now.keys()
        assert all(now[k] is v for k, v in held.items())

    yield holds_the_same
    holds_the_same()
    after = model.everything(est, rows)
    for name, values in results.items():
        for a, b in zip(after[name], values, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@every(variants=None)
def test_a_fit_that_fails_leaves_the_model_as_it_was(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows)
    with left_as_it_was(model, est, rows) as holds_the_same:
        for bad in wrong(rows):
            with pytest.raises((ValueError, TypeError)):
                model.fit(bad, None, est)
            holds_the_same()


@every(lambda m: m.weights, variants=None, door=True)
def test_a_fit_with_wrong_weights_leaves_the_model_as_it_was(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows)
    refused = pytest.raises(ValueError, match="negative")
    with left_as_it_was(model, est, rows), refused:
        model.fit(rows, -np.ones(len(rows)), est)


@every(lambda m: m.partial, variants=None)
def test_a_partial_fit_that_fails_leaves_the_model_as_it_was(model: Model) -> None:
    rows = model.rows()
    first, rest = rows.take(slice(0, 50)), rows.take(slice(50, None))
    est = model.fit(first, None, None, "partial_fit")
    narrow = [rows.but(name, a[:, :-1]) for name, a in rows.views.items()]
    with left_as_it_was(model, est, rows) as holds_the_same:
        for bad in [*wrong(rest), *(r.take(slice(50, None)) for r in narrow)]:
            with pytest.raises((ValueError, TypeError)):
                model.fit(bad, None, est, "partial_fit")
            holds_the_same()
    whole = model.make()
    for part in (first, rest):
        model.fit(part, None, whole, "partial_fit")
    model.fit(rest, None, est, "partial_fit")
    model.compare(model.everything(est, rows), model.everything(whole, rows))


@every(lambda m: m.moments, variants=None, door=True)
def test_a_fit_to_wrong_moments_leaves_the_model_as_it_was(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows)
    with left_as_it_was(model, est, rows) as holds_the_same:
        for moments in ("moments", []):
            with pytest.raises((ValueError, TypeError, AttributeError)):
                est.fit_moments(moments)
            holds_the_same()


def interrupted(call: Any, after: int) -> int:
    """Raise KeyboardInterrupt at a call of a function of the package; how many there were."""
    seen = 0

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal seen
        if event == "call" and str(frame.f_globals.get("__name__")).startswith("cmstats"):
            # Python itself ignores what a generator that is closed, or a finalizer, raises.
            callers = [frame.f_back, getattr(frame.f_back, "f_back", None)]
            if frame.f_code.co_flags & inspect.CO_GENERATOR or any(
                f is not None and f.f_globals.get("__name__") == "weakref" for f in callers
            ):
                return
            seen += 1
            if seen == after:
                raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


@every(variants=False, door=True)
def test_an_interrupted_fit_leaves_the_model_as_it_was(model: Model) -> None:
    rows = model.rows()
    other = rows.take(slice(10, None))
    est = model.fit(rows)
    for method in ("fit", "partial_fit") if model.partial else ("fit",):
        twins = [copy.deepcopy(est) for _ in range(2)]
        fits = [functools.partial(model.fit, other, None, one, method) for one in (*twins, est)]
        total = [interrupted(fit, 0) for fit in fits[:2]][1]  # the first fills caches
        with left_as_it_was(model, est, rows) as holds_the_same:
            for share in (0.1, 0.6, 0.9):
                with pytest.raises(KeyboardInterrupt):
                    interrupted(fits[2], int(share * total))
                holds_the_same()
