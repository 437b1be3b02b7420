"""Array namespace, device and dtype of data, validation, operations the array standard lacks.

Results are arrays of the library, and on the device, of the data (array-api-compat); there is no
global switch. Frames, lists and sparse matrices count as NumPy.
"""

from __future__ import annotations

import contextvars
import functools
import numbers
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, Literal, TypeAlias

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np
import scipy.linalg
import scipy.sparse

Array: TypeAlias = Any
"""An array of any namespace that conforms to the Python array API standard."""

__all__ = [
    "Array",
    "NotFiniteError",
    "as_counts",
    "blank_rows",
    "check_count",
    "check_cutoffs",
    "check_double",
    "check_given",
    "check_lazy",
    "check_matrix",
    "check_not_empty",
    "check_rows",
    "check_weights",
    "count_nonfinite",
    "count_true",
    "dense",
    "describe_nonfinite",
    "detached",
    "device_of",
    "float64",
    "in_range",
    "is_array",
    "is_dask",
    "is_lazy",
    "is_numpy",
    "joined_values",
    "masked_as_nan",
    "moderate",
    "moderate_weights",
    "namespace",
    "needs_memory",
    "observations",
    "once",
    "position",
    "recorded",
    "result_dtype",
    "row_slices",
    "shifted",
    "take_rows",
    "to_numpy",
    "warn",
    "widened",
]


def is_array(a: object) -> bool:
    """Whether `a` is an array of some namespace (not a frame, a list or a sparse matrix)."""
    if type(a) is np.ndarray:  # asked dozens of times in a small fit
        return True
    return bool(array_api_compat.is_array_api_obj(a)) and not scipy.sparse.issparse(a)


@functools.cache
def _of_dask(kind: Any) -> bool:
    return any(c.__module__.partition(".")[0] in ("dask", "dask_expr") for c in kind.__mro__)


def is_dask(a: object) -> bool:
    """Whether `a` is a Dask array or frame."""
    kind: Any = type(a)
    return _of_dask(kind) and hasattr(a, "__dask_graph__")


