"""A key in a token, through the token's own library (PKCS#11 v2.40).

Theory of operation. Hashes are made here and the token signs them, so that it needs nothing beyond CKM_RSA_PKCS,
CKM_RSA_PKCS_PSS, CKM_ECDSA or CKM_EDDSA. Everything blocks and is called in threads, one at a time for a library:
python-pkcs11 initialises it without locks (C_Initialize), and a reload opens the token while log-ins sign. The session
stays open with the PIN given. A token that was taken out and put back is opened again at the next signature; a process
that was forked since needs its library anew.

A gateway opens its token again with each reload, and tokens have few sessions: the one of a signer that nobody has any more
is closed. Only the session that has logged in stays, as its end would log out all others; there is one such for a process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography import x509

from ikeway.auth.parse import PUBLIC_KEY_TYPES, UNREADABLE, PublicKey, load_certificate
from ikeway.config.pkcs11.mechanisms import finish, mechanism_of
from ikeway.config.pkcs11.uri import Pkcs11Uri
from ikeway.crypto.signature import SignatureScheme, schemes_for, verify
from ikeway.errors import ConfigError, CryptoError, HostError

if TYPE_CHECKING:
    import pkcs11

LIBRARIES = tuple(
    Path("/usr", folder, name)
    for name in ("p11-kit-proxy.so", "opensc-pkcs11.so")  # p11-kit knows all that are installed
    for folder in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib")
)
MOST_OBJECTS = 200
_locks: dict[Path, threading.Lock] = {}
_TRIAL = b"Ikeway looks whether this key is the certificate's"

Pin = Callable[[int], str | None]
"""Gives the PIN; the argument counts tries from 1. None: there is no other one to try."""


@dataclass(slots=True, eq=False)
class _Held:
    """What a signer leaves behind."""

    lock: threading.Lock
    process: int
    session: Any = None


class TokenSigner:
    """The private key in a token, and its certificates. Made by `open_token`."""

    blocks: ClassVar[bool] = True

    def __init__(self, uri: Pkcs11Uri, pin: Pin, chain: tuple[x509.Certificate, ...]) -> None:
        self._uri, self._library, self._pin = uri, _library_of(uri), pin
        self._lock = _lock_of(self._library)
        self._held = _Held(self._lock, os.getpid())
        weakref.finalize(self, _let_go, self._held).atexit = False
        self._known_pin: str | None = None
        self._wants_pin = False
        self._key: Any = None  # python-pkcs11 adds `sign` to the classes of what it finds
        with self._lock, _explained(uri):
            self._open()
            self.chain = chain or self._certificates()
        public_key = self.chain[0].public_key()
        if not isinstance(public_key, PUBLIC_KEY_TYPES) or not schemes_for(public_key):
            raise ConfigError(
                f"the key of {uri} is of a kind that IKE has no use for",
                expected="RSA, ECDSA on a common curve, or Ed25519",
                got=type(public_key).__name__.removesuffix("PublicKey"),
                remedy="put a key of another kind into the token",
            )
        self._public_key = public_key
        self._try_out()

    def __repr__(self) -> str:
        return f"<TokenSigner {self._uri}>"

    @property
    def public_key(self) -> PublicKey:
        """The certificate's, which the token was seen to have the key of."""
        return self._public_key

    def sign(self, scheme: SignatureScheme, octets: bytes) -> bytes:
        """Sign the octets by that scheme, in the token. Blocks. Raises `HostError` when the token is gone or refuses."""
        mechanism, parameter, data = mechanism_of(scheme, octets)
        with self._lock:
            for again in (True, False):
                try:
                    return self._sign_once(scheme, mechanism, parameter, data)
                except (ConfigError, HostError):
                    raise
                except Exception as error:  # the library's own, which has no common type of its own with the OS's
                    self._forget()
                    if not again or _is_about_pin(error):
                        self._known_pin = None if _is_about_pin(error) else self._known_pin
                        raise _gone(self._uri, error) from error
        raise AssertionError("unreachable")

    def _sign_once(self, scheme: SignatureScheme, mechanism: Any, parameter: Any, data: bytes) -> bytes:  # noqa: ANN401
        if self._key is None or self._held.process != os.getpid():
            with _explained(self._uri):
                self._open()
        assert self._key is not None
        # Such a key wants the PIN before each signature, as that of a signature card (PIV slot 9c).
        pin = self._pin_again() if self._wants_pin else None
        made = self._key.sign(data, mechanism=mechanism, mechanism_param=parameter, pin=pin)
        return finish(scheme, self._public_key, made)

    def _try_out(self) -> None:
        """One signature, so that a key that does not fit, or that may not sign, is found before it is needed."""
        scheme = next((one for one in schemes_for(self._public_key) if not one.is_pss), None)
        scheme = scheme or schemes_for(self._public_key)[0]
        try:
            verify(self._public_key, scheme, self.sign(scheme, _TRIAL), _TRIAL)
        except (HostError, CryptoError) as error:
            raise ConfigError(
                f"the key of {self._uri} does not sign for its certificate: {error.reason}",
                expected=f"a key that belongs to the certificate and may sign ({scheme})",
                remedy="name the key and its certificate by `object` or `id`",
            ) from error

    # --- the session ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._forget()
        loaded = _load(self._library)
        import pkcs11

        if self._held.process != os.getpid():
            loaded.reinitialize()
            self._held.process = os.getpid()
        self._held.session = self._log_in(loaded)
        self._key = self._find_key(self._held.session)
        self._wants_pin = _attribute(self._key, pkcs11.Attribute.ALWAYS_AUTHENTICATE) is True

    def _log_in(self, loaded: Any) -> pkcs11.Session:  # noqa: ANN401 - python-pkcs11 gives its library no type
        import pkcs11

        token, attempt = self._find_token(loaded), 1
        pin = self._known_pin if self._known_pin is not None else self._next_pin(token, attempt)
        while pin is not None:
            try:
                session = token.open(user_pin=pin)
            except pkcs11.UserAlreadyLoggedIn:  # by another signer of this process, which counts for all
                self._known_pin = pin if isinstance(pin, str) else None
                return token.open()
            except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
                self._known_pin, attempt, token = None, attempt + 1, self._find_token(loaded)
                pin = None if token.flags & _last_try() else self._next_pin(token, attempt)
            else:
                self._known_pin = pin if isinstance(pin, str) else None
                return session
        raise ConfigError(
            f"the PIN of {self._uri} is wrong",
            got=_tries_left(token.flags),
            remedy="correct `pin`; a locked token is unlocked with its PUK, or by who administers it",
        )

    def _pin_again(self) -> str | None:
        if self._known_pin is None:  # another signer of this process has logged in
            self._known_pin = self._pin(1)
        return self._known_pin

    def _next_pin(self, token: pkcs11.Token, attempt: int) -> Any:  # noqa: ANN401 - a text, or that the reader asks
        import pkcs11

        if token.flags & pkcs11.TokenFlag.PROTECTED_AUTHENTICATION_PATH:
            return pkcs11.PROTECTED_AUTH if attempt == 1 else None
        return self._pin(attempt)

    def _forget(self) -> None:
        session, self._held.session, self._key = self._held.session, None, None
        if session is not None and self._held.process == os.getpid():
            _close(session)

    def _find_token(self, loaded: Any) -> pkcs11.Token:  # noqa: ANN401
        uri = self._uri
        tokens: list[pkcs11.Token] = [
            token
            for slot in loaded.get_slots(token_present=True)
            if (uri.slot_id is None or slot.slot_id == uri.slot_id) and _suits(uri, token := slot.get_token())
        ]
        if len(tokens) == 1:
            return tokens[0]
        present = ", ".join(f"{slot.get_token().label!r}" for slot in loaded.get_slots(token_present=True)) or "none"
        raise ConfigError(
            f"{'no token fits' if not tokens else 'more than one token fits'} {uri}",
            expected="one token that is there",
            got=present[:200],
            remedy="put it in, or correct `token` in the URI" if not tokens else "name it by `serial` too",
        )

    # --- objects ----------------------------------------------------------------------------------------------------

    def _find_key(self, session: pkcs11.Session) -> Any:  # noqa: ANN401
        import pkcs11

        wanted = _wanted(self._uri)
        keys = _objects(session, pkcs11.ObjectClass.PRIVATE_KEY, wanted)
        if not keys and wanted:  # the label may be the certificate's alone
            certificates = _objects(session, pkcs11.ObjectClass.CERTIFICATE, wanted)
            ids = {_attribute(each, pkcs11.Attribute.ID) for each in certificates} - {b"", None}
            named = ({pkcs11.Attribute.ID: each} for each in ids)
            keys = [key for one in named for key in _objects(session, pkcs11.ObjectClass.PRIVATE_KEY, one)]
        if len(keys) != 1:
            raise ConfigError(
                f"{self._uri} names {len(keys)} private keys",
                expected="one",
                got=", ".join(repr(_attribute(key, pkcs11.Attribute.LABEL)) for key in keys[:10]),
                remedy="name one by `object` or `id` in the URI"
                if keys
                else "put a key in, or correct `object` in the URI",
            )
        return keys[0]

    def _certificates(self) -> tuple[x509.Certificate, ...]:
        """The key's certificate, and those above it that the token has too."""
        import pkcs11

        assert self._held.session is not None and self._key is not None
        found = _objects(self._held.session, pkcs11.ObjectClass.CERTIFICATE, {})
        identifier, label = _attribute(self._key, pkcs11.Attribute.ID), _attribute(self._key, pkcs11.Attribute.LABEL)
        own = [each for each in found if identifier and _attribute(each, pkcs11.Attribute.ID) == identifier]
        own = own or [each for each in found if label and _attribute(each, pkcs11.Attribute.LABEL) == label]
        if len(own) != 1:
            raise ConfigError(
                f"{self._uri} has {len(own)} certificates of its key",
                expected="one certificate with the same `id` as the key",
                remedy="put it into the token, or name a file in `certificate`",
            )
        return _chain(_decoded(own[0], self._uri), [_decoded(each, self._uri) for each in found if each is not own[0]])


