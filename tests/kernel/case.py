"""Cases that run inside a guest, by name: the guest runs them, the host's pytest shows what came of each."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

Case = Callable[[Any], None]


class Suite:
    """The cases of one boot. Each gets what the guest has set up."""

    def __init__(self, *modules: str) -> None:
        """`modules` are kernel modules that the guest loads first; those that it lacks are left out."""
        self.modules = modules
        self.cases: dict[str, Case] = {}

    def case(self, *arguments: object) -> Callable[[Case], Case]:
        """Register a function; with arguments, its call with these, under a name of its own."""

        def register(function: Case) -> Case:
            name = "-".join((function.__name__, *map(_word, arguments)))
            assert name not in self.cases, name
            self.cases[name] = lambda guest: function(guest, *arguments)
            return function

        return register


def _word(argument: object) -> str:
    return argument.name.lower() if isinstance(argument, enum.Enum) else str(argument)
