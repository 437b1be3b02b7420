"""Every public name is in the API reference, with a docstring."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import cmstats

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "scripts").is_dir(), reason="the scripts are in the repository, not in the sdist"
)


@pytest.fixture(scope="module")
def write_api() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_api", ROOT / "scripts" / "write_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_that_of_the_public_names(write_api: ModuleType) -> None:
    stored = (ROOT / "notebooks" / "api.md").read_text()
    assert stored == write_api.page(), "run python scripts/write_api.py"


def test_every_name_of_the_top_level_is_in_it(write_api: ModuleType) -> None:
    listed = {
        name for module in write_api.PAGES.values() for name in write_api.public_names(module)
    }
    assert {n for n in cmstats.__all__ if n != "__version__"} <= listed


def test_every_public_name_and_method_has_a_docstring(write_api: ModuleType) -> None:
    missing = []
    for home in write_api.PAGES.values():
        module = importlib.import_module(home)
        for name in write_api.public_names(home):
            value = module
            for part in name.split("."):
                value = getattr(value, part)
            missing += [name] if not inspect.getdoc(value) else []
            if inspect.isclass(value):
                missing += [
                    f"{name}.{method}"
                    for method, code in inspect.getmembers(value, inspect.isfunction)
                    if not method.startswith("_") and not inspect.getdoc(code)
                ]
    assert not missing


def test_pages_of_the_site_exist() -> None:
    pages = (ROOT / "notebooks" / "index.md").read_text().split()
    notebooks = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
    assert set(notebooks) <= set(pages)
    assert (ROOT / "CONTRIBUTING.md").exists()
