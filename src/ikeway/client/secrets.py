"""Answers what a client's log-in asks: passwords, one-time codes and shared secrets, from where the profile says or from a
person, who hears the gateway's words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from ikeway.auth.totp import Totp
from ikeway.client.login import FurtherPassword
from ikeway.client.profile import Profile
from ikeway.config.secrets import Prompt, SecretSource, shared_secret
from ikeway.daemon.threads import in_thread
from ikeway.eap.questions import PasswordQuestion, Wanted
from ikeway.errors import AuthenticationFailed, ConfigError

log = logging.getLogger("ikeway.client")

WRONG_ANSWERS = 3  # at a terminal, as login(1) does


def _utc() -> datetime:
    return datetime.now(UTC)


class ClientSecrets:
    """The secrets of one profile. What a person typed is kept in memory, for rekeyings and reconnections, but for codes.

    `prompt` (blocking, for example `getpass.getpass`) is None where nobody can be asked.
    """

    def __init__(self, profile: Profile, prompt: Prompt | None = None, *, now: Callable[[], datetime] = _utc) -> None:
        self._profile = profile
        self._prompt = prompt
        self._typed: dict[str, str] = {}
        self._asking = asyncio.Lock()
        self._asked: tuple[str, asyncio.Task[str]] | None = None  # what a person was asked last
        self._now = now
        self._last_code = ""
        self._last_step = -1  # the period of the last code that was computed here
        self._further = [ClientSecrets(each, prompt, now=now) for each in profile.further]

    async def password(self, question: PasswordQuestion) -> str:
        """What the gateway asks the user for: the password, a new one, or a one-time code."""
        match question.wanted:
            case Wanted.CODE:
                return await self._code(question)
            case Wanted.NEW_PASSWORD:
                return await self._new_password(question)
            case Wanted.PASSWORD:
                return await self._password(question)

    async def further_password(self, question: FurtherPassword) -> str:
        """The same in a log-in that follows the first one."""
        return await self._further[question.number].password(question.question)

    async def _password(self, question: PasswordQuestion) -> str:
        """A wrong one is asked for again as long as a person answers."""
        if question.attempt > 1:
            self._typed.pop("password", None)
            if self._profile.password is not None or self._prompt is None or question.attempt > WRONG_ANSWERS:
                raise AuthenticationFailed(
                    f"the gateway refused the password of {self._profile.username}",
                    expected="the right user name and password",
                    remedy=f"correct `username` or `password` in {self._profile.path}",
                )
        return await self._fetch("password", self._profile.password, self._words("Password", question.prompt))

    async def _new_password(self, question: PasswordQuestion) -> str:
        """Chosen by a person, twice the same; serves reconnections from now on."""
        async with self._asking:
            words = self._words("New password", question.prompt)
            for _ in range(WRONG_ANSWERS):
                chosen = await self._ask("new password", words)
                if await self._ask("new password once more", self._words("The same once more", "")) == chosen:
                    self._typed["password"] = chosen
                    if self._profile.password is not None:
                        log.warning("If the gateway takes the new password, keep it where `password` says, too")
                    return chosen
                words = self._words("New password", "these were not the same")
        raise AuthenticationFailed(
            "no new password was chosen", expected="the same new password twice", remedy="connect again, and type it"
        )

    async def _code(self, question: PasswordQuestion) -> str:
        """Good once, so from its source each time. What a source gives twice is not sent a second time."""
        async with self._asking:
            if self._profile.totp is not None:
                return await self._computed_code(self._profile.totp)
            if self._profile.code is None:
                return await self._ask("code", self._words("Code", question.prompt))
            code = await in_thread(partial(self._profile.code.read, "code"))
            if question.attempt > 1 and code == self._last_code:
                raise AuthenticationFailed(
                    f"the gateway refused the code of {self._profile.username}",
                    expected="another code",
                    got="the same from `code` once more",
                    remedy=f"see that what `code` in {self._profile.path} names gives a new code each time",
                )
            self._last_code = code
            return code

    async def _computed_code(self, source: SecretSource) -> str:
        """The code of now; of the next period when the one of now has been used."""
        totp = Totp.parse(await in_thread(partial(source.read, "secret of the codes")))
        step = max(totp.step(self._now()), self._last_step + 1)
        begins = datetime.fromtimestamp(step * totp.period, UTC)
        if (early := (begins - self._now()).total_seconds()) > 0:
            await asyncio.sleep(early)
        self._last_step = step
        return totp.code(begins)

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
        for each in self._further:
            each.forget()

    async def _fetch(self, what: str, source: SecretSource | None, words: str) -> str:
        async with self._asking:
            if source is not None and what not in self._typed:  # a password that was changed meanwhile is typed
                return await in_thread(partial(source.read, what))
            if what not in self._typed:
                self._typed[what] = await self._ask(what, words)
            return self._typed[what]

    async def _ask(self, what: str, words: str) -> str:
        """Ask a person. Who has not answered yet when a log-in is given up answers the next one: nobody can be asked the
        same twice at one terminal."""
        if self._asked is not None and self._asked[0] != what:
            await asyncio.wait({self._asked[1]})
        if self._asked is None or self._asked[1].done():
            asking = asyncio.get_running_loop().create_task(in_thread(partial(self._ask_now, what, words)))
            self._asked = what, asking
        return await asyncio.shield(self._asked[1])

    def _ask_now(self, what: str, words: str) -> str:
        if self._prompt is None:
            raise ConfigError(
                f"the {what} is needed, and there is nobody to ask",
                file=str(self._profile.path),
                expected=f"a {what} from a file, a command or the keyring",
                remedy="name it in [login], or run `ikeway up` at a terminal",
            )
        return self._prompt(words)

    def _words(self, what: str, said: str) -> str:
        """A prompt; before it the gateway's own words, when they say more."""
        profile = self._profile
        prompt = f"{what} for {profile.username} at {profile.remote.host}: "
        if said.strip(" :.").casefold() in {"", what.casefold()}:
            return prompt
        return f"{profile.remote.host} says: {said}\n{prompt}"


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
