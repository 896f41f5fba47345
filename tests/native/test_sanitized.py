"""The core under gcc's sanitizers: the comparisons of both paths and hostile octets, in a process of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ikeway import native

FLAGS = ("-std=c11", "-O1", "-g", "-shared", "-fPIC", "-fno-sanitize-recover=all", "-fsanitize=address,undefined")
WHICH = "hostile or odd_packets or no_packets or any_payload or several_sas or reordered or interleaved or udp_is or ike_and"
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")


@pytest.fixture
def sources() -> list[str]:
    if not shutil.which("gcc"):
        if os.environ.get("CI"):
            pytest.fail("no gcc")
        pytest.skip("no gcc")
    return [str(path) for path in sorted(Path(native.__path__[0]).glob("*.c"))]


@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_no_warnings(sources: list[str], level: str, tmp_path: Path) -> None:
    for source in sources:
        subprocess.run(["gcc", "-std=c11", level, *STRICT, "-c", source, "-o", tmp_path / "object.o"], check=True)


@pytest.mark.timeout(300)
def test_hostile_octets_under_sanitizers(sources: list[str], tmp_path: Path) -> None:
    library = tmp_path / "_core.so"
    subprocess.run(["gcc", *FLAGS, *sources, "-o", library, "-ldl"], check=True)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
    folder = Path(__file__).parent
    program = (
        "import pathlib, sys, pytest\n"
        "from ikeway import native\n"
        f"native.built = lambda: pathlib.Path({str(library)!r})\n"
        "assert native.status().used, native.status().detail\n"
        f"arguments = ['-q', '-x', '-p', 'no:cacheprovider', '-n', '0', '--ignore', {__file__!r}]\n"
        f"arguments += ['-k', {WHICH!r}, {str(folder)!r}]\n"
        "sys.exit(pytest.main(arguments))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder.parents[1],
        env={
            **os.environ,
            "LD_PRELOAD": runtime.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
            "PYTHONPATH": str(folder.parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
