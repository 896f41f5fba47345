"""Questions in IKE_SA_INIT, and what the answers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ikeway.ike.notifies import failure_of
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, Payload, SecurityAssociation, Transform
from ikeway.wire.registry import KeyExchangeMethod, NotifyType, TransformType
from ikeway.wire.render import summary
from ikeway.workbench.probe import offers
from ikeway.workbench.probe.line import Answer, Line
from ikeway.workbench.probe.report import State, TransformAnswer

Progress = Callable[[str], None]
MAX_COOKIE_OCTETS = 64
MAX_GROUPS_TRIED = 4


@dataclass(slots=True)
class Asker:
    """Asks on one line, follows demands for a cookie, and counts."""

    line: Line
    progress: Progress
    questions: int = 0
    cookies: int = 0
    cookie_octets: int = 0

    def ask(
        self, security: SecurityAssociation, method: KeyExchangeMethod, extra: Sequence[Payload] = (), tries: int = 2
    ) -> Answer:
        """Send an IKE_SA_INIT request with this offer and a KE payload of `method`."""
        self.questions += 1
        question = offers.request(security, method, (self.line.local, self.line.remote), extra)
        answer = self.line.ask(question, tries)
        cookie = answer.message.notify(NotifyType.COOKIE) if answer.message is not None else None
        if cookie is None or not 0 < len(cookie.value) <= MAX_COOKIE_OCTETS:
            return answer
        self.cookies += 1
        self.cookie_octets = len(cookie.value)
        again = replace(question, payloads=(Notify(NotifyType.COOKIE, cookie.value), *question.payloads))
        return self.line.ask(again, tries)

    def ask_until_chosen(self, transforms: Sequence[Transform]) -> tuple[Answer, KeyExchangeMethod]:
        """Offer all of these and follow what the gateway says of key exchange methods; returns the last answer, and the
        method of its question."""
        security = offers.offer(transforms)
        offered = {each.id for each in transforms if each.type == TransformType.KE}
        method = next(each for each in (*offers.CHEAP, *map(KeyExchangeMethod, sorted(offered))) if each in offered)
        answer = self.ask(security, method)
        for _ in range(MAX_GROUPS_TRIED):
            wanted = demanded_method(answer.message)
            if wanted is None or wanted == method or wanted not in offered:
                break
            method = wanted
            answer = self.ask(security, method)
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
    return answer.refusal or "no answer"


def chosen(message: Message | None) -> SecurityAssociation | None:
    """The SA payload of a positive answer."""
    return message.find(SecurityAssociation) if message is not None else None


def judge(transform: Transform, answer: Answer) -> TransformAnswer:
    """What an answer says of the one transform that was in question."""
    message = answer.message
    if message is None:
        return TransformAnswer(transform, State.UNCLEAR, answer.refusal or "no answer")
    if (wanted := demanded_method(message)) is not None:
        return TransformAnswer(transform, State.TAKEN, f"INVALID_KE_PAYLOAD, it wants {wanted.name}")
    if chosen(message) is not None:
        return TransformAnswer(transform, State.TAKEN, "chosen")
    failure = failure_of(message)
    if failure is not None and failure.type == NotifyType.NO_PROPOSAL_CHOSEN:
        return TransformAnswer(transform, State.REFUSED, "NO_PROPOSAL_CHOSEN")
    return TransformAnswer(transform, State.UNCLEAR, str(failure.type) if failure is not None else summary(message))


class Survey:
    """Goes through the transforms one by one. A gateway may answer what it refuses with silence; so after silence it is
    asked once more what it is known to take, to tell a refusal from a gateway that has had enough of us."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._control: tuple[SecurityAssociation, KeyExchangeMethod] | None = None
        self.exhausted = False

    def run(self) -> list[TransformAnswer]:
        """All types; key exchange first, because the others need to know a method that is taken."""
        answers = self._each(offers.METHODS, self._ask_method)
        taken = [each.transform for each in answers if each.state is State.TAKEN]
        if not taken:
            return answers
        wrong = self._wrong(taken)
        methods = [each for each in taken if each.id != wrong]
        kinds = (offers.AEADS, offers.CIPHERS, offers.FUNCTIONS, offers.INTEGRITIES)
        for transforms in kinds:
            answers += self._each(transforms, lambda each: (offers.alone(each, methods or taken), wrong))
        return answers

    def _each(
        self,
        transforms: Sequence[Transform],
        question: Callable[[Transform], tuple[SecurityAssociation, KeyExchangeMethod]],
    ) -> list[TransformAnswer]:
        answers = []
        for transform in transforms:
            if self.exhausted:
                answers.append(
                    TransformAnswer(transform, State.UNCLEAR, "not asked: the gateway had stopped answering")
                )
                continue
            asked = question(transform)
            answer = self._asker.ask(*asked)
            judged = judge(transform, answer)
            if judged.state is State.TAKEN and self._control is None:
                self._control = asked
            if answer.silent and self._control is not None:
                judged = self._after_silence(judged)
            self._asker.progress(f"{judged.keyword}: {judged.state.value}")
            answers.append(judged)
        return answers

    def _after_silence(self, judged: TransformAnswer) -> TransformAnswer:
        assert self._control is not None
        if self._asker.ask(*self._control).message is None:
            self.exhausted = True
            return replace(judged, said="no answer, and none to what it took before: it has stopped answering us")
        return replace(judged, state=State.REFUSED, said="no answer, while others are answered")

    @staticmethod
    def _ask_method(transform: Transform) -> tuple[SecurityAssociation, KeyExchangeMethod]:
        wrong = next(each for each in offers.CHEAP if each != transform.id)
        return offers.alone(transform, ()), wrong

    @staticmethod
    def _wrong(taken: Sequence[Transform]) -> KeyExchangeMethod:
        """A method that the gateway does not take, or else one that is then not offered."""
        ids = {each.id for each in taken}
        return next((each for each in offers.CHEAP if each not in ids), offers.CHEAP[0])
