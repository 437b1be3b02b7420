"""``python -m benchmarks [SUITE ...] [--quick] [--only TEXT]``: run suites, save, write tables."""

from __future__ import annotations

import argparse
import importlib
import inspect

from benchmarks import _headline, _measure, _tables

SUITES = (
    "cca",
    "gaussian",
    "missing",
    "mixture",
    "kernel_cca",
    "multiview",
    "semantic",
    "autoencoder",
    "multitask",
    "family",
    "accuracy",
    "fusion",
    "comparison",
    "few_pairs",
    "baselines",
    "inference",
    "promises",
    "scale",
    "kernels",
    "gpu",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a check in CI")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        help="measurements (of few_pairs), models (of comparison) or parts (of family: pls, "
        "procrustes, banded, sparse) whose name contains TEXT; other rows stay as they are",
    )
    args = parser.parse_args()
    unknown = set(args.suites) - set(SUITES)
    if unknown:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}: choose of {', '.join(SUITES)}")
    if args.quick:
        _measure.once()
    for name in args.suites or SUITES:
        run = importlib.import_module(f"benchmarks.{name}").run
        given = {"quick": args.quick}
        if args.only is not None:
            if "only" not in inspect.signature(run).parameters:
                parser.error(f"{name} runs as a whole: leave --only out")
            given["only"] = args.only
        results = _measure.Results(name, quick=args.quick)
        try:
            for rows in run(**given):
                results.add(rows)
                for line in _tables.lines(rows):
                    print(f"{name}: {line}", flush=True)
        except _measure.NotRun as reason:
            print(f"{name}: not run, {reason}")
        else:
            if args.only is None:
                results.finish()
    if not args.quick:
        _tables.rewrite_readme()
        _headline.rewrite()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
