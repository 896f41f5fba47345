"""Stand-in peers: one that serves, one that connects, and what an engineer can do to their messages.

async with Bench(BenchSettings(listen=("127.0.0.1",)), serve_psk(b"secret"), hooks=load_hooks("script.py")) as bench:
    await bench.wait()
"""

from ikeway.workbench.bench.bench import Bench, BenchSettings
from ikeway.workbench.bench.decisions import Answer, Ask, Decision, Engineer, Go, Held, Refuse, Wait
from ikeway.workbench.bench.hooks import HookFailed, Hooks, Passing, load_hooks
from ikeway.workbench.bench.standin import Caller, StandIn, serve_psk

__all__ = [
    "Answer",
    "Ask",
    "Bench",
    "BenchSettings",
    "Caller",
    "Decision",
    "Engineer",
    "Go",
    "Held",
    "HookFailed",
    "Hooks",
    "Passing",
    "Refuse",
    "StandIn",
    "Wait",
    "load_hooks",
    "serve_psk",
]
