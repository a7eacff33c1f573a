"""Python literals on the command line: read, never run.

The common ones are read without the `ast` module, whose import costs 6 ms.
"""

from __future__ import annotations

from kvedge.errors import BadSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CONSTANTS: Mapping[str, object] = {"True": True, "False": False, "None": None}


def literal(text: str) -> object:
    """Return the object that a Python literal stands for; nothing is ever run.

    Raises:
        BadSetting: The text is no literal.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and (digits[0] != "0" or digits == "0"):
        return int(text) if len(digits) < 640 else _any_literal(text)
    quote = text[:1]
    body = text[1:-1]
    if quote in ("'", '"') and text[1:].endswith(quote) and _is_simple(body, quote):
        return body
    return _any_literal(text)


def _is_simple(body: str, quote: str) -> bool:
    return not any(char in body for char in (quote, "\\", "\n", "\r", "\0"))


def _any_literal(text: str) -> object:
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a text: not ours to tell
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        why = "it is not a Python literal (a text needs quotes, or -v instead of -e)"
        raise BadSetting(text, why) from error
