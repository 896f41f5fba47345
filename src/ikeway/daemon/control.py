"""The control socket: how `ikeway status`, `down`, `rekey`... speak to a running client or gateway.

A Unix stream socket, for its owner and root only. One JSON object a line, in both directions:

    -> {"id": 1, "command": "rekey", "arguments": {"what": "child"}}
    <- {"id": 1, "result": {...}}                       or  {"id": 1, "error": {"reason": ..., "remedy": ...}}
    <- {"id": 2, "item": {...}}  (any number of times)  and {"id": 2, "result": null} at the end of a stream

The server is of asyncio; the client blocks, so that a command need not start an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from ikeway import errors
from ikeway.errors import ConfigError, ConfigErrors, HostError, IkewayError, Side

Json: TypeAlias = Any  # what json.dumps takes: Python's types cannot say it without a cast at every use
Command = Callable[[Mapping[str, Json]], Awaitable[Json] | AsyncGenerator[Json, None]]
Role = Literal["client", "gateway"]

MAX_REQUEST = 1 << 16
MAX_ANSWER = 1 << 28
MAX_CONNECTIONS = 64
MAX_BACKLOG = 1024  # items that a slow listener may be behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_PATH_LIMIT = 107  # sun_path, without the final zero

log = logging.getLogger("ikeway.control")


def runtime_directory() -> Path:
    """Where control sockets live: $IKEWAY_RUNTIME_DIR; /run/ikeway for root; $XDG_RUNTIME_DIR/ikeway."""
    named = os.environ.get("IKEWAY_RUNTIME_DIR", "")
    if named.startswith("/"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/run/ikeway")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # The fallback is checked for its owner like every other folder before it is used.
    return Path(base) / "ikeway" if base.startswith("/") else Path(f"/tmp/ikeway-{os.geteuid()}")  # noqa: S108


def socket_path(role: Role, name: str) -> Path:
    """The socket of a client's profile or a gateway of that name."""
    if not _NAME.fullmatch(name):
        raise HostError(
            f"{name!r} cannot be the name of a control socket",
            expected="letters, digits and . _ @ -",
            remedy="rename the profile's (or the configuration's) file",
        )
    return runtime_directory() / f"{role}.{name}.sock"


@dataclass(frozen=True, slots=True)
class Instance:
    """A running client or gateway."""

    role: Role
    name: str
    path: Path


def running(role: Role | None = None) -> list[Instance]:
    """The clients and gateways that answer on their sockets."""
    found = []
    for path in sorted(runtime_directory().glob("*.sock")):
        kind, _, name = path.name.removesuffix(".sock").partition(".")
        for known in ("client", "gateway"):
            if kind == known and role in {None, known} and _is_alive(path):
                found.append(Instance(known, name, path))
    return found


