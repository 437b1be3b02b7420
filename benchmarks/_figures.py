"""Figures of benchmarks/README.md that combine the results of several suites."""

from __future__ import annotations

import itertools

from benchmarks._measure import RESULTS, Rows, saved

START = "MNIST halves, "


def mnist() -> None:
    """The sum of test correlations over seconds, of KernelCCA and DeepCCA."""
    kernel, deep = _points("kernel_cca", "KernelCCA"), _points("baselines", "DeepCCA")
    if not kernel:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for found, style, label in (
        (_points("kernel_cca", "CCA"), "s", "CCA"),
        (kernel, "o-", "KernelCCA (landmarks)"),
        (deep, "^--", "DeepCCA (epochs)"),
    ):
        if found:
            axes.semilogx(*zip(*[p[:2] for p in found], strict=True), style, label=label)
    for found, below in ((kernel, 7), (deep, -15)):
        for x, y, name in found:
            axes.annotate(name, (x, y), xytext=(0, below), textcoords="offset points", ha="center")
    axes.set(
        xlabel="seconds to fit",
        ylabel="sum of 50 test correlations",
        title="MNIST halves, 60000 pairs",
    )
    axes.margins(x=0.15, y=0.12)
    axes.legend(loc="lower right")
    figure.savefig(RESULTS / "kernel_cca-mnist.png", dpi=100)


def _points(suite: str, model: str) -> list[tuple[float, float, str]]:
    """Seconds, correlation and a short name of the rows of one model."""
    rows: Rows = saved(suite)
    found = []
    for name, row in rows.items():
        if not name.startswith(START) or "total_correlation" not in row:
            continue
        what = name.split(": ")[-1] if ": " in name else name.removeprefix(START)
        spent = row.get("seconds", row.get("fit_seconds"))
        if spent is None or what.split(",")[0] != model:
            continue
        short = next((p.split()[-1] for p in what.split(", ") if p.startswith("rank ")), "")
        if "epochs" in row.get("note", ""):
            short = row["note"].split()[0]
        found.append((float(spent), float(row["total_correlation"]), short))
    return sorted(found)


METHODS = {
    "CrossModalRetriever": ("black", "o-", 2.5),
    "CCA": ("tab:blue", "s-", 1.2),
    "KernelCCA": ("tab:cyan", "D-", 1.2),
    "ASIF": ("tab:green", "^--", 1.2),
    "ridge": ("tab:olive", "v--", 1.2),
    "orthogonal Procrustes": ("tab:brown", "x--", 1.2),
    "contrastive, linear": ("tab:orange", "<:", 1.2),
    "contrastive, MLP": ("tab:red", ">:", 1.2),
    "plain cosine": ("gray", "-", 1.0),
    "centred cosine": ("gray", "--", 1.0),
}
"""The methods of the picture of few pairs, each with its colour, line and width."""


def few_pairs() -> None:
    """The mean reciprocal rank over the number of pairs, a panel for each set."""
    found: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    for name, row in saved("few_pairs").items():
        place, method = name.rsplit(": ", 1)
        data, count = place.rsplit(", ", 1)
        if method in METHODS and "MRR" in row:
            point = int(count.split()[0]), row["MRR"], row["MRR_standard_error"]
            found.setdefault(data, {}).setdefault(method, []).append(point)
    if not found:
        return
    from matplotlib.figure import Figure

    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(max(3.4 * columns, 10.0), 3.2 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    lines = {}
    for axes, (data, by_method) in zip(panels, found.items(), strict=False):
        for method, points in by_method.items():
            colour, style, width = METHODS[method]
            n, value, error = zip(*sorted(points), strict=True)
            lines[method] = axes.errorbar(
                n, value, error, fmt=style, color=colour, lw=width, ms=4, label=method
            )
        axes.set(xscale="log", title=data, xlabel="pairs", ylabel="MRR")
        counts = sorted({n for points in by_method.values() for n, _, _ in points})
        # Labels of numbers that lie near to the next would run into it.
        near = [after < 2 * n for n, after in itertools.pairwise([*counts, 2 * counts[-1]])]
        labels = ["" if close else str(n) for n, close in zip(counts, near, strict=True)]
        axes.set_xticks(counts, labels)
        axes.set_xticks([], minor=True)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(RESULTS / "few_pairs.png", dpi=110)
