"""`ikeway reference`: everything that configuration files may say, and every command."""

from __future__ import annotations

import enum
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import ArgumentInfo, OptionInfo

from ikeway.cli.errors import guarded

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer()


class Subject(enum.StrEnum):
    """What there is a reference of."""

    PROFILE = "profile"
    GATEWAY = "gateway"
    USERS = "users"
    COMMANDS = "commands"


@app.command()
@guarded
def reference(
    subject: Annotated[Subject, typer.Argument(help="A client's profile, a gateway's files, or the commands.")],
) -> None:
    """Print what a file may say, key by key, with values and defaults (Markdown).

    [bold]Examples[/bold]

      ikeway reference profile

      ikeway reference gateway | less

      ikeway reference users
    """
    print(reference_of(subject), end="")


def reference_of(subject: Subject) -> str:
    """The reference, in Markdown."""
    if subject is Subject.COMMANDS:
        return commands_reference()
    from ikeway.config.reference import reference as model_reference

    return model_reference(_model(subject))


def _model(subject: Subject) -> type[BaseModel]:
    if subject is Subject.PROFILE:
        from ikeway.client.profile_model import ProfileFile

        return ProfileFile
    if subject is Subject.USERS:
        from ikeway.gateway.users import UsersFile

        return UsersFile
    from ikeway.gateway.config_model import GatewayFile

    return GatewayFile


def commands_reference() -> str:
    """Every command with its help, arguments and options."""
    from ikeway.cli import build

    return "\n".join(_commands(build(), ("ikeway",))).rstrip() + "\n"


def _commands(group: typer.Typer, words: tuple[str, ...]) -> Iterator[str]:
    for command in group.registered_commands:
        callback = command.callback
        if callback is None or command.hidden:
            continue
        name = command.name or callback.__name__.replace("_", "-")
        yield f"### `{' '.join((*words, name))}`\n"
        yield f"{_plain(command.help or callback.__doc__ or '')}\n"
        rows = [f"| {name} | {_cell(meaning)} |" for name, meaning in _parameters(callback)]
        if rows:
            yield "\n".join(["| argument or option | meaning |", "|---|---|", *rows, ""])
    for inner in group.registered_groups:
        if inner.typer_instance is not None and not inner.hidden:
            yield from _commands(inner.typer_instance, (*words, str(inner.name)))


def _parameters(callback: Callable[..., object]) -> Iterator[tuple[str, str]]:
    """Each parameter of a command as its user writes it, and its help."""
    hints = typing.get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        hint = hints[name]
        declared = [*typing.get_args(hint)[1:], parameter.default]
        for info in declared:
            if isinstance(info, ArgumentInfo):
                optional = parameter.default not in {inspect.Parameter.empty, info} or info.default not in {None, ...}
                yield f"`{name.upper()}`{' (may be left out)' if optional else ''}", info.help or ""
            elif isinstance(info, OptionInfo):
                yield _option(name, hint, info), info.help or ""


def _option(name: str, hint: object, info: OptionInfo) -> str:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    kinds = {kind, *typing.get_args(kind)} - {type(None)}
    own = f"--{name.replace('_', '-')}"
    usual = (own, f"--no-{own[2:]}") if bool in kinds else (own,)
    # Within Annotated, the first name stands where a default would.
    first = (info.default,) if isinstance(info.default, str) and info.default.startswith("-") else ()
    names = ", ".join(f"`{each}`" for each in (*first, *(info.param_decls or ())) or usual)
    if bool in kinds or info.count:
        return names
    for each in kinds:
        if isinstance(each, type) and issubclass(each, enum.Enum):
            return f"{names} {' or '.join(f'`{member.value}`' for member in each)}"
    words = {int: "NUMBER", float: "NUMBER", list[int]: "NUMBER", Path: "FILE"}
    return f"{names} {info.metavar or next((words[each] for each in kinds if each in words), 'TEXT')}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Help as Markdown: without markup, examples as code."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        bare = re.sub(r"\[/?bold\]", "**", line)
        # Help keeps examples apart with empty lines; here each is a line of code.
        lines.append(f"    {bare.strip()}" if line.startswith("  ") else bare)
    joined = "\n".join(lines)
    return re.sub(r"(\n    [^\n]*)\n(?=\n    )", r"\1", joined)
