"""The report as one HTML document with embedded pictures, without scripts or network access."""

from __future__ import annotations

import itertools
import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from cmstats.plotting import (
    CorrelationDisplay,
    JointEmbeddingDisplay,
    MatchCalibrationDisplay,
    RecallCurveDisplay,
    ShrinkagePathDisplay,
)
from cmstats.report.findings import Findings
from cmstats.report.pictures import figure_address
from cmstats.report.tables import CHOSEN, METRICS, best_of_kinds, cell, chosen_model

__all__ = ["render"]

WHOLE = {"rows", "columns", "missing entries", "constant columns", "repeated columns",
         "repeated rows", "rank", "extreme rows"}  # fmt: skip
"""Lines of the summary that are whole numbers."""
COMPARED = ("mAP", "MRR", "R@10", "median_rank", "log_likelihood", "fit_seconds",
            "query_seconds")  # fmt: skip
UNITS = {"log_likelihood": "log p(y|x) (nats)", "fit_seconds": "fit (s)",
         "query_seconds": "query (s)", "median_rank": "median rank"}  # fmt: skip
PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "numba", "matplotlib")


def render(report: Findings) -> str:
    """The HTML page of a report.

    Raises
    ------
    ImportError
        If Jinja2, Matplotlib or Pillow is missing (the extra ``report``).
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "the HTML page needs Jinja2: install it with `pip install cmstats[report]`"
        ) from error
    from cmstats import __version__

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "arrow": lambda text: str(text).replace("->", "→"),
        "share": lambda x: _number(x, ".3f"),
        "p": _p_value,
        "number": _number,
    }
    tried = best_of_kinds(report.retriever.results_)
    source = files("cmstats.report").joinpath("page.html").read_text(encoding="utf-8")
    with warnings.catch_warnings():
        # Matplotlib draws a box for a glyph that its font lacks; the box says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figures = dict(_figures(report))
    return str(
        environment.from_string(source).render(
            report=report,
            figures=figures,
            metrics=[name for name in METRICS if name != "R@5"],
            chosen=CHOSEN,
            chosen_words=chosen_model(report.retriever.chosen_),
            tried=tried.to_dict("records"),
            kernels=bool(tried["gamma"].notna().any()),
            n_tried=len(report.retriever.results_),
            chance=cell(report.table, "chance", report.directions[0], "R@10"),
            summary=_summary(report),
            loadings=_loadings(report),
            compared=_compared(report),
            item=lambda row: _item(report, row),
            version=__version__,
            versions=_versions(__version__),
            isnan=lambda x: bool(np.isnan(x)),
        )
    )


def _number(x: Any, how: str) -> str:
    """A formatted number with a minus sign; empty where it is missing."""
    return "" if x is None or not np.isfinite(x) else format(x, how).replace("-", "−")


def _p_value(p: Any) -> str:
    """A p-value with three decimals; empty where it is missing."""
    if p is None or not np.isfinite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _summary(report: Findings) -> list[tuple[str, list[str]]]:
    """The lines of the summary, with one cell per view."""
    lines = []
    for name in report.summary.columns:
        values = report.summary[name]
        if name == "type":
            shown = [str(v) for v in values]
        elif name in WHOLE:
            shown = [f"{int(v):,}" for v in values]
        else:
            shown = [_number(float(v), ",.1f" if float(v) < 1e5 else ".1e") for v in values]
        lines.append((str(name), shown))
    return lines


def _loadings(report: Findings) -> list[tuple[tuple[str, float | None], ...]]:
    """The lines of the table of loadings: a name and a value for each component and view."""
    columns = [
        report.loadings.leading(view, component)
        for component in report.loadings.table.columns
        for view in report.views
    ]
    return list(itertools.zip_longest(*columns, fillvalue=("", None)))


def _compared(report: Findings) -> list[dict[str, Any]]:
    """The columns of the comparison that hold a value, with titles and formats."""
    if report.models is None:
        return []
    table = report.models.table
    out = []
    for name in COMPARED:
        if name in table.columns and table[name].notna().any():
            how = {"median_rank": ".1f", "fit_seconds": ".2f", "query_seconds": ".3f",
                   "log_likelihood": ".1f"}.get(name, ".3f")  # fmt: skip
            out.append({"name": name, "title": UNITS.get(name, name), "how": how})
    return out


def _item(report: Findings, row: int) -> str:
    """The name of an item."""
    return "" if report.names is None else str(report.names[row])


def _versions(own: str) -> list[str]:
    """The versions of the packages and of the platform."""
    out = [f"cmstats {own}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            out.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a checkout, or a distribution of another name
            continue
    return [*out, f"{platform.system()} {platform.machine()}"]


def _picture(draw: Any, size: tuple[float, float], title: str, caption: str, alt: str) -> Any:
    """A plot with a caption, and a description for those who cannot see it."""
    return {"source": figure_address(draw, size), "title": title, "caption": caption, "alt": alt}


def _figures(report: Findings) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The plots of each section."""
    yield "correlations", [_correlations(report)]
    yield "shrinkage", _shrinkage(report)
    yield "embedding", list(_embeddings(report))
    yield "retrieval", [_recall(report), _matches(report)]


