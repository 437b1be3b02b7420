"""The command line: ``cmstats demo``, ``report``, ``check`` and ``query``."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["main", "read_array"]

# The best CCA of `cmstats demo`, so that a query need not search for it.
QUERY_SHRINKAGE = 0.4

ROLES = ("join", "index", "drop", "labels", "groups", "ids", "nuisance")
"""Options that say what columns, or other files, are; see `cmstats.report.inputs`."""


class _UsageError(Exception):
    """An invalid argument."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print the usage too."""
        raise _UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, or 2 after one line on stderr that says what is wrong.

    Examples
    --------
    >>> from cmstats.report.cli import main
    >>> main(["--version"])
    cmstats 0...
    0
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an emoji must not end a program in a narrow console
            stream.reconfigure(errors="replace")
    try:
        arguments = _parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            arguments.run(arguments)
            sys.stdout.flush()
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    except BrokenPipeError:  # as in `cmstats demo | head`; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (_UsageError, OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        return _fail(_sentence(error), 2)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"cmstats: error: {message}", file=sys.stderr)
    return code


def _sentence(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _print_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"cmstats: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    from cmstats import __version__

    parser = _Parser(
        prog="cmstats", description="Classical statistics for features of two modalities."
    )
    parser.add_argument("--version", action="version", version=f"cmstats {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    demo = commands.add_parser("demo", help="a report on the emoji that ship with cmstats")
    demo.add_argument(
        "--out", type=Path, metavar="FILE",
        help="the page to write (default: demo.html, or demo-2.html and so on where there is one)",
    )  # fmt: skip
    demo.set_defaults(run=_demo)

    report = commands.add_parser(
        "report",
        help="a report on your own features",
        description="A report on two files with one row per item (.npy, .npz:MEMBER, .csv, .tsv, "
        ".jsonl, .parquet:COLUMN, .h5, .h5ad, .mat, .pt, .safetensors); or on two folders of "
        "numbered .npy files.",
    )
    report.add_argument("image", nargs="?", help="features of the first view")
    report.add_argument("text", nargs="?", help="features of the second view")
    report.add_argument("--x", metavar="FILE", help="another way to name the first")
    report.add_argument("--y", metavar="FILE", help="another way to name the second")
    _add_columns(report)
    for role, what in (
        ("labels", "one label per item"),
        ("groups", "rows that stay together in training or in evaluation"),
        ("ids", "the item of each row, where items have several rows"),
    ):
        report.add_argument(f"--{role}", metavar="FILE or COLUMN", help=what)
    report.add_argument(
        "--nuisance", nargs="+", action="extend", default=[], metavar="FILE or COLUMN",
        help="confounds, which are regressed out of both views",
    )  # fmt: skip
    report.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE",
        help="the page to write (default: report.html)",
    )  # fmt: skip
    report.add_argument(
        "--names", nargs=2, metavar=("FIRST", "SECOND"),
        help="what the views are called (default: the names of the files)",
    )  # fmt: skip
    report.add_argument("--quick", action="store_true", help="leave out the comparison of models")
    report.add_argument(
        "--max-items", type=int, default=20_000, metavar="N",
        help="look at no more items, drawn at random (default: 20000)",
    )  # fmt: skip
    report.add_argument("--seed", type=_seed, default=0, help="default: 0")
    report.set_defaults(run=_report)
    for command in (demo, report):
        command.add_argument("--force", action="store_true", help="overwrite the page")

    check = commands.add_parser(
        "check",
        help="pairs of your own features that may be wrong",
        description="A table of suspects, from two files with one row per pair, as report takes.",
    )
    check.add_argument("image", help="features of the first view")
    check.add_argument("text", help="features of the second view")
    check.add_argument(
        "--clean", metavar="FILE",
        help="numbers (from 0) of rows known to be right, a random sample: wrong pairs are then "
        "flagged with an error rate",
    )  # fmt: skip
    _add_columns(check)
    check.add_argument(
        "--groups", metavar="FILE or COLUMN", help="one label per row; a group is in one fold"
    )
    check.add_argument(
        "--fdr", type=float, default=0.1,
        help="the expected share of right pairs among those flagged (default: 0.1)",
    )  # fmt: skip
    check.add_argument("--cv", type=int, default=5, help="the number of folds (default: 5)")
    check.add_argument("--seed", type=_seed, default=0, help="default: 0")
    check.add_argument(
        "--out", type=Path, default=Path("suspects.csv"), metavar="FILE",
        help="the table to write, worst first (default: suspects.csv)",
    )  # fmt: skip
    check.add_argument("--force", action="store_true", help="overwrite the table")
    check.set_defaults(run=_check)

    query = commands.add_parser("query", help="the emoji that fit some words")
    query.add_argument("words", nargs="+")
    query.add_argument("-k", type=int, default=10, help="how many (default: 10)")
    query.set_defaults(run=_query)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, 0 or more")
    return int(text)


def _add_columns(command: argparse.ArgumentParser) -> None:
    """Options that say which columns of two tables are no features."""
    command.add_argument("--join", metavar="COLUMN", help="pair the rows of two tables by this id")
    command.add_argument("--index", metavar="COLUMN", help="the labels of the rows, no feature")
    command.add_argument(
        "--drop",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="columns to leave out",
    )


def _demo(arguments: argparse.Namespace) -> None:
    out = arguments.out
    if out is None:
        out = Path("demo.html") if arguments.force else _free(Path("demo.html"))
    _check_out(out, force=arguments.force)
    from cmstats.report import build_emoji

    _finish(build_emoji(progress=_say), out, force=arguments.force)


def _report(arguments: argparse.Namespace) -> None:
    first, second = _two_files(arguments)
    named = arguments.names or _stems(first, second)
    _check_out(arguments.out, force=arguments.force)
    from cmstats.report.inputs import read_inputs

    roles = {role: getattr(arguments, role) for role in ROLES}
    given = read_inputs(first, second, **roles)
    for note in given.notes:
        _note(note)
    from cmstats.report import build

    words = ["cmstats", "report", first, second, "--names", *named]
    for role, value in roles.items():
        listed = [value] if isinstance(value, str) else list(value or ())
        words += [f"--{role}", *listed] if listed else []
    words += ["--quick"] if arguments.quick else []
    words += ["--max-items", str(arguments.max_items), "--seed", str(arguments.seed)]
    report = build(
        given.first, given.second, given.labels, groups=given.groups, ids=given.ids,
        nuisance=given.nuisance, title=f"{_short(first)} and {_short(second)}",
        views=tuple(named), quick=arguments.quick, max_items=arguments.max_items,
        random_state=arguments.seed, command=shlex.join(words), notes=given.notes, progress=_say,
    )  # fmt: skip
    _finish(report, arguments.out, force=arguments.force)


def _two_files(arguments: argparse.Namespace) -> tuple[str, str]:
    given = [a for a in (arguments.image, arguments.text) if a is not None]
    flags = [a for a in (arguments.x, arguments.y) if a is not None]
    if len(given) + len(flags) != 2 or len(flags) == 1:
        raise _UsageError(
            "two files are required, one for each view: cmstats report X.npy Y.npy, or "
            "--x X.npy --y Y.npy (see cmstats report --help)"
        )
    first, second = given or flags
    return first, second


def _finish(report: Any, out: Path, *, force: bool) -> None:
    page = report.write(out, overwrite=force).resolve()  # before a closed pipe ends the program
    for sentence in (*report.likely_ids, *report.limits):
        _note(sentence)
    print(report.to_text())
    print(f"page: {page}")


def _check(arguments: argparse.Namespace) -> None:
    _check_out(arguments.out, force=arguments.force)
    from cmstats.report.inputs import read_inputs, read_labels

    roles = {role: getattr(arguments, role) for role in ("join", "index", "drop", "groups")}
    given = read_inputs(arguments.image, arguments.text, **roles)
    for note in given.notes:
        _note(note)
    X, y, groups = given.first, given.second, given.groups
    clean = None if arguments.clean is None else read_labels(arguments.clean)
    from cmstats import check_pairs
    from cmstats.report import write_new

    _say(f"checking {X.shape[0]} pairs")
    table = check_pairs(
        X, y, clean=clean, fdr=arguments.fdr, groups=groups, cv=arguments.cv,
        random_state=arguments.seed,
    )  # fmt: skip
    found = table.sort_values("score", ascending=False, kind="stable").rename_axis("row")
    path = write_new(arguments.out, found.to_csv(), overwrite=arguments.force)
    print(
        f"at most {table.attrs['share_bound']:.1%} of {len(table):,} pairs are wrong (an upper "
        f"bound, with 90% confidence); {int(table['verified'].sum()):,} are verified"
    )
    if clean is None:
        print(
            "suspects are a ranking with an estimated rate; --clean FILE with rows known to be "
            "right flags wrong pairs with an error rate"
        )
    else:
        print(
            f"{int(table['flagged'].sum()):,} are flagged; at most {arguments.fdr:.0%} of these "
            "are expected to be right"
        )
    print(f"table: {path.resolve()}")


def _query(arguments: argparse.Namespace) -> None:
    from cmstats import CCA, load_emoji, search

    words = " ".join(arguments.words)
    if arguments.k < 1:
        raise _UsageError(f"-k must be at least 1, got {arguments.k}")
    emoji = load_emoji()
    query = emoji.encode_text([words])
    if not query.any():
        raise _UsageError(f"no part of {words!r} occurs in the training texts: try other words")
    cca = CCA(shrinkage=QUERY_SHRINKAGE)
    cca.fit(emoji.image[emoji.train], emoji.text[emoji.train])
    images, text = cca.embed(emoji.image, query, kind="likelihood_ratio")
    found, scores = search(text, images, k=arguments.k)
    for i, score in zip(found[0], scores[0], strict=True):
        print(f"{score:6.3f}  {emoji.characters[i]}  {emoji.names[i]}")


def _say(message: str) -> None:
    print(f"cmstats: {message} ...", file=sys.stderr)


def _free(path: Path) -> Path:
    """The path, or the first numbered one that does not exist."""
    numbered = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def _check_out(path: Path, *, force: bool) -> None:
    """Raise before the work begins if its result cannot be written."""
    if path.is_dir():
        raise _UsageError(f"{path} is a folder: name a file")
    if path.exists() and not force:
        raise _UsageError(f"{path} exists: choose another name with --out, or say --force")
    if not path.resolve().parent.is_dir():
        raise _UsageError(f"{path}: there is no folder {path.parent}")


def _short(name: str) -> str:
    return Path(name).name


def _stems(first: str, second: str) -> tuple[str, str]:
    """What the views are called: the stems of their files, or the members that differ."""
    stems = [Path(name.rpartition(":")[2] if ":" in name else name) for name in (first, second)]
    one, other = (path.name.split(".")[0] or path.name for path in stems)
    return (one, other) if one != other else (f"{one} (x)", f"{other} (y)")


def _note(sentence: str) -> None:
    print(f"cmstats: note: {sentence}", file=sys.stderr)


def read_array(name: str, *, numbers: bool = True) -> npt.NDArray[Any]:
    """Read one array from a file.

    Parameters
    ----------
    name : str
        A .npy file, a table (.csv, .tsv, .jsonl, .parquet), or a file of several arrays (.npz,
        .h5, .h5ad, .mat, .safetensors, .pt), as ``FILE:MEMBER`` where it holds more than one.
        ``TABLE:COLUMN`` is a column of vectors: of lists, or of text that is a list of numbers.
        The first line of a .csv is a header unless all of it is numbers that do not count the
        columns. A first column without a name, or one that counts the rows, is left out.
    numbers : bool, default=True
        Whether a table with text in it is an error.

    Returns
    -------
    array

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package that reads the format is missing.
    ValueError
        If the file cannot be read, or is of another kind.

    Examples
    --------
    >>> from cmstats.report.cli import read_array
    >>> read_array("features.txt")
    Traceback (most recent call last):
    ValueError: features.txt: is no .npy, ... (with :MEMBER for one array or column of several)
    """
    import numpy as np

    from cmstats.arrays import dense, to_numpy
    from cmstats.rows.formats import numbers_of, open_file

    data = open_file(name).data
    return np.asarray(to_numpy(dense(numbers_of(data, name) if numbers else data)))


if __name__ == "__main__":
    sys.exit(main())
