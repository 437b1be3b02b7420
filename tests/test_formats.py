"""Files as people have them: formats, headers, ids, columns that are no features."""

from __future__ import annotations

import builtins
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

from cmstats.report import cli
from cmstats.report.cli import main, read_array
from cmstats.report.inputs import read_inputs

pytestmark = pytest.mark.ordinary
N = 60
RNG = np.random.default_rng(5)
LATENT = RNG.normal(size=(N, 2))
AGE = RNG.normal(size=N)
A = LATENT @ RNG.normal(size=(2, 4)) + RNG.normal(size=(N, 4)) + AGE[:, None]
B = LATENT @ RNG.normal(size=(2, 3)) + RNG.normal(size=(N, 3)) + AGE[:, None]
IDS = [f"s{i:02d}" for i in range(N)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bfloat16(a: Any) -> Any:
    return (a.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def safetensors(path: str, **tensors: tuple[str, Any]) -> None:
    header, start, raw = {"__metadata__": {"format": "np"}}, 0, b""
    for name, (kind, a) in tensors.items():
        ends = [start, start + a.nbytes]
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": ends}  # type: ignore[dict-item]
        start, raw = ends[1], raw + a.tobytes()
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + raw)


def hdf5(path: str) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        file["a"], file["b"] = A, B


def annotated(path: str) -> None:
    csr = scipy.sparse.csr_matrix(np.where(A > 0, A, 0))
    with pytest.importorskip("h5py").File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["shape"], group.attrs["encoding-type"] = csr.shape, "csr_matrix"
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(csr, name)
        for name, labels in (("obs", IDS), ("var", list("abcd"))):
            frame = file.create_group(name)
            frame.attrs["_index"] = "_index"
            frame["_index"] = np.array(labels, dtype="S")
        file.create_group("obsm")["X_pca"] = B


def torch_file(path: str) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.tensor(A), "b": torch.tensor(B).float()}, path)


