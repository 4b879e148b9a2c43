"""Python values to JSON values, strictly: what PostgreSQL would refuse is an error that names its path."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard
from uuid import UUID

from ._bounds import MOST_DIGITS
from .errors import PayloadError

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_MAX_DEPTH = 100
_TOO_LARGE = 10**MOST_DIGITS
# Any surrogate in a Python string is a lone one; jsonb refuses it, and the character U+0000.
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


def encode(value: object, path: str) -> JSON:
    """Return `value` as a JSON value.

    Beyond JSON's own types it takes tuples, mappings, datetimes, dates, times, decimals (as strings, so
    that they stay exact), UUIDs, enums, pydantic models, dataclasses and NumPy scalars.

    Args:
        value: What to encode.
        path: What to call it in an error, as in `payload` or `chunks[17]`.

    Raises:
        PayloadError: for NaN, infinities, U+0000, lone surrogates, sets, bytes and every other type.

    Example:
        >>> from datetime import date
        >>> encode({"since": date(2026, 1, 31)}, "payload")
        {'since': '2026-01-31'}
    """
    return _encode(value, path, 0)


def encode_object(value: object, path: str) -> dict[str, JSON]:
    """Return `value` as a JSON object, or raise a PayloadError when it is something else."""
    encoded = encode(value, path)
    if not isinstance(encoded, dict):
        raise PayloadError(f"must be a JSON object, not {type(value).__name__}", path=path)
    return encoded


def printable(text: str) -> str:
    """Return `text` with what jsonb refuses replaced: for error messages, not for data."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def _encode(value: object, path: str, depth: int) -> JSON:
    if value is None or value is True or value is False:
        return value
    match value:
        case Enum():
            return _encode(value.value, path, depth)
        case str():
            return _string(value, path)
        case int():
            if abs(value) >= _TOO_LARGE:
                raise PayloadError(f"a number of more than {MOST_DIGITS} digits", path=path)
            return int(value)
        case float():
            if not math.isfinite(value):
                raise PayloadError(f"{value} is not a JSON number", path=path)
            return float(value)
        case Decimal():
            if not value.is_finite():
                raise PayloadError(f"{value} is not a JSON number", path=path)
            return str(value)
        case datetime() | date() | time():
            # pandas.NaT is a datetime and, like NaN, not equal to itself.
            if value != value:
                raise PayloadError("a missing time is not a JSON value; use None", path=path)
            return value.isoformat()
        case UUID():
            return str(value)
    if depth >= _MAX_DEPTH:
        raise PayloadError(f"is nested more than {_MAX_DEPTH} levels deep", path=path)
    match value:
        case Mapping():
            return {_key(key, path): _encode(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_encode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if _is_model(value):
        return _model(value, path, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _encode(getattr(value, field.name), f"{path}.{field.name}", depth + 1)
            for field in dataclasses.fields(value)
        }
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _scalar(value, path, depth)
    raise PayloadError(f"{type(value).__name__} is not a JSON type", path=path)


def _is_model(value: object) -> TypeGuard[BaseModel]:
    """Whether a value is a pydantic model; whoever has one has imported pydantic, and nobody else has to."""
    if "pydantic" not in sys.modules:
        return False
    from pydantic import BaseModel

    return isinstance(value, BaseModel)


def _model(value: BaseModel, path: str, depth: int) -> JSON:
    from pydantic_core import PydanticSerializationError

    try:
        dumped, plain = value.model_dump(mode="json"), value.model_dump()
    except (PydanticSerializationError, ValueError) as error:
        raise PayloadError(f"{type(value).__name__} cannot be made JSON: {error}", path=path) from None
    _refuse_nulled(plain, dumped, path)
    return _encode(dumped, path, depth + 1)


def _refuse_nulled(plain: object, dumped: object, path: str) -> None:
    """Refuse NaN and infinities, of which pydantic made null on the way to JSON."""
    match plain, dumped:
        case float(), None if not math.isfinite(plain):
            raise PayloadError(f"{plain} is not a JSON number", path=path)
        case Mapping(), Mapping():
            for item, (key, made) in zip(plain.values(), dumped.items(), strict=False):
                _refuse_nulled(item, made, f"{path}.{key}")
        case ((list() | tuple() | set() | frozenset()), list()):
            for index, (item, made) in enumerate(zip(plain, dumped, strict=False)):
                _refuse_nulled(item, made, f"{path}[{index}]")


def _scalar(value: Any, path: str, depth: int) -> JSON:
    """Encode a NumPy scalar as the Python value that it is."""
    if value.dtype.kind in "mM":
        # In nanoseconds, as pandas has them, item() would be a bare number.
        value = value.astype(f"{value.dtype.kind}8[us]")
        if value != value:
            raise PayloadError("a missing time is not a JSON value; use None", path=path)
    item = value.item()
    if type(item).__module__ == "numpy":
        raise PayloadError(f"{type(value).__name__} is not a JSON type", path=path)
    return _encode(item, path, depth + 1)


def _string(value: str, path: str) -> str:
    if found := _FORBIDDEN.search(value):
        character = found.group()
        name = "U+0000" if character == "\x00" else f"the lone surrogate U+{ord(character):04X}"
        raise PayloadError(f"a text that contains {name} cannot be stored", path=path)
    return str(value)


def _key(key: object, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise PayloadError(f"the key {key!r} is not a string", path=path)
    return _string(key, f"{path} (a key)")
