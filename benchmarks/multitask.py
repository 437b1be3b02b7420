"""MultitaskRegressor: cross-validated ridge against peers, from a disk, and real targets."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from benchmarks._data import few
from benchmarks._measure import Rows, peak_memory, ratio, seconds
from cmstats import load_emoji, load_mnist_halves, load_wikipedia
from cmstats.models.multitask import ALPHAS, MultitaskRegressor


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    size = (1000, 32, 16) if quick else (20_000, 512, 256)
    yield _against_peers(*size)
    yield _missing(*size)
    sizes = (2000, 4000) if quick else (250_000, 500_000, 1_000_000)
    yield _from_disk(sizes, *((64, 32) if quick else (512, 256)))
    yield _emoji(quick)
    for table in (_wikipedia, _mnist):
        try:
            yield table(quick)
        except FileNotFoundError as error:
            yield {table.__name__.strip("_"): {"note": f"not run: {error}"}}


def targets(n: int, p: int, q: int, seed: int = 0) -> tuple[Any, Any]:
    """Features, and targets with very different signal-to-noise ratios, float32."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p), dtype=np.float32)
    X += X[:, ::-1] * np.linspace(0, 2, p, dtype=np.float32)
    Y = X @ rng.standard_normal((p, q), dtype=np.float32) / np.float32(p**0.5)
    Y += rng.standard_normal((n, q), dtype=np.float32) * np.logspace(-1, 2, q, dtype=np.float32)
    return X, Y


def _against_peers(n: int, p: int, q: int) -> dict[str, Any]:
    X, Y = targets(n, p, q)
    model, peer = MultitaskRegressor(), RidgeCV(ALPHAS, alpha_per_target=True)
    name = f"{n} x {p}, {q} targets, {len(ALPHAS)} alphas, float32"
    row = ratio(lambda: model.fit(X, Y), lambda: peer.fit(X, Y), repeats=3)
    out: dict[str, Any] = {
        f"scikit-learn RidgeCV / MultitaskRegressor, {name}": {
            "seconds": row["seconds"],
            "peer_seconds": row["base_seconds"],
            "times_faster": 1 / row["ratio"],
            "note": "5 folds here, leave-one-out there; bar 8",
        }
    }
    try:
        from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    except ImportError:
        return out
    peer = HimalayaRidgeCV(alphas=list(ALPHAS), cv=5, fit_intercept=True)
    theirs = seconds(lambda: peer.fit(X, Y))
    out[f"himalaya RidgeCV / MultitaskRegressor, {name}"] = {
        "seconds": row["seconds"],
        "peer_seconds": theirs,
        "times_faster": theirs / row["seconds"],
        "note": "5 folds each; bar 50",
    }
    return out


