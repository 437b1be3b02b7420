"""One matrix out of a file of any format: arrays, tables with names, columns of vectors."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from cmstats.arrays import check_matrix, to_numpy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "Opened", "column_of", "numbers_of", "open_file"]

SUFFIXES = (
    ".npy, .npz, .csv, .tsv, .jsonl, .parquet, .safetensors, .h5, .h5ad, .mat or .pt file (with "
    ":MEMBER for one array or column of several)"
)
MAPPED_BYTES = 64 << 20
"""The size from which an array is mapped, and not read."""
PACKAGES = {
    ".parquet": "pyarrow", ".h5": "h5py", ".hdf5": "h5py", ".h5ad": "h5py", ".pt": "torch",
    ".pth": "torch",
}  # fmt: skip
"""What formats are read by, beside NumPy, SciPy and pandas."""
SCALAR = re.compile(r"np\.\w+\(([^()]*)\)")
"""A number as NumPy prints it in a list."""
INDEX = "index"
"""What the column without a name that `to_csv` writes first is called."""


@dataclass
class Opened:
    """What a file holds.

    Attributes
    ----------
    data : DataFrame, array, memory-map or CSR matrix
        A frame where the file is a table; its index are the labels of the rows, where the table
        has some.
    notes : list of str
        Sentences about columns that were left out.
    """

    data: Any
    notes: list[str] = field(default_factory=list)


def open_file(name: str) -> Opened:
    """Open a matrix or a table.

    Parameters
    ----------
    name : str
        A file, or ``FILE:MEMBER`` for one of several arrays (.npz, .h5, .h5ad, .mat,
        .safetensors, .pt) or for a column of vectors of a table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        With the name of the package that reads this format, where it is missing.
    ValueError
        If the file cannot be read, or does not say which of its arrays is meant.
    """
    path, member = _parted(name)
    suffix, packed = _suffix(path)
    reader = READERS.get(suffix)
    if reader is None or (packed and suffix not in TABLES):
        raise ValueError(f"{path}: is no {SUFFIXES}")
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, not a file")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if suffix in PACKAGES:
        try:
            importlib.import_module(PACKAGES[suffix])
        except ImportError as error:
            package = PACKAGES[suffix]
            extra = "cmstats[deep]" if package == "torch" else "cmstats[io]"
            raise ImportError(
                f"{path}: {suffix} files need {package}: install it with `pip install {extra}`"
            ) from error
    try:
        found = reader(path, member)
    except (PermissionError, _Unclear):
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnicodeDecodeError):
            first = "the text is not UTF-8, so save it as UTF-8"
        raise ValueError(f"{path}: cannot be read as a {suffix} file: {first}") from None
    return found if isinstance(found, Opened) else Opened(found)


class _Unclear(ValueError):
    """A file that was read but is ambiguous: more than one table or column may be meant."""


def _parted(name: str) -> tuple[str, str | None]:
    """The path and the member of ``FILE:MEMBER``."""
    if ":" in name and not Path(name).exists():
        path, _, member = name.rpartition(":")
        if member and _suffix(path)[0] in READERS:
            return path, member
    return name, None


def _suffix(path: str) -> tuple[str, bool]:
    """The suffix, and whether the file is compressed."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    packed = bool(suffixes) and suffixes[-1] in (".gz", ".bz2", ".xz", ".zst")
    rest = suffixes[:-1] if packed else suffixes
    return (rest[-1] if rest else ""), packed


def _choose(path: str, members: Sequence[str], member: str | None) -> str:
    """The member that is meant."""
    if member is None and len(members) == 1:
        return members[0]
    if member in members:
        return str(member)
    wanted = "says not which array" if member is None else f"has no array {member!r}"
    listed = ", ".join(members[:8]) + (", ..." if len(members) > 8 else "")
    raise _Unclear(f"{path}: {wanted}: add one of :MEMBER, here {listed or 'none'}")


