"""The DataFrame of a job's chunks; imported only where pandas is."""

from __future__ import annotations

from typing import Any

import pandas as pd  # type: ignore[import-untyped]  # it brings no types

# What XML, and so a sheet, cannot have.
_CONTROL = "[\x00-\x08\x0b\x0c\x0e-\x1f]"


class ChunkFrame(pd.DataFrame):  # type: ignore[misc]  # of no known type, as above
    """A DataFrame that a sheet can be made of, too."""

    @property
    def _constructor(self) -> type[ChunkFrame]:
        return ChunkFrame

    # Final only in the eyes of a checker that reads pandas itself: a frame is made to be inherited from.
    def to_excel(self, *args: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write to a sheet as pandas does; times are in UTC, since a sheet knows no time zones."""
        plain = pd.DataFrame(self)
        for name in plain.select_dtypes("datetimetz"):
            plain[name] = plain[name].dt.tz_convert("UTC").dt.tz_localize(None)
        for name in plain.select_dtypes("string"):
            plain[name] = plain[name].str.replace(_CONTROL, "\N{REPLACEMENT CHARACTER}", regex=True)
        plain.to_excel(*args, **options)