def _correlations(report: Findings) -> Any:
    """Training and held-out correlations of the components."""
    held_out, train = report.held_out_correlations, report.train_correlations
    shown = min(len(train), 100)
    display = CorrelationDisplay(held_out, train=train, n_held_out=len(report.test))
    return _picture(
        lambda ax: display.plot(ax, max_components=shown), (6.4, 3.9), "Canonical correlations",
        "Correlations of the paired variates. What training shows and held-out items do not is "
        "chance that was fitted." + (f" The first {shown} of {len(train)}." if shown < len(train)
                                     else ""),
        f"Canonical correlations; held out they start at {held_out[0]:.2f}, in training at "
        f"{train[0]:.2f}.",
    )  # fmt: skip


def _shrinkage(report: Findings) -> list[Any]:
    """The cross-validated score over the shrinkage; empty where no score is finite."""
    if not np.isfinite(report.shrinkage_scores).all(axis=1).any():
        return []
    sx, sy = report.model.shrinkage_
    display = ShrinkagePathDisplay(report.shrinkages, report.shrinkage_scores)
    return [
        _picture(
            display.plot, (6.4, 3.9), "How much shrinkage",
            f"Chosen by cross-validation on the training items: {sx:g} for {report.views[0]} (x), "
            f"{sy:g} for {report.views[1]} (y).",
            f"Cross-validated score along the shrinkage, best at {sx:g} and {sy:g}.",
        )
    ]  # fmt: skip


def _embeddings(report: Findings) -> Iterator[Any]:
    """Both views on the first four components, two by two."""
    U, V = report.variates
    for a, b in ((0, 1), (2, 3)):
        if b >= U.shape[1]:
            return
        display = JointEmbeddingDisplay(
            U[:, [a, b]], V[:, [a, b]], labels=report.labels, names=report.views,
            axis_names=(f"variate {a + 1} (standard deviations)",
                        f"variate {b + 1} (standard deviations)"),
        )  # fmt: skip
        yield _picture(
            display.plot, (6.4, 6.0), f"Both views on components {a + 1} and {b + 1}",
            "Held-out items; partners should lie close together.",
            f"Scatter of both views on components {a + 1} and {b + 1}.",
        )  # fmt: skip


def _recall(report: Findings) -> Any:
    """The recall curves of both directions."""
    found = report.retrieval
    ks = pd.RangeIndex(1, len(found.chance_curve) + 1, name="k")
    recall, chance = (
        pd.DataFrame(dict(zip(found.directions, both, strict=True)), index=ks)
        for both in (found.curves, (found.chance_curve, found.chance_curve))
    )
    display = RecallCurveDisplay(recall, chance=chance, names=report.views)
    tens = [float(c[min(9, len(c) - 1)]) for c in found.curves]
    return _picture(
        display.plot, (6.4, 3.9), "Recall",
        f"Share of the queries whose partner is among the first k of {found.n} held-out items.",
        f"Recall against k; at ten results {tens[0]:.2f} and {tens[1]:.2f}.",
    )  # fmt: skip


def _matches(report: Findings) -> Any:
    """The calibration of match probabilities."""
    found = report.matches
    display = MatchCalibrationDisplay(found.probability, found.mismatched, found.prior)
    return _picture(
        display.plot, (4.8, 4.8), "Probability of a match",
        "Held-out pairs and as many pairs put together at random, each predicted by a calibration "
        "on the others. On the diagonal a predicted probability is the share that matches.",
        f"Calibration of match probabilities, Brier score {display.brier:.3f}.",
    )  # fmt: skip