# ----------------------------------------------------------------------------- arrays
def _npy(path: str, member: str | None) -> Any:
    large = Path(path).stat().st_size > MAPPED_BYTES
    return np.load(path, mmap_mode="r" if large else None, allow_pickle=False)


def _npz(path: str, member: str | None) -> Any:
    with np.load(path, allow_pickle=False) as file:
        if not hasattr(file, "files"):
            raise zipfile.BadZipFile("it holds a bare array")
        if member is None and {"format", "shape", "data"} <= set(file.files):
            return scipy.sparse.load_npz(path).tocsr()
        return np.asarray(file[_choose(path, list(file.files), member)])


def _safetensors(path: str, member: str | None) -> Any:
    """A tensor of a file in the format of safetensors: a header in JSON, then raw values."""
    kinds = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "V2", "I64": "i8", "I32": "i4",
             "I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size < Path(path).stat().st_size:
            raise ValueError("its header is damaged")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    entry = header[_choose(path, list(header), member)]
    if entry["dtype"] not in kinds:
        raise ValueError(f"it holds {entry['dtype']} values")
    offset = 8 + size + entry["data_offsets"][0]
    dtype = np.dtype(kinds[entry["dtype"]])
    return np.memmap(path, dtype, "r", offset, tuple(entry["shape"]))


def _hdf5(path: str, member: str | None) -> Any:
    h5py = importlib.import_module("h5py")
    file = h5py.File(path, "r")
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if hasattr(node, "shape") else None)
    if member is not None and member in file and not hasattr(file[member], "shape"):
        return _csr(file[member])
    found = file[_choose(path, names, member)]
    return found if found.size * found.dtype.itemsize > MAPPED_BYTES else found[()]


def _h5ad(path: str, member: str | None) -> Any:
    """X, a layer ("layers/NAME") or an embedding ("obsm/NAME") of annotated data."""
    h5py = importlib.import_module("h5py")
    import pandas as pd

    with h5py.File(path, "r") as file:
        names = [k for k in ("X",) if k in file]
        for group in ("layers", "obsm"):
            names += [f"{group}/{key}" for key in file.get(group, {})]
        chosen = "X" if member is None and "X" in file else _choose(path, names, member)
        node = file[chosen]
        values = node[()] if hasattr(node, "shape") else _csr(node)
        rows = _labels(file["obs"])
        columns = _labels(file["var"]) if not chosen.startswith("obsm") else None
    if scipy.sparse.issparse(values):
        accessor: Any = pd.DataFrame.sparse
        return accessor.from_spmatrix(values, index=rows, columns=columns)
    return pd.DataFrame(values, index=rows, columns=columns)


def _labels(frame: Any) -> Any:
    """The index of a data frame that anndata wrote."""
    values = frame[frame.attrs.get("_index", "_index")][()]
    return [v.decode() if isinstance(v, bytes) else v for v in values]


def _csr(group: Any) -> Any:
    """A sparse matrix that anndata wrote."""
    shape = tuple(int(n) for n in group.attrs["shape"])
    parts = (group["data"][()], group["indices"][()], group["indptr"][()])
    by_column = "csc" in str(group.attrs.get("encoding-type", ""))
    made = scipy.sparse.csc_matrix if by_column else scipy.sparse.csr_matrix
    return made(parts, shape).tocsr()


def _mat(path: str, member: str | None) -> Any:
    import scipy.io

    try:
        found = scipy.io.loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5, with the axes turned
        try:
            h5py = importlib.import_module("h5py")
        except ImportError:
            raise _Unclear(f"{path}: .mat files of version 7.3 need h5py") from None
        with h5py.File(path, "r") as file:
            names = [k for k in file if not k.startswith("#")]
            return np.asarray(file[_choose(path, names, member)][()]).T
    matrices = [k for k, v in found.items() if not k.startswith("__") and np.size(v) > 1]
    return found[_choose(path, matrices, member)]


def _torch(path: str, member: str | None) -> Any:
    torch = importlib.import_module("torch")
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, dict):
        tensors = [str(k) for k, v in found.items() if hasattr(v, "shape")]
        found = found[_choose(path, tensors, member)]
    return to_numpy(found)


