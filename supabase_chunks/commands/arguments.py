"""Arguments that several commands take, and how they are read."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from .encodings import text_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Generic in newer releases of click only.
    _DurationType = click.ParamType[timedelta]
    _ObjectType = click.ParamType[dict[str, Any]]
    _TextType = click.ParamType[str]
else:
    _DurationType = _ObjectType = _TextType = click.ParamType

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(_DurationType):
    """A time such as `90s`, `10m`, `2h` or `30d`; a bare number means seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a time such as 90s, 10m, 2h or 30d", param, ctx)
        return timedelta(seconds=float(found[1]) * _UNITS[found[2] or "s"])


def as_typed(text: str) -> str:
    """Return an argument in the letters that were typed, which Python cannot tell under the locale C."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text


class JsonObject(_ObjectType):
    """A JSON object, or `@FILE` with one, or `-` for standard input."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Read it."""
        if isinstance(value, dict):
            return value
        text = str(value)
        try:
            if text == "-" or text.startswith("@"):
                with click.open_file(text.removeprefix("@"), "rb") as file:
                    text = "\n".join(text_lines(file))
            else:
                text = as_typed(text)
            found = json.loads(text)
        except OSError as error:
            self.fail(f"{value} cannot be read: {error.strerror}", param, ctx)
        except UnicodeError as error:
            self.fail(f"{value}, {error}", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"this is not JSON ({error}): {text[:80]}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f'this is JSON, but no object such as {{"account": "work"}}: {text[:80]}', param, ctx)
        return found


def json_lines(path: str) -> Iterator[Any]:
    """Yield the JSON objects of a file, one a line; `-` is standard input.

    Raises:
        click.UsageError: The file cannot be read, or a line is no JSON object.
    """
    try:
        with click.open_file(path, "rb") as file:
            for number, line in enumerate(text_lines(file), 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise click.UsageError(f"{path}, line {number}: this is not JSON ({error}).") from error
                if not isinstance(value, dict):
                    raise click.UsageError(f"{path}, line {number}: a chunk is a JSON object.")
                yield value
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeError as error:
        raise click.UsageError(f"{path}, {error}") from error


class JobId(_TextType):
    """A job's id, or the beginning of one; given on as its digits."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        digits = str(value).lower().replace("-", "")
        if not re.fullmatch(r"[0-9a-f]{4,32}", digits):
            self.fail(f"{value!r} is not a valid UUID, nor the first four digits of one or more", param, ctx)
        return digits


def job_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument of a job's id."""
    return click.argument("job", type=JobId(), metavar="JOB")(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "json_", is_flag=True, help="Print JSON.")(function)
