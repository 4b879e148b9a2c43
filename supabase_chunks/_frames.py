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

    A missing value (NaN, NaT, NA or None, which a column does not tell apart) becomes null.

    Raises:
        PayloadError: Two columns have one name, or a value is infinite.
    """
    columns = getattr(data, "columns", None)
    if columns is None:
        name = str(data.name) if getattr(data, "name", None) is not None else "value"
        for value in _values(data, name):
            yield value if isinstance(value, Mapping) else {name: value}
        return
    names = [str(name) for name in columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise PayloadError(f"two columns are called {twice[0]!r}, and only one could be sent", path="chunks")
    # All columns are looked at before the first row is given out.
    values = [_values(data.iloc[:, index], name) for index, name in enumerate(names)]
    for row in zip(*values, strict=True):
        yield dict(zip(names, row, strict=True))


def _values(column: Any, name: str) -> Iterator[object]:
    """Return a column's values, after a look at all of them: JSON knows no infinite number."""
    infinite = column.isin([math.inf, -math.inf]).to_numpy()
    if infinite.any():
        raise PayloadError("an infinite number is no JSON", path=f"chunks[{infinite.argmax()}].{name}")
    return (
        None if missing else value for value, missing in zip(column, column.isna().to_numpy(), strict=True)
    )
