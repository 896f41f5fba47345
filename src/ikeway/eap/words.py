"""What a server's words to the user are worth: made fit to be printed, and judged for what they ask."""

from __future__ import annotations

import re

from ikeway.eap.questions import Wanted

MAX_WORDS = 1000
_NEW = re.compile(r"\bnew\s+pass(?:word|phrase)\b", re.IGNORECASE)
_CODE = re.compile(
    r"code\b|\btokens?\b|\b[th]?otp\b|\bone[- ]?time\b|\bchallenge\b|\bpins?\b|\bverif|\bauthenticat(?:or|ion) app|"
    r"\bsecond factor\b|\b[2m]fa\b|\bsms\b",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"\bpass(?:word|phrase|wd)?\b|\bpw\b", re.IGNORECASE)


def printable(octets: bytes) -> str:
    """The server's words as text without control characters: a server must not steer a terminal."""
    text = octets[: 4 * MAX_WORDS].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_WORDS].strip()


def wanted_by(words: str, *, first: bool) -> Wanted:
    """What the words ask for. Where they do not say, a log-in asks for the password first and for a code then."""
    if _NEW.search(words):
        return Wanted.NEW_PASSWORD
    if _PASSWORD.search(words) and (first or not _CODE.search(words)) and not re.search(r"one[- ]?time", words, re.I):
        return Wanted.PASSWORD
    if _CODE.search(words):
        return Wanted.CODE
    return Wanted.PASSWORD if first else Wanted.CODE
