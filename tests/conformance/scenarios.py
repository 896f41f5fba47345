"""The exchange scenarios as data: tests, their variants, and the lines that a variant goes through.

The JSON is a flat script: steps with a message or a note, and lines of expectations. Branches are marked where they begin
(`[when if (...)]`, `[when else]`) and not where they end. Both branches of a step have the same number of lines, so the
`else` ends there; the few scenarios that cannot be read so are cut by hand (`_CUTS`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.vectors import vector

FILE = "conformance/exchange-scenarios.json"


@dataclass(frozen=True)
class Step:
    """A message to deliver or a note, and the lines below it."""

    message: str
    note: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """One test of the file."""

    name: str
    variants: int
    proposals: tuple[tuple[str, str], ...]  # protocol and text: of the initiator, of the responder
    rows: tuple[dict[str, int], ...]  # the nonce table: column to number
    nonces: tuple[tuple[int, ...], ...]  # its first column
    steps: tuple[Step, ...]


@dataclass
class Variant:
    """A scenario with its parameters chosen."""

    scenario: Scenario
    index: int
    swapped: bool = False  # peer a is the responder of the IKE SA
    before_delete: bool = False
    row: dict[str, int] = field(default_factory=dict)
    nonces: tuple[int, ...] = ()

    def steps(self) -> list[Step]:
        """What happens, branches chosen and names replaced by numbers."""
        cut = _CUTS.get(self.scenario.name, lambda variant, steps: steps)
        return [
            Step(step.message, step.note, self._branch([self._number(line) for line in step.lines]))
            for step in cut(self, list(self.scenario.steps))
        ]

    def _number(self, line: str) -> str:
        own, other = (2, 1) if self.swapped else (1, 2)
        line = re.sub(r"data\[_i\]\.(\w+)", lambda found: str(self.row[found[1]]), line)
        line = re.sub(r"\b_i\+1\b", str(self.index + 1), line)
        line = re.sub(r"\bspi_a\b", str(own), line)
        line = re.sub(r"\bspi_b\b", str(other), line)
        return re.sub(r"(\d+) == (\d+) \? (\d+) : (\d+)", lambda f: f[3] if f[1] == f[2] else f[4], line)

    def _branch(self, lines: list[str]) -> tuple[str, ...]:
        chosen: list[str] = []
        while lines:
            line = lines.pop(0)
            if not line.startswith("[when if"):
                chosen.append(line)
                continue
            other = lines.index("[when else]") if "[when else]" in lines else len(lines)
            then, lines = lines[:other], lines[other + 1 :]
            otherwise, lines = lines[: len(then)], lines[len(then) :]
            chosen += then if self._holds(line) else otherwise
        return tuple(chosen)

    def _holds(self, line: str) -> bool:
        condition = line.removeprefix("[when if (").removesuffix(")]")
        if condition == "_i":
            return self.swapped
        if condition == "before_delete":
            return self.before_delete
        if condition == "s == DESTROY_ME":
            return True
        left, right = condition.split(" == ")
        return int(left) == int(right)


# --- by hand ---------------------------------------------------------------------------------------------------------


def _delayed_request(variant: Variant, steps: list[Step]) -> list[Step]:
    """`before_delete`: the refusal arrives before the delete, else after it."""
    result = []
    for step in steps:
        only_late = step.message == "<-- INFORMATIONAL { D }"
        only_early = step.message == "<-- INFORMATIONAL { D } (delayed)" or step.note.startswith("delay the DELETE")
        lines = step.lines
        if lines and lines[-1] == "[when if (before_delete)]":
            lines = lines[:-1]
        if lines == ("[when else]",):
            lines = ()
        if (only_early and not variant.before_delete) or (only_late and variant.before_delete):
            continue
        result.append(Step(step.message, step.note, lines))
    return result


def _ike_delayed_response(variant: Variant, steps: list[Step]) -> list[Step]:
    """If b has won, its delete of the old SA comes first, else the delayed response."""
    begin = next(i for i, step in enumerate(steps) if step.lines[:1] == ("[when if (data[_i].del_b_i == 1)]",))
    end = next(i for i, step in enumerate(steps) if step.lines == ("[when else]",))
    closing = [step for step in steps[end:] if not step.message and not step.lines]
    if variant.row["del_b_i"] == 1:
        first = Step(steps[begin].message, "", steps[begin].lines[1:])
        gone = Step("", "the SA is already gone", ())
        return [*steps[:begin], first, *steps[begin + 1 : end], gone, *closing]
    ignored = Step("", "delay the INFORMATIONAL request from b to a", ())
    too_early = Step("", "a does not know the SA yet that b deletes, and ignores it", ())
    return [*steps[:begin], ignored, too_early, *steps[end + 1 :]]


def _early_delete(variant: Variant, steps: list[Step]) -> list[Step]:
    """If a has won, b deletes an SA that a does not know yet: there is nothing to delete in the answer, as elsewhere."""
    if variant.row["spi_del_a"] == 1:
        second = [i for i, step in enumerate(steps) if step.message == "INFORMATIONAL { D } -->"][1]
        steps[second] = replace(steps[second], message="INFORMATIONAL { } -->")
    return steps


_CUTS: dict[str, Callable[[Variant, list[Step]], list[Step]]] = {
    "test_child_rekey.test_collision_delayed_request": _delayed_request,
    "test_child_rekey.test_collision_delayed_response_delete": _early_delete,
    "test_ike_rekey.test_collision_delayed_response": _ike_delayed_response,
}


# --- reading ----------------------------------------------------------------------------------------------------------


def load() -> list[Scenario]:
    """All tests of the file."""
    return [_scenario(entry) for entry in json.loads(vector(FILE).read_text(encoding="utf-8"))]


def _scenario(entry: dict[str, Any]) -> Scenario:
    rows, nonces = [], []
    for table in entry["nonce_tables"]:
        columns = [name.strip() for one in table["fields"][1:] for name in one.removeprefix("uint32_t ").split(",")]
        for text in table["rows"]:
            first, rest = text.strip("{} ").split("}", 1) if "}" in text.strip("{} ") else (text.strip("{} "), "")
            nonces.append(tuple(int(number, 16) for number in first.split(",")))
            rows.append(dict(zip(columns, (int(number) for number in re.findall(r"\d+", rest)), strict=True)))
    return Scenario(
        f"{entry['suite']}.{entry['test']}",
        entry["variants"],
        tuple((protocol, text) for protocol, text in entry["proposals"]),
        tuple(rows),
        tuple(nonces),
        tuple(Step(step.get("message", ""), step.get("note", ""), tuple(step["expect"])) for step in entry["steps"]),
    )


def variants(scenario: Scenario) -> list[Variant]:
    """Every set of parameters: both peers as the one that starts, or the rows of the nonce table."""
    result = []
    for index in range(scenario.variants):
        if scenario.rows:
            row = index % len(scenario.rows)
            variant = Variant(scenario, index, row=scenario.rows[row], nonces=scenario.nonces[row])
            variant.before_delete = index >= len(scenario.rows)
        else:
            variant = Variant(scenario, index, swapped=index == 1 and "[when if (_i)]" in scenario.steps[0].lines)
        result.append(variant)
    return result
