"""Rows: whatever people hand in, read as one kind of matrix, a run of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmstats import lazy

if TYPE_CHECKING:
    from cmstats.rows.chunks import map_rows
    from cmstats.rows.files import open_shards
    from cmstats.rows.parquet import open_parquet
    from cmstats.rows.series import BlockedKFold, lagged
    from cmstats.rows.writer import write_shards
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "chunks": ("map_rows",),
            "files": ("open_shards",),
            "parquet": ("open_parquet",),
            "series": ("BlockedKFold", "lagged"),
            "writer": ("write_shards",),
        },
    )

__all__ = ["BlockedKFold", "lagged", "map_rows", "open_parquet", "open_shards", "write_shards"]
