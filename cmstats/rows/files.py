"""Matrices whose rows lie in files one after another: .npy shards, opened without reading rows.

A matrix on a disk has shape, dtype and slicing (`RowSource`), so every estimator, `Moments` and
`map_rows` read it a run of rows at a time.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cmstats.arrays import widened

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PathLike",
    "RowsOnDisk",
    "ShardedMatrix",
    "Shards",
    "numbered",
    "open_shards",
    "require_pyarrow",
]

PathLike: TypeAlias = str | os.PathLike[str]
Rows: TypeAlias = np.ndarray[Any, Any]

GAP_BYTES = 64 << 10
"""Gaps between selected rows up to this size are read too, as one read costs less than two."""

SPAN_BYTES = 8 << 20
"""The largest read from which selected rows are picked."""

NUMBER = re.compile(r"(.*?)(\d+)$")


class RowsOnDisk:
    """A matrix or vector concatenated from files, read by NumPy indexing.

    A subclass implements `_span`, which reads consecutive rows of one file.
    """

    def __init__(
        self, paths: Sequence[str], counts: Sequence[int], width: tuple[int, ...], dtype: Any
    ) -> None:
        self.paths = tuple(paths)
        self.counts = tuple(int(count) for count in counts)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._starts = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *width)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """The bytes of all values together."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        files = "1 file" if len(self.paths) == 1 else f"{len(self.paths)} files"
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}, {files})"

    def locate(self, row: int) -> str:
        """Where a row lies: ``"row 17 of img_emb/img_emb_3.npy"``."""
        file = self._file_of(row)
        return f"row {row - int(self._starts[file])} of {self.paths[file]}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Rows:
        if copy is False:
            raise ValueError(f"{self!r} lies on a disk: it cannot be an array without a copy")
        return np.asarray(self._run(0, len(self)), dtype=dtype)

    def __getitem__(self, at: Any) -> Any:
        first, *others = at if isinstance(at, tuple) else (at,)
        if first is Ellipsis:
            first, others = slice(None), [first, *others]
        rows = self._rows(first)
        return (
            rows[(slice(None),) * (rows.ndim - self.ndim + 1) + tuple(others)] if others else rows
        )

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _rows(self, at: Any) -> Any:
        n = len(self)
        if isinstance(at, slice):
            start, stop, step = at.indices(n)
            if step == 1:
                return self._run(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        index = np.asarray(at)
        if index.dtype == bool:
            if index.shape != (n,):
                raise IndexError(f"a mask of shape {index.shape} for {n} rows")
            index = np.flatnonzero(index)
        elif index.size == 0:
            index = index.astype(np.intp)
        if index.dtype.kind not in "iu" or index.ndim > 1:
            raise IndexError(f"rows are chosen by slices, numbers or masks, got {at!r}")
        outside = (index < -n) | (index >= n)
        if outside.any():
            raise IndexError(f"row {index[outside].flat[0]} is out of bounds for {n} rows")
        index = np.where(index < 0, index + n, index).astype(np.intp)
        return self._gather(index) if index.ndim else self._run(int(index), int(index) + 1)[0]

    def _gather(self, index: Rows) -> Rows:
        """Rows in any order: sorted, and neighbours read together."""
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        order = np.argsort(index, kind="stable")
        wanted = index[order]
        row_bytes = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        apart = np.diff(wanted) > max(1, GAP_BYTES // row_bytes)
        apart |= np.diff(wanted // max(1, SPAN_BYTES // row_bytes)) > 0
        for part in np.split(np.arange(index.size), np.flatnonzero(apart) + 1):
            if part.size:
                start, last = int(wanted[part[0]]), int(wanted[part[-1]])
                out[order[part]] = self._run(start, last + 1)[wanted[part] - start]
        return out

    def _run(self, start: int, stop: int) -> Rows:
        """Consecutive rows, across files."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        at = start
        while at < stop:
            file = self._file_of(at)
            end = min(stop, int(self._starts[file + 1]))
            offset = int(self._starts[file])
            self._span(file, at - offset, end - offset, out[at - start : end - start])
            at = end
        return out

    def _file_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _span(self, file: int, start: int, stop: int, out: Rows) -> None:
        """Read rows ``start:stop`` of a file into `out`."""
        raise NotImplementedError


def numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """The files ``NAME_0``, ``NAME_1``, ... of a folder by their number, in its order.

    Raises
    ------
    ValueError
        If there are none, a number is missing or there twice, or a file has no number or
        another name.
    """
    files = sorted(p for p in folder.glob(f"*{suffix}") if not p.name.startswith("."))
    found: dict[int, Path] = {}
    name = None
    for path in files:
        match = NUMBER.match(path.name.removesuffix(suffix))
        if match is None:
            if len(files) == 1:
                return {0: path}
            raise ValueError(
                f"{path} has no number, so its place among the {len(files)} files of {folder} is "
                "not known: pass a list of files in their order"
            )
        stem, number = match[1], int(match[2])
        name = stem if name is None else name
        if stem != name:
            raise ValueError(
                f"{folder} holds {name}*{suffix} and {stem}*{suffix}: pass a list of files"
            )
        if number in found:
            raise ValueError(f"{found[number]} and {path} have the same number: remove one")
        found[number] = path
    if not found:
        raise ValueError(f"{folder} holds no {suffix} files")
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise ValueError(
            f"{folder / f'{name}{missing}{suffix}'} is missing: {folder} has {len(found)} shards "
            f"with numbers up to {max(found)}, so the rows after it would be paired wrongly; "
            "restore it, or pass a list of files"
        )
    return dict(sorted(found.items()))


class ShardedMatrix(RowsOnDisk):
    """The rows of .npy files one after another, as one matrix that is read by slices.

    Parameters
    ----------
    paths : sequence of path-like
        The files in the order of their rows: matrices of one width and type (or vectors).

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes
        As of an array.
    paths, counts : tuple
        The files and their numbers of rows.

    Raises
    ------
    ValueError
        If a file is no whole .npy file, or has another width or type than the first.

    Notes
    -----
    Rows are read into new memory, not mapped: mapped pages count as memory in use. Rows are
    chosen by a slice, a number, an array of numbers or a mask, columns by all that NumPy
    takes. Only the paths are held, no open file, so it can be pickled and read from several
    threads and processes.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from cmstats.rows.files import ShardedMatrix
    >>> folder = tempfile.mkdtemp()
    >>> np.save(f"{folder}/a.npy", np.eye(3)), np.save(f"{folder}/b.npy", np.ones((2, 3)))
    (None, None)
    >>> X = ShardedMatrix([f"{folder}/a.npy", f"{folder}/b.npy"])
    >>> X
    ShardedMatrix(shape=(5, 3), dtype=float64, 2 files)
    >>> X[2:4]
    array([[0., 0., 1.],
           [1., 1., 1.]])
    >>> X.locate(4).replace(folder, "folder")
    'row 1 of folder/b.npy'
    """

    def __init__(self, paths: Sequence[PathLike]) -> None:
        names = [os.fspath(path) for path in paths]
        if not names:
            raise ValueError("no .npy files were given")
        self._headers = [_Header.read(name) for name in names]
        first = self._headers[0]
        row = 0
        for name, header in zip(names, self._headers, strict=True):
            header.check(name, row, names[0], first)
            row += header.count
        counts = [header.count for header in self._headers]
        bfloat16 = first.dtype.kind == "V"
        dtype = np.dtype(np.float32) if bfloat16 else first.dtype.newbyteorder("=")
        super().__init__(names, counts, first.width, dtype)

    def _span(self, file: int, start: int, stop: int, out: np.ndarray[Any, Any]) -> None:
        header = self._headers[file]
        target = out if header.dtype == out.dtype else np.empty(out.shape, header.dtype)
        try:
            with open(self.paths[file], "rb", buffering=0) as raw:
                for part, offset in header.places(start, stop, target):
                    raw.seek(offset)
                    done = _fill(raw, part)
                    if done < part.nbytes:
                        self._raise_vanished(file, start, (offset + done - header.offset))
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            reason = "is no longer there" if gone else f"failed ({error.strerror or error})"
            raise ValueError(
                f"{self.paths[file]} {reason}: its row {start}, row "
                f"{int(self._starts[file]) + start} of {len(self)} in all, could not be read; "
                f"it had {header.count} rows when it was opened"
            ) from error
        if target is not out:
            out[...] = widened(target)

    def _raise_vanished(self, file: int, start: int, nbytes: int) -> None:
        header = self._headers[file]
        whole = start if header.fortran else max(start, nbytes // max(1, header.row_bytes))
        raise ValueError(
            f"{self.paths[file]} was cut off since it was opened: its row {whole}, row "
            f"{int(self._starts[file]) + whole} of {len(self)} in all, could not be read; it had "
            f"{header.count} rows"
        )


@dataclass(frozen=True)
class _Header:
    """The header of a .npy file, and the size of the file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int
    size: int

    @classmethod
    def read(cls, name: str) -> _Header:
        with open(name, "rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                if version == (1, 0):
                    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                elif version == (2, 0):
                    shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
                else:
                    raise ValueError(f"its format {version} is not for plain numbers")
            except ValueError as error:
                size = os.fstat(file.fileno()).st_size
                raise ValueError(
                    f"{name} is no whole .npy file ({size} bytes): {error}; write or copy it again"
                ) from None
            fortran = fortran and len(shape) == 2
            return cls(shape, fortran, dtype, file.tell(), os.fstat(file.fileno()).st_size)

    @property
    def count(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.width))

    def check(self, name: str, row: int, first_name: str, first: _Header) -> None:
        """Raise if the file contradicts the first file's header or its own size."""
        if self.dtype.kind not in "biuf" and self.dtype != np.dtype("V2"):  # bfloat16
            raise ValueError(f"{name} holds {self.dtype} values, not real numbers")
        if len(self.shape) not in (1, 2) or 0 in self.width:
            raise ValueError(f"{name} must hold a matrix, got an array of shape {self.shape}")
        if self.width != first.width:
            raise ValueError(
                f"{name} has shape {self.shape}, but {first_name} has shape {first.shape}: row "
                f"{row} of the matrix, the first of this file, has another width"
            )
        if self.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
            raise ValueError(
                f"{name} holds {self.count} rows of {self.dtype}, but {first_name} {first.count} "
                f"of {first.dtype}: from row {row} on the type would change; convert one of them"
            )
        held, promised = self.size - self.offset, self.count * self.row_bytes
        if held < promised:
            whole = 0 if self.fortran else held // self.row_bytes
            raise ValueError(
                f"{name} is cut off: it holds {whole} whole rows of the {self.count} that its "
                f"header promises ({held} of {promised} bytes), so that its row {whole}, row "
                f"{row + whole} in all, is missing; write or copy it again"
            )
        if held > promised:
            raise ValueError(
                f"{name} holds {held - promised} bytes more than the {self.count} rows (from row "
                f"{row} in all) that its header promises; write or copy it again"
            )

    def places(
        self, start: int, stop: int, out: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], int]]:
        """Buffers for rows ``start:stop``, each with the offset in the file to fill it from."""
        if not self.fortran:
            yield out, self.offset + start * self.row_bytes
            return
        column = np.empty(stop - start, self.dtype)
        for j in range(self.shape[1]):
            yield column, self.offset + (j * self.count + start) * self.dtype.itemsize
            out[:, j] = column


def _fill(raw: io.FileIO, out: np.ndarray[Any, Any]) -> int:
    """Read until the buffer is full or the file ends; returns the number of bytes read."""
    view = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        count = raw.readinto(view[done:])
        if not count:
            break
        done += count
    return done


@dataclass(frozen=True)
class Shards:
    """Two matrices of paired rows in a folder; unpacks as ``X, y = shards``.

    Attributes
    ----------
    x, y : ShardedMatrix
    folder : str
    """

    x: ShardedMatrix
    y: ShardedMatrix
    folder: str

    def __iter__(self) -> Iterator[ShardedMatrix]:
        return iter((self.x, self.y))

    def __len__(self) -> int:
        return 2

    def metadata(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of ``metadata/metadata_0.parquet``, ... of the same folder.

        Parameters
        ----------
        columns : sequence of str, optional
            Those to read; all by default.

        Raises
        ------
        ValueError
            If a shard's metadata is missing or has another number of rows than the shard.
        ImportError
            If pyarrow is not installed.
        """
        parquet = require_pyarrow()
        files = list(numbered(Path(self.folder) / "metadata", ".parquet").values())
        counts = [int(parquet.read_metadata(path).num_rows) for path in files]
        _check_pairs(self.x.paths, self.x.counts, [str(path) for path in files], counts)
        wanted = None if columns is None else list(columns)
        import pandas as pd

        tables = [parquet.read_table(path, columns=wanted).to_pandas() for path in files]
        frame: pd.DataFrame = pd.concat(tables, ignore_index=True)
        return frame


def _check_pairs(
    x_paths: Sequence[str], x_counts: Sequence[int], y_paths: Sequence[str], y_counts: Sequence[int]
) -> None:
    """Raise if two lists of shards differ in length, or a pair of them in the number of rows."""
    row = 0
    total = f"({sum(x_counts)} and {sum(y_counts)} rows in all)"
    pairs = itertools.zip_longest(x_paths, x_counts, y_paths, y_counts)
    for x_path, x_count, y_path, y_count in pairs:
        if x_path is None or y_path is None:
            raise ValueError(
                f"{x_path or y_path} has no counterpart: there are {len(x_paths)} and "
                f"{len(y_paths)} shards {total}, so row {row}, its first, has no partner"
            )
        if x_count != y_count:
            raise ValueError(
                f"{x_path} has {x_count} rows, but {y_path} has {y_count} {total}: from row "
                f"{row + min(x_count, y_count)} on rows would be paired wrongly; make them anew "
                "from the same items"
            )
        row += x_count


def open_shards(
    folder: PathLike | Sequence[PathLike],
    *,
    x: str | None = "img_emb",
    y: str | None = "text_emb",
) -> Shards | ShardedMatrix:
    """Open shards of embeddings in the layout of clip-retrieval, without reading rows.

    The layout is ``img_emb/img_emb_0.npy``, ``text_emb/text_emb_0.npy``, ... and, optionally,
    ``metadata/metadata_0.parquet``, ...; the numbers order the files (2 comes before 10).

    Parameters
    ----------
    folder : path-like or sequence of path-like
        The folder of both; or a folder of numbered .npy files, one .npy file, or a list of
        .npy files in their order.
    x, y : str or None, default="img_emb", "text_emb"
        The folders of the two modalities. With None for one the other is opened alone.

    Returns
    -------
    Shards or ShardedMatrix
        A pair, to be used as ``X, y = open_shards(folder)``, or one matrix. They have shape,
        dtype and slicing, and go into every estimator like arrays.

    Raises
    ------
    ValueError
        If a file is cut off or is longer than its header says, a number is missing, widths or
        types differ, or paired shards have different numbers of rows; the file, the row and
        the counts are in the message.
    FileNotFoundError
        If there is no such folder or file.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from cmstats import CCA, open_shards, write_shards
    >>> random = np.random.default_rng(0)
    >>> U = random.normal(size=(500, 4)).astype(np.float16)
    >>> V = (U[:, :3] + random.normal(size=(500, 3))).astype(np.float16)
    >>> folder = tempfile.mkdtemp()
    >>> shards = write_shards(folder, [(U, V)], rows=200)
    >>> X, y = open_shards(folder)
    >>> X
    ShardedMatrix(shape=(500, 4), dtype=float16, 3 files)
    >>> cca = CCA().fit(X, y)
    >>> bool(np.allclose(cca.correlations_, CCA().fit(U, V).correlations_))
    True
    """
    if not isinstance(folder, (str, os.PathLike)):
        return ShardedMatrix(folder)
    path = Path(folder)
    if path.is_file():
        return ShardedMatrix([path])
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder or file {path}")
    given = [path / name for name in (x, y) if name is not None]
    if not given:
        raise ValueError("x and y are None: name the folder of at least one")
    there = [place for place in given if place.is_dir()]
    if not there:
        if any(path.glob("*.npy")):
            return _open_folder(path)
        raise FileNotFoundError(f"{path} holds neither {' nor '.join(p.name for p in given)}")
    if len(there) < len(given):
        absent = next(place for place in given if not place.is_dir())
        raise ValueError(
            f"{there[0]} has no counterpart, as {absent} does not exist: pass None for it to open "
            "the other alone"
        )
    opened = [_open_folder(place) for place in given]
    if len(opened) == 1:
        return opened[0]
    _check_pairs(opened[0].paths, opened[0].counts, opened[1].paths, opened[1].counts)
    return Shards(opened[0], opened[1], str(path))


def _open_folder(folder: Path) -> ShardedMatrix:
    return ShardedMatrix(list(numbered(folder, ".npy").values()))


def require_pyarrow() -> Any:
    """``pyarrow.parquet``, or one sentence that says how to get it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("parquet files are read by pyarrow: install cmstats[io]") from None
    return pyarrow.parquet
