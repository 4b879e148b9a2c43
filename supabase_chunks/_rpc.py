"""From arguments to a request, and from an answer to a model or an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from ._flow import Call
from .errors import FunctionsNotInstalled, ResponseError, ServerUnavailable, UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter

T = TypeVar("T")

_BODY_SHOWN = 500
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}

_INSTALL = """\
It comes with supabase-chunks; put it there with
    supabase-chunks init          copies the migrations and functions into your Supabase project
    supabase db push --remote     (CLI v3; add --yes in CI)
    supabase db push              (CLI v2)
    supabase functions deploy --use-api
If you have just done that, wait a moment or run: notify pgrst, 'reload schema';"""


def call(function: str, /, **arguments: object) -> Call:
    """Return the call of a database function; arguments that are None are left to their default there."""
    return Call(function, {name: value for name, value in arguments.items() if value is not None})


def _adapter(model: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if model not in _ADAPTERS:
        _ADAPTERS[model] = TypeAdapter(model)
    return _ADAPTERS[model]


def decode(model: type[T], data: object, what: str) -> T:
    """Return an answer as `model` (a pydantic model, or any type that pydantic knows).

    Raises:
        UnexpectedResponse: The answer has another shape, as when a proxy answered instead of PostgREST.
    """
    from pydantic import BaseModel, ValidationError

    try:
        if isinstance(model, type) and issubclass(model, BaseModel):
            return cast("T", model.model_validate(data))
        return cast("T", _adapter(model).validate_python(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    raise UnexpectedResponse(
        f"the answer of {what} has another shape than expected ({reason})", body=_shown(data)
    )


def decode_list(model: type[T], data: object, what: str) -> list[T]:
    """Return an answer as a list of models."""
    if not isinstance(data, list):
        raise UnexpectedResponse(f"the answer of {what} is not a list", body=_shown(data))
    return [decode(model, item, what) for item in data]


def decode_uuid(data: object, what: str) -> UUID:
    """Return an answer as a UUID."""
    return decode(UUID, data, what)


def response_error(
    *, status: int, headers: Mapping[str, str], body: str, reason: str, what: str
) -> ResponseError:
    """Return the typed error for an answer that is not a success.

    Args:
        status: The HTTP status.
        headers: Its headers, by lower-case name.
        body: Its body as text.
        reason: The reason phrase.
        what: The function or table that was asked.
    """
    answer = _json_object(body)
    code = _text(answer.get("code"))
    error = ResponseError.of(status=status, code=code)
    message = _text(answer.get("message")) or _text(answer.get("msg")) or _text(answer.get("error"))
    if answer.get("code") == "" and not message:
        # What PostgREST 12 gives, with status 400, when PostgreSQL died in the middle of the statement.
        error, message = ServerUnavailable, f"the database went away during {what}"
    if error is FunctionsNotInstalled:
        thing = "function" if code == "PGRST202" else "table or view"
        message = f"the database has no {thing} {what}, or an older one. {_INSTALL}"
    return error(
        message or f"{error().message} {what} was answered with: {reason or status}",
        status=status,
        code=code,
        details=_text(answer.get("details")),
        hint=None if error is FunctionsNotInstalled else _text(answer.get("hint")),
        retry_after=_retry_after(headers.get("retry-after")),
        body=body[:_BODY_SHOWN],
    )


def not_json(*, status: int, content_type: str, body: str, what: str) -> UnexpectedResponse:
    """Return the error for a success that is not JSON: a login page of a proxy, or an answer cut short."""
    return UnexpectedResponse(
        f"{what} was answered with a success that is not JSON ({content_type or 'no content type'}); "
        "is that the URL of a Supabase project?",
        status=status,
        body=body[:_BODY_SHOWN],
    )


def _json_object(body: str) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _text(value: object) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which may be a number or an HTTP date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _shown(data: object) -> str:
    return repr(data)[:_BODY_SHOWN]
