"""The tree of errors: its drawing, its registry, and errors as values."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

import supabase_chunks as sc
from supabase_chunks import errors

PACKAGE = Path(errors.__file__).parent
# What is raised and is no error of the package's: a handler's instructions, and how the command line ends.
NO_ERRORS = {"RetryLater", "Throttled", "_Later", "PermanentFailure", "Misfit", "Failure", "Interrupted"}
MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.ChunksError)
]


def test_every_code_that_the_migrations_raise_has_its_class_and_no_other_has() -> None:
    raised = {
        code
        for file in MIGRATIONS.glob("*.sql")
        for code in re.findall(r"'(SC\d{3})'", file.read_text(encoding="utf-8"))
    }
    assert raised
    assert {code for code in errors.ResponseError.by_code if code.startswith("SC")} == raised


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found.group(1)) // 4
            path[depth:] = [found.group(2)]
            parents[found.group(2)] = path[depth - 1] if depth else "Exception"
    assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_no_other_file_has_an_error_of_its_own() -> None:
    raisable = re.compile(r"^class (\w+)\(.*(?:Error|Exception)\b", re.MULTILINE)
    found = {
        name
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for name in raisable.findall(path.read_text(encoding="utf-8"))
    }
    assert found <= NO_ERRORS
    # Those that inherit without saying Error in their line are caught by what Python knows.
    assert not {cls.__module__ for cls in _subclasses(errors.ChunksError)} - {"supabase_chunks.errors"}


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*(_subclasses(sub) for sub in cls.__subclasses__()))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_message_of_its_own_and_survives_pickling(cls: type[errors.ChunksError]) -> None:
    error = cls()
    assert str(error) == (inspect.getdoc(cls) or "").splitlines()[0]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is cls
    assert str(again) == str(error)


def test_every_error_is_exported() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(sc.__all__)
    assert {cls.__name__ for cls in CLASSES} == set(errors.__all__)


def test_details_and_hint_are_part_of_the_text() -> None:
    error = sc.InvalidArgument("bad priority", status=400, code="SC003", details="priority", hint="-3 to 3")
    assert str(error) == "bad priority (SC003, HTTP 400)\nDetails: priority\nHint: -3 to 3"


def test_timeouts_and_payload_errors_are_also_pythons_own() -> None:
    assert issubclass(sc.WaitTimeout, TimeoutError)
    assert issubclass(sc.RequestTimeout, TimeoutError)
    assert issubclass(sc.PayloadError, ValueError)