def _let_go(held: _Held) -> None:
    """Close the session of a signer that is gone: in a thread, for it blocks, and who lets go may be the event loop."""
    session, held.session = held.session, None
    if session is None or held.process != os.getpid():
        return
    import pkcs11

    if session.user_type == pkcs11.UserType.NOBODY:  # another one has logged in
        threading.Thread(target=_close_alone, args=(held.lock, session), name="ikeway-token", daemon=True).start()


def _close_alone(lock: threading.Lock, session: pkcs11.Session) -> None:
    with lock:
        _close(session)


def _close(session: pkcs11.Session) -> None:
    try:
        session.close()
    except Exception:  # noqa: S110 - it is gone, which is why it is closed
        pass


def open_token(uri: Pkcs11Uri, pin: Pin, chain: tuple[x509.Certificate, ...] = ()) -> TokenSigner:
    """Open the token and look whether its key signs. `chain`: the key's certificate first, where it is not in the token.
    Raises `ConfigError`, and `HostError` when the token does not answer."""
    return TokenSigner(uri, pin, chain)


def _lock_of(library: Path) -> threading.Lock:
    return _locks.setdefault(library.resolve(), threading.Lock())


def _library_of(uri: Pkcs11Uri) -> Path:
    if uri.module_path:
        return Path(uri.module_path)
    found = next((path for path in LIBRARIES if path.exists()), None)
    if found is None:
        raise ConfigError(
            "no PKCS#11 library is known",
            expected="one in the URI, or p11-kit's or OpenSC's in its usual place",
            remedy="end the URI with ?module-path=/usr/lib/..., or install p11-kit-modules or opensc-pkcs11",
        )
    return found


