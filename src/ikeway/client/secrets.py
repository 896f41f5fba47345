"""Answers what a client's log-in asks: passwords and shared secrets, from where the profile says or from a person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ikeway.client.profile import Profile
from ikeway.config.secrets import Prompt, SecretSource, shared_secret
from ikeway.daemon.threads import in_thread
from ikeway.eap.questions import PasswordQuestion
from ikeway.errors import AuthenticationFailed, ConfigError

WRONG_ANSWERS = 3  # at a terminal, as login(1) does


class ClientSecrets:
    """The secrets of one profile. What a person typed is kept in memory, for rekeyings and reconnections.

    `prompt` (blocking, for example `getpass.getpass`) is None where nobody can be asked.
    """

    def __init__(self, profile: Profile, prompt: Prompt | None = None) -> None:
        self._profile = profile
        self._prompt = prompt
        self._typed: dict[str, str] = {}
        self._asking = asyncio.Lock()

    async def password(self, question: PasswordQuestion) -> str:
        """The user's password. A wrong one is asked for again as long as a person answers."""
        if question.attempt > 1:
            self._typed.pop("password", None)
            if self._profile.password is not None or self._prompt is None or question.attempt > WRONG_ANSWERS:
                raise AuthenticationFailed(
                    f"the gateway refused the password of {self._profile.username}",
                    expected="the right user name and password",
                    remedy=f"correct `username` or `password` in {self._profile.path}",
                )
        words = question.prompt or "Password"
        return await self._fetch(
            "password", self._profile.password, f"{words} for {self._profile.username} at {self._profile.remote.host}: "
        )

    async def psk(self) -> bytes:
        """The pre-shared key."""
        text = await self._fetch(
            "pre-shared key",
            self._profile.psk,
            f"Pre-shared key for {self._profile.remote.host}: ",
        )
        return shared_secret(text)

    def forget(self) -> None:
        """Drop what was typed: it was wrong, or is needed no more."""
        self._typed.clear()

    async def _fetch(self, what: str, source: SecretSource | None, words: str) -> str:
        async with self._asking:
            if source is not None:
                return await in_thread(partial(source.read, what))
            if what not in self._typed:
                self._typed[what] = await in_thread(partial(self._ask, what, words))
            return self._typed[what]

    def _ask(self, what: str, words: str) -> str:
        if self._prompt is None:
            raise ConfigError(
                f"the {what} is needed, and there is nobody to ask",
                file=str(self._profile.path),
                expected=f"a {what} from a file, a command or the keyring",
                remedy="name it in [login], or run `ikeway up` at a terminal",
            )
        return self._prompt(words)


def terminal_prompt() -> Callable[[str], str] | None:
    """Asks at the terminal without echo; None when there is no terminal.

    Who presses Ctrl-C instead of answering gets the terminal back as it was.
    """
    import atexit
    import contextlib
    import getpass
    import sys
    import termios

    if not sys.stdin.isatty():
        return None
    before = termios.tcgetattr(sys.stdin)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # in the background there is no terminal any more
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    atexit.register(restore)

    def ask(words: str) -> str:
        try:
            return getpass.getpass(words)
        except EOFError:
            raise ConfigError("the password was asked for and not given", remedy="type it") from None

    return ask
