"""The README's blocks of Python and its commands, as a newcomer runs them from top to bottom."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmstats import CrossModalRetriever, Moments, write_shards
from cmstats.report.cli import main

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is in the repository")

ITEMS = 150


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The files that the README reads, in the current folder, and their arrays."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(ITEMS), rng.integers(1, 8, ITEMS))
    image = rng.normal(size=(ITEMS, 16))
    to_text = rng.normal(size=(16, 12))
    found = {
        "image": image,
        "text": image @ to_text + rng.normal(size=(ITEMS, 12)),
        "caption": image[of] @ to_text + rng.normal(size=(len(of), 12)),
        "image_of_caption": of,
    }
    monkeypatch.chdir(tmp_path)
    for name, a in found.items():
        np.save(f"{name}.npy", a)
    return found


def test_captions_from_fit_to_an_index_in_ten_lines(
    blocks: list[str], files: dict[str, Any]
) -> None:
    pytest.importorskip("faiss")
    recipe = next(block for block in blocks if "faiss" in block)
    assert len([line for line in recipe.splitlines() if line and "import" not in line]) <= 10
    names: dict[str, Any] = {}
    exec("import numpy as np\nfrom cmstats import CCA, retrieval_report\n" + recipe, names)
    assert names["cca"].n_samples_ == pytest.approx(0.8 * ITEMS)  # images, not captions
    of = files["image_of_caption"]
    assert np.mean(of[of % 5 == 0][names["nearest"]] == 5 * np.arange(3)[:, None]) > 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_blocks_run_one_after_the_other(
    blocks: list[str], files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("faiss", "zarr", "distributed"):
        pytest.importorskip(package)
    import dask.array
    from dask import distributed

    # The kernels of the choice take a minute, and are tested elsewhere.
    monkeypatch.setattr(CrossModalRetriever, "_try_kernels", staticmethod(lambda *_: None))
    image, text = files["image"], files["text"]
    write_shards("embeddings", [(image, text)])
    for name in ("image", "text"):
        dask.array.from_array(files[name], chunks=(50, -1)).to_zarr(f"{name}.zarr")
    here = functools.partial(distributed.LocalCluster, n_workers=1, processes=False,
                             dashboard_address=None)  # fmt: skip
    monkeypatch.setattr(distributed, "LocalCluster", here)
    names: dict[str, Any] = {
        "batches": [(image[i : i + 50], text[i : i + 50]) for i in range(0, ITEMS, 50)],
        "here": Moments.from_data(x=image[:90], y=text[:90]),
        "there": Moments.from_data(x=image[90:], y=text[90:]),
    }
    try:
        for block in blocks:
            exec(block, names)
    finally:
        if "client" in names:
            names["client"].shutdown()
    assert names["moments"].n == ITEMS
    assert dask.array.from_zarr("embedded.zarr").shape[0] == ITEMS


@pytest.mark.slow
def test_tables_paired_by_an_id_and_cleared_of_a_confound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The command below the blocks, on files whose rows are in other orders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmstats.report.page.figure_address", lambda *_: "data:,")
    rng = np.random.default_rng(0)
    g, age = rng.normal(size=(2, 90))
    frame = pd.DataFrame({"subject": np.arange(90), "age": age})
    brain = frame.assign(volume=g + age, thickness=rng.normal(size=90))
    tests = frame[["subject"]].assign(memory=g - age, speed=rng.normal(size=90))
    brain.to_csv("brain.csv", index=False)
    tests.sample(frac=1, random_state=1).to_csv("tests.csv", index=False)
    command = re.search(r"cmstats (report brain[^`]*)", README.read_text())
    assert command is not None
    assert main([*shlex.split(command[1]), "--out", "page.html"]) in (0, None)
    page = Path("page.html").read_text()
    assert "90 rows" in page
    assert "volume" in page
