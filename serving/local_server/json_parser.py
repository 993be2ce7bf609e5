"""The text of a REST request, parsed as TensorFlow Serving parses it: RapidJSON with `NaN` and `Inf`.

orjson reads most documents. What it refuses or reads otherwise is left to Python's parser, with RapidJSON's rules
around it: numbers that JSON does not have, strings that are no UTF-8, and objects that have a key twice.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

from serving.local_server.errors import invalid_argument
from serving.local_server.json_tensors import MAX_RANK, Members, show

_MAX_SEARCHED_CHARS = 100_000
_BOM = b"\xef\xbb\xbf"
_TOO_BIG = "JSON Parse error: Number too big to be stored in double."
# An escape that stands for half of a character beyond U+FFFF, and makes no text without the other half.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|(u[dD][89a-fA-F])|.)", re.DOTALL)
# What RapidJSON takes for a number and Python does not, and the strings that may hold the same letters. One without an
# end counts, too: a search that fails would begin again at each of its characters.
_STRING = r'"(?:[^"\\]|\\.?)*"?'
_UNUSUAL = re.compile(r"-NaN|Inf(?!i)")
_UNUSUAL_OR_STRING = re.compile(rf"{_STRING}|{_UNUSUAL.pattern}", re.DOTALL)
_RENAMED_CHARS = len("Infinity") - len("Inf")
# Where a number may be beyond a double, or a whole one beyond 64 bits.
_LONG_NUMBER = re.compile(r"\d{19}|\d[eE]\+?\d\d")
# RapidJSON's message for each of Python's.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Extra data": "The document root must not be followed by other values.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or } after an object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_IN_ARRAY = "Missing a comma or ] after an array element."


def parse(body: bytes) -> dict[str, Any]:
    """Parse a request; a zero byte ends it.

    Returns:
        The document. Bytes of strings that are no UTF-8 are lone surrogates, as `surrogateescape` makes them. Whole
        numbers beyond 64 bits are decimals. An object that has a key twice is a `Members`.

    Raises:
        StatusError: it is not JSON, or not an object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    body, *_ = body.partition(b"\0")
    if body.startswith(_BOM):
        body = b" " * len(_BOM) + body[len(_BOM) :]
    try:
        document = orjson.loads(body)
        # Each member has one colon: where there are more, a key may have been there twice.
        is_same = body.count(b":") == _count_members(document)
    except (orjson.JSONDecodeError, RecursionError):
        is_same = False
    if not is_same:
        document = _parse_carefully(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {show(document)} Is not object")
    return document


def _count_members(value: Any) -> int:
    """Count the members of objects, or fewer: lists whose first value is no object are not walked through."""
    if isinstance(value, dict):
        return len(value) + sum(_count_members(each) for each in value.values() if isinstance(each, dict | list))
    first, depth = value, 0
    while isinstance(first, list) and first and depth < MAX_RANK:
        first, depth = first[0], depth + 1
    return sum(map(_count_members, value)) if isinstance(value, list) and isinstance(first, dict) else 0


def _parse_carefully(body: bytes) -> Any:
    text = body.decode("utf-8", "surrogateescape")
    renamed: list[int] = []

    def rename(match: re.Match[str]) -> str:
        if match[0].startswith('"'):
            return match[0]
        if match[0] == "-NaN":
            return " NaN"
        renamed.append(match.end() + _RENAMED_CHARS * len(renamed))
        return "Infinity"

    if _UNUSUAL.search(text):
        text = _UNUSUAL_OR_STRING.sub(rename, text)
    hooks: dict[str, Callable[[str], float]] = {}
    if _LONG_NUMBER.search(text):
        hooks = {"parse_float": _read_float, "parse_int": _read_int}
    try:
        document = json.loads(text, object_pairs_hook=_keep_first, **hooks)  # type: ignore[arg-type]
    except json.JSONDecodeError as exc:
        reason, pos = _explain(exc)
        num_added = _RENAMED_CHARS * sum(at < pos for at in renamed)
        offset = len(text[:pos].encode("utf-8", "surrogateescape")) - num_added
        raise invalid_argument(f"JSON Parse error: {reason} at offset: {offset}") from exc
    except RecursionError as exc:
        raise invalid_argument("JSON Parse error: The document is nested too deeply.") from exc
    if _SURROGATE.search(text) and any(match[1] for match in _ESCAPE.finditer(text)):
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.")
    return document


def _explain(exc: json.JSONDecodeError) -> tuple[str, int]:
    """Return RapidJSON's reason for an error, and its position in the text."""
    found = exc.doc[exc.pos : exc.pos + 1]
    if exc.msg == "Expecting value" and exc.pos == len(exc.doc) and not exc.doc.strip():
        return "The document is empty.", exc.pos
    if exc.msg.startswith(("Expecting ','", "Extra data")):
        if exc.doc[exc.pos - 1].isdigit() and found in {".", "e", "E"}:
            signed = found != "." and exc.doc[exc.pos + 1 : exc.pos + 2] in {"+", "-"}
            reason = "Miss fraction part in number." if found == "." else "Miss exponent in number."
            return reason, exc.pos + 1 + signed
        # In a long text not even the reason is worth seconds of searching.
        is_short = exc.pos < _MAX_SEARCHED_CHARS
        if is_short and exc.msg.startswith("Expecting") and _ends_in_array(exc.doc[: exc.pos]):
            return _IN_ARRAY, exc.pos
    return next((ours for theirs, ours in _PARSE_ERRORS.items() if exc.msg.startswith(theirs)), exc.msg), exc.pos


def _ends_in_array(text: str) -> bool:
    """Return whether the innermost bracket that a part of a document leaves open is an array's."""
    opened: list[str] = []
    for bracket in re.findall(r"[\[\]{}]", re.sub(_STRING, "", text)):
        if bracket in "[{":
            opened.append(bracket)
        else:
            opened.pop()
    return opened[-1:] == ["["]


def _read_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid_argument(_TOO_BIG)
    return value


def _read_int(text: str) -> float:
    if len(text) > len(str(-(2**64))):
        return _read_float(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    last = dict(pairs)
    return last if len(last) == len(pairs) else Members(dict(reversed(pairs)), last)
