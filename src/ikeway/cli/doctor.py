"""`ikeway doctor`: what this host can do, what is missing, and how to get it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded

if TYPE_CHECKING:
    from ikeway.daemon.doctor import Examination

app = typer.Typer()

CANNOT = 6  # this host refuses
_WIDTH = 18


@app.command()
@guarded
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Look at this host: rights, devices, namespaces, ports, offloads, kernel ESP, name servers, the clock.

    What is missing comes with what to do about it. Nothing is changed, and nothing is left behind. The exit code is 0
    when this host can be a client, with root or without, else 6.

    [bold]Examples[/bold]

      ikeway doctor

      sudo ikeway doctor                              what root can do here

      ikeway doctor --json | jq '.checks[] | select(.ok | not)'
    """
    import asyncio

    from ikeway.daemon.doctor import examine

    found = asyncio.run(examine())
    if as_json:
        print(json.dumps(to_json(found), indent=1))
    else:
        for line in words(found):
            print(line)
    if not found.client:
        raise typer.Exit(CANNOT)


def to_json(found: Examination) -> dict[str, object]:
    """What `--json` prints: `checks`, and for each use whether it is `possible`."""
    from ikeway.host.checks import Use

    return {
        "client": found.client,
        "possible": {use.value: found.possible(use) for use in Use},
        "checks": [dataclasses.asdict(check) for check in found.checks],
    }


def words(found: Examination) -> list[str]:
    """A line a check, what to do below it, and what it comes to."""
    from ikeway.daemon.log import escape
    from ikeway.host.checks import Use

    lines = []
    for check in found.checks:
        lines.append(f"{'ok' if check.ok else 'missing':<8}{check.name:<{_WIDTH}}{escape(check.detail)}")
        if not check.ok and check.uses:
            lines.append(f"{'':{8 + _WIDTH}}matters for: {', '.join(check.uses)}")
        if not check.ok and check.remedy:
            lines += [
                f"{'':{8 + _WIDTH}}{'to get it: ' if number == 0 else ''}{escape(line)}"
                for number, line in enumerate(check.remedy.splitlines())
            ]
    answers = {Use.CLIENT: "ikeway up", Use.ROOTLESS: "ikeway run, ikeway proxy", Use.GATEWAY: "ikeway gateway"}
    lines.append("")
    for use, commands in answers.items():
        lines.append(
            f"{use.value.capitalize():<17}({commands}): {'possible' if found.possible(use) else 'not possible as it is'}"
        )
    return lines
