"""ESP in the kernel: how fast one TCP flow is when our client installed the SAs, beside strongSwan's client in the same
kernel.

    python -m bench.kernel [--rounds 5] [--seconds 3] [--esp aes128gcm16] [--json FILE]

Both connect in turn to the same strongSwan gateway, inside one boot of User Mode Linux (tests/kernel/machine.py says
what that needs). What is compared is who set the SAs up: the kernel does the work either way. UML has one processor,
on which both ends and iperf3 run, so the ratio counts and not the rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tests.interop.agreement import agreement
from tests.interop.lab import Pair
from tests.interop.network import LAN_HOST
from tests.kernel import peers
from tests.kernel.machine import UserModeLinux

ROOT = Path(__file__).parents[1]
CLIENTS = {"ikeway": Pair("ikeway", "charon"), "strongSwan": Pair("charon", "charon")}
BOOT_SECONDS = 60
ROUND_SECONDS = 60


def measure(rounds: int, seconds: float, esp: str) -> dict[str, list[float]]:
    """Megabits a second of each client, in each round. Runs inside the guest."""
    for module in peers.SUITE.modules:
        subprocess.run(["modprobe", "-q", module], check=False)
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    with peers.prepare() as guest:
        for number in range(rounds):
            for name in sorted(CLIENTS, reverse=bool(number % 2)):
                with guest.tunnel(CLIENTS[name], agreement(both={"esp": esp})) as made:
                    made.client.connect(timeout=60)
                    rates[name].append(flow(made, seconds))
                    made.client.close()
                print(name, f"{rates[name][-1]:.0f} Mbit/s", flush=True)
    return rates


def flow(made: object, seconds: float) -> float:
    """One TCP flow from the client to the LAN."""
    server = made.network.lan.popen(["iperf3", "-s", "-1", "-B", LAN_HOST[4]], stdout=subprocess.DEVNULL)
    words = ["iperf3", "-c", LAN_HOST[4], "-t", str(seconds), "-O", "1", "-J", "--connect-timeout", "3000"]
    for _ in range(50):
        said = made.client.namespace.run(words, check=False)
        answer = json.loads(said)
        if "error" not in answer:
            server.wait(10)
            return answer["end"]["sum_received"]["bits_per_second"] / 1e6
    raise AssertionError(said)


def main() -> None:
    """Boot, measure, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--esp", default="aes128gcm16")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        given.inside.write_text(json.dumps(measure(given.rounds, given.seconds, given.esp)))
        return
    words = f"--rounds {given.rounds} --seconds {given.seconds} --esp {given.esp} --inside $(dirname $0)/rates"
    job = f"cd {ROOT} && exec {sys.executable} -m bench.kernel {words}"
    result = UserModeLinux().run(job, timeout=BOOT_SECONDS + given.rounds * 2 * ROUND_SECONDS)
    if "rates" not in result.files:
        sys.exit(result.output)
    rates = json.loads(result.files["rates"])
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name, each in rates.items():
        print(f"{name:12} {medians[name]:6.0f} Mbit/s  ({', '.join(f'{rate:.0f}' for rate in each)})")
    print(f"ratio        {medians['ikeway'] / medians['strongSwan']:.3f}")
    if given.json:
        given.json.write_text(json.dumps({"rates": rates, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
