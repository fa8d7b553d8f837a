"""The schema of messages that workers and the zygote send: every one is validated before anybody uses it.

The master may be root, and a worker may have been taken over. So these messages are JSON, and each is structured as a
frozen class of `worker_messages`: exact types, bounded numbers and texts, no unknown field. Anything else raises
BadMessage, whose text names the field. A frame is `{"type": tag, field: value, ...}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar, Union, get_args, get_origin

from attrs import fields
from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, transform_error

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]  # noqa: UP007 - recursive
Measure: TypeAlias = int | tuple[int, int]
"""A number, or a number and its bound."""
T = TypeVar("T")

MAX_NUMBER: Final = 1 << 63
"""Larger numbers are refused: no counter gets so far, and some readers of JSON cannot take them."""
MAX_STRING: Final = 1 << 16
"""Characters of one string."""
MAX_ITEMS: Final = 100_000
"""Items of one list. It is checked before they are: the sessions of a worker fit, and a full frame must not take seconds."""
MAX_KEYS: Final = 1000
"""Keys of one object."""
MAX_VALUES: Final = 150_000
"""Values of one frame or text, at least: commas and opening brackets are counted before it is parsed, those in strings are not.
Without this a frame of empty lists would take a hundred times as long as one of strings, and thirty times its size in memory."""
MAX_TEXT: Final = 2000
"""Characters of a sentence for people."""


class BadMessage(Exception):
    """A message of another process does not fit its schema. The text says where, in one line."""


def encode(message: Any, tag: str) -> bytes:
    """Return the frame of a message. Tuples become lists, classes objects."""
    return json.dumps({"type": tag, **_as_dict(message)}, default=_as_dict, separators=(",", ":")).encode()


def decode(frame: bytes, classes: Mapping[str, type[T]]) -> T:
    """Validate a frame as one of the classes, by its tag. Raises: BadMessage."""
    body: Any = parse(frame)
    try:
        message_class = classes[body.pop("type")]
    except (AttributeError, TypeError, KeyError):
        raise BadMessage("it has no known type") from None
    if len(body) > MAX_KEYS:
        raise BadMessage(f"more than {MAX_KEYS} fields")
    return structure(body, message_class)


def to_text(message: Any) -> str:
    """Return a message as a text that other processes pass on without parsing it."""
    return json.dumps(_as_dict(message), default=_as_dict, separators=(",", ":"))


def structure_text(text: str, message_class: type[T]) -> T:
    """Parse such a text, and validate it as a class. Raises: BadMessage."""
    return structure(parse(text.encode(errors="surrogatepass")), message_class)


def parse(text: bytes) -> Json:
    """Parse JSON of another process, of MAX_VALUES. Raises: BadMessage."""
    if _count_marks(text) > MAX_VALUES and _count_marks(_without_strings(text)) > MAX_VALUES:
        raise BadMessage(f"more than {MAX_VALUES} values")
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("it is not JSON") from None
    return value


def _count_marks(text: bytes) -> int:
    return sum(map(text.count, (b",", b"[", b"{")))


def _without_strings(text: bytes) -> bytes:
    """Return what stands between the strings: a client chooses names, and may have a hundred commas in each.

    Exact as far as the text is JSON; the parser ends where it is not.
    """
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Each value may have a name, and both may be strings.
    return b"".join(plain.split(b'"', 4 * MAX_VALUES)[::2])


def structure(value: object, message_class: type[T]) -> T:
    """Validate a value from JSON as a class, or as a tuple of classes. Raises: BadMessage."""
    try:
        return _fast.structure(value, message_class)
    except _MISFITS:
        pass
    try:
        # Once more, slowly, for the reason.
        return _explaining.structure(value, message_class)
    except (*_MISFITS, BaseValidationError) as error:
        raise BadMessage(one_line("; ".join(transform_error(error)))) from None


def unstructure(value: Any) -> Any:
    """Return a message, or a list of them, as JSON has it."""
    return json.loads(json.dumps(value, default=_as_dict))


def one_line(text: str) -> str:
    """Replace line breaks and control characters in another process's text, and truncate it."""
    joined = "; ".join(text[:MAX_TEXT].splitlines())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in joined)


