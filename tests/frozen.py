"""The public behaviour of the library, frozen in a file of numbers.

``python -m tests.frozen write [PREFIX]`` writes ``tests/frozen.json.gz`` (only the cases whose
names start with PREFIX, where it is given), ``python -m tests.frozen compare [PREFIX]`` prints
every difference from it.

A case is a statement, which gives `m` (an estimator, a result), and expressions of `m`: all in
strings, evaluated with the public names and the small data below as their variables, in a file
called "caller.py". So every result is kept by the text of the call that gave it, an error by its
type and text, a warning by its category, its text and the file it points at. What may be added
later and is no difference: attributes, parameters (positional ones at the end), public names.
What may only become less, within a factor: passes over the rows and peak memory.
"""

# ruff: noqa: E501, RUF005 (a line of a table is one expression)
from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib
import inspect
import json
import math
import re
import sys
import tempfile
import time
import tracemalloc
import types
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

import cmstats

FILE = Path(__file__).with_name("frozen.json.gz")
TOL = 1e-10
TIMING = re.compile(r"time|seconds|memory|scaling_exponent|device")


@dataclasses.dataclass(frozen=True)
class Case:
    """`first` gives m, `calls` are expressions of it; `hide` names what is kept by shape only."""

    first: str
    calls: tuple[str, ...] = ()
    tol: float = TOL
    hide: str = ""
    attributes: bool = True


CASES: dict[str, Case] = {}


def case(group: str, firsts: str | Iterable[str], calls: str = "", **how: Any) -> None:
    """Register a case for each first line, with the lines of `calls`."""
    for first in [firsts] if isinstance(firsts, str) else firsts:
        name = f"{group}: {first}"
        assert name not in CASES, name
        lines = tuple(line.strip() for line in calls.splitlines() if line.strip())
        CASES[name] = Case(first.strip(), lines, **how)


def lines(text: str) -> list[str]:
    """Lines of a table, without empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


# ------------------------------------------------------------------- running the cases
def evaluate(text: str, variables: dict[str, Any]) -> Any:
    """The value of a statement's last expression, or "error", and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = eval(compile(text, "caller.py", "eval"), variables)
        except Exception as error:
            told = re.sub(
                r" at 0x[0-9a-f]+|(__main__|tests\.frozen|frozen)(?=\.Rows)", "", str(error)
            )
            told = re.sub(r"\{([^{}]*)\}", lambda found: _sorted(found[1]), told)
            value = Text(f"{type(error).__name__}: {told}")
    told = [f"{w.category.__name__} at {Path(w.filename).name}: {w.message}" for w in caught]
    return value, told


def _sorted(words: str) -> str:
    """scikit-learn prints sets of options, whose order changes from process to process."""
    return "{" + ", ".join(sorted(words.split(", "))) + "}"


class Text(str):
    """What an exception said."""


def run(name: str) -> dict[str, Any]:
    """The results of a case, flat."""
    c = CASES[name]
    variables = dict(data())
    out: dict[str, Any] = {}
    value, told = evaluate(c.first, variables)
    _flatten("m", value, out, hide=c.hide, attributes=c.attributes)
    if told:
        out["m warns"] = ["text", told]
    if isinstance(value, Text):
        return out
    variables["m"] = value
    variables.update(_queries(c.first, variables))
    for call in c.calls:
        value, told = evaluate(call, variables)
        _flatten(call, value, out, hide=c.hide)
        if told:
            out[f"{call} warns"] = ["text", told]
    return out


def _queries(first: str, variables: dict[str, Any]) -> dict[str, Any]:
    """New rows as wide as those of the fit."""
    x, y, xe, ye = (variables[name] for name in ("x", "y", "xe", "ye"))
    if "(A" in first:
        x, y = variables["a"][:5], variables["b"][:5]
    elif "(constant" in first:
        x = np.insert(x, 2, 7.0, axis=1)
    elif "(twice" in first:
        x = np.hstack([x, x[:, :2]])
    if "Y[:, 0]" in first or "YE[:, 0]" in first:
        y, ye = y[:, 0], ye[:, 0]
    if "P.astype" in first:
        y = (y[:, :1] > 0).astype(float)
    v = variables["v"][:, 0] if "V[:, 0]" in first else variables["v"]
    names = getattr(variables["m"], "view_names_", ())
    seen = dict(zip(names, (x, y, v), strict=False))
    return {"x": x, "y": y, "xe": xe, "ye": ye, "seen": seen}


def _type(v: Any) -> str:
    return f"{type(v).__module__.split('.')[0]}.{type(v).__name__}"


def _array(a: Any, container: str) -> list[Any]:
    """An array of numbers, to its last bit."""
    a = np.asarray(a)
    if a.dtype.kind in "OUST":
        return ["words", container, list(a.shape), [str(v) for v in a.ravel()]]
    if a.dtype.kind in "mM":
        return ["words", container, list(a.shape), [str(a.dtype)]]
    plain = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"), copy=False)
    code = base64.b64encode(plain.tobytes()).decode()
    return ["array", container, str(a.dtype), list(a.shape), code]


def _flatten(
    key: str, v: Any, out: dict[str, Any], hide: str = "", attributes: bool = True
) -> None:
    if TIMING.search(key.rsplit(".", 1)[-1]) and not key.startswith("most"):
        out[key] = ["timing", _type(v)]
    elif isinstance(v, Text):
        out[key] = ["text", [str(v)]]
    elif key.endswith(".folder"):
        out[key] = ["plain", _type(v), ""]
    elif v is None or isinstance(v, (bool, str)):
        out[key] = ["plain", _type(v), str(v)]
    elif isinstance(v, Most):
        out[key] = ["most", v.value, v.factor]
    elif isinstance(v, (int, float, np.generic)) and not isinstance(v, np.void):
        out[key] = _array(v, _type(v))
    elif isinstance(v, (pd.DataFrame, pd.Series)):
        frame = v.to_frame() if isinstance(v, pd.Series) else v
        out[key] = ["plain", _type(v), str([str(c) for c in frame.columns])]
        out[f"{key}.index"] = _array(np.array([str(i) for i in frame.index]), "index")
        for column in frame.columns:
            _flatten(f"{key}.{column}", frame[column].to_numpy(), out)
    elif type(v).__module__.startswith("polars"):
        _flatten(key, v.to_pandas(), out)
    elif scipy.sparse.issparse(v):
        out[key] = _array(v.toarray(), _type(v))
    elif isinstance(v, cmstats.Moments):
        about = [v.names, v.widths, v.form, v.incomplete]
        out[key] = ["plain", _type(v), str(about)]
        out[f"{key}.n"], out[f"{key}.rows"] = _array(v.n, "n"), _array(v.rows, "rows")
    elif isinstance(v, Mapping):
        out[key] = ["plain", _type(v), str([str(k) for k in v])]
        for k, item in v.items():
            _flatten(f"{key}.{k}", item, out, hide)
    elif isinstance(v, (list, tuple)):
        if len(v) > 4 and all(isinstance(i, (int, float)) for i in v):
            out[key] = _array(np.array(v), _type(v))
            return
        out[key] = ["plain", _type(v), str(len(v))]
        for i, item in enumerate(v):
            _flatten(f"{key}[{i}]", item, out, hide)
    elif hasattr(v, "get_params") or dataclasses.is_dataclass(v):
        out[key] = ["plain", "class", type(v).__name__]
        if _type(v).startswith("cmstats") and attributes:
            _attributes(key, v, out, hide)
    elif isinstance(v, np.ma.MaskedArray):
        words = [str(i) for i in v.ravel().tolist()]
        out[key] = ["words", _type(v), list(v.shape), words]
    elif hasattr(v, "shape") and hasattr(v, "dtype"):
        _of_array(key, v, out, hide)
    else:
        out[key] = ["plain", "class", type(v).__name__]


def _of_array(key: str, v: Any, out: dict[str, Any], hide: str) -> None:
    if hasattr(v, "compute"):  # Dask
        v, container = v.compute(), _type(v)
    else:
        container = _type(v)
    if type(v).__module__.startswith("array_api_strict"):
        v = np.asarray(v._array)
    elif type(v).__module__.startswith("torch"):
        v = v.detach().cpu().numpy()
    v = np.asarray(v)
    if hide and re.search(hide, key):
        out[key] = ["plain", container, f"{v.dtype} {v.shape}"]
    else:
        out[key] = _array(v, container)


def _attributes(key: str, v: Any, out: dict[str, Any], hide: str) -> None:
    """The fitted attributes; of a result its fields."""
    if dataclasses.is_dataclass(v):
        names = [f.name for f in dataclasses.fields(v) if f.name[0] != "_" and f.name != "sums"]
    else:
        names = sorted({a for a in object.__dir__(v) if a[0] != "_" and a.endswith("_")})
    for name in names:
        try:
            value = getattr(v, name)
        except Exception as error:
            value = Text(type(error).__name__)
        _flatten(f"{key}.{name}", value, out, hide)


# ---------------------------------------------------------------------- comparing them
def differences(old: dict[str, Any], new: dict[str, Any], tol: float) -> list[str]:
    """What is gone or is another; what was added is none."""
    found = []
    for key, a in old.items():
        if key not in new:
            found.append(f"{key}: gone ({str(a)[:160]})")
        elif a != new[key] and (why := _differs(a, new[key], tol)):
            found.append(f"{key}: {why}")
    found += [f"{key}: new: {new[key]}" for key in new if key.endswith(" warns") and key not in old]
    return found


def _decode(a: list[Any]) -> Any:
    return np.frombuffer(base64.b64decode(a[4]), dtype=np.dtype(a[2]).newbyteorder("<"))


