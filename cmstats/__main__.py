"""``python -m cmstats`` is the command ``cmstats``."""

from cmstats.report.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
