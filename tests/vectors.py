"""Where the test material of others lies: beside the checkout, never in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Beside the checkout; or where $IKEWAY_VECTORS says, for clones elsewhere.
PLACES = [
    Path(os.environ.get("IKEWAY_VECTORS", "/nowhere")),
    Path(__file__).resolve().parents[1].parent / "shared" / "vectors",
    Path("/work/shared/vectors"),
]
ROOT = next((place for place in PLACES if place.is_dir()), PLACES[1])


def vector(name: str) -> Path:
    """The path of a shared vector; skips the test when it is not there, fails it in CI."""
    path = ROOT / name
    if not path.exists():
        message = f"needs {path}, which is not here"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message, allow_module_level=True)
    return path
