"""Bounds that the SDK and the Edge Functions keep are those of the database."""

from __future__ import annotations

import re
from pathlib import Path

from supabase_chunks import _bounds

SUPABASE = Path(__file__).parents[2] / "supabase"
SQL = "\n".join(path.read_text(encoding="utf-8") for path in sorted((SUPABASE / "migrations").glob("*.sql")))
ANSWER = (SUPABASE / "functions" / "background-sync-processor" / "answer.ts").read_text(encoding="utf-8")


def checked(argument: str) -> int:
    """Return up to what the database takes an argument."""
    found = re.findall(rf"check_range\('{argument}', [^;]*?, (\d+)\)", SQL)
    assert len(set(found)) == 1, argument
    return int(found[0])


def test_a_pause_is_a_week_at_most_everywhere() -> None:
    (written,) = re.findall(r"MAX_RETRY_AFTER_SECONDS = ([\d_]+);", ANSWER)
    assert checked("retry_after_seconds") == _bounds.LONGEST_PAUSE == int(written) == 7 * 24 * 3600


def test_items_stay_below_what_json_keeps_exact() -> None:
    (items,) = re.findall(r"function chunk_private\.most_items\(\)[^;]*?select (\d+);", SQL)
    assert int(items) == _bounds.MOST_ITEMS
    assert "Number.MAX_SAFE_INTEGER" in (SUPABASE / "functions" / "_shared" / "json.ts").read_text(
        encoding="utf-8"
    )


def test_numbers_have_so_many_digits_at_most() -> None:
    found = {int(a) + int(b) for a, b in re.findall(r"'\[0-9\]\{(\d+)\}\[0-9\]\{(\d+)\}'", SQL)}
    assert found == {_bounds.MOST_DIGITS + 1}


def test_a_worker_claims_no_more_than_a_call_gives() -> None:
    claims = SQL.partition("function public.claim_chunk_jobs_safe(")[2]
    (most,) = re.findall(r"check_range\('batch_size', .*, 1, (\d+)\)", claims.partition("$$;")[0])
    assert int(most) == _bounds.MOST_CLAIMED