class ControlServer:
    """Serves commands on a socket. Use `start` and `close` on one event loop."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        """`commands` get the arguments of a request: coroutines give a result, asynchronous generators a stream."""
        self.path = path
        self._commands = dict(commands)
        self._server: asyncio.Server | None = None
        self._lock: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """What `running` calls it."""
        return self.path.stem.partition(".")[2]

    async def start(self) -> None:
        """Listen. Raises `HostError` when another one runs, or the folder is not safe."""
        if len(os.fsencode(self.path)) > _PATH_LIMIT:
            raise HostError(
                f"the path of the control socket is too long: {self.path}",
                expected=f"at most {_PATH_LIMIT} octets",
                remedy="set IKEWAY_RUNTIME_DIR to a shorter folder, or use a shorter name",
            )
        _make_private(self.path.parent)
        self._lock = self._take_lock()
        try:
            self.path.unlink(missing_ok=True)  # left by one that was killed: we hold the lock
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                mask = os.umask(0o177)
                try:
                    listener.bind(str(self.path))
                finally:
                    os.umask(mask)
                self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_REQUEST)
            except BaseException:
                listener.close()
                raise
        except OSError as error:
            self._release_lock()
            raise HostError(
                f"the control socket {self.path} cannot be made: {error.strerror}", remedy="see to that folder"
            ) from None

    async def close(self) -> None:
        """Stop listening, end what is under way, remove the socket. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._release_lock()

    def _take_lock(self) -> int:
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            role, _, name = self.path.stem.partition(".")
            stop = f"`ikeway down {name}`" if role == "client" else "stop the other one"
            raise HostError(f"the {role} {name!r} runs already", remedy=f"{stop} first") from None
        return lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self.path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if _is_trusted(writer) and len(self._tasks) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError, ValueError):
            pass  # gone, ending, or a line without an end: there is nobody to tell
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            number: Json = None
            try:
                number, name, arguments = _decode_request(line)
                command = self._commands.get(name)
                if command is None:
                    known = ", ".join(sorted(self._commands))
                    raise IkewayError(f"there is no command {name!r} here", expected=known)
                result = command(arguments)
                if isinstance(result, AsyncGenerator):
                    async with contextlib.aclosing(result):
                        async for item in result:
                            await _send(writer, {"id": number, "item": item})
                    await _send(writer, {"id": number, "result": None})
                else:
                    await _send(writer, {"id": number, "result": await result})
            except IkewayError as error:
                await _send(writer, {"id": number, "error": error_to_json(error)})
            except ConnectionError:
                raise
            except Exception as error:
                log.exception("a command on the control socket failed; this is a defect of Ikeway")
                defect = IkewayError(f"the command failed: {type(error).__name__}", remedy="see the log")
                await _send(writer, {"id": number, "error": error_to_json(defect)})


class ControlClient:
    """Speaks to a running client or gateway. Blocks; a context manager."""

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        """Connect. Raises `HostError` when nobody is there. `timeout` is for each answer; None waits for ever."""
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        role, _, name = path.stem.partition(".")
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            start = f"`ikeway up {name}`" if role == "client" else "`ikeway gateway run`"
            raise HostError(f"the {role} {name!r} does not run", remedy=f"start it with {start}") from None
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"the {role} {name!r} cannot be reached on {path}: {error.strerror}",
                remedy="run the command as the user who started it, or as root",
            ) from None
        self._lines = self._socket.makefile("rb")

    def call(self, command: str, **arguments: Json) -> Json:
        """Give a command and return its result. Raises `IkewayError` with what the other side said."""
        self._request(command, arguments)
        while True:
            answer = self._answer()
            if "item" not in answer:
                return answer.get("result")

    def stream(self, command: str, **arguments: Json) -> Iterator[Json]:
        """Give a command and yield what comes, until its end. The time-out is off: a stream may be silent."""
        self._request(command, arguments)
        self._socket.settimeout(None)
        while "item" in (answer := self._answer()):
            yield answer["item"]

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> ControlClient:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()

    def _request(self, command: str, arguments: Mapping[str, Json]) -> None:
        self._number += 1
        request = {"id": self._number, "command": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _hung_up(error) from None

    def _answer(self) -> dict[str, Json]:
        try:
            line = self._lines.readline(MAX_ANSWER)
        except TimeoutError:
            raise HostError("no answer came on the control socket", remedy="see its log; it may be stopped") from None
        except OSError as error:
            raise _hung_up(error) from None
        if not line.endswith(b"\n"):
            raise _hung_up(None)
        answer: dict[str, Json] = json.loads(line)
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer


class Broadcast:
    """Tells every listener what happens; one that is too slow misses the oldest items, and is told how many."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Json]] = set()
        self._missed: dict[int, int] = {}

    def publish(self, item: Mapping[str, Json]) -> None:
        """Tell all listeners."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
                self._missed[id(queue)] = self._missed.get(id(queue), 0) + 1
            queue.put_nowait(item)

    async def listen(self) -> AsyncGenerator[Json, None]:
        """All that is published from now on, until the listener goes."""
        queue: asyncio.Queue[Json] = asyncio.Queue(MAX_BACKLOG)
        self._listeners.add(queue)
        try:
            while True:
                item = await queue.get()
                if missed := self._missed.pop(id(queue), 0):
                    yield {"event": "missed", "count": missed}
                yield item
        finally:
            self._listeners.discard(queue)
            self._missed.pop(id(queue), None)


def error_to_json(error: IkewayError) -> dict[str, Json]:
    """An error as it goes over the socket. `type` is its class in `ikeway.errors`."""
    told: dict[str, Json] = {
        "type": next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__),
        "reason": error.reason,
        "expected": error.expected,
        "got": error.got,
        "side": error.side.value,
        "remedy": error.remedy,
    }
    if isinstance(error, ConfigErrors):
        told["errors"] = [error_to_json(each) for each in error.errors]
    if isinstance(error, ConfigError):
        told |= {"file": error.file, "line": error.line}
    if isinstance(error, errors.WireError):
        told["offset"] = error.offset
    return told


