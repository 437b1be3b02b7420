"""Configuration of the documentation: ``python -m sphinx notebooks site``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cmstats

project = "cmstats"
author = "cmstats developers"
copyright = "cmstats developers"
version = release = cmstats.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
]
html_theme = "pydata_sphinx_theme"
html_title = f"cmstats {version}"
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
html_sidebars = {"index": []}
html_copy_source = False
exclude_patterns = ["**.ipynb_checkpoints"]

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_typehints = "none"  # numpydoc sections say the types, with shapes
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

nb_execution_mode = "off"  # the stored outputs; tests execute the notebooks
myst_enable_extensions = ["dollarmath", "amsmath"]
suppress_warnings = ["autosummary", "mystnb.unknown_mime_type"]


def _skip_inherited(app, what, name, obj, skip, options):
    """Leave out what scikit-learn's base classes add; its own site documents that."""
    home = getattr(obj, "__module__", None) or ""
    return (
        skip
        or home.startswith("sklearn.")
        or (name.startswith("set_") and name.endswith("_request"))
    )


def _escape_trailing_underscores(app, what, name, obj, options, lines):
    """Keep ``n_components_`` outside of literals from being read as a link target."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "..")):
            parts = re.split(r"(`+[^`]*`+)", line)
            parts[::2] = [re.sub(r"(\w)_(?!\w)", r"\1\\_", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    """Connect the hooks, the second before numpydoc reads the docstring."""
    app.connect("autodoc-skip-member", _skip_inherited)
    app.connect("autodoc-process-docstring", _escape_trailing_underscores, priority=400)
