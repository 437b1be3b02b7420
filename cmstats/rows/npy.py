"""Matrices of .npy files one after another, checked when they are opened, read by offsets."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cmstats.rows.on_disk import RowsOnDisk

__all__ = ["ShardedMatrix"]

PathLike: TypeAlias = str | os.PathLike[str]


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
        super().__init__(names, counts, first.width, first.dtype.newbyteorder("="))

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
            out[...] = target

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
    """What a .npy file says of its array, and how large the file is."""

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
        """Raise one sentence if the file is not what the first one and its size let expect."""
        if self.dtype.kind not in "biuf":
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
        """Buffers to be filled from where in the file, for some of the rows."""
        if not self.fortran:
            yield out, self.offset + start * self.row_bytes
            return
        column = np.empty(stop - start, self.dtype)
        for j in range(self.shape[1]):
            yield column, self.offset + (j * self.count + start) * self.dtype.itemsize
            out[:, j] = column


def _fill(raw: io.FileIO, out: np.ndarray[Any, Any]) -> int:
    """Read from a file until the buffer is full, and say how many bytes came."""
    view = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        count = raw.readinto(view[done:])
        if not count:
            break
        done += count
    return done
