"""Figures of the suite `family`, from its saved results."""

from __future__ import annotations

from typing import Any

from benchmarks._measure import RESULTS, Rows, saved


def family() -> None:
    """One picture for each model of the family that has results."""
    rows = saved("family")
    for draw in (_pls, _orthogonal, _bands, _sparse):
        draw(rows)


def _panels(width: float, height: float, *shape: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*shape, squeeze=False)


def _seconds(axes: Any, pairs: list[tuple[str, float, str, float]], room: float) -> None:
    """Bars of seconds of ours and of a peer, with how many times as long the peer takes.

    `room` is left for what stands beside the bars, in units of their width.
    """
    for i, (_, ours, peer, theirs) in enumerate(pairs):
        for offset, value, colour, name in (
            (-0.2, ours, "C0", "cmstats"), (0.2, theirs, "C1", peer)
        ):  # fmt: skip
            axes.barh(i + offset, value, 0.38, color=colour)
            times = f", {theirs / ours:.0f} times" if name == peer else ""
            axes.annotate(
                f"{name} {value:.3g} s{times}", (value, i + offset), xytext=(4, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
    axes.set_yticks(range(len(pairs)), [label for label, *_ in pairs])
    axes.set(xscale="log", xlabel="seconds")
    axes.invert_yaxis()
    axes.margins(x=0.05)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** room)


def _pls(rows: Rows) -> None:
    """Seconds of a fit and of the choice of a number of components."""
    pairs = []
    for name, row in rows.items():
        if name.startswith("PLS, 20"):
            label = name.removeprefix("PLS, ").replace(", ", "\n", 1)
            pairs.append((label, row["seconds"], "scikit-learn", row["scikit_learn_seconds"]))
        elif "GridSearchCV_seconds" in row:
            label = f"choice of the components\nof {name.split(' of ')[-1]}, 5 folds"
            pairs.append((label, row["seconds"], "GridSearchCV", row["GridSearchCV_seconds"]))
    if not pairs:
        return
    figure, panels = _panels(7.5, 2.4, 1, 1)
    _seconds(panels[0, 0], pairs, 0.7)
    panels[0, 0].set_title("PLS regression")
    figure.savefig(RESULTS / "family-pls.png", dpi=100)


def _orthogonal(rows: Rows) -> None:
    """R2 and neighbours that survive, over the number of pairs."""
    found: dict[str, list[tuple[int, Any, Any]]] = {}
    for name, row in rows.items():
        if name.startswith("moved from one map to another"):
            place, model = name.split(": ")
            count = int(place.split(", ")[1].split()[0])
            found.setdefault(model, []).append((count, row["R2"], row.get("neighbours_kept")))
    if not found:
        return
    figure, panels = _panels(8, 3.2, 1, 2)
    for at, (axes, what) in enumerate(
        zip(panels[0], ("R2 of new coordinates", "share of 10 neighbours kept"), strict=True), 1
    ):
        for model, points in found.items():
            drawn = [(p[0], p[at]) for p in points if p[at] is not None]
            if drawn:
                axes.plot(*zip(*drawn, strict=True), "o-", label=model)
        counts = sorted({p[0] for points in found.values() for p in points})
        axes.set(xscale="log", xlabel="pairs", ylabel=what)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_xticks([], minor=True)
    panels[0, 0].legend(frameon=False)
    figure.suptitle("From one kernel map of digits to another", fontsize=11)
    figure.savefig(RESULTS / "family-orthogonal.png", dpi=100)


def _bands(rows: Rows) -> None:
    """Seconds beside himalaya, memory over rows, and a split of R2 by band."""
    beside = next((r for r in rows.values() if "himalaya_seconds" in r), None)
    emoji = rows.get("emoji colours from image and text")
    disk = [
        (int(name.split("memory-map ")[1].split()[0]) // 1000, row["extra_mib"])
        for name, row in rows.items() if "banded ridge, memory-map" in name
    ]  # fmt: skip
    if beside is None or emoji is None or not disk:
        return
    figure, panels = _panels(11, 3.0, 1, 3)
    _seconds(
        panels[0, 0], [("search", beside["seconds"], "himalaya", beside["himalaya_seconds"])], 1.6
    )
    panels[0, 0].set_title("20000 rows, same candidates", fontsize=10)
    panels[0, 1].plot(*zip(*sorted(disk), strict=True), "o-")
    panels[0, 1].set(xlabel="thousand rows of a memory-map", ylabel="extra MiB", ylim=(0, None))
    panels[0, 1].set_title("Memory of a search", fontsize=10)
    axes = panels[0, 2]
    axes.barh(0, emoji["R2_one_penalty"], color="gray")
    left = 0.0
    for colour, view in (("C0", "image"), ("C2", "text")):
        axes.barh(1, emoji[f"R2_by_{view}"], left=left, color=colour, label=f"by {view}")
        left += emoji[f"R2_by_{view}"]
    axes.set_yticks([0, 1], ["one penalty", "banded"])
    axes.set(xlabel="R2 of colours of emoji", xlim=(0, 1), ylim=(-0.6, 2.2))
    axes.legend(loc="upper left", ncols=2, frameon=False)
    axes.set_title("Split by the product measure", fontsize=10)
    figure.savefig(RESULTS / "family-bands.png", dpi=100)


def _sparse(rows: Rows) -> None:
    """What each model selects and explains over the seconds of its path."""
    rows = {name: row for name, row in rows.items() if "support F1 of x" in row}
    places = [place for place in dict.fromkeys(name.split(": ")[0] for name in rows)
              if sum(name.startswith(place) for name in rows) > 5]  # fmt: skip
    models = list(dict.fromkeys(name.split(": ")[1] for name in rows))
    if not places:
        return
    figure, panels = _panels(8.5, 3.2 * len(places), len(places), 2)
    lines = {}
    for name, row in rows.items():
        place, model = name.split(": ")
        if place not in places:
            continue
        mean_f1 = (row["support F1 of x"] + row["support F1 of y"]) / 2
        colour, own = f"C{models.index(model)}", model.startswith("SparseCCA")
        line = panels[places.index(place)]
        for axes, value in zip(line, (mean_f1, row["held-out correlation"]), strict=True):
            (lines[model],) = axes.plot(
                row["seconds"], value, "o" if own else "s", ms=8, color=colour,
                mfc=colour if own else "white",
            )  # fmt: skip
    for place, line in zip(places, panels, strict=True):
        for axes, what in zip(line, ("support F1", "held-out correlation"), strict=True):
            axes.set(xscale="log", title=place, ylabel=what)
            axes.margins(x=0.15, y=0.15)
    for axes in panels[-1]:
        axes.set_xlabel("seconds for the whole path")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(RESULTS / "family-sparse.png", dpi=100)
