"""A script of the engineer: a Python file with `on_message`, which sees every message and may change it.

    def on_message(m):
        if m.is_(ExchangeType.IKE_SA_INIT) and m.sent:
            m.add(VendorId(b"CISCO-ANYCONNECT-EAP"))
        if m.received and m.find(UnknownPayload):
            m.answer(Notify(NotifyType(40001), b"..."))

AUTH is made before a message is seen, and covers who we say we are; so that is asked for before, if the script likes:

    def on_identity(identity, sa):
        return "{201}:*$AnyConnectClient$*"

It runs as part of the program, with all of its rights: a script is code that one trusts.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeVar

from ikeway.auth.identity import Identity
from ikeway.errors import ConfigError, IkewayError
from ikeway.ike.interception import InterceptionFailed
from ikeway.wire.message import Message, encode_payloads
from ikeway.wire.payloads import Payload
from ikeway.wire.registry import ExchangeType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

P = TypeVar("P", bound=Payload)
NAME, IDENTITY = "on_message", "on_identity"


class HookFailed(InterceptionFailed):
    """A hook raised something, or did what cannot be done: `file` and `line` are the place in the script."""

    def __init__(self, reason: str, *, file: str, line: int, remedy: str = "") -> None:
        super().__init__(f"{file}:{line}: {reason}", remedy=remedy or "correct the script; the recording is kept")
        self.file = file
        self.line = line


class _Payloads(list[Payload]):
    """A list that takes payloads only: so what does not belong there is told with the line that puts it there."""

    def append(self, payload: Payload) -> None:
        super().append(_payload(payload))

    def insert(self, at: SupportsIndex, payload: Payload) -> None:
        super().insert(at, _payload(payload))

    def extend(self, payloads: Iterable[Payload]) -> None:
        super().extend(map(_payload, payloads))

    def __iadd__(self, payloads: Iterable[Payload]) -> Self:  # type: ignore[override, misc]
        self.extend(payloads)
        return self

    def __setitem__(self, at: Any, what: Any) -> None:  # noqa: ANN401 - one payload, or for a slice several
        super().__setitem__(at, [_payload(each) for each in what] if isinstance(at, slice) else _payload(what))


class Passing:
    """A message on its way. What is done to `payloads` is done to the message."""

    def __init__(self, message: Message, sa: IkeSa | None, *, sent: bool, memory: dict[str, Any]) -> None:
        self._payloads = _Payloads(message.payloads)
        self.original = message
        self.sa = sa  # None: the request that would make one
        self.sent = sent
        self.memory = memory  # of this IKE SA: the script's own
        self.answered: tuple[Payload, ...] | None = None
        self.held = False
        self.notes: list[str] = []

    @property
    def payloads(self) -> list[Payload]:
        """What is in it."""
        return self._payloads

    @payloads.setter
    def payloads(self, payloads: Iterable[Payload]) -> None:
        if not isinstance(payloads, list | tuple):
            raise TypeError(f"{type(payloads).__name__} where a list of payloads belongs")
        self._payloads = _Payloads(map(_payload, payloads))

    @property
    def received(self) -> bool:
        """It came in."""
        return not self.sent

    @property
    def message(self) -> Message:
        """As it is now."""
        return replace(self.original, payloads=tuple(self.payloads))

    @property
    def exchange(self) -> ExchangeType:
        """Its exchange."""
        return self.original.exchange_type

    @property
    def is_response(self) -> bool:
        """A response."""
        return self.original.is_response

    @property
    def message_id(self) -> int:
        """Its number."""
        return self.original.message_id

    def is_(self, exchange: ExchangeType, *, response: bool | None = None) -> bool:
        """Of this exchange, and a response or not if that is said."""
        return self.exchange == exchange and response in (None, self.is_response)

    def find(self, kind: type[P]) -> P | None:
        """The first payload of a class."""
        return next((each for each in self.payloads if isinstance(each, kind)), None)

    def find_all(self, kind: type[P]) -> list[P]:
        """All payloads of a class."""
        return [each for each in self.payloads if isinstance(each, kind)]

    def add(self, *payloads: Payload, first: bool = False) -> None:
        """Put payloads behind the others, or in front."""
        self.payloads[0 if first else len(self.payloads) : 0 if first else len(self.payloads)] = payloads

    def drop(self, which: type | Payload | Callable[[Payload], bool]) -> int:
        """Leave payloads out: one, those of a class, or those that a function says yes to. Returns how many."""
        if isinstance(which, type):
            kept = [each for each in self.payloads if not isinstance(each, which)]
        elif callable(which):
            kept = [each for each in self.payloads if not which(each)]
        else:
            kept = [each for each in self.payloads if each != which]
        count = len(self.payloads) - len(kept)
        self.payloads[:] = kept
        return count

    def replace(self, old: Payload, new: Payload) -> None:
        """Put one payload in the place of another. Raises `ValueError` when that is not there."""
        self.payloads[self.payloads.index(old)] = new

    def answer(self, *payloads: Payload) -> None:
        """A request that came in: answer it with these, and keep it from the engine."""
        if self.sent or self.is_response or self.sa is None:
            raise ValueError("only a request that came in on an IKE SA can be answered")
        self.answered = tuple(map(_payload, payloads))

    def hold(self) -> None:
        """Let the engineer decide (at the terminal, or out of a recording). IKE_SA_INIT goes on all the same: whoever
        sent it cannot be told from a forger."""
        if self.sent:
            raise ValueError("only a message that came in can be held")
        if self.is_(ExchangeType.IKE_SA_INIT):
            self.note("IKE_SA_INIT is never held: the script can change it, and the engine goes on")
        self.held = True

    def note(self, text: str) -> None:
        """Say something, on the terminal and in the recording."""
        self.notes.append(text)


Hook = Callable[[Passing], Any]


@dataclass(frozen=True, slots=True)
class _Script:
    """`on_message` of a script, and its `on_identity` if it has one."""

    on_message: Hook
    on_identity: Callable[[Identity, IkeSa], Any] | None

    def __call__(self, m: Passing) -> Any:  # noqa: ANN401 - what the script returns
        """See a message."""
        return self.on_message(m)


class Hooks:
    """The hooks of some scripts, or plain functions; each sees what the one before it has left."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self.hooks = tuple(hooks)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.hooks)

    def run(self, passing: Passing) -> None:
        """Let them see, and change, a message. Raises `HookFailed`; an `IkewayError` of a hook is its own."""
        for hook in self.hooks:
            before = passing.message
            try:
                with _interruptible():
                    result = hook(passing)
                if isinstance(result, Message):
                    passing.original, passing.payloads = result, list(result.payloads)
                elif result is not None:
                    raise TypeError(f"{NAME} returned {type(result).__name__}, neither None nor a Message")
                if passing.message != before:
                    passing.message.encode()  # raises `ValueError` when something does not fit
            except IkewayError:
                raise
            # `sys.exit`, or Ctrl-C in a loop without an end, would leave the peer without its notify.
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                raise _failed(error, hook.on_message if isinstance(hook, _Script) else hook) from error

    def identity(self, identity: Identity, sa: IkeSa) -> Identity:
        """Who the scripts want us to be: `on_identity` returns an identity, one in words, or None for no change. Raises
        `HookFailed`; an `IkewayError` of a script is its own."""
        for hook in self.hooks:
            naming = hook.on_identity if isinstance(hook, _Script) else None
            if naming is None:
                continue
            try:
                with _interruptible():
                    wanted = naming(identity, sa)
                if not isinstance(wanted, Identity | str | None):
                    raise TypeError(f"{IDENTITY} returned {type(wanted).__name__}, neither None nor an identity")
            except IkewayError:
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                raise _failed(error, naming) from error
            identity = Identity.parse(wanted) if isinstance(wanted, str) else wanted or identity
        return identity


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C reaches a script that does not come to an end. The event loop hears of the signal too, and ends."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def load_hooks(path: str | Path) -> Hooks:
    """Read a script. Raises `ConfigError` with the line when it cannot be read, or has no `on_message`."""
    name = str(path)
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the script cannot be read: {error.strerror}", file=name, remedy="name a Python file"
        ) from None
    space: dict[str, Any] = {"__name__": "ikeway_script", "__file__": name}
    try:
        exec(compile(source, name, "exec"), space)  # noqa: S102 - the engineer's own script, that is what it is for
    except SyntaxError as error:
        raise ConfigError(f"the script is no Python: {error.msg}", file=name, line=error.lineno or 1) from None
    except ValueError as error:  # a zero octet in the source
        raise ConfigError(f"the script is no Python: {error}", file=name, line=1) from None
    except (Exception, SystemExit) as error:
        line = _line_in(error, name)
        raise ConfigError(f"the script failed: {type(error).__name__}: {error}", file=name, line=line) from error
    hook, naming = space.get(NAME), space.get(IDENTITY)
    if naming is not None:
        _check_signature(naming, name, IDENTITY, "identity", "sa")
    if not callable(hook):
        raise ConfigError(
            f"the script has no {NAME}",
            file=name,
            expected=f"def {NAME}(m): ...",
            remedy="see docs/workbench.md for examples",
        )
    _check_signature(hook, name, NAME, "m")
    return Hooks([_Script(hook, naming)])