def _missing(n: int, p: int, q: int) -> dict[str, Any]:
    """Targets of four sources, each observed in its own half of the rows."""
    X, Y = targets(n, p, q)
    gaps = Y.copy()
    for k in range(4):
        gaps[np.arange(n) * 4 // n == k, k * q // 4 : (k + 2) * q // 4] = np.nan
    model = MultitaskRegressor()
    row = ratio(lambda: model.fit(X, gaps), lambda: model.fit(X, Y), repeats=3)
    row["groups"] = len(model.fit(X, gaps).moments_)
    row["note"] = "targets missing by blocks against all observed"
    return {f"NaN in the targets / complete, {n} x {p}, {q} targets": row}


def _from_disk(sizes: tuple[int, ...], p: int, q: int) -> dict[str, Any]:
    """Memory (without the page cache) and seconds over the number of rows on a disk."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, width in (("x", p), ("y", q)):
            rng = np.random.default_rng(width)
            file = np.lib.format.open_memmap(
                Path(folder) / f"{name}.npy", "w+", np.float32, (sizes[-1], width)
            )
            for start in range(0, sizes[-1], 10_000):
                part = rng.standard_normal(file[start : start + 10_000].shape, dtype=np.float32)
                file[start : start + 10_000] = part
            file.flush()
            del file
        first = 0.0
        for n in sizes:
            row: dict[str, Any] = peak_memory(DISK, folder, str(n))
            row["seconds_a_million_rows"] = row["seconds"] / n * 1e6
            first = first or row["seconds_a_million_rows"]
            row["over_the_first"] = row["seconds_a_million_rows"] / first
            row["note"] = "20 alphas, 5 folds; anonymous memory; bar 1024 MiB, linear in n"
            out[f"memory-map {n} x {p}, {q} targets, float32"] = row
    return out


DISK = """
import pathlib, threading
import numpy as np
from cmstats.models.multitask import MultitaskRegressor
folder, n = pathlib.Path(sys.argv[1]), int(sys.argv[2])
X, Y = (np.load(folder / f"{name}.npy", mmap_mode="r")[:n] for name in "xy")
MultitaskRegressor().fit(np.array(X[:3000]), np.array(Y[:3000]))
top, done = [0.0], threading.Event()
def watch():
    while not done.wait(0.02):
        top[0] = max(top[0], status("RssAnon"))
before = status("RssAnon")
thread = threading.Thread(target=watch)
thread.start()
begin = time.perf_counter()
MultitaskRegressor().fit(X, Y)
spent = time.perf_counter() - begin
done.set()
thread.join()
print(json.dumps({"seconds": spent, "extra_mib": top[0] - before}))
"""


def indicator(labels: Any) -> tuple[Any, Any]:
    """The classes, and one column of 0 and 1 for each."""
    classes, numbers = np.unique(labels, return_inverse=True)
    return classes, np.eye(len(classes), dtype=np.float32)[numbers]


def _views(image: Any, text: Any) -> dict[str, dict[str, Any]]:
    return {
        "image": {"image": image},
        "text": {"text": text},
        "both": {"image": image, "text": text},
    }


def _accuracy(train: Any, test: Any, labels: Any, labels_test: Any) -> dict[str, float]:
    """The share of items whose class has the largest score, by view."""
    classes, Y = indicator(labels)
    out = {}
    for name, views in train.items():
        scores = MultitaskRegressor().fit(views, Y).decision_function(test[name])
        out[name] = float(np.mean(classes[scores.argmax(1)] == labels_test))
    return out


def _emoji(quick: bool) -> dict[str, Any]:
    data = load_emoji()
    a, b = data.train, data.test
    image, text = _image_and_text(data, quick)
    train, test = (_views(image[rows], text[rows]) for rows in (a, b))
    groups: dict[str, Any] = dict(_accuracy(train, test, data.group[a], data.group[b]))
    groups["note"] = "accuracy by the largest decision_function, 9 groups, 468 test items"
    try:
        _, rgb, _, rgb_test = emoji_colours(quick)
    except ImportError as error:
        return {"emoji groups": groups, "emoji colours": {"note": f"not run: {error}"}}
    colours: dict[str, Any] = {}
    for name, views in train.items():
        colours[name] = MultitaskRegressor().fit(views, rgb).score(test[name], rgb_test)
    colours["note"] = "R2 of the mean red, green and blue of the drawing, 468 test items"
    return {"emoji groups": groups, "emoji colours": colours}


def _image_and_text(data: Any, quick: bool) -> tuple[Any, ...]:
    """Both views of the emoji; few columns for quick runs."""
    views = data.image, data.text
    return tuple(few(v, len(v)) for v in views) if quick else views


def emoji_colours(quick: bool) -> tuple[Any, Any, Any, Any]:
    """Image and text of the training items with their mean colours, and those of the test items."""
    data = load_emoji()
    rgb = _mean_colours(data)
    image, text = _image_and_text(data, quick)
    views = [_views(image[at], text[at])["both"] for at in (data.train, data.test)]
    return views[0], rgb[data.train], views[1], rgb[data.test]


def _mean_colours(data: Any) -> Any:
    """Mean red, green and blue of the pixels that are not white, shape (n, 3)."""
    pixels = data.thumbnails().reshape(len(data.names), -1, 3) / np.float32(255)
    drawn = (pixels.min(axis=2) < 0.98).astype(np.float32)
    return (pixels * drawn[:, :, None]).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)[:, None]


def _wikipedia(quick: bool) -> dict[str, Any]:
    data = load_wikipedia()
    # The Euclidean distance of square roots of histograms is the Hellinger distance.
    n = 300 if quick else None
    train = _views(np.sqrt(data.image_train[:n]), np.sqrt(data.text_train[:n]))
    test = _views(np.sqrt(data.image_test), np.sqrt(data.text_test))
    row: dict[str, Any] = dict(_accuracy(train, test, data.labels_train[:n], data.labels_test))
    row["note"] = "accuracy by the largest decision_function, 10 categories, 693 test articles"
    return {"Wikipedia categories": row}


def _mnist(quick: bool) -> dict[str, Any]:
    data = load_mnist_halves()
    views = (data.left_train, data.right_train, data.left_test, data.right_test)
    left, right, left_test, right_test = (few(v, 1000) if quick else v for v in views)
    row: dict[str, Any] = {}
    for name, rank in (("full", None), ("rank_cv", "cv"), ("rank_20", 20)):
        model = MultitaskRegressor(rank=rank)
        spent = seconds(lambda: model.fit(left, right))  # noqa: B023
        varies = np.ptp(right_test, axis=0) > 0
        scores = model.score_tasks(left_test, right_test)[varies]
        weights = right_test.var(axis=0)[varies]
        row[f"R2_{name}"] = float(np.average(scores, weights=weights))
        row[f"seconds_{name}"] = spent
        if rank == "cv":
            row["rank"] = model.rank_
    row["note"] = "right half from the left, R2 weighted by the variance of the pixels"
    return {"MNIST halves": row}