def _differs(a: list[Any], b: list[Any], tol: float) -> str:
    if a[0] == "most" and b[0] == "most":
        return f"{b[1]} more than {a[1]} x {a[2]}" if b[1] > a[1] * a[2] else ""
    if a[0] == "signature" and b[0] == "signature":
        return _signature_differs(a[1], b[1])
    if a[0] == "names" and b[0] == "names":
        gone = sorted(set(a[1]) - set(b[1]))
        return f"gone: {gone}" if gone else ""
    if a[0] == "text" and b[0] == "text":
        pairs = list(zip(a[1], b[1], strict=False))
        if len(a[1]) == len(b[1]) and all(_same_text(s, t) for s, t in pairs):
            return ""
    if a[0] != "array" or a[:4] != b[:4]:
        return f"was {str(a[1:])[:400]}\n        is  {str(b[1:])[:400]}"
    x, y = _decode(a), _decode(b)
    if x.dtype.kind not in "fc":
        return f"was {x[:20]}, is {y[:20]}"
    if (np.isfinite(x) != np.isfinite(y)).any() or not np.array_equal(
        x[~np.isfinite(x)], y[~np.isfinite(x)], equal_nan=True
    ):
        return f"other entries are not finite: was {x[:8]}, is {y[:8]}"
    good = np.isfinite(x)
    if not good.any():
        return ""
    scale = max(float(np.abs(x[good]).max()), 1e-3)
    error = float(np.abs(x[good].astype(float) - y[good].astype(float)).max()) / scale
    if error <= tol:
        return ""
    at = int(np.argmax(np.abs(np.where(good, x - y, 0))))
    return f"relative error {error:.1e}; entry {at} was {x[at]!r}, is {y[at]!r}"


def _same_text(a: str, b: str) -> bool:
    """Equal up to the module that a warning points at, which may only become the caller's."""
    if a == b:
        return True
    (where, x), (now, y) = (
        [*re.split(r"(?<= at )\S+\.py(?=:)", t, maxsplit=1), ""][:2] for t in (a, b)
    )
    return (where, x) == (now, y) and " at caller.py:" not in a


def _signature_differs(a: list[Any], b: list[Any]) -> str:
    """Old parameters keep their order, positional ones first, and their defaults.

    One that had to be given may have a default now.
    """

    def same(old: Any, new: Any) -> bool:
        return old[:2] == new[:2] and old[2] in ("", new[2])

    def places(s: Any) -> Any:
        return [p for p in s if p[1] in (0, 1)]

    at = iter(b)
    ordered = all(any(same(p, other) for other in at) for p in a)
    first = len(places(b)) >= len(places(a)) and all(map(same, places(a), places(b)))
    return "" if ordered and first else f"was {a}\n        is  {b}"


def signatures(thing: Any) -> dict[str, Any]:
    """The parameters of a function, or of a class and its public methods."""
    found = {"": thing}
    if inspect.isclass(thing):
        found |= {n: getattr(thing, n, None) for n in dir(thing) if n[0] != "_"}
    out: dict[str, Any] = {}
    for name, f in found.items():
        if not callable(f):
            continue
        try:
            parameters = inspect.signature(f).parameters.values()
        except ValueError:  # a method of a built-in type
            continue
        kept = [[p.name, int(p.kind), "" if p.default is p.empty else repr(p.default)]
                for p in parameters]  # fmt: skip
        out[name] = ["signature", kept]
    return out


class Most:
    """A number that may only grow by a factor."""

    def __init__(self, value: float, factor: float) -> None:
        self.value, self.factor = float(value), factor


# ------------------------------------------------------------------------- the data
class Rows:
    """Rows on a disk, so to speak, that counts how many are read."""

    def __init__(self, a: Any) -> None:
        self._a, self.shape, self.dtype, self.ndim, self.read = a, a.shape, a.dtype, a.ndim, 0

    def __getitem__(self, at: Any) -> Any:
        part = self._a[at]
        self.read += part.shape[0]
        return part


def passes(work: Any, *views: Any) -> Any:
    """How often the rows of the first view were read."""
    lazy = [Rows(v) for v in views]
    work(*lazy)
    return Most(lazy[0].read / lazy[0].shape[0], 1.02)


def peak(work: Any) -> Any:
    """The peak of the memory that NumPy takes, in MB, when what is compiled is compiled."""
    work()
    tracemalloc.start()
    try:
        work()
        return Most(tracemalloc.get_traced_memory()[1] / 1e6, 1.5)
    finally:
        tracemalloc.stop()


def parts(*views: Any, sizes: Iterable[int] = (25, 3, 20, 99)) -> list[Any]:
    """Batches."""
    found, start = [], 0
    for size in sizes:
        found.append(tuple(v[start : start + size] for v in views))
        start += size
    return [batch for batch in found if batch[0].shape[0]]


def pieces(model: Any, *views: Any) -> Any:
    """Fitted in pieces."""
    for batch in parts(*views):
        model.partial_fit(*batch)
    return model


def untimed(table: Any) -> Any:
    """A table without the rows that are seconds."""
    text = table.reset_index().astype(str).agg(" ".join, axis=1)
    return table[~text.str.contains("seconds|memory").to_numpy()]


def but(a: Any, value: float, row: int = 3, column: int = 1) -> Any:
    """A copy with another entry."""
    out = np.array(a, dtype=float)
    out[row, column] = value
    return out


_FOLDERS: list[Any] = []  # they are removed when the process ends


