"""A job's chunks as a DataFrame: its types, and that it can be written to every format and read again."""

from __future__ import annotations

import io
import json
import pickle
import sys
from typing import Any
from uuid import uuid4

import pytest

from supabase_chunks import ChunkRecord, ConfigurationError
from supabase_chunks.jobs import _dataframe
from tests.unit.test_pictures import chunk

pandas = pytest.importorskip("pandas")

OWNER = uuid4()
RESULTS: dict[str, list[Any]] = {
    "empty": [],
    "plain": [{"rows": 12}, {"rows": 3}],
    "mixed": [5, "text", None, True, 1.5, [1, "x"], {}, []],
    "nested": [{"a": [1, {"b": None}]}, {"a": {"b": [[]]}, "ü": "🙂"}, {"a": 2**60}],
}
SAMPLES = pytest.mark.parametrize("name", RESULTS)


def frame_of(name: str) -> Any:
    results = RESULTS[name]
    return _dataframe(
        [
            chunk(index, 0, None if index == 1 else 1, result=result, owner_id=OWNER, payload=_object(result))
            for index, result in enumerate(results)
        ]
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}


def results_of(frame: Any) -> list[Any]:
    return [None if pandas.isna(text) else json.loads(text) for text in frame["result"]]


@SAMPLES
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_columnar_files_give_the_same_frame_again(name: str, kind: str) -> None:
    pytest.importorskip("pyarrow")
    frame, file = frame_of(name), io.BytesIO()
    getattr(frame, f"to_{kind}")(file)
    read = getattr(pandas, f"read_{kind}")(io.BytesIO(file.getvalue()))
    pandas.testing.assert_frame_equal(read, pandas.DataFrame(frame), check_dtype=False)
    assert results_of(read) == RESULTS[name]


@SAMPLES
def test_json_has_every_row(name: str) -> None:
    rows = json.loads(frame_of(name).to_json(orient="records", date_format="iso"))
    assert [None if row["result"] is None else json.loads(row["result"]) for row in rows] == RESULTS[name]
    assert all(row["owner_id"] == str(OWNER) for row in rows)
    by_column = json.loads(frame_of(name).to_json(date_format="iso"))
    assert len(by_column["result"]) == len(rows)


@SAMPLES
def test_csv_and_sheets_have_every_row(name: str) -> None:
    pytest.importorskip("openpyxl")
    frame = frame_of(name)
    assert results_of(pandas.read_csv(io.StringIO(frame.to_csv(index=False)), dtype=str)) == RESULTS[name]
    sheet = io.BytesIO()
    frame.to_excel(sheet, index=False)
    read = pandas.read_excel(sheet, dtype={"result": str})
    assert results_of(read) == RESULTS[name]
    if RESULTS[name]:
        assert read["started_at"][0] == frame["started_at"][0].tz_localize(None)


def test_a_part_of_it_and_what_no_sheet_can_have_are_written() -> None:
    pytest.importorskip("openpyxl")
    frame = _dataframe([chunk(0, 0, 1, error="\x1b[31mred\x00")])
    sheet = io.BytesIO()
    part = frame[["chunk_index", "error", "completed_at"]].head()
    part.to_excel(sheet, sheet_name="chunks", index=False)
    assert pandas.read_excel(sheet)["error"][0] == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"
    assert frame["error"][0] == "\x1b[31mred\x00"


def test_its_types_do_not_hang_on_what_is_in_it() -> None:
    types = {name: {column: str(kind) for column, kind in frame_of(name).dtypes.items()} for name in RESULTS}
    assert len({str(kinds) for kinds in types.values()}) == 1
    assert types["empty"]["result"] == types["empty"]["owner_id"] == "string"
    assert set(types["empty"]) == set(ChunkRecord.model_fields)


def test_it_goes_to_another_process() -> None:
    frame = frame_of("mixed")
    pandas.testing.assert_frame_equal(pickle.loads(pickle.dumps(frame)), frame)  # noqa: S301 - our own


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "supabase_chunks._show.frame", raising=False)
    with pytest.raises(ConfigurationError, match=r"supabase-chunks\[plots\]"):
        _dataframe([])
