"""Decode IKE messages, given in hexadecimal on standard input or as arguments, and print what is in them.

python examples/decode.py 0123456789abcdef...
"""

import sys

from ikeway.errors import WireError
from ikeway.wire import Message, render


def show(text: str) -> bool:
    """Print one message; False when it is none."""
    try:
        message = Message.decode(bytes.fromhex(text))
    except ValueError:
        print("this is not hexadecimal:", text[:40])
    except WireError as error:
        print("this is no IKE message:", error)
    else:
        print(render(message))
        return True
    return False


if __name__ == "__main__":
    found = [show(text) for text in sys.argv[1:] or sys.stdin.read().split()]
    sys.exit(0 if found and all(found) else 1)
