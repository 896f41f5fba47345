"""EAP-GTC, both roles (RFC 3748 section 5.6): a conversation of words and answers, as many rounds as the server wants.

peer                                     authenticator
        <-- "Password: "
"secret" -->
        <-- "Code: "                     (when there is more to ask, or once more after a wrong answer)
"123456" -->
        <-- EAP-Success                  or EAP-Failure

What the user answers arrives as it is: nothing but the IKE SA, and the proof of who the gateway is, protects it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from typing import ClassVar

from ikeway.eap.errors import EapFailed, WrongPassword, no_answer, wrong_password
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.packet import EapType, MethodType
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Prompt, Wanted
from ikeway.eap.words import printable, wanted_by
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

_TYPE = MethodType(0, EapType.GTC)
MAX_ANSWERS = 12  # nobody answers more, and a server that asks more wants something else
_MAX_WORDS = 1000  # octets that we send


class GtcPeer(EapPeerMethod):
    """The user's side: hands the server's words to the outside, and the answer back. `wanted`: what is asked for,
    whatever the words are; None: as they say."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-GTC"

    def __init__(self, user_name: bytes, wanted: Wanted | None = None) -> None:
        self._user_name = user_name
        self._wanted = wanted
        self._answered: Wanted | None = None

    def failure_reason(self) -> IkewayError | None:
        """The last answer was the wrong one."""
        if self._answered is None:
            return None
        what = self._answered.value
        return WrongPassword(
            f"the server refused user name or {what}",
            expected=f"the right {what}",
            got="EAP-Failure",
            remedy=f"check user name and {what}",
        )

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer as often as we are asked."""
        attempts: Counter[Wanted] = Counter()
        given: dict[Wanted, str] = {}
        for _ in range(MAX_ANSWERS):
            words = printable(request)
            wanted = self._wanted or wanted_by(words, first=not given)
            attempts[wanted] += 1
            question = PasswordQuestion(self._user_name, "", words, self.name, attempts[wanted], wanted)
            answer = await ask(question)
            if answer is None or (not answer and wanted is not Wanted.CODE):  # Enter alone may wait for an app
                raise no_answer(wanted.value, self._user_name)
            if wanted is Wanted.PASSWORD and given.get(wanted) == answer:
                reason = self.failure_reason()
                assert reason is not None
                raise reason
            given[wanted] = answer
            self._answered, self.may_succeed = wanted, True
            request = yield answer.encode()
        raise EapFailed("the server asks without an end", side=Side.PEER, remedy="look into the server's log")


class GtcAuthenticator(EapAuthenticatorMethod):
    """The server's side: asks in the words of `prompt`, and lets the outside judge each answer with `PasswordCheck`.

    `wanted` is what the prompt asks for; a code alone where another method took the password (RFC 4739).
    """

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-GTC"

    def __init__(self, prompt: str = "Password: ", wanted: Wanted = Wanted.PASSWORD) -> None:
        self._prompt = Prompt(prompt, wanted)

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Ask, and ask again as the verdict says."""
        prompt = self._prompt
        for _ in range(MAX_ANSWERS):
            answer = yield prompt.words.encode()[:_MAX_WORDS]
            check = PasswordCheck(identity, answer, self.name, prompt.wanted, state=prompt.state)
            verdict = await ask(check)
            if isinstance(verdict, Granted):
                return
            self.doubt = wrong_password(identity, prompt.wanted.value)
            if not isinstance(verdict, Prompt):
                raise wrong_password(identity, prompt.wanted.value, verdict.reason)
            prompt = verdict
        raise EapFailed("the log-in asks without an end", expected=f"at most {MAX_ANSWERS} answers", side=Side.LOCAL)