def _load(path: Path) -> Any:  # noqa: ANN401 - python-pkcs11 gives its library no type
    try:
        import pkcs11
    except ImportError:
        raise ConfigError(
            "python-pkcs11 is not installed", expected="it, for keys in tokens", remedy="pip install 'ikeway[pkcs11]'"
        ) from None
    try:
        return pkcs11.lib(str(path))
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be used as a PKCS#11 library: {_words(error)}",
            expected="the library that came with the token, such as /usr/lib/softhsm/libsofthsm2.so",
            remedy="correct `module-path` in the URI, or install the library",
        ) from None


def _suits(uri: Pkcs11Uri, token: pkcs11.Token) -> bool:
    pairs = (
        (uri.token, token.label),
        (uri.serial, token.serial),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
    )
    return all(not wanted or wanted == _text(value) for wanted, value in pairs)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace").strip("\0 ") if isinstance(value, bytes) else str(value).strip("\0 ")


def _last_try() -> pkcs11.TokenFlag:
    import pkcs11

    return pkcs11.TokenFlag.USER_PIN_FINAL_TRY | pkcs11.TokenFlag.USER_PIN_LOCKED


def _tries_left(flags: pkcs11.TokenFlag) -> str:
    import pkcs11

    if flags & pkcs11.TokenFlag.USER_PIN_LOCKED:
        return "a wrong PIN; the token has locked itself"
    if flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
        return "a wrong PIN; one try is left before the token locks itself"
    if flags & pkcs11.TokenFlag.USER_PIN_COUNT_LOW:
        return "a wrong PIN; few tries are left before the token locks itself"
    return "a wrong PIN; the token does not say how many tries are left"


