"""A user's JSON as a type of theirs: what fits, what is said of what does not, and what is no such type."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import pytest
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from supabase_chunks import AsyncChunk, Chunk, InvalidArgument
from supabase_chunks._typed import Typed

SECRET = "hunter2"


class Page(BaseModel):
    """Strict, so that text is no number."""

    model_config = ConfigDict(strict=True)
    page: int
    since: date = date(2026, 1, 1)
    word: str = ""
    other: str = ""

    @field_validator("word")
    @classmethod
    def _word(cls, word: str) -> str:
        if word:
            raise ValueError(f"{word} is no word")
        return word

    @field_validator("other")
    @classmethod
    def _other(cls, word: str) -> str:
        if word:
            raise PydanticCustomError("other", f"{word} is no word")  # type: ignore[arg-type]  # not fixed
        return word


@dataclass
class Row:
    """A dataclass."""

    page: int


class Shape(typing_extensions.TypedDict):
    """A dictionary with known names."""

    page: int


class Cat(BaseModel):
    """One of two."""

    is_a: Literal["cat"]


class Dog(BaseModel):
    """The other."""

    is_a: Literal["dog"]


PET: Any = Annotated[Cat | Dog, Field(discriminator="is_a")]


@pytest.mark.parametrize(
    ("model", "value", "read"),
    [
        (Page, {"page": 1, "since": "2026-01-31"}, Page(page=1, since=date(2026, 1, 31))),
        (Row, {"page": 1}, Row(1)),
        (Shape, {"page": 1}, {"page": 1}),
        (PET, {"is_a": "dog"}, Dog(is_a="dog")),
        (dict[str, int], {"page": 10**40}, {"page": 10**40}),
    ],
    ids=["model", "dataclass", "TypedDict", "union", "a long number"],
)
def test_what_fits_is_of_the_type(model: Any, value: Any, read: Any) -> None:
    assert Typed(model, "payload").read(value, LookupError) == read


@pytest.mark.parametrize(
    ("model", "value", "said"),
    [
        (Page, {"page": SECRET}, "does not fit Page: page: Input should be a valid integer"),
        (Page, {}, "does not fit Page: page: Field required"),
        (Page, {"page": 1, "word": SECRET}, "does not fit Page: word: Value error"),
        (Page, {"page": 1, "other": SECRET}, "does not fit Page: other: refused"),
        (Page, [SECRET], "does not fit Page: Input should be an object"),
        (
            Page,
            {"page": 1, "since": SECRET},
            "does not fit Page: since: Input should be a valid date in the format YYYY-MM-DD",
        ),
        (Row, {"page": SECRET}, "does not fit Row: page: Input should be a valid integer"),
        (Shape, {"page": [SECRET]}, "does not fit Shape: page: Input should be a valid integer"),
        (PET, {"is_a": SECRET}, "does not fit its type: Input tag '' found using 'is_a' does not match any"),
        (
            list[int],
            [SECRET] * 7,
            "4: Input should be a valid integer, unable to parse string as an integer; and 2 more",
        ),
    ],
)
def test_what_does_not_is_named_by_its_fields_and_never_shown(model: Any, value: Any, said: str) -> None:
    with pytest.raises(LookupError) as caught:
        Typed(model, "payload").read(value, LookupError)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "model",
    [{"pages": Page}, "Page", lambda chunk: chunk, object(), type("Own", (), {})],
    ids=["mapping", "name", "function", "instance", "plain class"],
)
def test_what_cannot_be_checked_is_no_type(model: Any) -> None:
    with pytest.raises(InvalidArgument, match="payload must be a type that can be checked"):
        Typed(model, "payload")


def test_a_chunk_of_a_type_can_be_named_where_annotations_are_evaluated() -> None:
    def handler(chunk: Chunk[Page], other: AsyncChunk[Page]) -> None: ...

    assert get_type_hints(handler, localns={"Page": Page})["chunk"] == Chunk[Page]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there pydantic takes it")
def test_a_typed_dict_of_typing_is_told_which_one_to_take() -> None:
    class Old(TypedDict):
        page: int

    with pytest.raises(InvalidArgument, match="take TypedDict from typing_extensions"):
        Typed(Old, "model")
