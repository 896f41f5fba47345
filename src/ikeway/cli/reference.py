"""`ikeway reference`: everything that configuration files may say, and every command."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

    root = typer.main.get_command(build())
    return "\n".join(_command(root, ("ikeway",))).rstrip() + "\n"


def _command(command: Any, words: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401 - typer does not export its types
    inner = getattr(command, "commands", {})
    if len(words) > 1:
        yield f"### `{' '.join(words)}`\n"
        yield f"{_plain(command.help or '')}\n"
        rows = [row for parameter in command.params if (row := _parameter(parameter)) is not None]
        if rows:
            yield "| argument or option | meaning |"
            yield "|---|---|"
            yield from rows
            yield ""
    for name, each in inner.items():
        if not each.hidden:
            yield from _command(each, (*words, name))


def _parameter(parameter: Any) -> str | None:  # noqa: ANN401
    meaning = (getattr(parameter, "help", None) or "").replace("|", "\\|")
    if parameter.param_type_name == "argument":
        name = parameter.name.upper()
        return f"| `{name}`{'' if parameter.required else ' (may be left out)'} | {meaning} |"
    if parameter.name in {"help", "install_completion", "show_completion"}:
        return None
    names = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag or parameter.count else f" {_value_name(parameter)}"
    return f"| {names}{value} | {meaning} |"


def _value_name(parameter: Any) -> str:  # noqa: ANN401
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    return str(parameter.metavar or parameter.type.name).upper()


def _plain(text: str) -> str:
    """Help as Markdown: without markup, examples as code."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        bare = re.sub(r"\[/?bold\]", "**", line)
        # Help keeps examples apart with empty lines; here each is a line of code.
        lines.append(f"    {bare.strip()}" if line.startswith("  ") else bare)
    joined = "\n".join(lines)
    return re.sub(r"(\n    [^\n]*)\n(?=\n    )", r"\1", joined)
