"""Fuzz the decoder with atheris: `python -m fuzz.decode -runs=200000`.

Seeds are our own messages and the shared captures where they are; arguments go to libFuzzer. Anything but a
`WireError`, and a message that does not survive a round trip, is a finding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ikeway.wire"]):
    from ikeway.errors import WireError
    from ikeway.wire import Message, render, summary

from tests.vectors import ROOT
from tests.wire import mutation

DEFAULT_RUNS = 100_000


def target(octets: bytes) -> None:
    """One input: decode it, show it, encode it again."""
    try:
        message = Message.decode(octets, refuse_critical=False)
    except WireError as error:
        if not 0 <= error.offset <= len(octets):
            raise AssertionError(f"offset {error.offset} is outside") from error
        return
    render(message)
    summary(message)
    if Message.decode(message.encode(), refuse_critical=False) != message:
        raise AssertionError("the round trip does not hold")


def mutate(octets: bytes, limit: int, seed: int) -> bytes:
    """Half of the time libFuzzer's own mutations, half of the time ours, which repair the length in the header."""
    if seed % 2:
        return atheris.Mutate(octets, limit)
    return mutation.mutated_by_number(octets or bytes(28), seed)[:limit]


def main() -> None:
    """Write the seeds where libFuzzer finds them, and run."""
    arguments = sys.argv[1:]
    if not any(argument.startswith(("-runs=", "-max_total_time=")) for argument in arguments):
        arguments.append(f"-runs={DEFAULT_RUNS}")
    with tempfile.TemporaryDirectory() as folder:
        seeds = [*mutation.own_messages(), *(mutation.captured(ROOT / "pcap") if ROOT.exists() else ())]
        for number, octets in enumerate(seeds):
            Path(folder, str(number)).write_bytes(octets)
        atheris.Setup([sys.argv[0], *arguments, "-max_len=4096", folder], target, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