def is_lazy(a: Any) -> bool:
    """Whether `a` is a source whose rows are read by slices: a memory-map, HDF5, shards."""
    if is_array(a):
        return isinstance(a, np.memmap)
    if scipy.sparse.issparse(a) or is_dask(a) or hasattr(a, "iloc") or hasattr(a, "to_pandas"):
        return False
    if not all(hasattr(a, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    return hasattr(a, "ndim") or isinstance(a.shape, tuple)


_HOST = frozenset({np.ndarray, type(None)})


def namespace(*arrays: object) -> ModuleType:
    """The common array namespace of all arrays; None is ignored.

    Raises
    ------
    TypeError
        If the arrays come from different namespaces or devices.
    """
    if all(map(_HOST.__contains__, map(type, arrays))):
        return numpy_namespace
    found: list[tuple[ModuleType, object]] = []
    for a in arrays:
        if a is None:
            continue
        if type(a) is not np.ndarray and is_array(a):
            xp = array_api_compat.array_namespace(a)
            found.append((xp, None if is_numpy(xp) else array_api_compat.device(a)))
        else:
            found.append((numpy_namespace, None))
    if not found:
        return numpy_namespace
    xp, device = found[0]
    for other, other_device in found[1:]:
        if other is not xp or other_device != device:
            raise TypeError(
                "all arrays of one call must be of one array library and on one device, got "
                f"{_place(xp, device)} and {_place(other, other_device)}: convert one of them"
            )
    return xp


def is_numpy(xp: ModuleType) -> bool:
    """Whether the namespace is NumPy's."""
    return bool(array_api_compat.is_numpy_namespace(xp))


def _place(xp: ModuleType, device: object) -> str:
    name = xp.__name__.removeprefix("array_api_compat.")
    return name if device is None else f"{name} on {device}"


def device_of(a: Array) -> Any:
    """The device of an array; None for NumPy arrays and for everything read as such."""
    xp = namespace(a)
    return None if is_numpy(xp) else array_api_compat.device(a)


def to_numpy(a: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of the values, copied from a device if need be."""
    if np.ma.isMaskedArray(a):
        return masked_as_nan(a)
    if is_dask(a):
        raise needs_memory("the array")
    if isinstance(a, (np.ndarray, np.generic)) or not is_array(a):
        return widened(np.asarray(a))
    if array_api_compat.is_cupy_array(a):
        return np.asarray(a.get())
    if array_api_compat.is_torch_array(a):
        a = a.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray((a.float() if str(a.dtype) == "torch.bfloat16" else a).numpy())
    xp = array_api_compat.array_namespace(a)
    if xp.__name__ == "array_api_strict":
        a = array_api_compat.to_device(a, xp.Device("CPU_DEVICE"))
    return np.asarray(np.from_dlpack(a))


def result_dtype(a: Array) -> Any:
    """The dtype of results for data `a`: float64 stays, other floats give float32.

    Integers and booleans give float64, as in scikit-learn; half precision gives float32.
    """
    xp = namespace(a)
    dtype = a.dtype
    if dtype == xp.float64:
        return xp.float64
    if is_numpy(xp):
        # ml_dtypes' bfloat16 is no subdtype of np.floating; its kind is "V".
        half = np.dtype(dtype).itemsize <= 4 and np.dtype(dtype).kind in "fV"
        return np.dtype(np.float32 if half else np.float64)
    if xp.isdtype(dtype, ("integral", "bool")):
        return xp.float64
    return xp.float32


def detached(a: Any) -> Any:
    """A tensor without its graph, which a fitted model must not hold; anything else as it is."""
    return a.detach() if getattr(a, "requires_grad", False) else a


def float64(a: Array) -> Array:
    """`a` in double precision, in its own namespace and on its own device."""
    xp = namespace(a)
    return xp.astype(xp.asarray(a), xp.float64, copy=False)


def check_weights(
    weights: Any, n: int, like: Array | None = None, *, empty: bool = False
) -> Array | None:
    """Check frequency weights of n rows: finite, not negative, not all zero (but with `empty`).

    A number is the weight of every row.
    """
    if weights is None:
        return None
    if isinstance(weights, (str, bytes, Mapping)):
        raise TypeError(
            f"sample_weight={weights!r} is not one number for each row: for classes of equal "
            "weight see sklearn.utils.class_weight.compute_sample_weight"
        )
    if np.isscalar(weights):
        weights = np.full(n, float(weights))  # type: ignore[arg-type]
    if not is_array(weights) or isinstance(weights, np.ndarray):
        weights = _host_array(weights, "sample_weight")
    xp = namespace(weights)
    if is_numpy(xp) and weights.dtype.kind == "c":
        raise ValueError(f"sample_weight must be real numbers, got dtype {weights.dtype}")
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {tuple(weights.shape)}, expected ({n},): one weight a row"
        )
    weights = xp.astype(weights, xp.float64)
    if not bool(xp.all(xp.isfinite(weights))):
        raise ValueError("sample_weight has NaN or infinite values")
    if bool(xp.any(weights < 0)):
        raise ValueError("sample_weight has negative values: weights count how often a row stands")
    if not empty and not bool(xp.any(weights > 0)):
        raise ValueError("sample_weight is zero everywhere: no row is left")
    if like is None or not is_array(like):
        return weights
    if is_numpy(namespace(like)):
        weights = to_numpy(weights)
    elif not is_numpy(xp):
        namespace(weights, like)
    else:
        target = namespace(like)
        weights = target.asarray(weights, device=like.device)
    return weights


def moderate_weights(weights: Array | None) -> tuple[Array | None, float]:
    """Weights whose roots are within the range of float32, and the factor they were divided by."""
    if weights is None:
        return None, 1.0
    exponent = int(np.frexp(float(namespace(weights).max(weights)))[1])
    if abs(exponent) < 32:
        return weights, 1.0
    return weights * 2.0**-exponent, 2.0**exponent  # exact: powers of two


def observations(n: float, rows: int) -> float:
    """The number of observations: the sum of the weights, but the rows where they are relative.

    Weights that add up to less than two rows do not count rows.
    """
    return n if n >= 2 or rows < 2 else float(rows)


def as_counts(weights: Array) -> Array:
    """Weights as numbers of rows (`observations`)."""
    xp = namespace(weights)
    total = float(xp.sum(weights))
    count = observations(total, int(xp.count_nonzero(weights > 0)))
    return weights if count == total else weights / total * count


def check_count(
    name: str, value: Any, least: int = 0, most: int | None = None, what: str = ""
) -> int:
    """A whole number between `least` and `most`; `what` names the things counted in the error."""
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    whole = number and float(value).is_integer()
    if not whole or value < least or (most is not None and value > most):
        limits = f"{least} or more"
        if most is not None:
            limits = f"between {least} and {most} {what}".rstrip() + " are possible"
        raise ValueError(f"{name}={value!r} must be a whole number, {limits}")
    return int(value)


def check_cutoffs(ks: Any) -> list[int]:
    """The cut-offs k of a retrieval table: whole numbers from 1 up."""
    if isinstance(ks, (str, bytes)) or not isinstance(ks, Iterable):
        raise ValueError(f"ks={ks!r} must be a list of whole numbers, for example (1, 5, 10)")
    return [check_count("the cut-off k", k, 1) for k in ks]


def joined_values(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """All values of some arrays in one, in which those are equal that are equal as values.

    NumPy joins numbers and text as text, and int64 and uint64, or whole numbers and floats, as
    doubles, which are equal for different whole numbers beyond 2^53: these are joined as objects.
    """
    kinds = {part.dtype.kind for part in parts}
    alike = len(kinds) == 1 or kinds <= set("SU") or kinds <= set("biuf")
    if len(kinds) > 1 and kinds & set("iu"):
        whole = [part for part in parts if part.dtype.kind in "iu" and part.size]
        alike &= all(int(part.min()) >= -(2**53) and int(part.max()) <= 2**53 for part in whole)
    return np.concatenate(list(parts) if alike else [part.astype(object) for part in parts])


def describe_nonfinite(
    name: str, nan: int, inf: int, first: tuple[int, int] | None, hint: str = ""
) -> str:
    """The message about NaN and infinity; `hint` is appended if there is NaN."""
    parts = [f"{nan} NaN" if nan else "", f"{inf} infinite" if inf else ""]
    where = "" if first is None else f", the first at row {first[0]}, column {first[1]}"
    total = " and ".join(part for part in parts if part)
    plural = "value" if nan + inf == 1 else "values"
    return f"{name} has {total} {plural}{where}: drop or impute those rows first{hint * bool(nan)}"


class NotFiniteError(ValueError):
    """NaN or infinity in a block of rows.

    Attributes
    ----------
    block : str
    column : int or None
        Of the first such value.
    """

    def __init__(self, message: str, block: str, column: int | None = None) -> None:
        super().__init__(message)
        self.block, self.column = block, column

    def __reduce__(self) -> Any:
        """What is pickled, for processes that send errors."""
        return type(self), (str(self), self.block, self.column)

    def naming(self, columns: Any) -> NotFiniteError:
        """The same with the name of the column, where columns have names."""
        if columns is not None and self.column is not None:
            at, name = f"column {self.column}", columns[self.column]
            self.args, self.column = (str(self).replace(at, f"{at} ({name!r})", 1),), None
        return self


def count_nonfinite(
    a: Array, offset: int = 0, *, nan: bool = True
) -> tuple[int, int, tuple[int, int] | None]:
    """The number of NaN, of infinities, and the (row + offset, column) of the first of them.

    If `nan` is False only infinities count.
    """
    xp = namespace(a)
    total, first = count_true(~xp.isfinite(a) if nan else xp.isinf(a), offset)
    nans = int(xp.count_nonzero(xp.isnan(a))) if nan and total else 0
    return nans, total - nans, first


def count_true(mask: Array, offset: int = 0) -> tuple[int, tuple[int, int] | None]:
    """How many entries of a matrix are true, and the (row + offset, column) of the first."""
    xp = namespace(mask)
    total = int(xp.count_nonzero(mask))
    if not total:
        return 0, None
    flat = int(xp.argmax(xp.reshape(xp.astype(mask, xp.int8), (-1,))))
    row, column = divmod(flat, mask.shape[1])
    return total, (offset + row, column)


def check_not_empty(a: Any, name: str) -> None:
    """Raise, in scikit-learn's words, if a matrix has no row or no column."""
    for axis, what in ((0, "sample"), (1, "feature")):
        if a.shape[axis] == 0:
            raise ValueError(
                f"{name}: found array with 0 {what}(s) (shape={tuple(a.shape)}) "
                "while a minimum of 1 is required."
            )


def check_lazy(a: Any, name: str, ndims: tuple[int, ...] = (1, 2)) -> Any:
    """Check the shape and the dtype of a source on a disk, whose values are not read."""
    if len(a.shape) not in ndims or 0 in a.shape:
        raise ValueError(
            f"{name} must be a matrix with at least one row and one column, got shape "
            f"{tuple(a.shape)}"
        )
    if np.dtype(a.dtype).kind not in "biufV":
        raise ValueError(f"{name} holds {a.dtype} values, not real numbers")
    return a


def needs_memory(name: str) -> ValueError:
    """The error for a Dask array where the rows have to be in memory."""
    of = name if name.isidentifier() else "X"
    return ValueError(
        f"{name} is a Dask array, and this needs its rows in memory: pass {of}.compute(), or "
        "a part of the rows that fits"
    )


def check_matrix(
    a: Any,
    name: str,
    *,
    ensure_finite: bool | Literal["allow-nan"] = True,
    hint: str = "",
) -> Array:
    """Check a real matrix of at least one row and one column.

    Sparse matrices are converted to CSR, frames and lists to NumPy; a 1-D array is one column.
    With ``ensure_finite="allow-nan"`` only infinity is an error; `hint` is appended to the
    message about NaN.

    Raises
    ------
    ValueError
        If `a` is complex, not numeric, not one- or two-dimensional, empty, or (when
        `ensure_finite`) holds NaN or infinity.
    TypeError
        If `a` cannot be read as a matrix.
    """
    if is_dask(a):
        raise needs_memory(name)
    given = a
    if not scipy.sparse.issparse(a) and (not is_array(a) or isinstance(a, np.ndarray)):
        a = _host_array(a, name)
    if scipy.sparse.issparse(a):
        a = a.tocsr()
        values = a.data
    else:
        values = a
        if not isinstance(a, np.ndarray):
            check_double(a, name)
            if str(getattr(a, "layout", "torch.strided")) != "torch.strided":
                raise TypeError(
                    f"{name} is a sparse tensor, which torch does not slice: pass "
                    f"{name}.to_dense(), or a sparse matrix of SciPy"
                )
    xp = namespace(values)
    kind = np.dtype(values.dtype).kind if is_numpy(xp) else ""
    if kind == "c" or (not is_numpy(xp) and xp.isdtype(values.dtype, "complex floating")):
        raise ValueError(
            f"Complex data not supported: {name} has dtype {values.dtype}; pass the real and "
            "imaginary parts as separate columns"
        )
    if a.ndim == 0:
        raise _no_matrix(a, name)
    if a.ndim == 1:
        a = xp.reshape(a, (-1, 1))
    if a.ndim != 2:
        raise ValueError(
            f"{name} must be two-dimensional (rows are items), got shape {tuple(a.shape)}: "
            f"{name}.reshape({a.shape[0]}, -1) makes one row of each item"
        )
    check_not_empty(a, name)
    sparse = scipy.sparse.issparse(a)
    if ensure_finite and (sparse or xp.isdtype(a.dtype, "real floating")):
        dense = values[:, None] if sparse else a
        with np.errstate(all="ignore"):  # infinities of both signs, sums that overflow
            total = xp.sum(dense, dtype=xp.float64)
        if not bool(xp.isfinite(total)):
            nan, inf, first = count_nonfinite(dense, nan=ensure_finite != "allow-nan")
            if sparse and first is not None:
                coo = a.tocoo()
                first = (int(coo.row[first[0]]), int(coo.col[first[0]]))
            if nan or inf:
                message = describe_nonfinite(name, nan, inf, first, hint)
                error = NotFiniteError(message, name, None if first is None else first[1])
                names = getattr(given, "columns", None)
                raise error if names is None or len(names) != a.shape[1] else error.naming(names)
    return a


def check_double(a: Array, name: str) -> None:
    """Raise if the device of an array has no double precision, which factorisations need."""
    xp, device = namespace(a), device_of(a)
    if not _has_double(xp, device):
        raise TypeError(
            f"{name} is on {_place(xp, device)}, which has no double precision (float64), and "
            f"sums and factorisations here need it: move {name} to the CPU or to a CUDA device"
        )


@functools.cache
def _has_double(xp: ModuleType, device: Any) -> bool:
    if getattr(device, "type", "") == "mps":  # torch says so by an exception only
        return False
    try:
        return "float64" in xp.__array_namespace_info__().dtypes(device=device)
    except (AttributeError, TypeError, ValueError):  # a library that does not tell
        return True


def _host_array(a: Any, name: str) -> Any:
    """A list, a frame or an array of objects as a NumPy array of numbers, or a CSR matrix."""
    if np.ma.isMaskedArray(a):
        return masked_as_nan(a)
    if isinstance(a, Mapping):  # NumPy would read the keys
        raise _no_matrix(a, name)
    if hasattr(a, "to_pandas") and not (hasattr(a, "to_numpy") and hasattr(a, "shape")):
        a = a.to_pandas()  # a table or a column of pyarrow
    tensors = isinstance(a, (list, tuple)) and len(a) and is_array(a[0]) and a[0].ndim == 1
    if tensors and not isinstance(a[0], np.ndarray):  # NumPy takes no gradients, and not all types
        return _stacked(a, name)
    if hasattr(a, "iloc") or hasattr(a, "to_pandas"):
        return _of_frame(a, name)
    try:
        out = a if type(a) is np.ndarray else np.asarray(a)
    except ValueError:  # NumPy's own speaks of inhomogeneous shapes
        if not isinstance(a, (list, tuple)):
            raise
        raise ValueError(
            f"{name} is a {type(a).__name__} of {len(a)} rows of different lengths, or of "
            f"matrices: {name} must be one matrix, with as many numbers in each row"
        ) from None
    if out.ndim == 0:
        raise _no_matrix(a, name)
    if out.dtype.kind in "biufc":
        return out
    if out.dtype.kind == "V" and out.dtype.names is None and out.dtype.itemsize == 2:
        return widened(out)
    if out.dtype.kind == "O":
        return _of_objects(out, name)
    if out.dtype.names is not None:
        raise ValueError(
            f"{name} is a structured array with the fields {', '.join(out.dtype.names[:5])}: pass "
            f"numpy.lib.recfunctions.structured_to_unstructured({name})"
        )
    raise ValueError(
        f"{name} holds {out.dtype} values, not numbers ({_first_text(out)}): encode text as "
        "numbers first, for example with TfidfVectorizer"
    )


def check_given(a: Any, name: str) -> None:
    """Raise if what was given is no matrix at all, before its shape is asked for.

    Raises
    ------
    ValueError
        If it is None or text.
    TypeError
        If it is a path, a number, a dict, a generator or another object.
    """
    known = getattr(a, "shape", None) or isinstance(a, (list, tuple))
    if not known and (isinstance(a, Mapping) or not np.ndim(a)):
        raise _no_matrix(a, name)


def _no_matrix(a: Any, name: str) -> Exception:
    """The error for an object that is no matrix, with what to do about it."""
    if a is None:
        return ValueError(
            f"{name} is None, where a matrix with one row per item is needed "
            "(Expected array-like (array or non-string sequence), got None)"
        )
    path, text = isinstance(a, os.PathLike), isinstance(a, (str, bytes))
    what, mend = f"a {type(a).__name__}", "put rows into an array or a frame"
    if path or text:
        what = f"the {'path' if path else 'text'} {str(a)[:60]!r}"
        mend = (
            "read the file first, with numpy.load, pandas.read_csv, cmstats.open_parquet, or "
            "cmstats.open_shards for a folder of .npy files"
        )
    elif isinstance(a, Mapping):
        key = next((k for k in a if not str(k).startswith("__")), None)
        if key is not None:
            mend = (
                f"take one of its entries, such as {name}[{key!r}]; or pandas.DataFrame({name}) if "
                "they are columns"
            )
    elif hasattr(a, "collect"):
        mend = f"pass {name}.collect()"
    elif isinstance(a, Iterator):
        mend = f"stack its rows first, numpy.stack(list({name}))"
    elif getattr(a, "shape", None) == () or isinstance(a, numbers.Number):
        value = a.item() if hasattr(a, "item") else a
        number = isinstance(value, numbers.Number)
        what = f"the number {value}" if number else f"an array of shape () of {what}"
        mend = mend if number else f"take what it holds, {name}.item()"
    # scikit-learn's checks look for "argument must be .* string.* number" here.
    return (ValueError if text else TypeError)(
        f"{name} is {what}, and every argument must be a real number, not a string or another "
        f"object, in a matrix: {mend}"
    )


def masked_as_nan(a: Any) -> np.ndarray[Any, Any]:
    """A masked array with NaN for what is masked."""
    if not np.ma.is_masked(a):
        return np.asarray(a.data)
    floating = a if a.dtype.kind in "fc" else a.astype(np.float64)
    return np.asarray(floating.filled(np.nan))


def moderate(a: Array) -> Array:
    """Floats whose squares stay in range: an array, or its product with a power of two."""
    xp = namespace(a)
    largest = float(xp.max(xp.abs(a))) if 0 not in a.shape else 0.0
    limit = 1e15 if a.dtype == xp.float32 else 1e120
    if not 0 < largest < np.inf or 1 / limit < largest < limit:
        return a
    most = 126 if a.dtype == xp.float32 else 1022
    return a * 2.0 ** float(np.clip(-np.floor(np.log2(largest)), -most, most))


def in_range(a: Array, dtype: Any) -> Array:
    """An array in this precision, or as it is where its values are beyond the range of that."""
    xp = namespace(a)
    largest = float(xp.max(xp.abs(a))) if 0 not in a.shape else 0.0
    holds = largest == 0 or not np.isfinite(largest) or 1e-37 < largest < 3e38
    return xp.astype(a, dtype, copy=False) if holds else a


def shifted(rows: Array, mean: Array) -> Array:
    """``rows + mean`` in the precision of the rows where that holds the mean."""
    xp = namespace(rows)
    if rows.dtype == mean.dtype or not float(xp.max(xp.abs(mean))) > 1e30:
        return rows + xp.astype(mean, rows.dtype, copy=False)
    return in_range(rows + mean, rows.dtype)


def widened(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Raw values of two bytes, as `numpy.load` gives them for bfloat16, in single precision.

    Those that ml_dtypes names are numbers to NumPy already.
    """
    if a.dtype.type is not np.void or a.dtype.itemsize != 2:
        return a
    # A bfloat16 is the upper half of a float32.
    return (a.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _of_objects(a: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """An array of Python objects as numbers; one of vectors of equal lengths as their matrix."""
    if a.ndim == 1 and _is_vector(next((v for v in a if v is not None), None)):
        return _stacked(a, name)
    try:
        if any(isinstance(v, (np.datetime64, np.timedelta64)) for v in a.flat):
            raise TypeError("a date is no number")
        return a.astype(np.float64)
    except (TypeError, ValueError) as error:
        if any(isinstance(v, complex) for v in a.flat):
            raise ValueError(f"Complex data not supported: {name} holds complex numbers") from None
        # scikit-learn's checks look for "argument must be .* string.* number" here.
        kind: type[Exception] = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{name}: every argument must be a real number, not a string or another object "
            f"({_first_text(a)}); encode text as numbers first"
        ) from None


def _is_vector(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return not value or isinstance(value[0], (int, float, np.number))
    return not isinstance(value, (str, bytes)) and len(getattr(value, "shape", ())) == 1


def _stacked(values: Any, name: str) -> np.ndarray[Any, Any]:
    """Vectors of equal lengths as the rows of a matrix."""
    rows = [None if v is None else widened(np.asarray(to_numpy(v))) for v in values]
    first = next(len(row) for row in rows if row is not None and row.ndim == 1)
    for i, row in enumerate(rows):
        if row is None or row.shape != (first,):
            what = "no vector" if row is None or row.ndim != 1 else f"{len(row)} values"
            raise ValueError(
                f"{name} holds vectors, but row {i} has {what} where the first has "
                f"{first}: all need the same length; drop the rows without one"
            )
    out = np.stack([row for row in rows if row is not None])
    return _of_objects(out, name) if out.dtype.kind == "O" else out


def _of_frame(a: Any, name: str) -> Any:
    """A frame or a series of pandas or polars as an array of numbers, or a CSR matrix."""
    if 0 in a.shape:
        return np.empty(a.shape)
    if hasattr(a, "iloc") and _is_sparse(a):
        return (a.to_frame() if a.ndim == 1 else a).sparse.to_coo().tocsr()
    values = np.asarray(a)
    if values.dtype.kind in "biufc" and not any(map(_is_time, _dtypes_of(a))):
        return values
    parts = [_of_column(column, label, name) for label, column in _columns_of(a)]
    return np.hstack([part[:, None] if part.ndim == 1 else part for part in parts])


def _is_sparse(a: Any) -> bool:
    """Whether all columns of a frame or series of pandas are sparse, with zeros left out."""
    return all(hasattr(t, "subtype") and getattr(t, "fill_value", None) == 0 for t in _dtypes_of(a))


def _dtypes_of(a: Any) -> list[Any]:
    """The types of the columns of a frame, or of a series."""
    return [a.dtype] if len(a.shape) == 1 else list(a.dtypes)


def _is_time(dtype: Any) -> bool:
    """Whether polars holds dates, times or durations, which it hands out as numbers."""
    return bool(getattr(dtype, "is_temporal", lambda: False)())


def _columns_of(a: Any) -> list[tuple[Any, Any]]:
    """The columns of a frame with their names; a series is one column."""
    if len(a.shape) == 1:
        return [(a.name, a)]
    if hasattr(a, "iloc"):
        return [(label, a.iloc[:, j]) for j, label in enumerate(a.columns)]
    return list(zip(a.columns, a.get_columns(), strict=True))


def _of_column(column: Any, label: Any, name: str) -> np.ndarray[Any, Any]:
    """One column of a frame as numbers, or as a matrix where it holds vectors."""
    where = name if label is None else f"{name}: column {label!r}"
    dtype = column.dtype
    if hasattr(dtype, "na_value") and getattr(dtype, "kind", "O") in "biuf":  # a nullable column
        single = dtype.kind == "f" and dtype.itemsize <= 4
        kind = np.float32 if single else np.float64
        return np.asarray(column.to_numpy(dtype=kind, na_value=np.nan))
    values = np.asarray(column)
    if values.ndim == 2 or values.dtype.kind in "biufc":
        return values
    if values.dtype.kind == "O":
        absent = np.array([_is_absent(v) for v in values])
        some = next(iter(values[~absent]), np.nan)
        if _is_vector(some) or not isinstance(some, (str, bytes)):
            values = values.copy()
            values[absent] = None if _is_vector(some) else np.nan
            return _of_objects(values, where)
        values = values[~absent]
    first = str(next((v for v in values.flat if not _is_numeral(v)), values.flat[0]))
    mend = "leave the column out, or encode text as numbers first"
    if first.lstrip().startswith("["):
        mend = (
            "if they are vectors written as text, read them first, "
            f"numpy.stack([numpy.fromstring(v.strip('[]'), sep={',' if ',' in first else ' '!r}) "
            "for v in column])"
        )
    raise ValueError(
        f"{where} holds {dtype} values, not numbers ({first[:80]!r} for one): every argument must "
        f"be a real number, not a string; {mend}"
    )


def _is_numeral(value: Any) -> bool:
    """Whether a text is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_absent(value: Any) -> bool:
    """Whether an object is None, NaN, pandas.NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _first_text(a: np.ndarray[Any, Any]) -> str:
    for index, value in np.ndenumerate(a):
        if not isinstance(value, (int, float, np.number)) or isinstance(value, np.timedelta64):
            shown = " ".join(repr(value).split())
            shown = shown if len(shown) < 80 else f"{shown[:60]}..."
            return f"the first is {shown} at position {index}"
    return "no number among them"


def take_rows(a: Any, rows: slice | Array) -> Any:
    """The rows of an array, a frame or a sparse matrix at a slice or at integer positions.

    Positions may be a NumPy array whatever the library of `a` is.
    """
    if not is_array(a) or is_numpy(namespace(a)):
        return a.iloc[rows] if hasattr(a, "iloc") else a[rows]
    if isinstance(rows, slice):
        return a[slice(*rows.indices(a.shape[0])), ...]  # no other stop is standard
    xp = namespace(a)
    if isinstance(rows, np.ndarray):
        rows = xp.asarray(rows, device=device_of(a))
    return xp.take(a, rows, axis=0)


def blank_rows(a: Array, away: np.ndarray[Any, Any]) -> Array:
    """A matrix or vector with zeros in the rows that are away, which may hold anything."""
    if not away.any():
        return a
    xp = namespace(a)
    mask = away if is_numpy(xp) else xp.asarray(away, device=device_of(a))
    return xp.where(mask if a.ndim == 1 else mask[:, None], xp.zeros_like(a), a)


def dense(a: Any) -> Any:
    """A sparse matrix as a NumPy array; anything else as it is."""
    return a.toarray() if scipy.sparse.issparse(a) else a


def row_slices(n: int, size: int) -> Iterator[slice]:
    """Slices that cut ``range(n)`` into runs of at most `size`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def check_rows(part: Array, name: str, start: int, block: Any = None) -> None:
    """Raise if a run of rows, of which the first is row `start`, has NaN or infinity.

    With the `block` that was read, the message ends with the file and the row in it.
    """
    nan, inf, first = count_nonfinite(dense(part), start)
    if nan or inf:
        where = "" if block is None or first is None else position(block, first[0])
        message = describe_nonfinite(name, nan, inf, first) + where
        raise NotFiniteError(message, name, None if first is None else first[1])


def position(block: Any, row: int) -> str:
    """Where a row of a block is stored, to be appended to a message that names the row.

    ``"; row 4000 is row 17 of img_emb/img_emb_3.npy"`` for blocks whose method ``locate(row)``
    returns ``"row 17 of img_emb/img_emb_3.npy"``, and ``""`` for all others.
    """
    locate = getattr(block, "locate", None)
    return "" if locate is None or not is_lazy(block) else f"; row {row} is {locate(row)}"


Said: TypeAlias = list[tuple[str, type[Warning]]]

DETAILS = re.compile(r"\([^)]*\)|[\d.]+%")
"""What a sentence says of one fold: numbers in brackets, and shares."""

_record: contextvars.ContextVar[Said | None] = contextvars.ContextVar("record", default=None)
_recording = threading.RLock()
_hook: dict[str, Any] = {"users": 0, "shown_by": None}


@contextmanager
def recorded() -> Iterator[Said]:
    """Collect the warnings of this block, and of the threads it starts, instead of showing them.

    `warnings.catch_warnings` replaces and restores the filters of the whole process: where two
    threads overlap, the filters of one of them remain for good. Here filters stay as they are, and
    only the calls of this context are recorded: messages in the order of their appearance.
    """
    said: Said = []
    with _recording:
        if not _hook["users"] and warnings.showwarning is not _show:
            _hook["shown_by"], warnings.showwarning = warnings.showwarning, _show
        _hook["users"] += 1
    token = _record.set(said)
    try:
        yield said
    finally:
        _record.reset(token)
        with _recording:
            _hook["users"] -= 1
            if not _hook["users"] and warnings.showwarning is _show:
                warnings.showwarning = _hook["shown_by"]


def once(said: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Each sentence once, though its shares and what is in brackets differ from fold to fold."""
    first: dict[Any, tuple[str, Any]] = {}
    for message, category in said:
        first.setdefault((DETAILS.sub("", message), category), (message, category))
    return list(first.values())


def _show(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
    """Record a warning of another library in the context that asked for it; else show it."""
    said = _record.get()
    if said is None:
        _hook["shown_by"](message, category, *args, **kwargs)
    else:
        said.append((str(message), category))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside of this package, which is the user's, each time it applies.

    Python's default filter shows a warning once for each line: a cell of a notebook that is run
    again, or a second fit in a loop, would say nothing. Filters that ignore it, or make it an
    error, hold.
    """
    said = _record.get()
    if said is not None:
        said.append((message, category))
        return
    within = (__name__.partition(".")[0], "contextlib")  # a context manager's exit is one of ours
    frame: FrameType | None = sys._getframe()
    while frame and frame.f_back and _module(frame).partition(".")[0] in within:
        frame = frame.f_back
    assert frame is not None
    warnings.warn_explicit(
        message, category, frame.f_code.co_filename, frame.f_lineno, _module(frame), registry={}
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