def error_from_json(told: Mapping[str, Json]) -> IkewayError:
    """The error that the other side told of."""
    if told.get("errors"):
        return ConfigErrors(each for each in map(error_from_json, told["errors"]) if isinstance(each, ConfigError))
    reason = str(told.get("reason", "the command failed"))
    facts = {name: str(told.get(name, "")) for name in ("expected", "got", "remedy")}
    if told.get("type") == ConfigError.__name__:
        return ConfigError(reason, file=str(told.get("file", "")), line=int(told.get("line", 0)), **facts)
    if told.get("type") == errors.WireError.__name__:
        return errors.WireError(reason, offset=int(told.get("offset", 0)), expected=facts["expected"], got=facts["got"])
    side = next((side for side in Side if side.value == told.get("side")), Side.LOCAL)
    kind = {each.__name__: each for each in _KINDS}.get(str(told.get("type")), IkewayError)
    return kind(reason, side=side, **facts)


_KINDS: tuple[type[IkewayError], ...] = (
    errors.HostError,
    errors.AuthenticationFailed,
    errors.NegotiationFailed,
    errors.ProtocolViolation,
    errors.PeerUnreachable,
    errors.Closed,
)


def _decode_request(line: bytes) -> tuple[Json, str, Mapping[str, Json]]:
    try:
        request = json.loads(line)
    except ValueError:
        raise IkewayError("the request is not JSON", expected="one JSON object a line") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise IkewayError("the request names no command", expected='{"id": 1, "command": "status"}')
    arguments = request.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise IkewayError("the arguments are no JSON object", expected="a JSON object")
    return request.get("id"), request["command"], arguments


async def _send(writer: asyncio.StreamWriter, answer: Mapping[str, Json]) -> None:
    writer.write(json.dumps(answer, default=str).encode() + b"\n")
    await writer.drain()


def _is_trusted(writer: asyncio.StreamWriter) -> bool:
    """Only our own user and root may command: checked beside the socket's mode, which some systems ignore."""
    peer = writer.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid in {0, os.geteuid()}:
        return True
    log.warning("a command of user %d was refused on the control socket", uid)
    return False


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _make_private(directory: Path) -> None:
    """Make the folder, and see that nobody else can put a socket there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise HostError(
            f"the folder {directory} cannot be made: {error.strerror}", remedy="set IKEWAY_RUNTIME_DIR to another one"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(
            f"the folder {directory} is not safe for a control socket",
            expected="a folder of our own that others cannot write to",
            got=f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            remedy=f"remove it, or set IKEWAY_RUNTIME_DIR to another one (chmod 700 {directory})",
        )


def _hung_up(error: OSError | None) -> HostError:
    return HostError(
        "the other side of the control socket hung up" + (f": {error.strerror}" if error else ""),
        remedy="see its log for why it ended",
    )