def _wanted(uri: Pkcs11Uri) -> dict[Any, Any]:
    import pkcs11

    wanted: dict[Any, Any] = {pkcs11.Attribute.LABEL: uri.object} if uri.object else {}
    return wanted | ({pkcs11.Attribute.ID: uri.id} if uri.id else {})


def _objects(session: pkcs11.Session, kind: Any, wanted: dict[Any, Any]) -> list[Any]:  # noqa: ANN401
    import pkcs11

    found = []
    for each in session.get_objects({pkcs11.Attribute.CLASS: kind, **wanted}):
        found.append(each)
        if len(found) > MOST_OBJECTS:
            raise ConfigError(
                f"the token has more than {MOST_OBJECTS} objects of a kind", remedy="name one by `object`"
            )
    return found


def _attribute(found: Any, attribute: Any) -> Any:  # noqa: ANN401 - of what type is the attribute's business
    import pkcs11

    try:
        return found[attribute]
    except pkcs11.PKCS11Error:
        return None


def _decoded(found: Any, uri: Pkcs11Uri) -> x509.Certificate:  # noqa: ANN401
    import pkcs11

    try:
        return load_certificate(bytes(_attribute(found, pkcs11.Attribute.VALUE) or b""))
    except UNREADABLE as error:
        raise ConfigError(f"a certificate in the token of {uri} cannot be read: {error}", remedy="replace it") from None


def _chain(own: x509.Certificate, others: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    chain = [own]
    while chain[-1].issuer != chain[-1].subject:
        above = next((each for each in others if each.subject == chain[-1].issuer and each not in chain), None)
        if above is None:
            break
        chain.append(above)
    return tuple(chain)


@contextmanager
def _explained(uri: Pkcs11Uri) -> Iterator[None]:
    """What the library raises, in words."""
    try:
        yield
    except (ConfigError, HostError):
        raise
    except ImportError:
        raise
    except Exception as error:
        raise _gone(uri, error) from error


def _gone(uri: Pkcs11Uri, error: Exception) -> HostError:
    import pkcs11

    if isinstance(error, pkcs11.PinLocked):
        return HostError(
            f"the token of {uri} has locked itself", got="too many wrong PINs", remedy="unlock it with its PUK"
        )
    if isinstance(error, pkcs11.MechanismInvalid | pkcs11.KeyTypeInconsistent | pkcs11.FunctionNotSupported):
        return HostError(
            f"the token of {uri} does not make this signature: {_words(error)}", remedy="use another kind of key"
        )
    return HostError(
        f"the token of {uri} is not there any more, or does not answer: {_words(error)}",
        expected="the token that was there at the start",
        remedy="put it in again",
    )


def _is_about_pin(error: Exception) -> bool:
    """True when another try would only bring the token nearer to its lock."""
    import pkcs11

    return isinstance(error, pkcs11.PinIncorrect | pkcs11.PinInvalid | pkcs11.PinLenRange | pkcs11.PinLocked)


def _words(error: Exception) -> str:
    return " ".join(filter(None, (type(error).__name__, str(error))))[:200]
