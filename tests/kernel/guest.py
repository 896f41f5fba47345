"""What runs inside a guest: `python -m tests.kernel.guest MODULE FILE [NAME...]` runs the suite of a module, or some of
its cases, and writes a JSON line for each into a file."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path


def main(module: str, results: str, *names: str) -> None:
    """Run the suite `SUITE` of a module. A case that fails does not keep the others from running."""
    loaded = importlib.import_module(module)
    for each in loaded.SUITE.modules:
        subprocess.run(["modprobe", "-q", each], check=False)
    with Path(results).open("a") as lines, loaded.prepare() as prepared:
        for name, case in loaded.SUITE.cases.items():
            if names and not any(wanted in name for wanted in names):
                continue
            began = time.monotonic()
            failure = ""
            try:
                case(prepared)
            except BaseException:
                failure = traceback.format_exc()
            line = {"name": name, "failure": failure, "seconds": round(time.monotonic() - began, 2)}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            print(f"{line['seconds']:7.2f} s  {name}  {failure or 'passed'}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
