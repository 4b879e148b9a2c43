"""Payloads: what is encoded and how, and errors that name the path of what cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, field_serializer

from supabase_chunks import PayloadError
from supabase_chunks._encode import encode, encode_object, printable


class Colour(Enum):
    RED = "red"


class Size(StrEnum):
    BIG = "big"


class Folder(BaseModel):
    name: str
    since: date | None = None


@dataclass
class Range:
    first: int
    day: date


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (1.5, 1.5),
        ("ä", "ä"),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00+00:00"),
        (date(2026, 1, 31), "2026-01-31"),
        (time(12, 30), "12:30:00"),
        (Decimal("0.10"), "0.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Size.BIG, "big"),
        ((1, 2), [1, 2]),
        ({Size.BIG: 1}, {"big": 1}),
        (Folder(name="INBOX", since=date(2026, 1, 1)), {"name": "INBOX", "since": "2026-01-01"}),
        (Range(1, date(2026, 1, 1)), {"first": 1, "day": "2026-01-01"}),
        ({"deep": [{"x": Range(1, date(2026, 1, 1))}]}, {"deep": [{"x": {"first": 1, "day": "2026-01-01"}}]}),
    ],
)
def test_what_python_code_passes_around_is_encoded(value: object, expected: object) -> None:
    assert encode(value, "payload") == expected


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"total": float("nan")}, "chunks[17].total"),
        ({"total": float("inf")}, "chunks[17].total"),
        ({"total": Decimal("NaN")}, "chunks[17].total"),
        ({"names": ["ok", "a\x00b"]}, "chunks[17].names[1]"),
        ({"name": "\ud800"}, "chunks[17].name"),
        ({"ids": {1, 2}}, "chunks[17].ids"),
        ({"raw": b"x"}, "chunks[17].raw"),
        ({"thing": object()}, "chunks[17].thing"),
        ({1: "x"}, "chunks[17]"),
        ({"a\x00": 1}, "chunks[17] (a key)"),
        ({"kind": Range}, "chunks[17].kind"),
    ],
)
def test_what_cannot_be_stored_is_an_error_with_its_path(value: object, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encode(value, "chunks[17]")
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


def test_a_value_that_contains_itself_is_an_error_and_not_a_crash() -> None:
    value: dict[str, object] = {}
    value["me"] = value
    with pytest.raises(PayloadError, match="levels deep"):
        encode(value, "payload")


def test_a_payload_must_be_an_object() -> None:
    with pytest.raises(PayloadError, match="payload: must be a JSON object, not list"):
        encode_object([1], "payload")


def test_an_error_text_is_made_printable_instead_of_refused() -> None:
    assert printable("a\x00b\ud800") == "a\ufffdb\ufffd"


def test_missing_values_of_pandas_are_refused_like_nan() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(PayloadError, match=r"payload\.at"):
        encode({"at": pandas.NaT}, "payload")


class Reading(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    values: list[float] = []
    more: dict[UUID, float] = {}
    inner: Reading | None = None
    other: Any = None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Reading(values=[1.0, float("nan")]), "payload.values[1]"),
        (Reading(more={UUID(int=1): float("inf")}), f"payload.more.{UUID(int=1)}"),
        (Reading(inner=Reading(other=float("-inf"))), "payload.inner.other"),
        (Reading(other="\x00"), "payload.other"),
        (Reading(other=b"\xff"), "payload"),
        (Reading(other=object()), "payload"),
    ],
)
def test_a_model_with_something_that_json_has_not_is_refused(value: Reading, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encode(value, "payload")
    assert caught.value.path == path


def test_a_models_own_serializers_are_used() -> None:
    class Secret(BaseModel):
        wait: timedelta
        hidden: float

        @field_serializer("hidden", when_used="json")
        def _hide(self, value: float) -> str:
            return "…"

    assert encode(Secret(wait=timedelta(minutes=1), hidden=1.0), "payload") == {"wait": "PT1M", "hidden": "…"}


def test_numpy_scalars_are_numbers_and_times() -> None:
    numpy = pytest.importorskip("numpy")
    assert encode({"n": numpy.int64(7), "x": numpy.float32(0.5)}, "payload") == {"n": 7, "x": 0.5}
    assert encode(numpy.datetime64("2026-01-31T12:00", "ns"), "payload") == "2026-01-31T12:00:00"
    for refused in (
        numpy.datetime64("NaT"),
        numpy.timedelta64(1, "ns"),
        numpy.longdouble(1),
        numpy.float64("nan"),
    ):
        with pytest.raises(PayloadError, match=r"^payload: .*is not"):
            encode(refused, "payload")
