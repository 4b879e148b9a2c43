"""The public functions, exactly as the contract names them."""

from __future__ import annotations

import pytest

from tests.sql.database import Session

# name → arguments as PostgreSQL prints them, and what is returned
FUNCTIONS = {
    "save_sync_kind": (
        "kind text, handler text DEFAULT NULL::text, max_concurrency integer DEFAULT NULL::integer,"
        " max_retries integer DEFAULT NULL::integer, lease_seconds integer DEFAULT NULL::integer,"
        " retry_delay_seconds integer DEFAULT NULL::integer, user_startable boolean DEFAULT NULL::boolean,"
        " limit_by text DEFAULT NULL::text, limit_each integer DEFAULT NULL::integer",
        "jsonb",
    ),
    "remove_sync_kind": ("kind text", "boolean"),
    "configure_chunk_processing": ("project_url text, processor_key text", "jsonb"),
    "start_sync_job": (
        "kind text, chunks jsonb DEFAULT NULL::jsonb, total_items bigint DEFAULT NULL::bigint,"
        " chunk_size integer DEFAULT NULL::integer, payload jsonb DEFAULT '{}'::jsonb, job_key text DEFAULT NULL::text,"
        " request_id uuid DEFAULT NULL::uuid, priority integer DEFAULT 0, max_concurrency integer DEFAULT NULL::integer,"
        " max_retries integer DEFAULT NULL::integer, owner_id uuid DEFAULT NULL::uuid, sealed boolean DEFAULT true,"
        " limit_key text DEFAULT NULL::text",
        "jsonb",
    ),
    "append_sync_chunks": (
        "parent_sync_job_id uuid, chunks jsonb, request_id uuid DEFAULT NULL::uuid, seal boolean DEFAULT false,"
        " items_total bigint DEFAULT NULL::bigint",
        "jsonb",
    ),
    "claim_next_chunk_job_safe": (
        "worker_id text, parent_sync_job_id uuid DEFAULT NULL::uuid, kinds text[] DEFAULT NULL::text[],"
        " lease_seconds integer DEFAULT NULL::integer, claim_id uuid DEFAULT NULL::uuid",
        "SETOF chunk_private.claimed_chunk",
    ),
    "claim_chunk_jobs_safe": (
        "worker_id text, batch_size integer, parent_sync_job_id uuid DEFAULT NULL::uuid, kinds text[] DEFAULT NULL::text[],"
        " lease_seconds integer DEFAULT NULL::integer, claim_id uuid DEFAULT NULL::uuid",
        "jsonb",
    ),
    "complete_chunk_job_safe": (
        "chunk_id bigint, claim_token uuid, success boolean DEFAULT true, result jsonb DEFAULT NULL::jsonb,"
        " error text DEFAULT NULL::text, retryable boolean DEFAULT true,"
        " retry_after_seconds integer DEFAULT NULL::integer, next_chunks jsonb DEFAULT NULL::jsonb,"
        " items_processed bigint DEFAULT NULL::bigint, items_total bigint DEFAULT NULL::bigint,"
        " claim_next boolean DEFAULT false, handler_down boolean DEFAULT false, next_state jsonb DEFAULT NULL::jsonb,"
        " throttled_seconds integer DEFAULT NULL::integer",
        "jsonb",
    ),
    "complete_chunk_jobs_safe": ("completions jsonb", "jsonb"),
    "extend_chunk_lease": (
        "chunk_id bigint, claim_token uuid, lease_seconds integer DEFAULT NULL::integer,"
        " items_processed bigint DEFAULT NULL::bigint, checkpoint jsonb DEFAULT NULL::jsonb",
        "jsonb",
    ),
    "extend_chunk_leases": ("leases jsonb, lease_seconds integer DEFAULT NULL::integer", "jsonb"),
    "release_chunk_job": (
        "chunk_id bigint, claim_token uuid, reason text DEFAULT NULL::text, checkpoint jsonb DEFAULT NULL::jsonb,"
        " items_processed bigint DEFAULT NULL::bigint",
        "jsonb",
    ),
    "get_sync_state": ("kind text, job_key text, owner_id uuid DEFAULT NULL::uuid", "jsonb"),
    "save_sync_state": ("kind text, job_key text, state jsonb, owner_id uuid DEFAULT NULL::uuid", "jsonb"),
    "save_sync_limit": (
        "key text, max_concurrency integer DEFAULT NULL::integer, rate integer DEFAULT NULL::integer,"
        " per_seconds integer DEFAULT 1",
        "jsonb",
    ),
    "block_sync_limit": ("key text, seconds integer, reason text DEFAULT NULL::text", "jsonb"),
    "pace_sync_limit": ("key text, n integer DEFAULT 1", "integer"),
    "list_sync_limits": ("key text DEFAULT NULL::text", "jsonb"),
    "trigger_next_chunk_processing": ("parent_sync_job_id uuid DEFAULT NULL::uuid", "integer"),
    "cleanup_stuck_chunks": ("stuck_after interval DEFAULT NULL::interval", "integer"),
    "get_sync_job_progress_safe": ("parent_sync_job_id uuid", "jsonb"),
    "list_chunk_attempts": ("parent_sync_job_id uuid, after_id bigint DEFAULT 0", "jsonb"),
    "cancel_sync_job": ("parent_sync_job_id uuid", "jsonb"),
    "pause_sync_job": ("parent_sync_job_id uuid", "jsonb"),
    "resume_sync_job": ("parent_sync_job_id uuid", "jsonb"),
    "retry_failed_chunks": ("parent_sync_job_id uuid, from_start boolean DEFAULT false", "jsonb"),
    "save_email_account": (
        "name text, host text, username text, password text DEFAULT NULL::text, port integer DEFAULT 993,"
        " tls text DEFAULT 'implicit'::text, owner_id uuid DEFAULT NULL::uuid, auth text DEFAULT 'password'::text,"
        " oauth jsonb DEFAULT NULL::jsonb",
        "uuid",
    ),
    "remove_email_account": ("name text, owner_id uuid DEFAULT NULL::uuid", "boolean"),
    "purge_sync_jobs": (
        "older_than interval DEFAULT '30 days'::interval, batch_size integer DEFAULT 10000",
        "jsonb",
    ),
    "chunk_system_health": ("", "jsonb"),
    "enqueue_chunks_from_rows": ("", "trigger"),
}
CLAIMED = [
    *(
        "chunk_id",
        "parent_sync_job_id",
        "kind",
        "handler",
        "chunk_index",
        "attempt",
        "max_attempts",
        "payload",
    ),
    *("job_payload", "owner_id", "claim_token", "locked_until", "checkpoint", "limit_key"),
]
OURS = "p.pronamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_arguments_of_the_contract(admin: Session, name: str) -> None:
    found = admin.rows(
        "select pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result"
        " from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = %s",
        name,
    )
    assert [(row["arguments"], row["result"]) for row in found] == [FUNCTIONS[name]]