# ----------------------------------------------------------------------------- tables
def _csv(path: str, member: str | None, separator: str = ",") -> Opened:
    import pandas as pd

    how: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig"}
    lines = pd.read_csv(path, header=None, nrows=50, dtype=str, **how | {"sep": "\x01"})[0]
    first, second = (str(line) for line in (lines.iloc[0], lines.iloc[min(1, len(lines) - 1)]))
    if separator == "," and first.count(";") > first.count(","):
        # As spreadsheets write where the comma is decimal, or from a program that has points.
        point = any("." in str(line) and "," not in str(line) for line in lines.iloc[1:])
        how |= {"sep": ";", "decimal": "." if point else ","}
    if first.count(how["sep"]) + 1 == second.count(how["sep"]) and '"' not in first + second:
        frame = pd.read_csv(path, **how).reset_index(names="")  # R names all but the first column
        return _table(path, frame, member, [])
    head = pd.read_csv(path, header=None, nrows=50, dtype=str, keep_default_na=False, **how)
    header, note = _is_header(head)
    frame = pd.read_csv(path, header=0 if header else None, **how)
    if header:
        names = [str(name) for name in frame.columns]
        if names[0].startswith("Unnamed: 0"):
            names[0] = ""
        frame.columns = pd.Index(names)
    return _table(path, frame, member, [f"{path}: {note}"] if note else [])


def _is_header(head: pd.DataFrame) -> tuple[bool, str]:
    """Whether the first line of a table are names, and a sentence where it looks like numbers."""
    cells = [str(cell).strip() for cell in head.iloc[0]]
    named = [cell for cell in cells if cell]
    numbers = [_number(cell) for cell in named]
    if not named or any(number is None for number in numbers):
        return True, ""
    if len(named) < len(cells):
        return cells[0] == "", ""  # a row of data can have a gap, but not a table of names alone
    if len(numbers) < 2 or len(head) < 2:
        below = [_number(cell) for cell in head.iloc[1:, 0]]
        whole = all(b is not None and b == int(b) for b in below if b == b)
        return cells == ["0"] and len(head) > 1 and not whole, ""
    steps = {b - a for a, b in itertools.pairwise(numbers)}  # type: ignore[operator]
    counted = len(steps) == 1 and min(steps) > 0 and all("." not in cell for cell in named)
    text = head.iloc[1:].map(lambda cell: "." in str(cell) or "e" in str(cell).lower())
    from_one = numbers[0] in (0, 1) and steps == {1} and (len(named) > 2 or text.any(axis=None))
    if counted and (from_one or bool(text.any(axis=0).all())):
        return True, f"the first line, {', '.join(named[:4])}, ..., was read as names of columns"
    return False, ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _tsv(path: str, member: str | None) -> Opened:
    return _csv(path, member, "\t")


def _jsonl(path: str, member: str | None) -> Opened:
    import pandas as pd

    return _table(path, pd.read_json(path, lines=True, dtype=False), member, [])


def _parquet(path: str, member: str | None) -> Opened:
    import pandas as pd

    return _table(path, pd.read_parquet(path), member, [])


def _table(path: str, frame: pd.DataFrame, member: str | None, notes: list[str]) -> Opened:
    """A table without what numbers its rows; or the one column of vectors in it."""
    import pandas as pd

    if member is not None:
        return Opened(_vectors(path, frame, member), notes)
    first = frame.columns[0] if frame.shape[1] else None
    if first is not None and frame.shape[1] > 1:
        counts = _counts_rows(frame.iloc[:, 0])
        if counts or first == "":
            labels = frame.iloc[:, 0]
            frame = frame.iloc[:, 1:]
            what = "which has no name" if first == "" else f"{first!r}"
            says = "and counts the rows" if counts else "and labels the rows"
            notes.append(f"{path}: the first column, {what} {says}, was left out")
            if not counts:
                frame = frame.set_axis(labels.to_numpy(), axis=0).rename_axis(INDEX)
            elif first:  # still there for --join and other roles that name it
                begin = int(labels.iloc[0])
                frame.index = pd.RangeIndex(begin, begin + len(frame), name=first)
    vectors = [name for name in frame.columns if _holds_vectors(frame[name])]
    if len(vectors) == 1:
        others = [repr(name) for name in frame.columns if name != vectors[0]]
        if others:
            notes.append(
                f"{path}: the column of vectors, {vectors[0]!r}, was read, and "
                f"{', '.join(others[:5])} left out"
            )
        return Opened(_vectors(path, frame, vectors[0]), notes)
    if len(vectors) > 1:
        _choose(path, [str(v) for v in vectors], None)
    return Opened(frame, notes)


