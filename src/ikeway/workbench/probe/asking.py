"""Questions in IKE_SA_INIT, and what the answers mean."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ikeway.ike.notifies import failure_of
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, Payload, SecurityAssociation, Transform
from ikeway.wire.registry import KeyExchangeMethod, NotifyType, TransformType
from ikeway.wire.render import summary
from ikeway.workbench.probe import offers
from ikeway.workbench.probe.line import Answer, Heard, Line
from ikeway.workbench.probe.report import NO_ANSWER, State, TransformAnswer

Progress = Callable[[str], None]
Question = tuple[SecurityAssociation, KeyExchangeMethod]
"""An offer, and the method of the KE payload beside it."""
MAX_COOKIE_OCTETS = 64
MAX_GROUPS_TRIED = 4
PAUSES = (1.0, 2.0, 4.0)  # seconds that a gateway gets which has stopped answering
ABILITIES = (Notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED), Notify(NotifyType.USE_PPK))
"""What a gateway announces only to those who have (RFC 9242, RFC 8784)."""


@dataclass(slots=True)
class Tally:
    """Counts, over all lines: questions, how many of them were answered with a cookie, and of how many octets."""

    questions: int = 0
    cookies: int = 0
    cookie_octets: int = 0

    def note_cookie(self, message: Message | None) -> bytes | None:
        """The cookie that an answer demands, counted; None when there is none that may be one (RFC 7296 section 2.6)."""
        cookie = message.notify(NotifyType.COOKIE) if message is not None else None
        if cookie is None or not 0 < len(cookie.value) <= MAX_COOKIE_OCTETS:
            return None
        self.cookies += 1
        self.cookie_octets = len(cookie.value)
        return cookie.value


@dataclass(slots=True)
class Asker:
    """Asks on one line, and follows demands for a cookie."""

    line: Line
    progress: Progress
    tally: Tally = field(default_factory=Tally)

    def ask(
        self, security: SecurityAssociation, method: KeyExchangeMethod, extra: Sequence[Payload] = (), tries: int = 2
    ) -> Answer:
        """Send an IKE_SA_INIT request with this offer and a KE payload of `method`."""
        self.tally.questions += 1
        question = offers.request(security, method, (self.line.local, self.line.remote), extra)
        answer = self.line.ask(question, tries)
        cookie = self.tally.note_cookie(answer.message)
        if cookie is None:
            return answer
        others = (
            each for each in question.payloads if not (isinstance(each, Notify) and each.type == NotifyType.COOKIE)
        )
        again = replace(question, payloads=(Notify(NotifyType.COOKIE, cookie), *others))
        return self.line.ask(again, tries)

    def ask_until_chosen(self, transforms: Sequence[Transform]) -> tuple[Answer, KeyExchangeMethod]:
        """Offer all of these and follow what the gateway says of key exchange methods; returns the last answer, and the
        method of its question."""
        security = offers.offer(transforms)
        offered = {each.id for each in transforms if each.type == TransformType.KE}
        method = next(each for each in (*offers.CHEAP, *map(KeyExchangeMethod, sorted(offered))) if each in offered)
        answer = self.ask(security, method, ABILITIES)
        for _ in range(MAX_GROUPS_TRIED):
            wanted = demanded_method(answer.message)
            if wanted is None or wanted == method or wanted not in offered:
                break
            method = wanted
            answer = self.ask(security, method, ABILITIES)
        return answer, method


def demanded_method(message: Message | None) -> KeyExchangeMethod | None:
    """The method that INVALID_KE_PAYLOAD names."""
    notify = message.notify(NotifyType.INVALID_KE_PAYLOAD) if message is not None else None
    if notify is None or len(notify.value) != 2:
        return None
    return KeyExchangeMethod(int.from_bytes(notify.value))


def said(answer: Answer) -> str:
    """An answer in one line."""
    if answer.message is not None:
        return summary(answer.message)
    return answer.refusal or NO_ANSWER


def chosen(message: Message | None) -> SecurityAssociation | None:
    """The SA payload of a positive answer."""
    return message.find(SecurityAssociation) if message is not None else None


def judge(transform: Transform, answer: Answer) -> TransformAnswer:
    """What an answer says of the one transform that was in question."""
    message = answer.message
    if message is None:
        return TransformAnswer(transform, State.UNCLEAR, answer.refusal or NO_ANSWER)
    if (wanted := demanded_method(message)) is not None:
        return TransformAnswer(transform, State.TAKEN, f"INVALID_KE_PAYLOAD, it wants {wanted}")
    if chosen(message) is not None:
        return TransformAnswer(transform, State.TAKEN, "chosen")
    failure = failure_of(message)
    if failure is not None and failure.type == NotifyType.NO_PROPOSAL_CHOSEN:
        return TransformAnswer(transform, State.REFUSED, "NO_PROPOSAL_CHOSEN")
    if message.notify(NotifyType.COOKIE) is not None:
        return TransformAnswer(transform, State.UNCLEAR, "one cookie after another")
    return TransformAnswer(transform, State.UNCLEAR, str(failure.type) if failure is not None else summary(message))


class Survey:
    """Goes through the transforms one by one, until the time (`time.monotonic`) is up.

    A gateway may answer what it refuses with silence, and one that has had enough of us is silent too. So after silence
    it is asked once more what it has answered before; and when that is not answered either, again after a pause and
    slower. `answered` is a question that it has answered, and that leaves nothing behind.
    """

    def __init__(self, asker: Asker, until: float = math.inf, answered: Question | None = None) -> None:
        self._asker, self._until, self._control = asker, until, answered
        self._refuses_aloud = False
        self.exhausted = ""  # why it stopped asking
        self.slowed = False

    def run(self) -> list[TransformAnswer]:
        """All types; key exchange first, because the others need to know a method that is taken."""
        answers = self._each(offers.METHODS, self._ask_method)
        taken = [each.transform for each in answers if each.state is State.TAKEN]
        if not taken:
            return answers
        wrong = offers.beside(taken)
        methods = [each for each in taken if each.id != wrong] or taken
        kinds = (offers.AEADS, offers.CIPHERS, offers.FUNCTIONS, offers.INTEGRITIES)
        for transforms in kinds:
            answers += self._each(transforms, lambda each: (offers.alone(each, methods), wrong))
        return answers + self._additional(methods, wrong)

    def _additional(self, methods: Sequence[Transform], wrong: KeyExchangeMethod) -> list[TransformAnswer]:
        """ML-KEM beside another method (RFC 9370). Who does not know that must refuse a proposal with it (RFC 7296
        section 3.3.6); who takes one that does not exist has only passed over it."""
        answers = self._each(offers.ADDITIONAL, lambda each: (offers.alone(each, methods), wrong))
        if not any(each.state is State.TAKEN for each in answers) or self.exhausted:
            return answers
        nonsense = judge(offers.NONSENSE, self._asker.ask(offers.alone(offers.NONSENSE, methods), wrong, ABILITIES))
        if nonsense.state is State.REFUSED:
            return answers
        said = "it also takes a method that does not exist: it passes over additional key exchanges"
        return [
            replace(each, state=State.UNCLEAR, said=said) if each.state is State.TAKEN else each for each in answers
        ]

    def _each(
        self,
        transforms: Sequence[Transform],
        question: Callable[[Transform], Question],
    ) -> list[TransformAnswer]:
        answers = []
        for transform in transforms:
            if not self.exhausted and time.monotonic() > self._until:
                self.exhausted = "the time was up"
            if self.exhausted:
                answers.append(TransformAnswer(transform, State.UNCLEAR, f"not asked: {self.exhausted}"))
                continue
            judged = self._ask(transform, question(transform))
            self._asker.progress(f"{judged.keyword}: {judged.state.value}")
            answers.append(judged)
        return answers

    def _ask(self, transform: Transform, asked: Question) -> TransformAnswer:
        extra = ABILITIES if transform.type == TransformType.ADDKE1 else ()
        answer = self._asker.ask(*asked, extra)
        if answer.silent and self._control is not None:
            answer = self._after_silence(asked, extra)
            if answer.silent and not self.exhausted:
                said = "no answer, while others are answered"
                return TransformAnswer(transform, State.UNCLEAR if self._refuses_aloud else State.REFUSED, said)
        judged = judge(transform, answer)
        if answer.message is not None and self._control is None:
            self._control = asked
        self._refuses_aloud |= judged.state is State.REFUSED
        if self.exhausted:
            return replace(judged, said="no answer, and none to what it answered before: it has stopped answering us")
        return judged

    def _after_silence(self, asked: Question, extra: Sequence[Payload]) -> Answer:
        """The answer after all, or none; sets `exhausted` when nothing is answered any more."""
        assert self._control is not None
        for pause in PAUSES:
            if self._asker.ask(*self._control).message is not None:
                break
            self.slowed = True
            self._asker.progress("it has stopped answering: waiting")
            self._asker.line.pace.slow_down(pause)
        else:
            if self._asker.ask(*self._control).message is None:
                self.exhausted = "the gateway had stopped answering"
                return Heard(None)
        # It may have been the network, or a limit of how much it answers.
        return self._asker.ask(*asked, extra) if self.slowed or self._refuses_aloud else Heard(None)

    @staticmethod
    def _ask_method(transform: Transform) -> Question:
        wrong = next(each for each in offers.CHEAP if each != transform.id)
        return offers.alone(transform, ()), wrong
