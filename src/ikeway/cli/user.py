"""`ikeway user ...`: the users of a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ikeway.cli.errors import guarded

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

_SECRET_OCTETS = 20  # what RFC 4226 section 4 recommends


@app.callback()
def user() -> None:
    """The users of a gateway, in the file that its configuration names.

    [bold]Example[/bold]

      ikeway user totp alice                 a second factor for alice
    """


@app.command()
@guarded
def totp(
    name: Annotated[str, typer.Argument(help="The user, as in the users file.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="The gateway's configuration; by default /etc/ikeway/gateway.toml.",
            show_default=False,
        ),
    ] = None,
    issuer: Annotated[
        str, typer.Option(help="What the app calls the VPN; by default the gateway's identity.", show_default=False)
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Make another secret where there is one: the old app goes blind.")
    ] = False,
) -> None:
    """Give a user a second factor: codes from an authenticator app (TOTP, RFC 6238).

    Writes `totp` into the users file, and prints the otpauth:// URI that the app wants to know, once. From the gateway's
    next reload on, this user needs a code with the password. Who sees the URI has the codes: give it to the user alone.

    [bold]Examples[/bold]

      ikeway user totp alice && ikeway gateway reload

      ikeway user totp alice --issuer "Example VPN" | head -1 | qrencode -t utf8

      ikeway user totp alice --replace --config gateway.toml
    """
    import base64
    import os

    from ikeway.auth.totp import Totp
    from ikeway.errors import ConfigError
    from ikeway.gateway.edit_users import edit_user
    from ikeway.gateway.users import load_users

    file, own_name = _users_file(config)
    known = next((each for each in load_users(file).all if each.name.casefold() == name.casefold()), None)
    if known is None or (known.password is None and known.nt_hash is None):
        raise ConfigError(
            f"{name} has no password that a code could stand beside" if known else f"there is no user {name}",
            file=str(file),
            remedy=f'add `password` to [users."{name}"]',
        )
    if known.totp is not None and not replace:
        raise ConfigError(
            f"{known.name} has a second factor already",
            file=str(file),
            remedy="use --replace to make another one, if the app is lost",
        )
    secret = Totp(os.urandom(_SECRET_OCTETS))
    text = base64.b32encode(secret.key).decode()
    edit_user(file, known.name, {"totp": text})
    print(secret.uri(known.name, issuer or own_name))
    print(f"for apps that want it typed: {text}")


def _users_file(config: Path | None) -> tuple[Path, str]:
    """The users file that the configuration names, and what the gateway calls itself."""
    from ikeway.config.paths import gateway_path
    from ikeway.config.reading import read_document, validate
    from ikeway.errors import ConfigError
    from ikeway.gateway.config_model import GatewayFile

    path = config or gateway_path()
    file, problems = validate(read_document(path), GatewayFile)
    if file is None:
        problems.raise_if_any()
        raise AssertionError("a configuration that is not valid has mistakes")
    if file.gateway.users is None:
        raise ConfigError(
            "the gateway has no users file",
            file=str(path),
            expected="`users` in [gateway]",
            remedy="name the file there",
        )
    return file.gateway.users, str(file.gateway.identity or "Ikeway")
