"""`ikeway up` and `ikeway gateway run` without their command lines: python -m tests.client.program client|gateway FILE."""

import asyncio
import logging
import sys
from pathlib import Path

from ikeway.errors import IkewayError


def main(role: str, path: str, *options: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    try:
        if role == "gateway":
            from ikeway.daemon.eventlog import report
            from ikeway.gateway.config import load_gateway_config
            from ikeway.gateway.run import run_gateway

            def observe(runner):
                runner.driver.listen(report)

            asyncio.run(run_gateway(load_gateway_config(path), observers=[observe], on_ready=lambda: say("ready")))
        else:
            from ikeway.client.profile import load_profile
            from ikeway.client.up import up
            from ikeway.daemon.service import run_detached

            def work(on_ready):
                def ready():
                    say("ready")
                    on_ready()

                try:
                    asyncio.run(up(load_profile(Path(path)), tell=lambda p: say(f"{p.step}: {p.text}"), on_ready=ready))
                except IkewayError as error:
                    say(f"failed: {type(error).__name__}: {error}")
                    return 3
                return 0

            return run_detached(work) if "detach" in options else work(lambda: None)
    except IkewayError as error:
        say(f"failed: {type(error).__name__}: {error}")
        return 3
    return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
