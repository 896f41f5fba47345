"""The native core is there where it can be built, and can be switched off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ikeway import native
from ikeway.native import layout


def test_it_is_built_where_there_is_a_compiler() -> None:
    if not os.environ.get("CI") and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    assert native.status().used, native.status().detail


@pytest.mark.parametrize("value", ["0", "off"])
def test_it_can_be_switched_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, value)
    assert native.core() is None
    assert native.SWITCH in native.status().detail


def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LAYOUT", layout.LAYOUT + 1)
    monkeypatch.setenv(native.SWITCH, "fresh")  # not cached
    try:
        assert "another version" in native.status().detail
    finally:
        native._loaded.cache_clear()


def test_without_the_library_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "built", lambda: None)
    native._loaded.cache_clear()
    try:
        assert "C compiler" in native.status().detail
    finally:
        native._loaded.cache_clear()


def test_structures_are_as_the_compiler_lays_them_out(tmp_path) -> None:
    if not shutil.which("cc") and not os.environ.get("CI"):
        pytest.skip("no C compiler")
    source = tmp_path / "sizes.c"
    folder = native.__path__[0]
    names = {
        "packet": layout.Packet, "frame": layout.Frame, "message": layout.Message, "entry": layout.Entry,
        "run": layout.Run, "delivery": layout.Delivery,
    }  # fmt: skip
    jobs = {
        "suite": (layout.Suite, "crypto.c"), "seal": (layout.SealJob, "outbound.c"), "sort": (layout.SortJob, "inbound.c"),
        "open": (layout.OpenJob, "inbound.c"), "merge": (layout.MergeJob, "inbound.c"),
        "group": (layout.Group, "inbound.c"), "read": (layout.ReadJob, "io.c"), "write": (layout.WriteJob, "io.c"),
        "receive": (layout.ReceiveJob, "io.c"), "send": (layout.SendJob, "io.c"),
        "route": (layout.Route, "forward.c"), "out_group": (layout.OutGroup, "forward.c"), "way": (layout.Way, "forward.c"),
        "out": (layout.OutJob, "forward.c"), "in": (layout.InJob, "forward.c"),
    }  # fmt: skip
    wanted = {name: (structure, "core.h") for name, structure in names.items()} | jobs
    for file in sorted({file for _, file in wanted.values()}):
        of_file = {name: structure for name, (structure, where) in wanted.items() if where == file}
        lines = "".join(f'printf("{name} %zu\\n", sizeof(struct ikw_{name}));' for name in of_file)
        source.write_text(f'#include "{folder}/{file}"\n#include <stdio.h>\nint main(void) {{ {lines} }}\n')
        others = [
            f"{folder}/{other}"
            for other in ("crypto.c", "outbound.c", "inbound.c", "io.c", "forward.c", "gcm.c")
            if other != file
        ]
        subprocess.run(["cc", "-o", tmp_path / "sizes", source, *others, "-ldl"], check=True)
        told = subprocess.run([tmp_path / "sizes"], check=True, capture_output=True, text=True).stdout.split()
        import ctypes

        sizes = dict(zip(told[::2], map(int, told[1::2]), strict=True))
        assert sizes == {name: ctypes.sizeof(structure) for name, structure in of_file.items()}


def test_every_interpreter_finds_it_by_itself() -> None:
    program = "from ikeway import native; print(native.status().used)"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told.strip() == str(native.status().used)