TABLE = pd.DataFrame(A, columns=list("abcd"))
VECTORS = pd.DataFrame({"id": IDS, "caption": "two words", "v": list(A)})
FILES: dict[str, tuple[Any, Any]] = {
    "numbers.csv": (lambda p: pd.DataFrame(A).to_csv(p, index=False), A),
    "default.csv": (lambda p: pd.DataFrame(A).to_csv(p), A),
    "names.csv": (lambda p: TABLE.to_csv(p), A),
    "unnamed.csv": (lambda p: TABLE.set_axis(IDS, axis=0).to_csv(p), A),
    "counted.csv": (lambda p: TABLE.to_csv(p, index_label="row"), A),
    "waves.csv": (lambda p: TABLE.set_axis([400, 410, 420, 430], axis=1).to_csv(p, index=False), A),
    "bare.csv": (lambda p: TABLE.to_csv(p, index=False, header=False), A),
    "r.csv": (lambda p: Path(p).write_text(TABLE.to_csv().lstrip(",")), A),
    "comma.csv": (lambda p: TABLE.to_csv(p, sep=";", decimal=",", index=False), A),
    "t.tsv": (lambda p: TABLE.to_csv(p, sep="\t", index=False), A),
    "z.csv.gz": (lambda p: TABLE.to_csv(p, index=False), A),
    "l.jsonl": (lambda p: TABLE.to_json(p, orient="records", lines=True, double_precision=15), A),
    "e.parquet": (lambda p: VECTORS.to_parquet(p), A),
    "c.parquet:v": (lambda p: VECTORS.assign(w=list(B)).to_parquet(p), A),
    "v.csv:v": (lambda p: VECTORS.assign(v=[str(r.tolist()) for r in A]).to_csv(p), A),
    "w.csv:v": (
        lambda p: VECTORS.assign(v=[" ".join(map(repr, r.tolist())) for r in A]).to_csv(p),
        A,
    ),
    "np.csv": (lambda p: VECTORS.assign(v=[str(list(r)) for r in A]).to_csv(p), A),
    "a.h5:b": (hdf5, B),
    "a.h5ad": (annotated, np.where(A > 0, A, 0)),
    "b.h5ad:obsm/X_pca": (annotated, B),
    "m.mat:B": (lambda p: scipy.io.savemat(p, {"A": A, "B": B}), B),
    "one.mat": (lambda p: scipy.io.savemat(p, {"A": A}), A),
    "t.pt:a": (torch_file, A),
    "s.npz": (lambda p: scipy.sparse.save_npz(p, scipy.sparse.csr_matrix(A)), A),
    "s.safetensors:x": (lambda p: safetensors(p, x=("F64", A), y=("F64", B)), A),
    "h.safetensors": (lambda p: safetensors(p, x=("BF16", bfloat16(A))), A),
    "raw.npy": (lambda p: np.save(p, bfloat16(A).view("V2")), A),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_read(name: str) -> None:
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    write, expected = FILES[name]
    write(name.partition(":")[0])
    half = name in ("h.safetensors", "raw.npy")
    found = read_array(name)
    np.testing.assert_allclose(found, expected, rtol=1e-2 if half else 1e-11)


def test_what_is_left_out_is_said() -> None:
    pd.DataFrame(A).to_csv("x.csv")
    TABLE.set_axis(IDS, axis=0).to_csv("y.csv")
    notes = read_inputs("x.csv", "y.csv").notes
    assert notes == [
        "x.csv: the first column, which has no name and counts the rows, was left out",
        "y.csv: the first column, which has no name and labels the rows, was left out",
    ]
    pd.DataFrame(A).to_csv("x.csv", index=False)
    assert read_inputs("x.csv", "y.csv").notes[0] == (
        "x.csv: the first line, 0, 1, 2, 3, ..., was read as names of columns"
    )


def two_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    index = pd.Index(IDS, name="subject")
    first = TABLE.set_axis(index, axis=0)
    second = pd.DataFrame(B, index=index, columns=["q1", "q2", "q3"]).assign(
        age=AGE, sex=np.where(np.arange(N) % 2, "f", "m")
    )
    first.to_csv("brain.csv")
    second.sample(frac=1, random_state=1).iloc[:-4].to_csv("test.csv")
    second.to_csv("same.csv")
    return first, second


def test_rows_are_joined_by_their_ids() -> None:
    first, second = two_tables()
    found = read_inputs(
        "brain.csv", "test.csv", join="subject", labels="sex", nuisance=["age", "sex"]
    )
    assert found.notes == [
        f"joined by 'subject': {N - 4} rows matched, of {N} in brain.csv and {N - 4} in test.csv"
    ]
    kept = found.first.index
    np.testing.assert_allclose(found.first, first.loc[kept])
    np.testing.assert_allclose(found.second, second.loc[kept, ["q1", "q2", "q3"]])
    assert list(found.labels) == list(second.loc[kept, "sex"])
    np.testing.assert_allclose(found.nuisance[:, 0], second.loc[kept, "age"])
    assert set(found.nuisance[:, 1]) == {0.0, 1.0}
    same = read_inputs("brain.csv", "same.csv", index="subject", drop=["age"], groups="sex")
    assert list(same.second.columns) == ["q1", "q2", "q3"]
    assert list(same.groups) == list(second["sex"])


def test_ids_that_count_the_rows_of_one_file_pair_those_of_another() -> None:
    first, second = two_tables()
    number = pd.RangeIndex(1, N + 1, name="subject")
    first.set_axis(number, axis=0).to_csv("a.csv")
    second.set_axis(number, axis=0).sample(frac=1, random_state=1).to_csv("b.csv")
    found = read_inputs("a.csv", "b.csv", join="subject", drop=["age", "sex"])
    np.testing.assert_allclose(found.second, B)
    assert list(found.second) == ["q1", "q2", "q3"]
    for files in (("a.csv", "b.csv"), ("b.csv", "a.csv")):
        with pytest.raises(ValueError, match=r"another order.*say --join subject to pair"):
            read_inputs(*files, drop=["age", "sex"])
    second.set_axis(number, axis=0).rename_axis("Subject ").sample(frac=1, random_state=1).to_csv(
        "c.csv"
    )
    found = read_inputs("a.csv", "c.csv", join="subject", drop=["age", "sex"])
    np.testing.assert_allclose(found.second, B)  # "Subject " is another spelling
    second.set_axis(number, axis=0).to_csv("same.csv")
    same = read_inputs("a.csv", "same.csv", drop=["age", "sex"])
    np.testing.assert_allclose(same.second, B)
    assert list(same.second) == ["q1", "q2", "q3"]


@pytest.mark.parametrize("option", ["--nuisance", "--drop"])
def test_an_option_that_is_given_twice_names_both(option: str) -> None:
    for words in ([option, "a", "b"], [option, "a", option, "b"]):
        given = cli._parser().parse_args(["report", "x.csv", "y.csv", *words])
        assert getattr(given, option[2:]) == ["a", "b"]
    assert getattr(cli._parser().parse_args(["report", "x", "y"]), option[2:]) == []


def test_tables_that_do_not_pair_are_one_sentence() -> None:
    first, second = two_tables()
    for index in ("subject", None):
        with pytest.raises(ValueError, match="say --join subject to pair"):
            read_inputs("brain.csv", "test.csv", index=index)
    first.rename_axis(None).to_csv("a.csv")
    second.iloc[::-1].rename_axis(None).to_csv("b.csv")
    with pytest.raises(
        ValueError, match=r"b.csv have the labels of a.csv in another.*--join index"
    ):
        read_inputs("a.csv", "b.csv")
    joined = read_inputs("a.csv", "b.csv", join="index", drop=["age", "sex"])
    np.testing.assert_allclose(joined.second, B)
    pd.concat([second, second[:1]]).to_csv("twice.csv")
    with pytest.raises(ValueError, match=r"twice\.csv has 's00' more than once"):
        read_inputs("brain.csv", "twice.csv", join="subject")
    for how, match in (
        ({"join": "no"}, "--join no: brain.csv has no such column, it has subject, a"),
        ({"index": "no"}, "--index no: neither"),
        ({"index": "subject", "drop": ["no"]}, "--drop no: there is no such file, and neither"),
        ({"index": "subject", "drop": ["age"]}, r"same.csv: column 'sex' holds .*\(--drop"),
    ):
        with pytest.raises(ValueError, match=match):
            read_inputs("brain.csv", "same.csv", **how)  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("h5py", "pyarrow", "torch"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    for package in ("h5py", "pyarrow", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(builtins, "__import__", without)
    for name, package in (("a.h5", "h5py"), ("a.parquet", "pyarrow"), ("a.pt", "torch")):
        Path(name).write_bytes(b"x")
        with pytest.raises(ImportError, match=f"{name}: .* files need {package}: install it"):
            read_array(name)


def test_a_column_of_text_is_no_column_of_vectors() -> None:
    pd.DataFrame({"caption": ["a red car", "b c"], "v": ["[1, 2]", "[3, 4]"]}).to_csv("v.csv")
    assert read_array("v.csv:v").shape == (2, 2)
    with pytest.raises(ValueError, match=r"'caption' holds text .'a red car'., neither numbers"):
        read_array("v.csv:caption")


def test_shortened_vectors_are_refused() -> None:
    pd.DataFrame({"v": ["[1. 2. ... 3.]", "[1. 2. ... 4.]"]}).to_csv("v.csv")
    with pytest.raises(ValueError, match="were shortened when they were written"):
        read_array("v.csv")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plots and without a search for a model of retrieval, which take the time."""
    monkeypatch.setattr("cmstats.report.page.figure_address", lambda *_: "data:,")
    monkeypatch.setattr("cmstats.report.analysis.SECONDS", {True: 0.0, False: 0.0})


def report(*argv: str) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    assert main(["report", *argv, "--quick", "--force"]) == 0
    return Path("report.html").read_text(encoding="utf-8")


def test_semicolons_may_come_with_points(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "points.csv", sep=";", index=False)
    TABLE.to_csv(tmp_path / "commas.csv", sep=";", decimal=",", index=False)
    for name in ("points.csv", "commas.csv"):
        np.testing.assert_allclose(read_array(f"{tmp_path / name}"), TABLE)
    (tmp_path / "latin.csv").write_bytes("größe;b\n1.5;2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8, so save it as UTF-8"):
        read_array(f"{tmp_path / 'latin.csv'}")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_page_names_columns_views_confounds_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    two_tables()
    page = report(
        "brain.csv", "test.csv", "--join", "subject", "--nuisance", "age", "--drop", "sex"
    )
    assert "brain → test" in page
    assert '<td class="words">q1</td>' in page
    assert "1 confound was regressed out of both views" in page
    said = capsys.readouterr().err
    assert "rows matched" in said
    TABLE.assign(number=np.arange(N) + 900).to_csv("x.csv", index=False)
    pd.DataFrame(B).assign(key=np.arange(N) + 900).to_csv("y.csv", index=False)
    page = report("x.csv", "y.csv", "--max-items", "40")
    brief = page[page.index('id="brief"') :]
    assert "(&#39;number&#39;) of x and column 3 (&#39;key&#39;) of y are equal" in brief[:400]
    assert "Of 60 items 40 were looked at" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_rows_of_one_item_are_partners_and_stay_together() -> None:
    item = np.repeat(np.arange(20), 3)
    TABLE.iloc[item].reset_index(drop=True).assign(image=item).to_csv("x.csv", index=False)
    np.save("y.npy", B)
    page = report("x.csv", "y.npy", "--ids", "image")
    assert "of 20 groups at random" in page


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_closed_pipe_leaves_the_page(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", A)
    np.save("y.npy", B)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        patched.setattr(os, "dup2", lambda *_: None)
        assert main(["report", "x.npy", "y.npy", "--quick"]) == 0
        patched.setattr(pipe, "flush", lambda: None, raising=False)
        with pytest.raises(BrokenPipeError):
            pipe.close()
    assert (here / "report.html").exists()
