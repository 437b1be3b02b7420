"""The report and the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import KFold

from cmstats import (
    CCA,
    __version__,
    canonical_correlation_test,
    correlation_intervals,
    permutation_test,
    retrieval_report,
)
from cmstats.report import Report, build, build_emoji, correlations, write_new
from cmstats.report.cli import QUERY_SHRINKAGE, main, read_array
from cmstats.report.correlations import correlation_evidence
from cmstats.report.loadings import likely_ids
from cmstats.report.tables import best_of_kinds, chosen_model

pytestmark = pytest.mark.ordinary


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = np.array(["a", "b", "c"])[rng.integers(0, 3, 160)]
    Z = rng.normal(size=(160, 5))
    X = (Z @ rng.normal(size=(5, 6)) + rng.normal(size=(160, 6))).astype(np.float32)
    return X, (Z @ rng.normal(size=(5, 6)) + rng.normal(size=(160, 6))), labels


NO_TIME = "cmstats.report.analysis.SECONDS", {True: 0.0, False: 0.0}
"""Of candidates for retrieval only the first are tried; `full` has all that there are."""


@pytest.fixture(scope="module")
def report(data: Any) -> Report:
    with pytest.MonkeyPatch.context() as change:
        change.setattr(*NO_TIME)
        return build(*data, quick=True)


@pytest.fixture(scope="module")
def full(data: Any) -> Report:
    X, Y, labels = data
    return build(X[:100, :3], Y[:100, :3], labels[:100], names=[f"n{i}" for i in range(100)])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take most of the time."""
    monkeypatch.setattr("cmstats.report.page.figure_address", lambda draw, size: "data:,")


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of a model of retrieval ends early, where it is not what is tested."""
    monkeypatch.setattr(*NO_TIME)


@pytest.fixture
def files(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with x.npy, y.npy and labels.npy."""
    for name, array in zip(("x", "y", "labels"), data, strict=True):
        np.save(tmp_path / f"{name}.npy", array[:90])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of an error of exit code 2."""
    assert main([str(a) for a in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("cmstats: error: ")
    assert all(line.startswith("cmstats: ") for line in lines)  # no traceback, no usage
    return lines[-1]


# ------------------------------------------------------------------------------- report
def test_split_is_a_random_quarter_and_parts_the_items(report: Report) -> None:
    assert len(report.test) == 40
    assert sorted([*report.train, *report.test]) == list(range(160))
    assert "seed 0" in report.split


def test_model_and_table_are_those_of_the_public_functions(report: Report, data: Any) -> None:
    X, Y, labels = data
    model = CCA(shrinkage=report.model.shrinkage_).fit(X[report.train], Y[report.train])
    np.testing.assert_allclose(report.model.x_weights_, model.x_weights_)
    retriever = clone(report.retriever).fit(X[report.train], Y[report.train])
    assert retriever.chosen_ == report.retriever.chosen_
    u, v = retriever.embed(X[report.test], Y[report.test])
    expected = retrieval_report(u, v, labels=labels[report.test])
    for metric in ("R@1", "R@10", "median_rank", "MRR", "mAP"):
        assert report.best(metric, "image -> text") == pytest.approx(expected.at["x -> y", metric])
        assert report.best(metric, "text -> image") == pytest.approx(expected.at["y -> x", metric])


def _choices_do_not_depend_on_the_held_out_items(report: Report, data: Any) -> None:
    X, Y, labels = (a.copy() for a in data)
    rng = np.random.default_rng(1)
    X[report.test] = rng.normal(size=X[report.test].shape)
    other = build(X, Y, labels, quick=True)
    assert other.model.shrinkage_ == report.model.shrinkage_
    assert other.retriever.chosen_ == report.retriever.chosen_
    np.testing.assert_array_equal(other.shrinkage_scores, report.shrinkage_scores)
    chosen = report.table["training CV", "MRR"].to_numpy()
    np.testing.assert_array_equal(other.table["training CV", "MRR"].to_numpy(), chosen)


@pytest.mark.usefixtures("few_trials")
def test_choices_do_not_depend_on_the_held_out_items(report: Report, data: Any) -> None:
    _choices_do_not_depend_on_the_held_out_items(report, data)


@pytest.mark.slow
def test_choices_of_many_candidates_do_not_depend_on_the_held_out_items(data: Any) -> None:
    _choices_do_not_depend_on_the_held_out_items(build(*data, quick=True), data)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_model_of_retrieval_and_what_was_tried_stand_on_the_page(full: Report) -> None:
    results = full.retriever.results_
    assert full.table.loc["CrossModalRetriever", ("training CV", "MRR")] == results["score"].max()
    page = " ".join(" ".join(_page(full.to_html()).text).split())
    assert f"best of each kind among {len(results)} candidates" in page
    assert chosen_model(full.retriever.chosen_) in page
    kinds = best_of_kinds(results)
    assert set(kinds["model"]) == set(results["model"]) >= {"CCA", "cosine", "centred cosine"}
    assert kinds["chosen"].sum() == 1


@pytest.mark.usefixtures("few_trials")
def test_cosines_are_rows_where_the_widths_match(report: Report, data: Any) -> None:
    X, Y, _ = data
    for name, center in (("raw cosine", 0.0), ("centred cosine", 1.0)):
        rows = [a[report.test] - center * a[report.train].mean(axis=0) for a in (X, Y)]
        u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rows)
        expected = retrieval_report(u, v).loc["x -> y", "MRR"]
        assert report.table.loc[name, (report.directions[0], "MRR")] == pytest.approx(expected)
    assert "raw cosine" not in build(X, Y[:, :4], quick=True).table.index


@pytest.mark.usefixtures("few_trials")
def test_identical_views_are_found_by_the_raw_cosine(data: Any) -> None:
    X = data[0][:60, :3]
    table = build(X, X, quick=True).table
    assert table.loc["raw cosine", ("image -> text", "R@1")] == 1


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.rows: list[int] = []
        self.widths: list[set[int]] = []
        self.text: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        addresses = [attributes[a] for a in ("src", "href") if a in attributes]
        self.links += [a[1:] for a in addresses if a.startswith("#")]
        self.addresses += [a for a in addresses if not a.startswith("#")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "table":
            self.widths.append(set())
        elif tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += int(attributes.get("colspan", 1))
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.widths[-1].add(self.rows[-1])

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _page(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert all(len(widths) == 1 for widths in page.widths)  # every row as wide as its table
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.links) <= set(page.ids)
    return page


@pytest.mark.slow
def test_page_is_self_contained_and_well_formed(report: Report) -> None:
    html = report.to_html()
    page = _page(html)
    assert len(page.images) == 6
    assert {"data", "correlations", "shrinkage", "retrieval", "mismatches", "models", "how"} <= set(
        page.ids
    )
    assert "://" not in html
    assert all(image["alt"] for image in page.images)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.usefixtures("undrawn", "few_trials")
def test_page_escapes_what_it_is_given(data: Any) -> None:
    X, Y, _ = data
    pictures = np.zeros((len(X), 8, 8, 3), np.uint8)
    names = ["<b>&"] * len(X)
    html = build(X, Y, title="<i>", names=names, pictures=pictures, quick=True).to_html()
    assert "<b>&" not in html
    assert "<i>" not in html
    page = _page(html)
    assert any(image["alt"] == "<b>&" for image in page.images)


def test_text_fits_a_terminal(report: Report) -> None:
    lines = report.to_text().splitlines()
    assert max(map(len, lines)) <= 110
    assert sum(line.endswith(" *") or " * " in line for line in lines[4:-1]) == 1
    assert any(line.startswith("chance") for line in lines)


@pytest.mark.slow
def test_labels_may_have_gaps_and_columns_may_be_constant(data: Any) -> None:
    X, Y, labels = data
    gaps = np.where(labels == "a", np.nan, 1.0)
    X = np.column_stack([X, np.zeros(len(X))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the page tells, not the console
        report = build(X, Y, gaps, quick=True)
    found = [warned.finding for warned in report.warned]
    assert any("1 column constant (column 6)" in f for f in found)
    assert any("without a label" in f for f in found)
    assert any("no relevant candidate" in remark for remark in report.remarks)
    assert "no label" not in report.to_text()
    _page(report.to_html())


@pytest.mark.slow
def test_one_feature_is_enough(data: Any) -> None:
    X, Y, _ = data
    report = build(X[:, :1], Y, quick=True)
    assert len(report.held_out_correlations) == 1
    assert len(_page(report.to_html()).images) == 4  # no plane with one component


def test_input_that_cannot_be_is_one_sentence(data: Any) -> None:
    X, Y, labels = data
    with pytest.raises(ValueError, match=r"image has shape \(159, 6\) and text has shape \(160, 6"):
        build(X[1:], Y)
    with pytest.raises(ValueError, match="at least 20 items"):
        build(X[:19], Y[:19])
    with pytest.raises(ValueError, match="labels has shape"):
        build(X, Y, labels[1:])
    with pytest.raises(ValueError, match="image has 1 infinite value"):
        build(np.where(np.arange(960).reshape(160, 6) == 3, np.inf, X), Y)
    with pytest.raises(ValueError, match="text holds nothing but NaN"):
        build(X, np.full_like(Y, np.nan))
    with pytest.raises(ValueError, match="max_items"):
        build(X, Y, max_items=3)
    with pytest.raises(ValueError, match="2 names for 160 items"):
        build(X, Y, names=["a", "b"])


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_public_functions(full: Report, data: Any) -> None:
    X, Y, labels = (a[:100] for a in data)
    x, y = X[full.train, :3].astype(float), Y[full.train, :3]
    test = permutation_test(x, y, n_permutations=999, random_state=0)
    np.testing.assert_allclose(full.evidence.table["p_permutation"], test["p_value"])
    wilks = canonical_correlation_test(CCA(shrinkage=0.0).fit(x, y))["wilks_p"].cummax()
    np.testing.assert_allclose(full.evidence.table["p_wilks"], wilks)
    folds = KFold(20, shuffle=True, random_state=0)
    intervals = correlation_intervals(x, y, cv=folds)
    np.testing.assert_allclose(full.evidence.table["estimate_upper"], intervals["upper"])
    u, v = full.retriever.embed(X[full.test, :3], Y[full.test, :3])
    expected = retrieval_report(u, v, labels=labels[full.test])
    for direction, row in zip(full.directions, ("x -> y", "y -> x"), strict=True):
        for metric in ("R@1", "R@10", "median_rank", "MRR", "mAP"):
            got = full.retrieval.table.loc[(direction, metric)]
            assert got["value"] == pytest.approx(expected.at[row, metric])
            assert got["lower"] <= got["value"] <= got["upper"]
    assert full.models is not None
    assert full.models.table.loc["CCA", "mAP"] > 0
    text = " ".join(_page(full.to_html()).text)
    assert f"{full.evidence.table['held_out'].iloc[0]:.3f}" in text
    assert full.evidence.sentence in text
    assert "ConditionalGaussian" in text


@pytest.mark.usefixtures("undrawn", "few_trials")
def test_noise_is_called_nothing(data: Any) -> None:
    rng = np.random.default_rng(0)
    report = build(rng.normal(size=(300, 5)), rng.normal(size=(300, 4)), quick=True)
    assert report.evidence.supported == 0
    assert "Nothing linear" in report.evidence.sentence
    assert "not told from chance" in report.retrieval.sentence
    assert not report.mismatches.told_apart
    assert "Nothing to complain of" in report.to_html()


@pytest.mark.usefixtures("few_trials")
def test_shared_components_are_counted() -> None:
    rng = np.random.default_rng(1)
    Z = rng.normal(size=(300, 2))
    X = np.column_stack([Z + 0.5 * rng.normal(size=Z.shape), rng.normal(size=(300, 3))])
    Y = np.column_stack([Z + 0.5 * rng.normal(size=Z.shape), rng.normal(size=(300, 2))])
    far = [int(np.argmax(Z.sum(axis=1))), int(np.argmin(Z.sum(axis=1)))]
    X[far] = X[far[::-1]]  # two pairs exchanged
    report = build(X, Y, quick=True)
    assert report.evidence.supported == report.evidence.held == 2
    assert set(far) == set(report.mismatches.table["row"][:2])


def test_intervals_of_rows_with_gaps_are_by_em() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((300, 3))
    Y = X[:, :2] + rng.standard_normal((300, 2))
    Y[rng.random(300) < 0.4] = np.nan
    train, groups = np.arange(300), np.repeat(np.arange(150), 2)
    filled = np.where(np.isnan(Y), np.nanmean(Y, axis=0), Y)
    given = (X, filled, train, np.array([0.7, 0.7]), np.array([0.7, 0.7]), 75, 0, False)
    found = correlation_evidence(*given, observed=(X, Y))
    folds = KFold(20, shuffle=True, random_state=0)
    expected = correlation_intervals(X, Y, cv=folds, missing="em")
    for column, one in (("estimate", "estimate"), ("estimate_lower", "lower")):
        np.testing.assert_allclose(found.table[column], expected[one])
    assert (found.table["estimate"] > correlation_evidence(*given).table["estimate"] + 0.1).all()
    assert any("EM found from the observed entries" in said for said in found.left_out)
    grouped = correlation_evidence(*given, groups=groups, observed=(X, Y))
    assert not grouped.table["estimate"].isna().any()  # of two gaps in a group its mean is one
    Y[np.arange(300), rng.integers(0, 2, 300)] = np.nan
    with pytest.MonkeyPatch.context() as change:
        change.setattr(correlations, "PATTERNS", 1000)
        many = correlation_evidence(*given, observed=(X, Y))
    assert any("EM on 3 patterns of gaps in 5 columns takes too long" in s for s in many.left_out)


def test_ids_of_one_view_and_equal_views_are_named() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
    wide = np.column_stack([np.arange(40) + 100, X])
    named = [["image_id", "a", "b"], None]
    (said,) = likely_ids((wide, Y), ("image", "text"), named)
    assert said.startswith("column 0 ('image_id') of image has another whole number in every row")
    (said,) = likely_ids((wide, np.column_stack([Y, wide[:, 0]])), ("image", "text"), named)
    assert "are equal in every row" in said
    assert likely_ids((X, X.copy()), ("image", "text"), [None, None])[0].startswith(
        "image and text are equal, entry by entry"
    )


@pytest.mark.usefixtures("few_trials")
def test_findings_say_what_is_wrong(data: Any) -> None:
    X, Y, _ = (a.astype(float) if a.dtype.kind == "f" else a.copy() for a in data)
    X[3, 1] = np.nan
    X[7] *= 1000
    X[20], Y[20] = X[21], Y[21]
    X[30] = X[31]
    X = np.column_stack([X, X[:, 0], np.ones(160), X[:, 2] + X[:, 4]])
    Y[:, 0] *= 1e6
    report = build(X, Y, quick=True)
    found = "\n".join(warned.finding for warned in report.warned)
    for part in (
        "image: 1 entry missing (0.07%), in 1 row",
        "image: 1 column constant (column 7)",
        "image: 1 column equal to an earlier one",
        "columns depend on each other linearly",
        "image: 1 row far from all others in Mahalanobis distance (row 7)",
        "1 pair equal to an earlier one in both views",
        "image: 1 row equal to an earlier one, with another partner",
        "text: standard deviations of the columns differ",
    ):
        assert part in found
    assert np.isfinite(report.held_out_correlations).all()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_much_is_sampled_and_wide_is_narrowed(monkeypatch: pytest.MonkeyPatch, data: Any) -> None:
    X, Y, labels = data
    monkeypatch.setattr("cmstats.report.views.WIDEST", 5)
    report = build(X, Y, labels, max_items=100, quick=True)
    assert len(report.train) == 75
    assert len(report.test) == 25
    assert not set(report.train) & set(report.test)
    assert report.shapes == ((160, 6), (160, 6))
    assert "Of 160 items 100 were looked at" in report.limits[0]
    assert "image has 6 columns; the analysis used its 5" in report.limits[1]
    assert report.limits[0] in report.to_html()
    assert set(report.mismatches.table["row"]) <= set(report.train) | set(report.test)
    again = build(scipy.sparse.csr_array(X), Y, labels, max_items=100, quick=True)
    assert again.limits[0] == report.limits[0]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_more_columns_than_rows() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(60, 2))
    X, Y = (Z @ rng.normal(size=(2, 90)) + rng.normal(size=(60, 90)) for _ in range(2))
    report = build(X, Y, quick=True)
    assert report.evidence.supported >= 1
    assert any("more than the 45" in warned.finding for warned in report.warned)
    assert "p_wilks" not in report.evidence.table
    _page(report.to_html())


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    write_new(path, "one")
    with pytest.raises(FileExistsError, match="exists"):
        write_new(path, "two")
    with pytest.raises(UnicodeEncodeError):
        write_new(path, "\ud800", overwrite=True)
    assert path.read_text() == "one"
    write_new(path, "three", overwrite=True)
    assert path.read_text() == "three"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.slow
def test_emoji_are_retrieved_at_least_as_well_as_in_the_trial() -> None:
    said: list[str] = []
    report = build_emoji(progress=said.append)
    for direction in report.directions:
        assert report.best("R@10", direction) >= 0.51
        assert report.best("median_rank", direction) <= 9
        assert report.best("mAP", direction) >= 0.40
    # `cmstats query` takes the choice as known.
    tried = report.retriever.results_
    best = tried[(tried["model"] == "CCA") & ~tried["hubness"]].iloc[0]
    assert best["similarity"] == "likelihood_ratio"
    assert best["shrinkage"] == QUERY_SHRINKAGE
    assert len(said) == 5
    html = report.to_html()
    assert len(html) < 3e6
    assert "red fruit" in html
    assert 'class=" hit"' in html


# ------------------------------------------------------------------------- command line
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "few_trials")
def test_report_of_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["report", "x.npy", "y.npy", "--labels", "labels.npy", "--quick"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "raw cosine" in out
    assert f"page: {files / 'report.html'}" in out
    assert (files / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "exists" in _fails(capsys, "report", "x.npy", "y.npy")
    assert "cmstats report x.npy y.npy" in (files / "report.html").read_text(encoding="utf-8")
    argv = ["report", "--x", "x.npy", "--y", "y.npy", "-o", "b.html", "--quick"]
    assert main(argv) == 0
    assert "x -&gt; y" not in (files / "b.html").read_text(encoding="utf-8")
    assert "x → y" in (files / "b.html").read_text(encoding="utf-8")
    assert main([*argv, "--force", "--names", "audio", "video", "--max-items", "60"]) == 0
    assert "audio → video" in (files / "b.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in files.glob(".*")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_report_of_folders(files: Path, data: Any) -> None:
    pytest.importorskip("cmstats.rows.files")
    for name, array in zip("xy", data, strict=False):
        (files / name).mkdir()
        for i in range(2):
            np.save(files / name / f"{name}_{i}.npy", array[80 * i : 80 * (i + 1)])
    assert main(["report", "--x", "x", "--y", "y", "--quick", "--max-items", "100"]) == 0
    assert "Of 160 items 100" in (files / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["npz", "npz:a", "csv", "bare.csv", "parquet", "lists.parquet"])
def test_every_kind_of_file_is_read(form: str, tmp_path: Path) -> None:
    a = np.arange(12.0).reshape(4, 3) + 0.5
    path = tmp_path / f"f.{form.partition(':')[0]}"
    frame = pd.DataFrame(a, columns=list("abc"))
    if form == "npz":
        np.savez(path, only=a)
    elif form == "npz:a":
        np.savez(path, a=a, b=a[:1])
    elif form.endswith("csv"):
        frame.to_csv(path, index=False, header=form == "csv")
    elif form == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        pytest.importorskip("pyarrow")
        pd.DataFrame({"embedding": list(a)}).to_parquet(path)
    name = f"{path}:a" if form == "npz:a" else str(path)
    np.testing.assert_array_equal(read_array(name), a)


def test_file_errors_are_one_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    (files / "torn.npy").write_bytes(b"no array")
    (files / "torn.npz").write_bytes(b"no archive")
    (files / "torn.parquet").write_bytes(b"no table")
    (files / "empty.csv").write_text("")
    (files / "words.csv").write_text("a,b\n1,x\n2,y\n")
    (files / "notes.txt").write_text("x")
    np.savez(files / "two.npz", a=np.eye(3), b=np.eye(3))
    np.save(files / "flat.npy", np.arange(160.0))
    np.save(files / "cube.npy", rng.normal(size=(160, 2, 2)))
    np.save(files / "short.npy", rng.normal(size=(159, 4)))
    np.save(files / "inf.npy", np.full((160, 2), np.inf))
    np.save(files / "nan.npy", np.full((160, 2), np.nan))
    np.save(files / "text.npy", np.full((160, 2), "a"))
    np.save(files / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, message in {
        "gone.npy": "there is no such file",
        "torn.npy": "cannot be read as a .npy file",
        "torn.npz": "cannot be read as a .npz file",
        "torn.parquet": "cannot be read as a .parquet file",
        "empty.csv": "cannot be read as a .csv file",
        "words.csv": "words.csv: column 'b' holds",
        "notes.txt": "is no .npy",
        "two.npz": "here a, b",
        "two.npz:c": "no array 'c'",
        "flat.npy": "shape (160,)",
        "cube.npy": "shape (160, 2, 2)",
        "short.npy": "same number of rows",
        "nan.npy": "320 NaN values",
        "inf.npy": "infinite value",
        "text.npy": "not real numbers",
        "objects.npy": "cannot be read",
    }.items():
        assert message in _fails(capsys, "report", "x.npy", name), name
    assert "no folder" in _fails(capsys, "report", "x.npy", "y.npy", "--out", "no/page.html")
    assert "is a folder" in _fails(capsys, "report", "x.npy", "y.npy", "--out", ".")


def test_labels_of_another_length_are_one_line(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(files / "few.npy", np.arange(3))
    np.save(files / "square.npy", np.eye(160))
    argv = ("report", "x.npy", "y.npy", "--labels")
    assert "labels has shape (3,)" in _fails(capsys, *argv, "few.npy")
    assert "expected one label per item" in _fails(capsys, *argv, "square.npy")
    assert not (files / "report.html").exists()


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in _fails(capsys)
    assert "required" in _fails(capsys, "report", "x.npy")
    assert "required" in _fails(capsys, "report", "--x", "x.npy")
    assert "required" in _fails(capsys, "report", "x.npy", "y.npy", "--x", "z.npy")
    assert "invalid choice" in _fails(capsys, "fly")
    assert "at least 1" in _fails(capsys, "query", "cat", "-k", "0")
    assert "--seed: '-1' is no whole number" in _fails(
        capsys, "report", "x.npy", "y.npy", "--seed", "-1"
    )
    assert "no part of" in _fails(capsys, "query", "ʬʬʬ")


def test_version_and_help_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"cmstats {__version__}"
    assert main(["--help"]) == 0


@pytest.mark.usefixtures("undrawn")
def test_demo_never_overwrites(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("cmstats.report.build_emoji", lambda progress: report)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.html").write_text("mine")
    assert main(["demo"]) == 0
    assert f"page: {tmp_path / 'demo-2.html'}" in capsys.readouterr().out
    assert main(["demo"]) == 0
    assert (tmp_path / "demo-3.html").exists()
    assert "exists" in _fails(capsys, "demo", "--out", "demo.html")
    assert (tmp_path / "demo.html").read_text() == "mine"
    assert main(["demo", "--force"]) == 0
    assert (tmp_path / "demo.html").read_text(encoding="utf-8") != "mine"


def test_query_answers_with_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "red", "fruit", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "red apple" in lines[0]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
@pytest.mark.subprocess
def test_query_as_a_program_in_a_narrow_console() -> None:
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "cmstats", "query", "red fruit", "-k", "2"],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"\d+\.\d+ .* red apple", done.stdout)
