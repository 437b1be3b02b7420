"""``python -m benchmarks [SUITE ...] [--quick]``: run suites, save JSON, rewrite the tables."""

from __future__ import annotations

import argparse
import importlib

from benchmarks import _measure, _tables

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
    "fusion",
    "comparison",
    "baselines",
    "inference",
    "scale",
    "kernels",
    "gpu",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a check in CI")
    args = parser.parse_args()
    unknown = set(args.suites) - set(SUITES)
    if unknown:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}: choose of {', '.join(SUITES)}")
    for name in args.suites or SUITES:
        results = importlib.import_module(f"benchmarks.{name}").run(quick=args.quick)
        if "not run" in results:
            print(f"{name}: not run, {results['not run']}")
            continue
        print(f"{name}: {_measure.save(name, results, quick=args.quick)}")
        for line in _tables.lines(results):
            print("  " + line)
    if not args.quick:
        _tables.rewrite_readme()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
