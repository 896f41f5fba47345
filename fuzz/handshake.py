"""Fuzz what comes before authentication with atheris: `python -m fuzz.handshake -runs=20000`.

Both roles of the engine get hostile octets (see tests/ike/hostile.py). Any exception, and any SA that a stranger can
leave behind, is a finding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ikeway.wire", "ikeway.ike"]):
    from tests.ike import hostile

from tests.ike.test_hostile import seeds
from tests.wire import mutation

DEFAULT_RUNS = 10_000


def target(octets: bytes) -> None:
    """One input: the first octet says to whom it is said."""
    if not octets:
        return
    choice, rest = octets[0] % 3, octets[1:]
    if choice == 0:
        hostile.as_request(rest)
    elif choice == 1:
        hostile.as_answer(rest)
    elif rest:
        hostile.sealed(33 + rest[0] % 17, rest[1:])


def mutate(octets: bytes, limit: int, seed: int) -> bytes:
    """Half of the time libFuzzer's own mutations, half of the time ours, which repair the length in the header."""
    if seed % 2:
        return atheris.Mutate(octets, limit)
    return (octets[:1] or b"\0") + mutation.mutated_by_number(octets[1:] or bytes(28), seed)[: limit - 1]


def main() -> None:
    """Write the seeds where libFuzzer finds them, and run."""
    arguments = sys.argv[1:]
    if not any(argument.startswith(("-runs=", "-max_total_time=")) for argument in arguments):
        arguments.append(f"-runs={DEFAULT_RUNS}")
    with tempfile.TemporaryDirectory() as folder:
        for number, octets in enumerate(seeds()):
            for role in range(3):
                Path(folder, f"{number}-{role}").write_bytes(bytes([role]) + octets)
        atheris.Setup([sys.argv[0], *arguments, "-max_len=4096", folder], target, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
