from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _runtime_directory_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Journals of tests that fail must not be found by programs that really run here."""
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / "runtime"))
