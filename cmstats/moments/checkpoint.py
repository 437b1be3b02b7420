"""Checkpoints of a pass over rows: written atomically, resumed by the same pass."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cmstats.arrays import NotFiniteError, dense, float64, is_array, take_rows, to_numpy
from cmstats.rows.progress import check_shown

__all__ = [
    "Checkpoint",
    "check_settings",
    "digest",
    "fingerprint",
    "segment_rows",
    "split_folds",
    "write_arrays",
]

SEGMENT_BYTES = 2 << 30
"""The bytes of rows between two checkpoints."""

MARK = "checkpoint"
"""The entry of a file that marks it as a checkpoint."""

Fields = dict[str, Any]


class Checkpoint:
    """The file in which an unfinished pass keeps its state.

    It holds the arrays of `Moments.save` for each fold, the number of rows they summarise, and
    the fingerprint of the pass, which differs for other data or settings.

    Parameters
    ----------
    path : str or path
    fingerprint : dict of str
        The entries that must be equal to resume; a name that begins with "the " is a digest.

    Attributes
    ----------
    position : int
        The number of rows saved.
    folds : list of dict of arrays
        The moments of each fold, as `BlockSums.fields` writes them; empty at the beginning.
    """

    def __init__(self, path: Any, fingerprint: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.fingerprint = dict(fingerprint)
        self.position = 0
        self.folds: list[Fields] = []
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                fields = dict(file)
            mark = json.loads(str(fields.pop(MARK)))
        except Exception:
            raise ValueError(
                f"{self.path} is no checkpoint of a pass: name another file, or delete this one"
            ) from None
        theirs = mark["fingerprint"]
        other = [k for k, v in self.fingerprint.items() if theirs.get(k) != v]
        if other:
            changes = [
                k
                if k.startswith("the ")
                else f"{k} {theirs.get(k)} there, {self.fingerprint[k]} here"
                for k in other
            ]
            raise ValueError(
                f"the checkpoint {self.path} is of a pass over other data or with other settings "
                f"({'; '.join(changes)}): delete it to begin anew, or name another file"
            )
        self.position = int(mark["position"])
        self.folds = split_folds(fields)

    def save(self, position: int, folds: list[Fields]) -> None:
        """Replace the file by the moments of the first rows up to a position."""
        mark = json.dumps({"position": position, "fingerprint": self.fingerprint})
        fields: Fields = {MARK: np.array(mark)}
        if len(folds) == 1:
            fields |= folds[0]
        else:
            fields |= {f"{k}/{name}": a for k, fold in enumerate(folds) for name, a in fold.items()}
        write_arrays(self.path, fields)
        self.position = position

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Add the number of saved rows to the message of any exception."""
        try:
            yield
        except BaseException as error:
            if self.position:
                note = (
                    f"the moments of the first {self.position} rows are saved in {self.path}, and "
                    "the same call goes on from there"
                )
                if type(error) in (ValueError, NotFiniteError):
                    error.args = (f"{error}; {note}",)
                else:
                    error.add_note(note)
            raise

    def require(self, rows: int) -> None:
        """Raise if a stream ended before the rows that are saved."""
        if rows < self.position:
            raise ValueError(
                f"the stream ended after {rows} rows, but the checkpoint {self.path} holds the "
                f"moments of {self.position}: hand in the same stream from its beginning"
            )

    def remove(self) -> None:
        """Delete the file: the pass is finished."""
        self.path.unlink(missing_ok=True)


def split_folds(fields: Fields) -> list[Fields]:
    """Split the arrays of a file by fold."""
    if not any("/" in name for name in fields):
        return [fields]
    folds: dict[int, Fields] = {}
    for name, a in fields.items():
        if "/" in name:
            number, rest = name.split("/", 1)
            folds.setdefault(int(number), {})[rest] = a
    return [folds[k] for k in sorted(folds)]


def write_arrays(path: Path, fields: Mapping[str, Any]) -> None:
    """Write an .npz file without pickle atomically, even if the power fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **fields)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the new name must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def segment_rows(blocks: Mapping[str, Any], step: int = 1024) -> int:
    """The number of rows between two checkpoints, a multiple of `step`, from the widths alone."""
    width = sum(_row_bytes(a) for a in blocks.values())
    return max(1, SEGMENT_BYTES // max(1, width * step)) * step


def _row_bytes(a: Any) -> int:
    return (1 if a.ndim == 1 else int(a.shape[1])) * int(getattr(a.dtype, "itemsize", 8))


def fingerprint(
    blocks: Mapping[str, Any], *, shapes: bool, ids: Any, weights: Any, **settings: Any
) -> dict[str, str]:
    """Describe a pass, to recognise it again, reading no more than the first rows.

    Parameters
    ----------
    blocks : mapping of name to checked matrix
        All rows, or the first rows of a stream.
    shapes : bool
        Whether the number of rows is known.
    ids : int, or array of shape (n,), or None
        The number of folds of a stream, or the fold of each row.
    weights : array of shape (n,), or None
    **settings
        The form, the treatment of missing entries and the like.
    """

    def described(a: Any) -> str:
        width = 1 if a.ndim == 1 else int(a.shape[1])
        return f"{(int(a.shape[0]), width) if shapes else width} {a.dtype}"

    return {
        "blocks": ", ".join(f"{name}: {described(a)}" for name, a in blocks.items()),
        **{name: str(value) for name, value in settings.items()},
        "the first rows": digest(*(_first_rows(a) for a in blocks.values())),
        "the folds": digest(np.asarray(-1 if ids is None else ids)),
        "the weights": "none" if weights is None else digest(to_numpy(weights)),
    }


def _first_rows(a: Any) -> np.ndarray[Any, Any]:
    part = take_rows(a, slice(0, min(64, int(a.shape[0]))))
    part = dense(part)
    return to_numpy(float64(part) if is_array(part) else np.asarray(part, dtype=np.float64))


def digest(*arrays: np.ndarray[Any, Any]) -> str:
    """A hash of the values of arrays."""
    found = hashlib.blake2b(digest_size=16)
    for a in arrays:
        found.update(np.ascontiguousarray(a).data)
    return found.hexdigest()


def check_settings(rows: Any, checkpoint: Any, progress: Any) -> None:
    """Raise if a setting of a pass is invalid."""
    if rows is not None and (
        isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1
    ):
        raise ValueError(f"rows must be a whole number of at least 1 (rows in a run), got {rows!r}")
    check_shown("progress", progress)
    if checkpoint is None:
        return
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(f"checkpoint must be the path of a file, got {checkpoint!r}")
    path = Path(checkpoint)
    if path.is_dir():
        raise ValueError(f"checkpoint={os.fspath(path)!r} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"checkpoint={os.fspath(path)!r}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"checkpoint={os.fspath(path)!r}: the folder cannot be written to")
