"""A user's JSON as a type of theirs: a pydantic model, a dataclass, a TypedDict, what else pydantic knows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_MOST_SHOWN = 5
# In these parts of a message pydantic repeats what was given, or what a validator of the user's has said.
_ECHOES = frozenset({"error", "tag"})


class Typed(Generic[T]):
    """A type that JSON is read as."""

    def __init__(self, model: type[T], argument: str) -> None:
        """Take the type, and what the argument is called that it was given as.

        Raises:
            InvalidArgument: pydantic cannot make anything of it.
        """
        self._adapter = _adapter(model, argument)
        self._misfit = (
            f"does not fit {model.__name__}" if isinstance(model, type) else "does not fit its type"
        )

    def read(self, value: object, error: Callable[[str], Exception]) -> T:
        """Return a value of the type.

        Args:
            value: As JSON was read.
            error: Makes what is raised if it does not fit, of which fields do not and why. What stands in
                them is not said.
        """
        from pydantic import ValidationError
        from pydantic_core import to_json

        try:
            # As JSON, or a strict model would take no text for a date.
            read: T = self._adapter.validate_json(to_json(value))
        except ValidationError as found:
            reason = _reason(found)
        else:
            return read
        raise error(f"{self._misfit}: {reason}")


def _adapter(model: Any, argument: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    code, said = None, f"not {type(model).__name__}"
    # Of these pydantic would make something, but not what is meant.
    if not isinstance(model, str | Mapping) and not inspect.isroutine(model):
        try:
            adapter = TypeAdapter[Any](model)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            code, said = error.code, str(error).partition(". ")[0].splitlines()[0]
        else:
            return adapter
    if code == "typed-dict-version":
        said = "take TypedDict from typing_extensions, since before Python 3.12 that of typing cannot be"
    kinds = "as a pydantic model, a dataclass or a TypedDict"
    raise InvalidArgument(f"{argument} must be a type that can be checked, {kinds}: {said}")


def _reason(error: ValidationError) -> str:
    """Return which fields are wrong and why, without what stands in them."""
    found = error.errors(include_url=False, include_input=False)
    said = [_flaw(each) for each in found[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        said.append(f"and {len(found) - _MOST_SHOWN} more")
    return "; ".join(said)


def _flaw(found: Any) -> str:
    from pydantic_core.core_schema import ErrorType

    where = ".".join(str(part) for part in found["loc"])
    text: str = found["msg"]
    if found["type"] not in get_args(ErrorType):
        text = "refused"  # in words of the user's own
    for name in _ECHOES & found.get("ctx", {}).keys():
        text = text.replace(str(found["ctx"][name]), "").rstrip(" ,:")
    return f"{where}: {text}" if where else text
