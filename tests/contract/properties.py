"""Every property, for a test file that enrolls a model of its own (see `contract`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = []


def _marks_of(module: Any) -> list[Any]:
    marks = getattr(module, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


for _path in sorted(Path(__file__).parent.glob("test_*.py")):
    if _path.stem in ("test_adding_a_model", "test_enrolment"):
        continue
    _module = importlib.import_module(f"{__package__}.{_path.stem}")
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and hasattr(_test, "holds"):
            for _mark in _marks_of(_module):
                _test = _mark(_test)  # what pytest looks for is added to the function
            globals()[_name] = _test
            __all__.append(_name)