def test_a_claim_returns_the_columns_of_the_contract(admin: Session) -> None:
    found = admin.rows(
        "select a.attname from pg_attribute a where a.attrelid = 'chunk_private.claimed_chunk'::regclass"
        " and a.attnum > 0 order by a.attnum"
    )
    assert [row["attname"] for row in found] == CLAIMED


def test_no_two_functions_share_a_name(admin: Session) -> None:
    query = f"select p.pronamespace::regnamespace || '.' || p.proname as name from pg_proc p where {OURS}"
    assert admin.rows(f"{query} group by 1 having count(*) > 1") == []


def test_every_function_has_a_safe_search_path(admin: Session) -> None:
    """With pg_temp last: with an empty path, types would be looked up in the caller's temporary schema first."""
    query = f"select p.oid::regprocedure::text from pg_proc p where {OURS}"
    safe = "'search_path=pg_catalog, pg_temp' = any (p.proconfig)"
    assert admin.rows(f"{query} and coalesce(not {safe}, true)") == []


def test_definer_functions_are_in_the_private_schema_only(admin: Session) -> None:
    query = "select p.oid::regprocedure::text from pg_proc p where p.prosecdef"
    assert admin.rows(f"{query} and p.pronamespace = 'public'::regnamespace") == []


def test_the_shipped_kinds_are_those_of_the_design(admin: Session) -> None:
    found = admin.rows(
        "select kind, handler, max_concurrency, max_retries, lease_seconds, retry_delay_seconds, user_startable"
        " from public.sync_kinds where kind in ('email', 'custom') order by kind"
    )
    assert [tuple(row.values()) for row in found] == [
        ("custom", None, 16, 3, 600, 10, False),
        ("email", "sync-emails", 4, 3, 600, 10, True),
    ]


def test_errors_use_the_codes_of_the_contract_only(admin: Session) -> None:
    found = admin.rows(
        "select distinct (regexp_matches(p.prosrc, 'errcode\\s*=\\s*''([^'']+)''', 'g'))[1] as code"
        f" from pg_proc p where {OURS} order by 1"
    )
    # 42501 is PostgreSQL's own "insufficient privilege", for a token that names no user.
    assert {row["code"] for row in found} <= {"SC001", "SC002", "SC003", "SC004", "SC005", "SC006", "42501"}


def test_where_scans_are_forbidden_compiling_is_too(admin: Session) -> None:
    """Up to PostgreSQL 17 a forbidden scan of even a tiny table counts as so dear that its plan is compiled: 70 ms a call."""
    query = f"select p.oid::regprocedure::text from pg_proc p where {OURS} and 'enable_seqscan=off' = any (p.proconfig)"
    assert admin.rows(query) != []
    assert admin.rows(f"{query} and not 'jit=off' = any (p.proconfig)") == []
