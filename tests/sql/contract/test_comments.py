"""Everything says what it is."""

from __future__ import annotations

from tests.sql.database import Session

# Columns whose names say all.
PLAIN = {
    *(
        "id",
        "kind",
        "status",
        "payload",
        "job_key",
        "priority",
        "created_at",
        "updated_at",
        "started_at",
        "completed_at",
    ),
    *(
        "owner_id",
        "parent_sync_job_id",
        "job_id",
        "chunk_id",
        "chunk_index",
        "total_chunks",
        "items_total",
        "result",
    ),
    *(
        "error",
        "attempt",
        "attempts",
        "max_retries",
        "max_concurrency",
        "worker_id",
        "claim_token",
        "claimed_at",
    ),
    *(
        "ended_at",
        "stripe",
        "stripes",
        "sealed",
        "last_activity_at",
        "last_error",
        "last_error_at",
        "status_code",
        "answered_at",
    ),
    *(
        "completed_chunks",
        "failed_chunks",
        "cancelled_chunks",
        "processing_chunks",
        "request_id",
        "stalled_reason",
    ),
    # of the mail tables
    *(
        "name",
        "host",
        "port",
        "username",
        "account_id",
        "folder",
        "uid",
        "message_id",
        "in_reply_to",
        "subject",
    ),
    *("to_addresses", "cc_addresses", "bcc_addresses", "reply_to_addresses", "synced_at", "body_html"),
}


def test_every_table_and_view_has_a_comment(admin: Session) -> None:
    assert (
        admin.rows(
            "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'v') and obj_description(c.oid) is null"
            " and c.relnamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"
        )
        == []
    )


def test_every_function_has_a_comment(admin: Session) -> None:
    assert (
        admin.rows(
            "select p.oid::regprocedure::text from pg_proc p where obj_description(p.oid, 'pg_proc') is null"
            " and p.pronamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"
        )
        == []
    )


def test_every_column_that_is_not_plain_has_a_comment(admin: Session) -> None:
    found = admin.rows(
        "select c.oid::regclass || '.' || a.attname as name, a.attname from pg_class c"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where c.relkind in ('r', 'v') and col_description(c.oid, a.attnum) is null"
        " and c.relnamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"
    )
    assert [row["name"] for row in found if row["attname"] not in PLAIN] == []