def _as_dict(message: Any) -> dict[str, Any]:
    return {each.name: getattr(message, each.name) for each in fields(type(message))}


# --- Strict hooks: cattrs alone turns "5" into 5, and a string into a tuple of its characters.

_LISTS: Final = (list, tuple)
_MISFITS: Final = (ForbiddenExtraKeysError, ValueError, TypeError, KeyError, AttributeError)


def _integer(value: Any, _type: object) -> int:
    if type(value) is not int or not -MAX_NUMBER < value < MAX_NUMBER:
        raise ValueError("not an integer below 2**63")
    return value


def _number(value: Any, _type: object) -> float:
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        return value
    return _integer(value, None)


def _boolean(value: Any, _type: object) -> bool:
    if type(value) is not bool:
        raise ValueError("not true or false")
    return value


def _string(value: Any, _type: object) -> str:
    if type(value) is not str or len(value) > MAX_STRING:
        raise ValueError("not a string, or too long")
    if not value.isascii():
        value.encode()  # half of a surrogate pair, which JSON may hold, is no character
    return value


def _measure(value: Any, _type: object) -> Measure:
    match value:
        case [number, bound]:
            return _integer(number, None), _integer(bound, None)
        case _:
            return _integer(value, None)


def _tuple_hook(message_class: Any, converter: Converter) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Make the hook of `tuple[X, ...]`, or of a tuple with a type for each place."""
    types = get_args(message_class)
    if types == (str, ...):
        return _strings
    if types[-1] is Ellipsis:
        hook = converter.get_structure_hook(types[0])

        def structure_all(value: Any, _type: object) -> tuple[Any, ...]:
            if type(value) not in _LISTS:
                raise TypeError("not a list")
            if len(value) > MAX_ITEMS:
                raise ValueError(f"more than {MAX_ITEMS} items")
            return tuple([hook(each, None) for each in value])

        return structure_all
    hooks = [converter.get_structure_hook(each) for each in types]

    def structure_each(value: Any, _type: object) -> tuple[Any, ...]:
        if type(value) not in _LISTS or len(value) != len(hooks):
            raise TypeError("not a list of that length")
        return tuple([hook(part, None) for hook, part in zip(hooks, value)])  # noqa: B905 - as long as each other

    return structure_each


def _strings(value: Any, _type: object) -> tuple[str, ...]:
    if type(value) not in _LISTS:
        raise TypeError("not a list")
    if len(value) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} items")
    return tuple([_string(each, None) for each in value])


def _dict_hook(message_class: Any, converter: Converter) -> Callable[[Any, Any], dict[str, Any]]:
    """Make the hook of `dict[str, X]`."""
    _key, kind = get_args(message_class)
    hook = converter.get_structure_hook(kind)

    def structure_dict(value: Any, _type: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError("not an object")
        if len(value) > MAX_KEYS:
            raise ValueError(f"more than {MAX_KEYS} keys")
        return {_string(key, None): hook(each, None) for key, each in value.items()}

    return structure_dict


def _is_generic(kind: Any, origin: object) -> bool:
    return get_origin(kind) is origin


def _converter(*, detailed: bool) -> Converter:
    made = Converter(detailed_validation=detailed, forbid_extra_keys=True)
    made.register_structure_hook_func(lambda kind: kind == Measure, _measure)
    made.register_structure_hook_factory(lambda kind: _is_generic(kind, dict), _dict_hook)
    made.register_structure_hook_factory(lambda kind: _is_generic(kind, tuple), _tuple_hook)
    for kind, hook in ((int, _integer), (float, _number), (bool, _boolean), (str, _string)):
        made.register_structure_hook(kind, hook)
    return made


_fast: Final = _converter(detailed=False)
_explaining: Final = _converter(detailed=True)
