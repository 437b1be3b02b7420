"""Figures of benchmarks/README.md that combine the results of several suites."""

from __future__ import annotations

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
