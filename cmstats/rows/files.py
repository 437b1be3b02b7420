"""Matrices on a disk, read run by run: shards of .npy files and parquet; and writing shards.

What is opened here has shape, dtype and slicing, so every estimator, `Moments` and `map_rows`
reads it in runs and never whole.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cmstats.rows.chunks import check_blocks, check_rows, chunks
from cmstats.rows.npy import ShardedMatrix
from cmstats.rows.on_disk import numbered
from cmstats.rows.parquet import ParquetMatrix, open_parquet, require_pyarrow
from cmstats.rows.writer import ShardWriter

__all__ = [
    "ParquetMatrix",
    "ShardedMatrix",
    "Shards",
    "map_rows",
    "open_parquet",
    "open_shards",
    "write_shards",
]

PathLike: TypeAlias = str | os.PathLike[str]


# ------------------------------------------------------------------------ pairs of them
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
        tables = [parquet.read_table(path, columns=wanted).to_pandas() for path in files]
        frame: pd.DataFrame = pd.concat(tables, ignore_index=True)
        return frame


def _check_pairs(
    x_paths: Sequence[str], x_counts: Sequence[int], y_paths: Sequence[str], y_counts: Sequence[int]
) -> None:
    """Raise one sentence where shards of the same number do not have as many rows."""
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


# ---------------------------------------------------------------------------- writing
def map_rows(
    function: Callable[..., Any], *sources: Any, rows: int | None = None, progress: bool = False
) -> Iterator[Any]:
    """``function(rows of each source)`` run by run: what does not fit in memory goes through.

    Parameters
    ----------
    function : callable
        Takes as many arrays of equally many rows as there are sources, for example
        ``cca.transform``.
    *sources : array-likes of equally many rows
        In memory or on a disk; the next run is read while `function` is at work.
    rows : int, optional
        Rows in a run; by default about 64 MiB of them.
    progress : bool, default=False
        Whether to show a progress bar (tqdm).

    Returns
    -------
    iterator
        What `function` returned for each run, in order.

    Raises
    ------
    ValueError
        If the sources have different numbers of rows. An error that `function` raises names
        the file and row where values are not finite, and notes the rows of the run.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import map_rows
    >>> X = np.arange(10.0).reshape(5, 2)
    >>> [part.shape for part in map_rows(lambda rows: rows[:, :1], X, rows=2)]
    [(2, 1), (2, 1), (1, 1)]
    """
    if not sources:
        raise TypeError("map_rows needs at least one source of rows")
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    names = ("X", "y") if len(sources) <= 2 else tuple(f"source {i}" for i in range(len(sources)))
    blocks = check_blocks(dict(zip(names, sources, strict=False)))
    flat = [len(getattr(a, "shape", None) or np.shape(a)) == 1 for a in sources]
    return _mapped(function, blocks, flat, rows, progress)


def _mapped(
    function: Callable[..., Any],
    blocks: dict[str, Any],
    flat: Sequence[bool],
    rows: int | None,
    progress: bool,
) -> Iterator[Any]:
    sources = list(blocks.values())
    with _bar(progress, "rows", sources[0].shape[0]) as bar:
        for start, parts, _ in chunks(sources, rows=rows):
            given = [part[:, 0] if one else part for part, one in zip(parts, flat, strict=True)]
            try:
                result = function(*given)
            except ValueError as error:
                # A row number of the run would be taken for one of the whole matrix.
                for (name, block), part in zip(blocks.items(), parts, strict=True):
                    check_rows(part, name, start, block)
                error.add_note(f"in the run of rows {start} to {start + parts[0].shape[0] - 1}")
                raise
            bar.update(parts[0].shape[0])
            yield result


def _bar(progress: bool, what: str, total: int | None = None) -> Any:
    """A progress bar over rows, or something that takes its place."""
    if not progress:
        return _NoBar()
    from tqdm.auto import tqdm  # imported for those who ask only

    return tqdm(total=total, desc=what, unit="row", unit_scale=True)


class _NoBar:
    def update(self, count: int) -> None: ...

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *raised: object) -> None: ...


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
        single arrays are of the first name. A matrix, on a disk or not, is written run by run.
    names : str or sequence of str, default=("img_emb", "text_emb")
    rows : int, default=1000000
        Rows in a shard; the last has what is left.
    overwrite : bool, default=False
        Whether shards of these names that are there already are deleted, before the first new
        row is written. They must not be what `parts` is read from.
    progress : bool, default=False
        Whether to show a progress bar (tqdm).

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
    names = (names,) if isinstance(names, str) else tuple(names)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be at least one and differ, got {names}")
    if hasattr(parts, "shape"):
        parts = map_rows(lambda run: run, parts)
    writer = ShardWriter(Path(folder), names, rows)
    if not overwrite:
        writer.refuse_existing()
    runs = iter(parts)
    try:
        with _bar(progress, "rows written") as bar:
            for part in runs:
                bar.update(writer.add(part))
        writer.finish()
    finally:
        writer.discard()
        getattr(runs, "close", lambda: None)()  # a thread that reads ahead ends here
    files = [writer.paths(number) for number in range(writer.number)]
    found = [ShardedMatrix(of_one_name) for of_one_name in zip(*files, strict=True)]
    if len(found) == 2:
        return Shards(found[0], found[1], str(folder))
    return found[0] if len(found) == 1 else tuple(found)
