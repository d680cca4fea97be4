"""Text that is not ours, made fit to be printed: no terminal obeys anything in it, and no shell runs any of it."""

from __future__ import annotations

import re
import shlex

_BLANK = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text on one line, in which what a terminal would obey, or would show out of order, is spelt out.

    Line ends and tabs become a space. Other control characters, and with them the escapes that they begin, marks that
    turn the direction of writing (Boucher and Anderson 2021, "Trojan Source") and halves of characters become
    ``\x1b``, ``\u202e``, ``\xe9``. What is printable already stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return _OBEYED.sub(_spelt_out, _BLANK.sub(" ", text))


def quoted(text: str) -> str:
    """Text as one word of a command, for bash, zsh and ksh."""
    if printable(text) == text:
        return shlex.quote(text)
    # Between $' and ' a shell knows the same escapes as Python.
    inner = re.sub(r"[\\']", r"\\\g<0>", text)
    return f"$'{_OBEYED.sub(_spelt_out, inner)}'"


def command(ours: str, *foreign: str) -> str:
    """A command to type: words of ours, and behind them words that are not, each of which stays one word.

    Args:
        ours: the beginning, such as ``dqe get``, or an option that the first of the other words is for.
        foreign: names and the like; one that begins with a dash is not taken for an option.
    """
    ends_in_option = ours.rpartition(" ")[2].startswith("-")
    dashes = ["--"] if not ends_in_option and any(word.startswith("-") for word in foreign) else []
    return " ".join([ours, *dashes, *map(quoted, foreign)])


def _spelt_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is no text, as Python has it in the names of files.
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
