"""The rows of a pandas DataFrame or the values of a Series as chunks: all, or an error before any is sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import PayloadError


def is_pandas(data: object) -> bool:
    """Return whether something is a Series or a DataFrame, without importing pandas."""
    return type(data).__module__.partition(".")[0] == "pandas"


def records(data: Any) -> Iterator[object]:
    """Yield each row as an object, or each value of a Series under the column's name.

    Raises:
        PayloadError: Two columns have one name, or a value is missing or infinite.
    """
    columns = getattr(data, "columns", None)
    if columns is None:
        name = str(data.name) if getattr(data, "name", None) is not None else "value"
        _check(data, name)
        for value in data:
            yield value if isinstance(value, Mapping) else {name: value}
        return
    names = [str(name) for name in columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise PayloadError(f"two columns are called {twice[0]!r}, and only one could be sent", path="chunks")
    for index, name in enumerate(names):
        _check(data.iloc[:, index], name)
    for row in data.itertuples(index=False, name=None):
        yield dict(zip(names, row, strict=True))


def _check(column: Any, name: str) -> None:
    """Refuse what pandas has in place of a value: among numbers None is NaN, which JSON does not know."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise PayloadError(
            "the value is missing (NaN, NaT, NA or None): fill it with fillna() or leave the row out with"
            " dropna(); to send null give dicts",
            path=f"chunks[{missing.argmax()}].{name}",
        )
    infinite = column.isin([math.inf, -math.inf]).to_numpy()
    if infinite.any():
        raise PayloadError("an infinite number is no JSON", path=f"chunks[{infinite.argmax()}].{name}")
