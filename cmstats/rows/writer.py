"""Shards that are written beside their places and put there when they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import to_numpy

__all__ = ["ShardWriter"]

Kind: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]
"""The shape and the type of one row."""


class ShardWriter:
    """The shards of one number that are being written, and what of them is whole."""

    def __init__(self, folder: Path, names: tuple[str, ...], rows: int) -> None:
        self.folder, self.names, self.rows = folder, names, rows
        self.number = self.held = self.total = self.parts = 0
        self.kinds: list[Kind] = []
        self.files: list[Any] = []
        self.placing: list[Path] = []

    def existing(self) -> list[Path]:
        """The files that this would overwrite."""
        return [
            path
            for name in self.names
            for path in sorted((self.folder / name).glob(f"{name}_*.npy"))
            if path.stem.removeprefix(f"{name}_").isdigit()
        ]

    def refuse_existing(self) -> None:
        """Raise if a file would be overwritten."""
        found = self.existing()
        if found:
            raise FileExistsError(
                f"{found[0]} is there already, one of {len(found)} shards: choose another folder, "
                "or set overwrite=True to delete them"
            )

    def add(self, part: Any) -> int:
        """Write the rows of one part, and begin another shard where one is full."""
        arrays = self._checked(part)
        with self._saying_what_is_whole():
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
        arrays = [to_numpy(a) for a in (part if isinstance(part, (tuple, list)) else (part,))]
        kinds = [(a.shape[1:], a.dtype) for a in arrays]
        what = f"part {self.parts}"
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
        """The files of one number, one for each name."""
        return [self.folder / name / f"{name}_{number}.npy" for name in self.names]

    def _header(self, file: Any, kind: Kind, count: int) -> None:
        # NumPy pads headers so that a greater first dimension fits in the same place.
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
        """Put the shards of this number in their places, all or none."""
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
        """Write what is left as the last shard."""
        if not self.kinds or not (self.total or self.held):
            raise ValueError("there were no rows to write")
        if self.files:
            with self._saying_what_is_whole():
                self._end()

    def discard(self) -> None:
        """Delete what is not whole; there is nothing after a success."""
        for file in self.files:
            with contextlib.suppress(OSError):
                file.close()  # tries to write what it holds
        for path in [*map(_beside, self.paths(self.number)), *self.placing]:
            with contextlib.suppress(OSError):
                path.unlink()
        self.files, self.placing = [], []

    @contextlib.contextmanager
    def _saying_what_is_whole(self) -> Iterator[None]:
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
    """Where a shard is written before it gets its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _described(kinds: Iterable[Kind]) -> str:
    return " and ".join(f"{shape[0] if shape else 1} columns of {dtype}" for shape, dtype in kinds)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a crash, where the system has that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