def _counts_rows(column: pd.Series) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    if column.dtype.kind not in "iu" or len(column) < 3 or int(column.iloc[0]) not in (0, 1):
        return False
    return bool((column.to_numpy() == np.arange(len(column)) + int(column.iloc[0])).all())


def _holds_vectors(column: Any) -> bool:
    """Whether a column holds lists, arrays, or text that is a list of numbers."""
    if getattr(column, "ndim", 1) != 1 or not len(column):
        return False
    value = column.iloc[0]
    if isinstance(value, str):
        text = value.strip()
        return text[:1] in "[(" and text[-1:] in ")]" and len(text) > 2
    return isinstance(value, (list, tuple, np.ndarray))


def _vectors(path: str, frame: pd.DataFrame, name: str) -> Any:
    """A column of vectors, or of numbers, as a frame that has one column."""
    import pandas as pd

    if name not in frame.columns:
        raise _Unclear(
            f"{path}: has no column {name!r}: its columns are {', '.join(map(str, frame.columns))}"
        )
    column = frame[name]
    if not _holds_vectors(column) and isinstance(column.iloc[0], str):
        separated = [c for c in ",;| " if c in column.iloc[0].strip()]
        if not separated:
            return column.to_frame()
    if isinstance(column.iloc[0], str):
        column = pd.Series([_parsed(v, path, name) for v in column], column.index, name=name)
    return column.to_frame()


def _parsed(text: Any, path: str, name: str) -> np.ndarray[Any, Any]:
    """The numbers of a vector that was written as text."""
    if "..." in str(text):
        raise _Unclear(
            f"{path}: the vectors of the column {name!r} were shortened when they were written "
            "(...): write them whole, for example with tolist()"
        )
    plain = SCALAR.sub(r"\1", str(text)).strip().strip("[]()")
    for mark in ",;|":
        plain = plain.replace(mark, " ")
    try:
        return np.array(plain.split(), dtype=np.float64)
    except ValueError:
        raise _Unclear(
            f"{path}: the column {name!r} holds text ({str(text)[:30]!r}), neither numbers nor "
            "vectors: name the column that holds the vectors"
        ) from None


READERS: dict[str, Callable[[str, str | None], Any]] = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".h5": _hdf5, ".hdf5": _hdf5,
    ".h5ad": _h5ad, ".mat": _mat, ".pt": _torch, ".pth": _torch, ".csv": _csv, ".tsv": _tsv,
    ".jsonl": _jsonl, ".parquet": _parquet,
}  # fmt: skip
TABLES = (".csv", ".tsv", ".jsonl")


# ----------------------------------------------------------------------------- contents
def column_of(data: Any, name: str) -> Any:
    """A column of a table, or the labels of its rows; None where it has none of that name."""
    if not hasattr(data, "iloc"):
        return None
    if name in data.columns:
        return data[name]
    return data.index.to_series() if name in (data.index.name, INDEX) else None


def numbers_of(data: Any, path: str) -> Any:
    """The values of what a file holds as a matrix of numbers; matrices on a disk as they are.

    Raises
    ------
    ValueError
        If a column holds no numbers.
    """
    if not hasattr(data, "iloc"):
        return data
    return check_matrix(data, path, ensure_finite=False)
