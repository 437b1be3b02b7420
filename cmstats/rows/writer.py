"""Atomic writes of .npy shards: written under temporary names, renamed when complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import is_dask, to_numpy
from cmstats.rows.chunks import map_rows
from cmstats.rows.dask import computed_chunks
from cmstats.rows.files import PathLike, ShardedMatrix, Shards
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import check_shown, progress_bar

__all__ = ["ShardWriter", "write_shards"]

Kind: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]
"""The shape and the dtype of one row."""


class ShardWriter:
    """Writes the shards ``NAME/NAME_i.npy`` of all names side by side, one number i at a time.

    Attributes
    ----------
    number : int
        The number of the shards being written; all below it are complete.
    held : int
        Their rows so far.
    total : int
        The rows of all complete shards of one name.
    kinds : list of (shape, dtype)
        Of one row, for each name.
    files : list of open files
    placing : list of Path
        Names that shards are being renamed to; all are removed if one rename fails.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], rows: int) -> None:
        self.folder, self.names, self.rows = folder, names, rows
        self.number = self.held = self.total = self.parts = 0
        self.kinds: list[Kind] = []
        self.files: list[Any] = []
        self.placing: list[Path] = []

    def existing(self) -> list[Path]:
        """Existing shards of these names."""
        return [
            path
            for name in self.names
            for path in sorted((self.folder / name).glob(f"{name}_*.npy"))
            if path.stem.removeprefix(f"{name}_").isdigit()
        ]

    def refuse_existing(self) -> None:
        """Raise if there are such shards."""
        found = self.existing()
        if found:
            raise FileExistsError(
                f"{found[0]} is there already, one of {len(found)} shards: choose another folder, "
                "or set overwrite=True to delete them"
            )

    def add(self, part: Any) -> int:
        """Append the rows of one part, starting new shards as they fill; returns their number."""
        arrays = self._checked(part)
        with self._naming_complete_shards():
            if not self.total and not self.files:
                for path in self.existing():
                    path.unlink()
            count, at = arrays[0].shape[0], 0
            while at < count:
                if not self.files:
                    self._begin()
                take = slice(at, min(count, at + self.rows - self.held))
                for file, a in zip(self.files, arrays, strict=True):
                    file.write(np.ascontiguousarray(a[take]).reshape(-1).view(np.uint8))
                self.held += take.stop - take.start
                at = take.stop
                if self.held == self.rows:
                    self._end()
        return int(count)

    def _checked(self, part: Any) -> list[np.ndarray[Any, Any]]:
        what, given = f"part {self.parts}", part if isinstance(part, (tuple, list)) else (part,)
        if any(map(is_dask, given)):
            raise ValueError(
                f"{what} is of Dask arrays: pass one, or runs of several in memory, ((x.compute(), "
                "y.compute()) for x, y in zip(X.partitions, Y.partitions))"
            )
        try:
            check_row_labels(dict(zip(self.names, given, strict=False)))
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        arrays = [to_numpy(a) for a in given]
        kinds = [(a.shape[1:], a.dtype) for a in arrays]
        for a in arrays:
            if a.ndim not in (1, 2) or a.dtype.kind not in "biuf":
                raise ValueError(
                    f"{what} is an array of {a.dtype} and shape {a.shape}, not a matrix of numbers"
                )
        if not self.kinds:
            if isinstance(part, (tuple, list)) and len(arrays) != len(self.names):
                raise ValueError(f"{what} has {len(arrays)} arrays for the names {self.names}")
            self.names, self.kinds = self.names[: len(arrays)], kinds
        if len({a.shape[0] for a in arrays}) > 1:
            raise ValueError(f"the arrays of {what} have shapes {[a.shape for a in arrays]}")
        if kinds != self.kinds:
            raise ValueError(
                f"{what} has rows of {_described(kinds)}, the first had {_described(self.kinds)}"
            )
        self.parts += 1
        return arrays

    def paths(self, number: int) -> list[Path]:
        """The shards of one number, one for each name."""
        return [self.folder / name / f"{name}_{number}.npy" for name in self.names]

    def _header(self, file: Any, kind: Kind, count: int) -> None:
        # NumPy pads headers, so the final number of rows can be written over the first.
        descr = np.lib.format.dtype_to_descr(kind[1])
        fields = {"descr": descr, "fortran_order": False, "shape": (count, *kind[0])}
        np.lib.format.write_array_header_1_0(file, fields)

    def _begin(self) -> None:
        for path, kind in zip(self.paths(self.number), self.kinds, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files.append(_beside(path).open("wb"))
            self._header(self.files[-1], kind, self.rows)
        self.held = 0

    def _end(self) -> None:
        """Complete the headers and rename the shards of this number, all or none."""
        for file, kind in zip(self.files, self.kinds, strict=True):
            file.seek(0)
            self._header(file, kind, self.held)
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self.placing = self.paths(self.number)
        for file, path in zip(self.files, self.placing, strict=True):
            os.replace(file.name, path)
            _sync_folder(path.parent)
        self.total += self.held
        self.number += 1
        self.files, self.placing, self.held = [], [], 0

    def finish(self) -> None:
        """Complete the last shard."""
        if not self.kinds or not (self.total or self.held):
            raise ValueError("there were no rows to write")
        if self.files:
            with self._naming_complete_shards():
                self._end()

    def discard(self) -> None:
        """Delete incomplete shards; after a success there are none."""
        for file in self.files:
            with contextlib.suppress(OSError):
                file.close()  # flushes its buffer, which may fail
        for path in [*map(_beside, self.paths(self.number)), *self.placing]:
            with contextlib.suppress(OSError):
                path.unlink()
        self.files, self.placing = [], []

    @contextlib.contextmanager
    def _naming_complete_shards(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            whole = f"shards 0 to {self.number - 1}" if self.number else "no shard"
            sentence = (
                f"writing {self.paths(self.number)[0]} failed ({error.strerror or error}): "
                f"{whole} ({self.total} rows) of {' and '.join(self.names)} in {self.folder} "
                f"{'are' if self.number else 'is'} whole, and nothing else was left there; make "
                "room or choose another folder, and write again with overwrite=True"
            )
            raise type(error)(error.errno, sentence) from error


def _beside(path: Path) -> Path:
    """The temporary name of a shard, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _described(kinds: Iterable[Kind]) -> str:
    return " and ".join(f"{shape[0] if shape else 1} columns of {dtype}" for shape, dtype in kinds)


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, so that it survives a crash (POSIX only)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_shards(
    folder: PathLike,
    parts: Any,
    *,
    names: str | Sequence[str] = ("img_emb", "text_emb"),
    rows: int = 1_000_000,
    overwrite: bool = False,
    progress: bool = False,
) -> Any:
    """Write runs of rows as shards ``NAME/NAME_0.npy``, ``NAME/NAME_1.npy``, ...

    A shard gets its name when it is whole and on the disk, those of one number together, so
    that a crash, a full disk or Ctrl-C leaves whole shards only.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    parts : iterable of arrays or of tuples of arrays, or one matrix
        Consecutive rows, as `map_rows` yields them; tuples have one array for each name,
        single arrays are of the first name. A matrix, on a disk or not, is written run by run,
        a Dask array or frame chunk by chunk.
    names : str or sequence of str, default=("img_emb", "text_emb")
    rows : int, default=1000000
        Rows in a shard; the last has what is left.
    overwrite : bool, default=False
        Whether shards of these names that are there already are deleted, before the first new
        row is written. They must not be what `parts` is read from.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    ShardedMatrix, Shards for two names, or a tuple for more
        What was written, as `open_shards` opens it.

    Raises
    ------
    FileExistsError
        If there are such shards and `overwrite` is False.
    OSError
        If the disk is full or cannot be written to: of the kind that the system raised, with
        what is whole in the message.
    ValueError
        If a part has another width, type or number of arrays than the first, or there are none.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from cmstats import CCA, map_rows, write_shards
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> cca = CCA(n_components=2).fit(X, X[:, :2])
    >>> variates = write_shards(
    ...     tempfile.mkdtemp(), map_rows(cca.transform, X, rows=25), names="variates", rows=40
    ... )
    >>> variates
    ShardedMatrix(shape=(60, 2), dtype=float64, 2 files)
    >>> bool(np.allclose(variates, cca.transform(X)))
    True
    """
    check_shown("progress", progress)
    names = (names,) if isinstance(names, str) else tuple(names)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be at least one and differ, got {names}")
    if is_dask(parts):
        parts = computed_chunks(parts, "parts")
    elif hasattr(parts, "shape"):
        parts = map_rows(lambda run: run, parts)
    writer = ShardWriter(Path(folder), names, rows)
    if not overwrite:
        writer.refuse_existing()
    runs = iter(parts)
    try:
        with progress_bar(progress, "rows written", " rows", scale=True) as bar:
            for part in runs:
                bar.update(writer.add(part))
        writer.finish()
    finally:
        writer.discard()
        getattr(runs, "close", lambda: None)()  # ends the thread that reads ahead
    files = [writer.paths(number) for number in range(writer.number)]
    found = [ShardedMatrix(of_one_name) for of_one_name in zip(*files, strict=True)]
    if len(found) == 2:
        return Shards(found[0], found[1], str(folder))
    return found[0] if len(found) == 1 else tuple(found)