def _check_signature(hook: Any, name: str, what: str, *arguments: str) -> None:  # noqa: ANN401 - anything at all
    line = getattr(getattr(hook, "__code__", None), "co_firstlineno", 1)
    expected = f"def {what}({', '.join(arguments)}): ..."
    if inspect.iscoroutinefunction(hook):
        raise ConfigError(f"{what} is a coroutine, and nobody awaits it", file=name, line=line, expected=expected)
    try:
        inspect.signature(hook).bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"{what} cannot be called so: {error}", file=name, line=line, expected=expected) from None
    except ValueError:  # something without a signature
        return


def _payload(what: object) -> Payload:
    """Raise `TypeError` or `ValueError` for what cannot be sent."""
    if not isinstance(what, Payload):
        raise TypeError(f"{type(what).__name__} is no payload")
    try:
        encode_payloads((what,))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"a {type(what).__name__} cannot be encoded: {error}") from error
    return what


def _failed(error: BaseException, hook: Callable[..., Any]) -> HookFailed:
    """With the innermost place in the script's own file; else where the hook begins."""
    code = getattr(hook, "__code__", None)
    file = code.co_filename if code is not None else getattr(hook, "__module__", "hook")
    line = _line_in(error, file, code.co_firstlineno) if code is not None else 0
    return HookFailed(f"{type(error).__name__}: {error}", file=file, line=line)


def _line_in(error: BaseException, file: str, otherwise: int = 1) -> int:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] or otherwise if lines else otherwise