def folder() -> str:
    """A new folder."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    return str(_FOLDERS[-1].name)


_DATA: dict[str, Any] = {}


def data() -> dict[str, Any]:
    """The variables of all expressions."""
    if _DATA:
        return _DATA
    rng = np.random.default_rng(20261127)
    n = 60
    Z = rng.normal(size=(n + 5, 3)) * [2.0, 1.0, 0.7]
    A = Z @ rng.normal(size=(3, 6)) + 0.8 * rng.normal(size=(n + 5, 6)) + 2
    B = Z @ rng.normal(size=(3, 4)) + 0.8 * rng.normal(size=(n + 5, 4)) - 1
    C = Z @ rng.normal(size=(3, 3)) + 1.5 * rng.normal(size=(n + 5, 3))
    X, Y, V = A[:n], B[:n], C[:n]
    x, y, v = A[n:], B[n:], C[n:]
    S = rng.normal(size=(30, 4))
    wide = [S @ rng.normal(size=(4, p)) + rng.normal(size=(30, p)) for p in (40, 35)]
    scattered = [np.where(rng.random(a.shape) < 0.12, np.nan, a) for a in (X, Y, V)]
    nested = Y.copy()
    nested[::3] = np.nan
    stepped = X.copy()
    stepped[::6, 3:] = np.nan
    gaps = np.where(rng.random(Y.shape) < 0.25, np.nan, Y)
    gaps[:, 2] = np.where(np.isnan(gaps[:, 1]), np.nan, Y[:, 2])
    tests = [np.where(rng.random(a.shape) < 0.3, np.nan, a) for a in (x, y, v)]
    labels = np.array(["red", "green", "blue"])[np.argmax(Z[:n] @ rng.normal(size=(3, 3)), axis=1)]
    big = rng.normal(size=(2000, 8))
    _DATA.update(
        X=X, Y=Y, V=V, x=x, y=y, v=v, A=wide[0][:24], B=wide[1][:24], a=wide[0][24:],
        b=wide[1][24:], W=rng.integers(0, 4, n).astype(float), w=np.array([1.0, 2, 0, 1, 3]),
        XE=scattered[0], YE=scattered[1], VE=scattered[2], YN=nested, XS=stepped, YG=gaps,
        xe=tests[0], ye=tests[1], ve=tests[2], labels=labels, groups=np.arange(n) // 4,
        views={"image": X, "text": Y, "sound": V}, some={"image": x, "sound": v},
        DX=pd.DataFrame(X, columns=list("abcdef")), DY=pd.DataFrame(Y, columns=list("stuv")),
        dx=pd.DataFrame(x, columns=list("abcdef"), index=list("pqrst")),
        dy=pd.DataFrame(y, columns=list("stuv"), index=list("pqrst")),
        SX=scipy.sparse.csr_array(np.where(X > 2, X, 0)),
        P=Z[:n, :1] > 0, L=big, R=big[:, :5] + rng.normal(size=(2000, 5)),
        U=rng.normal(size=(12, 3)), G=rng.normal(size=(15, 3)),
        constant=np.insert(X, 2, 7.0, axis=1), twice=np.hstack([X, X[:, :2]]),
        ill=X * np.logspace(0, -7, 6) + X[:, :1], nan=np.nan, inf=np.inf,
        np=np, pd=pd, scipy=scipy, math=math, folder=folder, cmstats=cmstats,
        passes=passes, peak=peak, parts=parts, pieces=pieces, but=but, untimed=untimed, Rows=Rows,
        torch_of=_torch_of, strict_of=_strict_of, dask_of=_dask_of, kfold=_kfold,
    )  # fmt: skip
    for name in cmstats.__all__:
        _DATA[name] = getattr(cmstats, name)
    for module in ("metrics", "inference", "datasets", "model_selection", "moments"):
        _DATA[module] = importlib.import_module(f"cmstats.{module}")
    _DATA["ASIF"] = importlib.import_module("cmstats.baselines").ASIF
    for module in ("gram", "normal", "ranks", "whitening", "covariance"):
        _DATA[module] = importlib.import_module(f"cmstats.kernels.{module}")
    sklearn = {
        "linear_model": ["LogisticRegression", "Ridge"],
        "preprocessing": ["StandardScaler", "Normalizer"],
        "decomposition": ["PCA"], "model_selection": ["KFold", "GroupKFold", "GridSearchCV"],
        "base": ["clone"],
    }  # fmt: skip
    for module, names in sklearn.items():
        for name in names:
            _DATA[name] = getattr(importlib.import_module(f"sklearn.{module}"), name)
    _DATA["KF"] = _DATA["KFold"](3, shuffle=True, random_state=0)
    _DATA["__builtins__"] = __builtins__
    return _DATA


def _torch_of(a: Any) -> Any:
    return importlib.import_module("torch").asarray(np.array(a))


def _strict_of(a: Any) -> Any:
    return importlib.import_module("array_api_strict").asarray(np.array(a))


def _dask_of(a: Any) -> Any:
    return importlib.import_module("dask.array").from_array(a, chunks=(20, -1))


def _kfold(n: int) -> Any:
    return [(np.flatnonzero(np.arange(n) % 3 != k), np.arange(k, n, 3)) for k in range(3)]


# ------------------------------------------------------------------- the cases: two views
OUT = """
m.transform(x, y)
m.predict(x)
m.score(x, y)
"""
LATENT = """
m.transform(x, y)
m.transform(x)
m.transform(y=y)
m.predict(x) if hasattr(m, 'predict') else None
m.fuse(x, y)
m.fuse(x)
m.fuse(y=y)
m.embed(x, y)
m.embed(x, kind='csa')
m.embed(y=y, kind='likelihood_ratio')
m.similarity(x[:3], y)
m.similarity(x[:3], y, kind='cosine')
m.similarity(x[:3], y, kind='weighted_cosine', power=2.0)
m.similarity(x[:3], y, kind='csa')
m.similarity(x[:3], y, kind='likelihood_ratio')
m.score(x, y)
m.score(x, y, w)
m.get_feature_names_out()
"""
MOMENTS = """
m.score_moments(Moments.from_data(x=x, y=y))
m.correlations_on(Moments.from_data(x=x, y=y))
[k.form for k in (m.moments_ if isinstance(m.moments_, list) else [m.moments_])]
"""
FITS = """
fit(X, Y)
fit(X, Y, W)
fit(X.tolist(), Y.tolist())
fit(DX, DY)
fit(SX, Y)
fit(X, Y[:, 0])
fit(parts(X, Y))
fit([dict(x=s, y=t) for s, t in parts(X, Y)])
fit(b for b in parts(X, Y))
fit(Rows(X), Rows(Y))
fit_moments(Moments.from_data(x=X, y=Y))
fit_moments(Moments.from_data(x=X, y=Y, form='root'))
fit_moments(Moments.folds(x=X, y=Y, cv=4))
fit_moments(Moments.folds(x=X, y=Y, cv=KF, form='root'))
fit_moments(Moments.from_data(x=X, z=V, y=Y).partial_out('z'))
fit(X[:9], Y[:9])
fit(X[:2], Y[:2])
"""
EM = """
fit(XE, YE)
fit(XE, YE, W)
fit(X, YN)
fit(XS, Y)
fit(XE, YE[:, 0])
fit(parts(XE, YE))
fit_moments(Moments.from_data(x=XE, y=YE, missing='em'))
fit_moments(Moments.folds(x=X, y=YN, missing='em', cv=3))
"""
EM_OUT = """
m.transform(x, y)
m.transform(xe, ye)
m.predict(xe)
m.fuse(xe, y)
m.similarity(xe, ye)
m.score(x, y)
m.score(xe, ye)
m.score_moments(Moments.from_data(x=x, y=y))
"""


def fits(model: str, table: str) -> list[str]:
    """The fits of a table, for a model."""
    return [f"{model}.{line}" for line in lines(table)]


def models(kind: str, table: str, fit: str = "fit(X, Y)") -> list[str]:
    """The models of a table of parameters, fitted."""
    return [f"{kind}({'' if line == '-' else line}).{fit}" for line in lines(table)]


case("CCA", models("CCA", """
-
2
shrinkage=0.3
shrinkage=1
3, shrinkage=(0.1, 0.6)
shrinkage='auto'
shrinkage='auto', scale=True
shrinkage=('auto', 0.2)
shrinkage='cv'
shrinkage=('cv', 'cv'), cv=2
shrinkage=('cv', 0.1)
shrinkage='cv', scale=True, cv=KF
shrinkage='cv', cv=kfold(60)
scale=True
shrinkage=0.2, scale=True, solver='svd'
solver='moments'
solver='svd'
2, shrinkage='cv', solver='svd'
"""), LATENT + MOMENTS)  # fmt: skip
case("CCA fits", fits("CCA(shrinkage=0.1)", FITS), OUT + "m.score_moments(m.moments_)")
CV_FITS = """
fit(X, Y, W)
fit(parts(X, Y))
fit(Rows(X), Rows(Y))
fit(X, Y[:, 0])
fit_moments(Moments.from_data(x=X, y=Y))
fit_moments(Moments.folds(x=X, y=Y, cv=KF, form='root'))
fit(X[:2], Y[:2])
"""
case("CCA fits", fits("CCA(1, shrinkage='cv', cv=3)", CV_FITS), OUT)
case("CCA degenerate", [
    "CCA().fit(constant, Y)", "CCA(solver='svd').fit(constant, Y)",
    "CCA(shrinkage=0.1, scale=True).fit(constant, Y)", "CCA().fit(twice, Y)",
    "CCA(solver='svd').fit(twice, Y)", "CCA().fit(np.full_like(X, 0.1), Y)",
    "CCA(shrinkage='auto').fit(X, np.full_like(Y, 3.0))", "CCA().fit(X[:9], Y[:9])",
    "CCA(solver='svd').fit(X[:8], Y[:8])", "CCA().fit(X, X)", "CCA().fit(A, B)",
    "CCA().fit_moments(Moments.from_data(x=A, y=B, form='root'))",
    "CCA().fit(b for b in parts(ill, Y))", "CCA().fit(parts(ill, Y))", "CCA().fit(ill, Y)",
    "CCA(solver='moments').fit(ill, Y)",
    "CCA().fit(X, Y, np.r_[5.0, np.zeros(59)])",
], "m.score(x, y)\nm.predict(x)\nm.similarity(x, y, kind='likelihood_ratio')", hide="weights|loadings", tol=1e-6)  # fmt: skip
WIDE = """
shrinkage=0.3
shrinkage='auto'
4, shrinkage='cv'
3, shrinkage=0.2, scale=True
4, shrinkage=0.2, solver='svd'
4, shrinkage=0.2, solver='moments'
"""
WIDE_OUT = """
m.transform(a, b)[0][:, :3]
m.predict(a)
m.similarity(a[:3], b)
m.similarity(a[:3], b, kind='likelihood_ratio')
m.score(a, b)
"""
case("CCA wide", models("CCA", WIDE, "fit(A, B)"), WIDE_OUT, hide=r"weights|loadings", tol=1e-9)
case("CCA pieces", ["pieces(CCA(), X, Y)", "pieces(CCA(shrinkage='cv', cv=2), X, Y)",
     "pieces(CCA(shrinkage='auto', scale=True), X, Y)", "pieces(CCA(solver='svd'), X, Y)"], OUT)  # fmt: skip
case("CCA em", fits("CCA(missing='em')", EM), EM_OUT, tol=1e-6)
case("CCA em", ["pieces(CCA(missing='em'), XE, YN)", *fits("CCA(shrinkage=0.2, missing='em')",
     "fit(XE, YE)\nfit(X, YN)\nfit(XS, Y)"), "CCA(shrinkage='cv', cv=2, missing='em').fit(X, YN)",
     "CCA(2, shrinkage='cv', cv=2, missing='em').fit(XS, Y)",
     "CCA(shrinkage='auto', missing='em', scale=True).fit(XE, YN)"], EM_OUT, tol=1e-6)  # fmt: skip
case("CCA containers", ["CCA(2).set_output(transform='pandas').fit(DX, DY)",
     "CCA(2).set_output(transform='polars').fit(DX, DY)"],
     "m.transform(dx, dy)\nm.transform(dx)\nm.embed(dx, dy)\nm.predict(dx)\nm.fuse(dx, dy)\n"
     "m.fit_transform(DX, DY)[0].iloc[:3]")  # fmt: skip
case("CCA float32", ["CCA().fit(X.astype('f4'), Y.astype('f4'))",
     "CCA(shrinkage='cv').fit(X.astype('f4'), Y.astype('f4'))"],
     OUT.replace("x", "x.astype('f4')").replace("y)", "y.astype('f4'))"), tol=2e-5)  # fmt: skip
ELSEWHERE = """
m.transform(F(x), F(y))
m.predict(F(x))
m.similarity(F(x), F(y))
m.score(F(x), F(y))
"""
for place in ("torch_of", "strict_of", "dask_of"):
    for text in ("CCA(2, shrinkage='auto')", "ConditionalGaussian(shrinkage=0.1)"):
        if place != "strict_of" or "CCA" in text:
            calls = ELSEWHERE.replace("F", place if place != "dask_of" else "np.asarray")
            calls = calls if "CCA" in text else calls.replace("m.transform", "m.logpdf")
            case(f"{text} elsewhere", f"{text}.fit({place}(X), {place}(Y))", calls, tol=1e-9)

# --------------------------------------------------------------- several views
SEVERAL = """
m.transform(v3)
m.transform(some)
m.predict(some)
m.fuse(some)
m.fuse(v3)
m.embed(some)
m.embed(v3, kind='eigenvalue_cosine', power=2.0)
m.similarity(some)
m.similarity(some, kind='cosine')
m.similarity(some, kind='eigenvalue_cosine')
m.score(v3)
m.score_moments(Moments.from_data(**v3))
m.correlations_on(Moments.from_data(**v3))
m.get_feature_names_out()
""".replace("v3", "dict(image=x, text=y, sound=v)")
case("MultiviewCCA", models("MultiviewCCA", """
-
3
method='gcca'
shrinkage=0.3
shrinkage=0.3, method='gcca', scale=True
shrinkage='auto'
3, shrinkage='cv'
shrinkage=dict(image=0.1, text='auto', sound=0.4)
3, shrinkage=dict(image='cv', text=0.1, sound=0.4), cv=2
solver='svd'
4, shrinkage=0.1, method='gcca', solver='svd'
""", "fit(views)"), SEVERAL)  # fmt: skip
case("MultiviewCCA fits", fits("MultiviewCCA(3, shrinkage=0.1)", """
fit([X, Y])
fit([X, Y, V])
fit(dict(x=X, y=Y))
fit([X, Y, V], sample_weight=W)
fit(dict(image=DX, text=DY, sound=V))
fit([SX, Y])
fit([X, Y, V[:, 0]])
fit_moments(Moments.from_data(**views))
fit_moments(Moments.folds(**views, cv=2))
fit([X[:6], Y[:6]])
fit([A, B])
fit([constant, Y])
"""), "m.score(seen)\nm.transform(seen)\nm.predict(seen)\nm.transform([x])")  # fmt: skip
case("MultiviewCCA fits", ["MultiviewCCA(3).partial_fit(views).partial_fit(views)",
     "MultiviewCCA(3, shrinkage='cv', cv=2).partial_fit(views)", "MultiviewCCA(2, shrinkage='cv', cv=2, missing='em')"
     ".partial_fit(dict(image=XS, text=Y, sound=V))",
     "MultiviewCCA(3, shrinkage=0.1).set_output(transform='pandas').fit([DX, DY])"],
     "m.transform(views if 'image' in m.view_names_ else [dx, dy])", tol=1e-6)  # fmt: skip
case("MultiviewCCA em", fits("MultiviewCCA(3, missing='em')", """
fit(dict(image=XE, text=YE, sound=VE))
fit(dict(image=X, text=YN, sound=V))
fit([XE, YN])
"""), "m.transform([xe, ye, ve][:len(m.view_names_)])\nm.fuse(dict(zip(m.view_names_, [xe, ye])))\n"
      "m.score(dict(zip(m.view_names_, [xe, ye, ve])))", tol=1e-6)  # fmt: skip

# --------------------------------------------------------------- kernels
case("KernelCCA", models("KernelCCA", """
3, shrinkage=0.1
3, kernel='linear', shrinkage=0.1
3, kernel='laplacian', gamma=0.1, shrinkage=0.1
3, kernel=('polynomial', 'rbf'), degree=2, gamma=(0.1, None), shrinkage=0.1
3, kernel='cosine', shrinkage='auto'
3, shrinkage='cv', cv=2
3, approximation='nystroem', rank=20, shrinkage=0.1, random_state=0
3, approximation='nystroem', rank=20, orthonormal=False, shrinkage=1e-3, random_state=0
3, approximation='nystroem', landmarks='kmeans', rank=10, shrinkage=0.1, random_state=0
3, approximation='nystroem', landmarks='pivoted_cholesky', rank=10, shrinkage=0.1, random_state=0
3, approximation='rff', rank=40, shrinkage=0.1, random_state=0
3, approximation=('exact', 'rff'), rank=30, shrinkage=(0.1, 0.2), random_state=0
None, kernel='linear', shrinkage=0.01
"""), LATENT, hide="x_weights_|y_weights_|mean_|loadings|map_|landmarks|factor|frequ",
    tol=1e-6)  # fmt: skip
case("KernelCCA fits", [*fits("KernelCCA(2, shrinkage=0.1, approximation='nystroem', rank=15, "
     "random_state=0)", "fit(X, Y, W)\nfit(DX, DY)\nfit(X, Y[:, 0])\nfit(Rows(X), Rows(Y))\n"
     "fit(parts(X, Y))\nfit_moments(Moments.from_data(x=X, y=Y))\nfit(X, Y).partial_fit(X, Y)"),
     "KernelCCA(2, kernel='precomputed', shrinkage=0.1).fit(gram.gram(X), gram.gram(Y))",
     "KernelCCA(70, shrinkage=0.1).fit(X[:9], Y[:9])"],
     "m.transform(x, y)\nm.score(x, y)\nm.score_moments(m.moments_)\nhasattr(m, 'predict')",
     hide="x_weights_|y_weights_|mean_|loadings|map_", tol=1e-6)  # fmt: skip
MAPS = """
m.transform(x) @ m.transform(X[:4]).T
m.fit_transform(X).shape
m.get_feature_names_out()[:3]
"""
case("maps", ["ExactKernelMap().fit(X)", "ExactKernelMap(basis='cholesky').fit(X)",
     "ExactKernelMap('linear').fit(X)", "ExactKernelMap('polynomial', degree=2).fit(DX)"], MAPS, tol=1e-7)  # fmt: skip
case("maps", [f"NystroemMap({p}).fit(X)" for p in lines("""
rank=10, random_state=0
'laplacian', rank=10, random_state=1
rank=10, landmarks='kmeans', random_state=0
rank=10, landmarks='pivoted_cholesky', random_state=0
rank=10, orthonormal=False, random_state=0
rank=100, random_state=0
""")], MAPS + "m.transform(x)\nm.transform(x.astype('f4')).dtype\nm.transform(dx)", tol=1e-7)  # fmt: skip
case("maps", ["RandomFourierMap(rank=12, random_state=0).fit(X)",
     "RandomFourierMap('laplacian', rank=11, gamma=0.2, random_state=3).fit(DX)"],
     MAPS + "m.transform(x)\nm.set_output(transform='pandas').transform(dx)")  # fmt: skip

# --------------------------------------------------------------- densities
NORMAL = """
m.predict(x)
m.predict(x, return_std=True)
m.predict(x[:2], return_cov=True)
m.logpdf(x, y)
m.outlier_scores(x, y)
m.sample(x[:2], random_state=0)
m.sample(x[:2], 3, random_state=1)
m.mutual_information()
m.mutual_information(per_component=True)
m.condition(on={'x': x}).mean('y')
m.condition(on={'y': y}).cov('x')
m.condition(on={'y': y}).logpdf(x=x)
m.condition(on={}).sample(2, random_state=0)
m.embed(x, y)
m.similarity(x[:3], y)
m.fuse(x, y)
m.fuse(y=y)
m.score(x, y)
m.score(x, y, w)
m.score_moments(Moments.from_data(x=x, y=y))
m.ratio_moments(Moments.from_data(x=x, y=y))
"""
case("ConditionalGaussian", models("ConditionalGaussian", """
-
rank=2
shrinkage=0.0
shrinkage=0.3, rank=1
shrinkage=(0.1, 0.5)
shrinkage='auto', scale=True
cv=3, scale=True
cv=KF, rank=2
"""), NORMAL)  # fmt: skip
LESS = "m.predict(x)\nm.logpdf(x, y)\nm.sample(x[:2], random_state=0)\nm.score(x, y)"
case(
    "ConditionalGaussian fits",
    fits("ConditionalGaussian(shrinkage=0.1)", FITS),
    LESS,
    hide="joint_",
)
case("ConditionalGaussian fits", [
    *fits("ConditionalGaussian(cv=3)", CV_FITS), "pieces(ConditionalGaussian(cv=2), X, Y)",
    "pieces(ConditionalGaussian(shrinkage=0.0), X, Y)", "ConditionalGaussian().fit(constant, Y)",
    "ConditionalGaussian(shrinkage=0.0).fit(twice, Y)",
    "ConditionalGaussian(shrinkage=0.0).fit(A, B)",
    "ConditionalGaussian().fit(X.astype('f4'), Y.astype('f4'))",
], LESS, tol=1e-6, hide="joint_")  # fmt: skip
case("ConditionalGaussian wide", models("ConditionalGaussian", "shrinkage=0.3\n-\nrank=3",
     "fit(A, B)"), "m.predict(a)\nm.logpdf(a, b)\nm.score(a, b)", hide="m.coef|covariance|joint",
     tol=1e-9)  # fmt: skip
EM_NORMAL = (
    "m.predict(xe, return_std=True)\nm.logpdf(xe, ye)\nm.score(xe, ye)\nm.similarity(xe, ye)\n"
)
case("ConditionalGaussian em", [*fits("ConditionalGaussian(cv=3, missing='em')",
     "fit(XS, Y)\nfit(X, YN)\nfit_moments(Moments.folds(x=X, y=YN, missing='em', cv=4))"),
     *fits("ConditionalGaussian(shrinkage=0.1, missing='em')", EM)], EM_NORMAL + LESS,
     tol=1e-6, hide="joint_")  # fmt: skip
case("ConditionalGaussian blocks", ["ConditionalGaussian(shrinkage=0.1).fit_moments(Moments.from_data("
     "**views))", "ConditionalGaussian().fit_moments(Moments.folds(**views))"],
     "m.condition(on={'text': y}).mean('image')\nm.condition(on={'text': y, 'sound': v}).cov('image')\n"
     "m.condition(on={'image': x}).sample(random_state=0)\nm.predict(x)\n"
     "m.score_moments(Moments.from_data(image=x, text=y, sound=v))\nm.condition(on={'nobody': y})")  # fmt: skip
case("Mixture", models("ConditionalGaussianMixture", """
2, random_state=0
3, covariance_type='tied', random_state=0
3, covariance_type='diagonal', random_state=1
2, covariance_type='low_rank', rank=2, random_state=0
2, n_init=2, max_iter=5, random_state=0
1
""") + ["ConditionalGaussianMixture(2, random_state=0).fit(X, Y, W)",
    "ConditionalGaussianMixture(2, random_state=0).fit(DX, Y[:, 0])",
    "ConditionalGaussianMixture(2, random_state=0).fit(X.astype('f4'), Y.astype('f4'))",
    "ConditionalGaussianMixture(2, random_state=0).fit(constant, Y)",
    "ConditionalGaussianMixture(2, random_state=0).fit(Rows(X), Rows(Y))"], """
