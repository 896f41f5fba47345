"""A session in one file: datagrams, keys, plaintexts, times; and what becomes of it.

recording = load("session.ikr")
for error in recording.errors: ...             # it was cut short, or is of another version
for each in recording.messages: print(each.message)
"""

from ikeway.workbench.recording.format import (
    Datagram,
    EspKeys,
    Keys,
    Note,
    Plaintext,
    Recording,
    RecordingError,
)
from ikeway.workbench.recording.reading import load
from ikeway.workbench.recording.writing import Recorder

__all__ = [
    "Datagram",
    "EspKeys",
    "Keys",
    "Note",
    "Plaintext",
    "Recorder",
    "Recording",
    "RecordingError",
    "load",
]