m.predict(x)
m.predict(x, return_std=True)
m.predict(x[:2], return_cov=True)
m.logpdf(x, y)
m.outlier_scores(x, y)
m.responsibilities(x)
m.responsibilities(x, y)
m.sample(x[:2], 2, random_state=0)
m.score(x, y)
m.score(x, y, w)
m.bic(x, y)
m.aic(x, y)
""", tol=1e-5)  # fmt: skip

# --------------------------------------------------------------- reconstruction
CODES = """
m.transform(x)
m.transform(x, y)
m.fuse(x, y)
m.inverse_transform(m.transform(x))
m.predict(x)
m.score(x)
m.score(x, y)
m.score_samples(x)
m.score_samples(x, y)
m.score_moments(Moments.from_data(x=x, y=y))
m.get_feature_names_out()
"""
case("LinearAutoencoder", models("LinearAutoencoder", """
-
2
3, alpha=0.3
2, corruption=0.3
2, scale=True, alpha=0.2, corruption=0.2
2, solver='svd'
2, target='cross'
target='cross', alpha=0.5
2, target='cross', corruption=0.2, scale=True
2, target='cross', solver='svd'
2, target='joint'
target='joint', alpha=0.01
2, target='joint', scale=True, corruption=0.2
2, target='joint', solver='svd'
"""), CODES)  # fmt: skip
case("LinearAutoencoder fits", fits("LinearAutoencoder(2)", """
fit(X)
fit(X, None, W)
fit(DX)
fit(SX)
fit(X.astype('f4'))
fit(parts(X))
fit(parts(X, Y))
fit_moments(Moments.from_data(x=X))
fit_moments(Moments.folds(x=X, form='root'))
partial_fit(X[:20]).partial_fit(X[20:])
fit(A)
fit(constant)
fit(twice)
fit(Rows(X))
"""), "m.transform(x)\nm.score(x)", tol=2e-5)  # fmt: skip
case("LinearAutoencoder fits", [*fits("LinearAutoencoder(2, target='cross')", FITS),
     *fits("LinearAutoencoder(2, target='joint')", FITS),
     "pieces(LinearAutoencoder(2, target='joint'), X, Y)",
     "LinearAutoencoder(2, target='cross').fit(A, B)", "LinearAutoencoder(2, target='joint').fit(A, B)",
     "LinearAutoencoder(2, target='joint').fit(constant, Y)"],
     "m.transform(x)\nm.predict(x)\nm.score(x, y)", tol=1e-7)  # fmt: skip
case("LinearAutoencoder em", [*fits("LinearAutoencoder(2, missing='em', target='cross')", EM),
     "LinearAutoencoder(2, missing='em').fit(XE)", "LinearAutoencoder(2, missing='em', "
     "target='joint').fit(XE, YE)"], "m.transform(xe)\nm.score(xe, ye)\nm.score(x)", tol=1e-6)  # fmt: skip

# --------------------------------------------------------------- regression
TASKS = """
m.predict(x)
m.score(x, y)
m.score(x, y, w)
m.score_tasks(x, y)
m.score_moments(Moments.from_data(x=x, y=y))
hasattr(m, 'decision_function')
"""
case("MultitaskRegressor", models("MultitaskRegressor", """
-
alpha=0.3
alpha=0.0
alpha=np.array([0.1, 1.0, 10.0, 100.0])
alpha=1.0, rank=2
rank=2, cv=3
rank='cv'
alpha=1.0, rank='cv', cv=KF
alphas=[1.0, 10.0], fit_intercept=False
alpha=1.0, fit_intercept=False, solver='svd'
solver='svd'
"""), TASKS)  # fmt: skip
case("MultitaskRegressor fits", fits("MultitaskRegressor(alpha=1.0)", FITS), TASKS)
case("MultitaskRegressor fits", [*fits("MultitaskRegressor(alphas=[0.1, 10.0, 1e3])", FITS), *lines("""
MultitaskRegressor().fit(X, YG)
MultitaskRegressor(cv=3).fit(X, YG, W)
MultitaskRegressor(alpha=1.0, solver='svd').fit(X, YG)
MultitaskRegressor(alpha=1.0, fit_intercept=False).fit(X, YG)
MultitaskRegressor(alpha=1.0, rank=2).fit(X, YG)
MultitaskRegressor(alpha=1.0).fit(parts(X, YG))
pieces(MultitaskRegressor(alpha=1.0), X, YG)
pieces(MultitaskRegressor(cv=3), X, YG)
pieces(MultitaskRegressor(rank=2), X, Y)
MultitaskRegressor().fit(X, P.astype(float))
MultitaskRegressor(alpha=2.0).fit(A, B)
MultitaskRegressor(cv=3).fit(A, B)
MultitaskRegressor(alpha=2.0, rank=2).fit(A, B)
MultitaskRegressor(alpha=2.0).fit(constant, Y)
MultitaskRegressor(alpha=0.0).fit(twice, Y)
MultitaskRegressor(alpha=2.0).fit(X.astype('f4'), Y.astype('f4'))
""")], TASKS + "m.decision_function(x)", tol=1e-6, hide="task_corr")  # fmt: skip
case("MultitaskRegressor views", ["MultitaskRegressor(alpha=1.0).fit([X, V], Y)",
     "MultitaskRegressor().fit(dict(image=DX, sound=V), YG)",
     "MultitaskRegressor().fit_moments(Moments.folds(image=X, sound=V, y=Y))"],
     "m.predict([x, v])\nm.predict(dict(image=x, sound=v))\nm.score(dict(image=x, sound=v), y)\n"
     "m.score([x, v], y)\nm.score_moments(Moments.from_data(image=x, sound=v, y=y))")  # fmt: skip
case("MultitaskRegressor em", fits("MultitaskRegressor(alpha=1.0, missing='em')", EM)
     + ["MultitaskRegressor(cv=2, missing='em').fit(XE, YG)"],
     "m.predict(xe)\nm.score(x, y)\nm.score(xe, y)", tol=1e-6, hide="task_corr")  # fmt: skip

# --------------------------------------------------------------- classes, pipelines, anchors
case("SemanticMatching", [f"SemanticMatching({p}).fit(X, Y, labels)" for p in lines("""
LogisticRegression()
[LogisticRegression(C=0.01), LogisticRegression(C=1.0)], cv=3
(LogisticRegression(C=0.1), [LogisticRegression(), LogisticRegression(C=9.0)]), cv=KF
LogisticRegression(), correlate=CCA(2)
LogisticRegression(), feature_map=NystroemMap(rank=10, random_state=0)
[LogisticRegression(C=0.1)], cv=3, random_state=0
""")], """
m.embed(x)
m.embed(x, y)
m.embed(x, y, kind='cosine')
m.similarity(x, y)
m.similarity(x, y, kind='cosine')
m.similarity(x, y, kind='dot')
m.fuse(x, y)
m.fuse(x)
m.predict(x, y)
m.predict(y=y)
m.score(X, Y, labels)
""", tol=1e-4)  # fmt: skip
case("SemanticMatching", "SemanticMatching(cv=2).fit(X, Y, labels)",
     "m.predict(x, y)\nm.score(X, Y, labels)\nm.embed(x)", tol=1e-3)  # fmt: skip
case("TwoViewPipeline", [f"TwoViewPipeline({p}).fit(X, Y)" for p in lines("""
CCA(2)
CCA(2, shrinkage='cv'), x=StandardScaler(), y=PCA(3)
ConditionalGaussian(shrinkage=0.1), x=Normalizer()
MultitaskRegressor(alpha=1.0), x=PCA(3)
""")], "m.transform(x, y)\nm.predict(x)\nm.embed(x, y)\nm.similarity(x, y)\nm.score(x, y)\n"
       "m.fuse(x, y)\nm.transform(y=y)\nm.transform(x[:, :2])")  # fmt: skip
case("TwoViewPipeline", ["TwoViewPipeline(CCA(2), x=PCA(3)).set_output(transform='pandas').fit(DX, DY)",
     "TwoViewPipeline(CCA(2)).fit(X, Y, sample_weight=W)"],
     "m.transform(dx, dy)\nm.fit_transform(DX, DY)[0][:2]\nm.transform(dx)")  # fmt: skip
case("ASIF", [f"ASIF({p}).fit(X, Y)" for p in ("10, power=2.0", "n_anchors=30, random_state=0",
     "'cv', power=4, cv=3", "10, power=1, center=False")],
     "m.transform(x, y)\nm.embed(x)\nm.embed(x, y)\nm.similarity(x, y)\nm.score(x, y)",
     hide="anchors|transform|embed", tol=1e-9)  # fmt: skip

# --------------------------------------------------------------- searches
SEARCH = """
m.score(x, y)
m.score_moments(Moments.from_data(x=x, y=y))
m.transform(x, y)
m.predict(x)
"""
case("MomentsSearchCV", [f"MomentsSearchCV({p}).fit(X, Y)" for p in lines("""
CCA(), {'shrinkage': [0.0, 0.1, 0.5, 'auto']}
CCA(2), {'shrinkage': [0.1, 0.5], 'scale': [True, False]}, cv=3, return_train_score=True
CCA(), [{'n_components': [1, 3]}, {'shrinkage': [(0.1, 0.2)]}], scoring='total_correlation', cv=KF
CCA(), {'shrinkage': [0.01, 0.1, 0.5]}, scoring='likelihood_ratio', cv=kfold(60)
CCA(), {'n_components': [1, 2, 3]}, refit='one_standard_error'
CCA(), {'shrinkage': [0.1, 0.5]}, refit=False
CCA(), {'shrinkage': [0.1, 0.5]}, scoring=lambda e, t: float(e.score_moments(t) ** 2)
CCA(), {'solver': ['svd', 'moments'], 'shrinkage': [0.1, 0.2]}
ConditionalGaussian(), {'shrinkage': [0.1, 0.3], 'rank': [1, None]}, cv=3
LinearAutoencoder(target='cross'), {'n_components': [1, 2], 'alpha': [0.0, 0.1]}
MultitaskRegressor(), {'alpha': [0.1, 10.0], 'rank': [1, 3]}
MultitaskRegressor(alpha='cv'), {'rank': [1, 3]}
KernelCCA(2), {'shrinkage': [0.1, 0.5], 'gamma': [0.01, 0.1]}
CCA(missing='em'), {'shrinkage': [0.1, 0.5]}
CCA(9), {'shrinkage': [0.1]}
CCA(), {'nothing': [1]}
""")], SEARCH, hide="best_estimator_.*(weights|loadings|mean_|map_)|cv_results_.rank", tol=1e-7)  # fmt: skip
case("MomentsSearchCV", lines("""
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=3).fit(X, Y, W)
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=3).fit(X, Y, groups=groups)
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=GroupKFold(4)).fit(X, Y, groups=groups)
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=3).fit(Rows(X), Rows(Y))
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=3).fit(DX, DY)
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}).fit_moments(Moments.folds(x=X, y=Y, cv=4))
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}).fit_moments(Moments.from_data(x=X, y=Y))
MomentsSearchCV(CCA(missing='em'), {'shrinkage': [0.1, 0.5]}, cv=3).fit(XE, YE)
MomentsSearchCV(CCA(), {'shrinkage': [0.1, 'cv']}).fit(X, Y)
MomentsSearchCV(CCA(shrinkage='cv'), {'scale': [True, False]}).fit(X, Y)
MomentsSearchCV(MultiviewCCA(2), {'shrinkage': [0.1, 0.5], 'method': ['mcca', 'gcca']}).fit(views)
MomentsSearchCV(MultiviewCCA(), {'n_components': [1, 4]}, cv=KF).fit([X, Y, V])
MomentsSearchCV(LinearAutoencoder(), {'n_components': [1, 2, 4]}).fit(X)
"""), "m.predict(dx)\nm.best_estimator_.n_samples_\nm.transform(x, y)", tol=1e-6,
    hide="best_estimator_.*(weights|loadings|mean_)")  # fmt: skip
case("search", lines("""
GridSearchCV(CCA(), {'shrinkage': [0.1, 0.5]}, cv=KF).fit(X, Y)
GridSearchCV(ConditionalGaussian(), {'shrinkage': [0.1, 0.5]}, cv=KF).fit(X, Y)
GridSearchCV(TwoViewPipeline(CCA(2), x=PCA(3)), {'x__n_components': [3, 4]}, cv=KF, \
scoring=metrics.make_retrieval_scorer('MRR')).fit(X, Y)
"""), "m.score(x, y)\nm.cv_results_['mean_test_score']\nm.cv_results_['std_test_score']\n"
      "model_selection.one_standard_error(m.cv_results_)")  # fmt: skip

# --------------------------------------------------------------- moments
READ = """
{k: m.mean(k) for k in m.names}
m.cov(m.names[0])
m.cov(m.names[0], m.names[-1], ddof=0)
m.variance(m.names[0])
m.constant(m.names[0])
m.ledoit_wolf(m.names[0])
m.standardized().cov(m.names[0])
m.select(m.names[0]).names
m.update(**{k: np.ones((2, w)) for k, w in zip(m.names, m.widths)}).mean(m.names[0])
m.n
"""
case("Moments", lines("""
Moments.from_data(x=X, y=Y)
Moments.from_data(x=X, y=Y, form='root')
Moments.from_data(x=X, y=Y, sample_weight=W)
Moments.from_data(x=X, y=Y, z=V).partial_out('z')
Moments.from_data(x=X, y=Y, z=V, form='root').partial_out('z')
Moments.from_data(x=A, y=B, form='root')
Moments.from_data(x=X[:, 0], y=Y.astype('f4'))
Moments.from_data(x=SX, y=Y)
Moments.from_batches(parts(X, Y))
Moments.from_batches([dict(u=s, v=t) for s, t in parts(X, Y)], form='root')
Moments.from_batches(iter(parts(X, Y, V)), names=('a', 'b', 'c'))
Moments.from_data(x=X[:20], y=Y[:20]) + Moments.from_data(y=Y[20:], x=X[20:])
Moments.from_data(x=X[:20], y=Y[:20], form='root') + Moments.from_data(x=X[20:], y=Y[20:], form='root')
Moments.from_data(x=XE, y=YE, missing='em')
Moments.from_data(x=X, y=YN, missing='em')
Moments.from_data(x=X, y=YN, missing='em', sample_weight=W)
Moments.from_data(x=XS, y=Y, missing='em') + Moments.from_data(x=X, y=YN, missing='em')
Moments.from_data(x=X, y=YN, missing='em').shrunk((0.2, 0.3)).unshrunk
[Moments.load(m) for m in [folder() + '/m.npz'] if Moments.from_data(x=X, y=Y).save(m) is None][0]
"""), READ + """
m.select('x', 'y').shrunk((0.1, 0.2), monotone=False).cross('x', 'y')[0]
m.paired_correlations('x', 'y', np.eye(m.width('x'), 2), np.eye(m.width('y'), 2))
m.projected_scatter('x', 'y', np.ones((m.width('y'), 1)))
None if m.estimate is None else m.estimate.log_likelihood[-1]
m.incomplete
m.complete_rows().n
[p.n for p in m.patterns()]
""", tol=1e-8)  # fmt: skip
case("Moments folds", lines("""
Moments.folds(x=X, y=Y)
Moments.folds(x=X, y=Y, cv=3, sample_weight=W)
Moments.folds(x=X, y=Y, cv=KF)
Moments.folds(x=X, y=Y, cv=kfold(60))
Moments.folds(x=X, y=Y, cv=GroupKFold(4), groups=groups)
Moments.folds(x=X, y=Y, cv=5, groups=groups)
Moments.folds(x=Rows(X), y=Rows(Y), cv=7, form='root')
Moments.folds_from_batches(parts(X, Y), cv=4)
Moments.folds_from_batches(iter(parts(X, Y)), cv=2, form='root')
Moments.folds(x=XE, y=YE, cv=3, missing='em')
Moments.folds(x=X, y=Y, cv=61)
Moments.folds(x=X, y=Y, cv=1)
Moments.folds(x=X, y=Y, cv='five')
Moments.folds(x=X, y=Y, cv=kfold(50))
Moments.folds_from_batches(parts(X, Y), cv=KF)
"""), "[k.mean('x') for k in m]\n[k.mean('y') for k in m]\n[k.cov('x') for k in m]", tol=1e-8)  # fmt: skip

# --------------------------------------------------------------- functions
case("metrics", lines("""
retrieval_report(U, U + 0.5 * G[:12])
retrieval_report(U @ G[:12].T)
retrieval_report(U, G, x_ids=np.arange(12) // 2, y_ids=np.arange(15) // 3, ks=(1, 2))
retrieval_report(U, U + G[:12], labels=labels[:12])
retrieval_report(U, G, labels=(labels[:12], labels[:15]))
retrieval_report(U, G)
retrieval_report(U, U[:, :2])
retrieval_report(but(U, nan), U)
retrieval_report(U, G, y_ids=np.arange(15) + 3)
retrieval_report(np.round(U), np.round(U))
metrics.retrieval_chance(12)
metrics.retrieval_chance(12, 15, x_ids=np.arange(12) // 2, y_ids=np.arange(15) // 3)
metrics.retrieval_chance(12, labels=labels[:12])
metrics.recall_at_k(U, U + G[:12], k=3)
metrics.median_rank(U, U + G[:12])
metrics.mean_reciprocal_rank(U, U + G[:12])
metrics.mean_average_precision(U, U + G[:12])
metrics.mean_average_precision(U, G, labels=(labels[:12], labels[:15]))
metrics.total_correlation_scorer(CCA(2).fit(X, Y), x, y)
metrics.make_retrieval_scorer('mAP', kind='cosine')(CCA(2).fit(X, Y), x, y)
metrics.make_retrieval_scorer('mAP')
metrics.make_retrieval_scorer('R@0')
search(U, G, k=4)
search(U, G, k=40)
search(U, G, k=0)
metrics.linear_cka(X, Y)
metrics.linear_cka(X, Y, debiased=True)
metrics.linear_cka(X, Y, sample_weight=W)
metrics.linear_cka(Moments.from_data(x=X, y=Y))
metrics.procrustes_distance(X, Y)
metrics.procrustes_distance(X, Y, angular=True)
metrics.svcca(X, Y)
metrics.svcca(X, Y, variance=0.8, sample_weight=W)
metrics.pwcca(X, Y)
metrics.mutual_knn_alignment(X, Y, k=5)
metrics.mutual_knn_alignment(X, Y, k=5, metric='euclidean')
metrics.mutual_knn_alignment(X, Y, k=60)
"""))  # fmt: skip
case("inference", lines("""
canonical_correlation_test(CCA().fit(X, Y))
canonical_correlation_test(CCA(1).fit(X, Y), n_nuisance=2)
canonical_correlation_test(correlations=[0.5, 0.2], n=50, p=3, q=2)
canonical_correlation_test(CCA(shrinkage=0.1).fit(X, Y))
canonical_correlation_test()
canonical_correlation_test(correlations=[0.5, 1.2], n=50, p=3, q=2)
canonical_correlation_test(MomentsSearchCV(CCA(), {'scale': [True, False]}).fit(X, Y))
permutation_test(X, Y, n_permutations=99, random_state=0)
permutation_test(X, Y, n_permutations=49, statistic='all', random_state=1, return_null=True)
permutation_test(X, Y, Z=V, n_permutations=49, statistic='pillai', random_state=0)
permutation_test(X, Y, n_permutations=49, shrinkage=0.2, n_components=2, random_state=0)
permutation_test(X, Y, n_permutations=49, blocks=groups, random_state=0, return_null=True)
permutation_test(A, B, n_permutations=9, shrinkage='auto', statistic='roy', n_components=2, random_state=0)
permutation_test(A, B)
permutation_test(X, Y, shrinkage='cv')
correlation_intervals(X, Y)
correlation_intervals(X, Y, Z=V, n_components=2, level=0.9, cv=10)
correlation_intervals(X, Y, sample_weight=W, cv=KF)
correlation_intervals(X, Y, groups=groups, cv=5)
correlation_intervals(Moments.folds(x=X, y=Y, cv=10))
correlation_intervals(X, Y, level=2)
correlation_intervals(A, B)
bootstrap(CCA(2), X, Y, 'correlations_', n_resamples=30, random_state=0)
bootstrap(CCA(2), X, Y, 'x_loadings_', n_resamples=15, method='bca', cv=5, random_state=0)
bootstrap(CCA(2), X, Y, lambda e: e.x_weights_, n_resamples=20, align='match', random_state=0)
bootstrap(CCA(2), X, Y, 'y_weights_', n_resamples=20, sample_weight=W, level=0.8, random_state=1).to_frame()
bootstrap(ConditionalGaussian(shrinkage=0.1), X, Y, 'coef_', n_resamples=10, align=None, random_state=0)
bootstrap(CCA(2), X, Y, 'nothing_', n_resamples=20)
component_stability(CCA(3), X, Y, n_resamples=20, random_state=0)
loadings_table(CCA(2).fit(DX, DY))
loadings_table(CCA(2).fit(X, Y))
loadings_table(MultiviewCCA(2).fit(views))
loadings_table(CCA())
redundancy(CCA().fit(X, Y))
redundancy(CCA(2, shrinkage=0.2).fit(X, Y))
"""), tol=1e-7)  # fmt: skip
case("kernels", lines("""
gram.gram(x, X[:5])
gram.gram(x, gamma=0.2)
gram.gram(x, X[:5], kernel='laplacian', gamma=0.1)
gram.gram(x, X[:5], kernel='polynomial', degree=2, coef0=0.5)
gram.gram(x, X[:5], kernel='sigmoid', gamma=0.01)
gram.gram(x, X[:5], kernel='cosine')
gram.gram(abs(x), abs(X[:5]), kernel='chi2')
gram.gram(x, X[:5], kernel='nothing')
gram.gram(x.astype('f4')).dtype
gram.median_gamma(X)
gram.median_gamma(L, kernel='laplacian', n_samples=50, random_state=0)
normal.logpdf(x, X.mean(0), np.cov(X.T))
normal.component_logpdf(x, X[:2], np.stack([np.cov(X.T)] * 2))
normal.mixture_logpdf(x, np.array([0.3, 0.7]), X[:2], np.ones((2, 6)), covariance_type='diag')
normal.mixture_logpdf(x, np.array([0.3, 0.7]), X[:2], np.cov(X.T), covariance_type='tied', return_responsibilities=True)
normal.logpdf(x, X.mean(0), np.zeros((6, 6)))
ranks.partner_ranks(U, U + G[:12])
ranks.partner_counts(U, U + G[:12])
ranks.top_k(U, G, 3)
ranks.average_precisions(U, G, x_ids=np.arange(12) // 2, y_ids=np.arange(15) // 3)
whitening.factor(np.cov(X.T))
whitening.factor(np.cov(X.T), method='eigh').rank
whitening.factor(np.cov(twice.T)).rank
whitening.factor(np.cov(X.T), method='zca')
covariance.scatter(X)
covariance.scatter(X, W)
"""), tol=1e-9)  # fmt: skip
QUICK = "memory=False, n_resamples=50, random_state=0"
case("comparison", lines(f"""
compare({{'cca': CCA(2, shrinkage=0.1), 'normal': ConditionalGaussian(shrinkage=0.1)}}, X, Y, cv=3, {QUICK})
compare({{'cca': CCA(2), 'ridge': Ridge()}}, X, Y, cv=KF, baseline='cca', {QUICK})
compare({{'cca': CCA(2), 'sem': SemanticMatching(LogisticRegression())}}, X, Y, labels=labels, cv=3, {QUICK})
compare({{'good': CCA(2), 'bad': CCA(99)}}, X, Y, cv=3, {QUICK})
compare({{'bad': CCA(99)}}, X, Y, cv=3, on_error='raise', {QUICK})
compare({{}}, X, Y)
compare({{'cca': CCA(2)}}, X, Y, baseline='other')
untimed(learning_curves({{'cca': CCA(2, shrinkage=0.1), 'one': CCA(1)}}, X, Y, sizes=[10, 20], cv=3, random_state=0))
overtakes(learning_curves({{'a': CCA(2, shrinkage=0.1), 'b': CCA(1)}}, X, Y, sizes=[10, 20], cv=2, random_state=0), 'a', 'b')
[(k, repr(e)) for k, e in suggest_models(X, Y, random_state=0).items()]
[(k, repr(e)) for k, e in suggest_models(X, Y, task='regression', random_state=0).items()]
[(k, repr(e)) for k, e in suggest_models(X, Y, task='classification', labels=labels, random_state=0).items()]
suggest_models(X, Y, task='nothing')
"""), tol=1e-7)  # fmt: skip
case("data sets", "load_linnerud()", tol=0)
case("data sets", "load_emoji()", "sorted(m)", hide=".", tol=0)
case("data sets", lines("""
[abs(a).sum(axis=0)[:9] for a in load_emoji(return_X_y=True)]
load_mnist_halves(data_home='/nowhere')
load_wikipedia(data_home='/nowhere')
"""), tol=1e-5)  # fmt: skip
case("shards", "write_shards(folder(), [(X[:30], Y[:30]), (X[30:], Y[30:])], rows=25)",
     "type(m).__name__")  # fmt: skip
case("shards", "[write_shards(d, parts(X, Y), rows=25) and d for d in [folder()]][0][:0]")
case("shards", "[open_shards(d) for d in [folder()] if write_shards(d, parts(X, Y), rows=25)"
     " is None or True][0]", "m.x.shape\nm.y[22:27]\nCCA(2, shrinkage='cv').fit(*m).correlations_\n"
     "np.concatenate(list(map_rows(lambda a: a[:, :1], m.x, rows=13)))\nm.x[5]\nlen(m.x)")  # fmt: skip
case("shards", lines("""
list(map_rows(lambda a, b: a.shape, X, Y, rows=25))
list(map_rows(lambda a, b: a.shape, X, Y[1:]))
list(map_rows(CCA(2).fit(X, Y).transform, X[:4], Y[:4], rows=3))
map_rows(len, X, rows=0)
"""))  # fmt: skip

# --------------------------------------------------------------- what is wrong
WRONG = """
m.fit(X, Y[1:])
m.fit(but(X, nan), Y)
m.fit(X, but(Y, inf))
m.fit(X.astype('f4') * 1e38 * 10, Y)
m.fit(X[:, 0], Y)
m.fit(X[:, :, None], Y)
m.fit(X[:1], Y[:1])
m.fit(X[:0], Y[:0])
m.fit(X[:, :0], Y)
m.fit(X * 1j, Y)
m.fit(X.astype(str), np.array([['cat']] * 60))
m.fit(X)
m.fit(X, Y, -W)
m.fit(X, Y, W[1:])
m.fit(X, Y, np.zeros(60))
m.fit([])
m.fit([(X, Y), (X[:, :3], Y)])
m.fit([(X, Y)], sample_weight=W)
m.fit('rows')
m.partial_fit(X, Y[1:])
m.fit_moments(Moments.from_data(x=X))
m.fit_moments(Moments.from_data(x=X[:1], y=Y[:1]))
m.fit_moments([])
m.fit_moments(X)
m.score(X, Y)
m.transform(X)
m.predict(X)
m.embed(X)
m.similarity(X, Y)
m.fuse(X)
sorted(a for a in vars(m) if a[-1:] == '_')
m.fit(X, Y).n_samples_
m.fit(but(X, nan), Y)
sorted(a for a in vars(m) if a[-1:] == '_' and a[0] != '_')
m.transform(X[:, :5])
m.transform(but(X, nan))
m.transform(y=Y[:, :2])
m.transform()
m.transform(X[0])
m.predict(X[:, :5])
m.predict(but(X, inf))
m.fuse(X, Y[1:])
m.fuse()
m.embed(X[:, :5])
m.embed(X, kind='dot')
m.similarity(X, Y[:, :2])
m.similarity(X, Y, kind='dot')
m.score(X, Y[:, :2])
m.score(X, Y[1:])
m.score(X[:, :5], Y)
m.score(X[:1], Y[:1])
m.score_moments(Moments.from_data(x=X))
m.score_moments(Moments.from_data(x=Y, y=X))
m.logpdf(X, Y[1:])
m.sample(X, 0)
m.partial_fit(X[:, :5], Y)
m.partial_fit(but(X, nan), Y)
m.fit(DX, DY).n_samples_
m.score(DX[list('fedcba')], DY)
m.score(DX, DY[list('vuts')])
m.score(X, DY)
m.set_output(transform='csv')
"""
TWO_VIEWS = {
    "CCA": "n_components=0; n_components=5; n_components=1.5; shrinkage=-0.1; shrinkage='best';"
    "shrinkage=(0.1, 2); shrinkage=(0.1, 0.2, 0.3); shrinkage=None; solver='qr'; scale=2;"
    "shrinkage='cv', cv=1; shrinkage='cv', cv=61; shrinkage='cv', cv='five'; missing='drop';"
    "missing='em', solver='svd'; shrinkage=nan; shrinkage='cv', cv=kfold(50)",
    "KernelCCA": "n_components=0; n_components=80; kernel='nothing'; gamma=-1; rank=0; landmarks='all';"
    "approximation='none'; shrinkage=2; kernel=('rbf',); kernel='laplacian', approximation='rff', rank=0;"
    "kernel='cosine', approximation='rff'; kernel='precomputed'; shrinkage='cv', cv=1; degree=-1;"
    "approximation='nystroem', rank=1000, random_state=0",
    "ConditionalGaussian": "rank=0; rank=9; shrinkage=3; shrinkage='best'; cv=1; missing='drop'; scale=2;"
    "shrinkage=(0.1, 0.2, 0.3); cv=61",
    "ConditionalGaussianMixture": "0; 100; covariance_type='round'; rank=2; max_iter=0; tol=-1;"
    "reg_covar=-1; n_init=0; covariance_type='low_rank', rank=99; random_state='now'; max_iter=1, random_state=0",
    "LinearAutoencoder": "0; 7; alpha=-1; corruption=1.0; corruption=-0.1; target='y'; solver='qr'; scale=2;"
    "alpha=0.1, corruption=0.1; missing='em', solver='svd'; 9, target='cross'; alpha=inf",
    "MultitaskRegressor": "alpha=-1; alpha=[1.0, 2.0]; alpha='auto'; rank=0; rank=99; alphas=[]; alphas=[-1.0];"
    "cv=1; cv=61; solver='qr'; missing='em', solver='svd'; rank=1, alpha=[1.0, 2.0, 3.0, 4.0]; fit_intercept=2",
    "TwoViewPipeline": "CCA(99); CCA(), x=5; Ridge(); CCA(), y=PCA(40)",
    "ASIF": "0; power=0; cv=1; n_anchors=0; 10, n_anchors=1000; center=2; k='all'",
    "MomentsSearchCV": "CCA(), {}; CCA(), {'shrinkage': []}; CCA(), {'shrinkage': 0.1}; CCA(), {'nothing': [1]};"
    "CCA(), {'shrinkage': [2]}; CCA(), {'n_components': [99]}; Ridge(), {'alpha': [1]};"
    "CCA(), {'scale': [True]}, scoring='R@10'; CCA(), {'scale': [True]}, cv=1;"
    "CCA(), {'scale': [True]}, refit='best'; CCA(), {'scale': [True]}, cv=kfold(50);"
    "CCA(), {'shrinkage': ['cv', 0.1]}; CCA(), {'scale': [True]}, scoring=5;"
    "CCA(), {'n_components': [1]}, scoring=lambda e, t: 'text'",
}  # fmt: skip
PLAIN = {
    "CCA": "", "KernelCCA": "2, shrinkage=0.1", "ConditionalGaussian": "shrinkage=0.1",
    "ConditionalGaussianMixture": "2, random_state=0", "LinearAutoencoder": "2, target='cross'",
    "MultitaskRegressor": "alpha=1.0", "TwoViewPipeline": "CCA(2)", "ASIF": "5, power=1.0",
    "MomentsSearchCV": "CCA(2), {'shrinkage': [0.1, 0.2]}, cv=3",
}  # fmt: skip
for kind, wrong in TWO_VIEWS.items():
    case("wrong", f"{kind}({PLAIN[kind]})", WRONG, attributes=False, hide=".")
    case("wrong", [f"{kind}({p.strip()}).fit(X, Y)" for p in wrong.split(";")], attributes=False)
for text in ("LinearAutoencoder(2)", "LinearAutoencoder(2, target='joint')", "CCA(shrinkage='cv', cv=2)",
             "CCA(missing='em')", "MultitaskRegressor(cv=2)"):  # fmt: skip
    case("wrong", text, WRONG, attributes=False, hide=".", tol=1e-6)
case("wrong", lines("""
CCA(shrinkage='cv').fit_moments(Moments.from_data(x=X, y=Y))
ConditionalGaussian().fit_moments(Moments.from_data(x=X, y=Y))
MultitaskRegressor().fit_moments(Moments.from_data(x=X, y=Y))
CCA().fit(X, Y).set_params(shrinkage='cv').partial_fit(X, Y)
CCA(shrinkage='cv', cv=KF).fit(parts(X, Y))
CCA(shrinkage='cv', cv=KF).partial_fit(X, Y)
CCA().fit(XE, YE)
CCA(missing='em').fit(X, np.full_like(Y, nan))
CCA(missing='em').fit(np.where(np.arange(60)[:, None] % 2, X, nan), np.where(np.arange(60)[:, None] % 2, nan, Y))
CCA().correlations_on(Moments.from_data(x=X, y=Y))
Moments.from_data(x=X, y=Y).cov('z')
Moments.from_data(x=X, y=Y) + Moments.from_data(x=X, z=Y)
Moments.from_data(x=X, y=Y) + Moments.from_data(x=X, y=Y, form='root')
Moments.from_data(x=X) + 1
Moments.from_data()
Moments.from_data(x=X, form='square')
Moments.from_data(x=X, missing='drop')
Moments.from_data(x=X, y=Y).partial_out('z')
Moments.from_data(x=X, y=Y).update(x=X, z=Y)
Moments.from_data(x=X[:1]).cov('x')
Moments.from_data(x=X, device='cpu')
Moments.from_batches([])
Moments.from_batches([(X, Y), (X, Y, V)])
Moments.from_batches([dict(x=X), dict(y=X)])
Moments.from_batches([(X, but(Y, nan))])
Moments.load('/nowhere.npz')
ExactKernelMap('nothing').fit(X)
NystroemMap(rank=0).fit(X)
NystroemMap().transform(X)
NystroemMap(rank=5, random_state=0).fit(X).transform(Y)
RandomFourierMap('cosine').fit(X)
SemanticMatching().fit(X, Y)
SemanticMatching().fit(X, Y, labels[1:])
SemanticMatching().fit(X, Y, np.full(60, 'one'))
SemanticMatching(5).fit(X, Y, labels)
SemanticMatching(Ridge()).fit(X, Y, labels)
SemanticMatching([]).fit(X, Y, labels)
SemanticMatching(correlate=5).fit(X, Y, labels)
SemanticMatching().predict(X)
SemanticMatching(LogisticRegression()).fit(X, Y, labels).predict(X[:, :2])
SemanticMatching(LogisticRegression()).fit(X, Y, labels).embed()
ExactKernelMap().fit(but(X, nan))
LinearAutoencoder(2).fit(X).inverse_transform(X)
LinearAutoencoder(2).fit(X).predict(X)
LinearAutoencoder(2, target='joint').fit(X)
cmstats.nothing
"""), attributes=False)  # fmt: skip
case("wrong", [f"MultiviewCCA({p}).fit(views)" for p in lines("""
0
99
method='pca'
shrinkage=2
shrinkage=[0.1]
shrinkage=dict(image=0.1)
shrinkage=dict(image=0.1, text=0.1, other=0.1)
shrinkage='best'
solver='qr'
shrinkage='cv', cv=1
missing='em', solver='svd'
""")], attributes=False)  # fmt: skip
case("wrong", "MultiviewCCA(2)", """
m.fit(X)
m.fit([X])
m.fit([])
m.fit([X, Y[1:]])
m.fit([X, but(Y, nan)])
m.fit(dict(a=X, b=but(Y, inf)))
m.fit([X[:1], Y[:1]])
m.fit([X, Y], sample_weight=-W)
m.fit([X, Y * 1j])
m.fit(5)
m.fit({1: X, 2: Y})
m.fit_moments(Moments.from_data(x=X))
m.transform(views)
m.score(views)
m.fit(views).n_samples_
m.transform(dict(image=X, other=Y))
m.transform([X, Y])
m.transform({})
m.transform(dict(image=X[:, :2]))
m.transform(dict(image=X, text=Y[1:]))
m.transform(dict(image=but(X, nan)))
m.predict(views)
m.similarity(views)
m.similarity(dict(image=x, text=y), kind='dot')
m.score(dict(image=x, text=y))
m.score_moments(Moments.from_data(image=x, text=y))
m.partial_fit([X, Y])
m.fuse(dict(image=X, text=Y[1:]))
m.fit([DX, DY]).n_samples_
m.transform([DX[list('fedcba')], DY])
""", attributes=False, hide=".")  # fmt: skip

# --------------------------------------------------------------- costs
case("passes", lines("""
passes(lambda l, r: CCA().fit(l, r), L, R)
passes(lambda l, r: CCA(shrinkage='cv').fit(l, r), L, R)
passes(lambda l, r: CCA(shrinkage='auto').fit(l, r), L, R)
passes(lambda l, r: CCA(solver='svd').fit(l, r), L, R)
passes(lambda l, r: CCA(shrinkage='cv', cv=KF).fit(l, r), L, R)
passes(lambda l, r: CCA(missing='em', shrinkage='cv').fit(l, r), L, R)
passes(lambda l, r: CCA().fit(L, R).score(l, r), L, R)
passes(lambda l, r: CCA(2).fit(L, R).transform(l, r), L, R)
passes(lambda l, r: MultiviewCCA(2).fit([l, r]), L, R)
passes(lambda l, r: MultiviewCCA(2, shrinkage='cv').fit([l, r]), L, R)
passes(lambda l, r: KernelCCA(2, approximation='nystroem', rank=20, random_state=0).fit(l, r), L, R)
passes(lambda l, r: KernelCCA(2, approximation='rff', rank=20, shrinkage='cv', random_state=0).fit(l, r), L, R)
passes(lambda l, r: ConditionalGaussian().fit(l, r), L, R)
passes(lambda l, r: ConditionalGaussian(shrinkage=0.1).fit(L, R).score(l, r), L, R)
passes(lambda l, r: ConditionalGaussianMixture(2, max_iter=3, random_state=0).fit(l, r), L, R)
passes(lambda l, r: LinearAutoencoder(2).fit(l), L, R)
passes(lambda l, r: LinearAutoencoder(2, target='joint').fit(l, r), L, R)
passes(lambda l, r: MultitaskRegressor().fit(l, r), L, R)
passes(lambda l, r: MultitaskRegressor(rank='cv').fit(l, r), L, R)
passes(lambda l, r: MomentsSearchCV(CCA(), {'shrinkage': [0.1, 0.2], 'n_components': [1, 2]}).fit(l, r), L, R)
passes(lambda l, r: MomentsSearchCV(CCA(), {'shrinkage': [0.1], 'solver': ['svd', 'moments']}).fit(l, r), L, R)
passes(lambda l, r: Moments.folds(x=l, y=r), L, R)
passes(lambda l, r: Moments.from_data(x=l, y=r, form='root'), L, R)
passes(lambda l, r: NystroemMap(rank=20, random_state=0).fit(l), L, R)
passes(lambda l, r: RandomFourierMap(rank=20, random_state=0).fit(l).transform(l), L, R)
passes(lambda l, r: retrieval_report(l, r), L[:600, :5], R[:600])
"""))  # fmt: skip
case("peak", lines("""
peak(lambda: CCA(3, shrinkage=0.2).fit(np.tile(A, 25) + np.eye(24, 1000), np.tile(B, 25)))
peak(lambda: CCA(shrinkage='cv').fit((L[i : i + 500], R[i : i + 500]) for _ in range(5) for i in range(0, 2000, 500)))
peak(lambda: MultitaskRegressor(alpha=1.0).fit(np.tile(A, 40) + np.eye(24, 1600), B))
"""))  # fmt: skip


# --------------------------------------------------------------- signatures and names
def promises() -> dict[str, dict[str, Any]]:
    """What can be called, and with what; what each public module offers."""
    out: dict[str, dict[str, Any]] = {}
    names: dict[str, Any] = {}
    for path in ("cmstats", *(f"cmstats.{m}" for m in ("metrics", "inference", "baselines",
                 "datasets", "plotting", "model_selection", "moments"))):  # fmt: skip
        module = importlib.import_module(path)
        listed = [n for n in module.__all__ if n[0] != "_"]
        names[path] = ["names", sorted(listed)]
        for name in listed:
            thing = getattr(module, name)
            if callable(thing) and not isinstance(thing, types.ModuleType):
                found = signatures(thing) if _type(thing) != "cmstats._RetrievalScorer" else {}
                out[f"signatures: {name}"] = found
                if inspect.isclass(thing):
                    public = sorted(n for n in dir(thing) if n[0] != "_")
                    found["public names"] = ["names", public]
    out["names"] = names
    return out


def results(prefix: str = "") -> dict[str, dict[str, Any]]:
    """The results of all cases whose names start so."""
    found = {name: run(name) for name in CASES if name.startswith(prefix)}
    return found | {k: v for k, v in promises().items() if k.startswith(prefix)}


def stored() -> dict[str, dict[str, Any]]:
    """The frozen results."""
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        found: dict[str, dict[str, Any]] = json.load(file)
    return found


def write(prefix: str) -> None:
    """Freeze what is, keeping other cases where there is a prefix."""
    known = {*CASES, *promises()}
    before = stored() if prefix and FILE.exists() else {}
    kept = {k: v for k, v in before.items() if k in known and not k.startswith(prefix)}
    found = kept | results(prefix)
    text = json.dumps(found, separators=(",", ":"), sort_keys=True)
    FILE.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(found)} cases, {FILE.stat().st_size / 1e6:.2f} MB")


def compare(prefix: str) -> int:
    """Print every difference; their number."""
    old, count = stored(), 0
    for name, before in old.items():
        if not name.startswith(prefix):
            continue
        if name not in CASES and ": " in name and not name.startswith("signatures"):
            print(f"{name}\n    no such case")
            count += 1
            continue
        now = run(name) if name in CASES else promises().get(name, {})
        found = differences(before, now, CASES[name].tol if name in CASES else 0)
        count += len(found)
        if found:
            print(name, *found, sep="\n    ")
    print(f"{count} differences")
    return count


if __name__ == "__main__":
    task, prefix = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    begun = time.perf_counter()
    status = {"write": write, "compare": compare}[task](prefix)
    print(f"{time.perf_counter() - begun:.1f} s")
    sys.exit(bool(status))
