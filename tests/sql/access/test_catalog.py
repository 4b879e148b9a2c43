"""Who may do what: every function, table, view, sequence and schema against an explicit table."""

from __future__ import annotations

import pytest

from tests.sql.database import Session

ROLES = ("anon", "authenticated", "service_role")
SCHEMAS = "('public'::regnamespace, 'chunk_private'::regnamespace)"

FOR_USERS = {
    *(
        "start_sync_job",
        "append_sync_chunks",
        "get_sync_job_progress_safe",
        "list_chunk_attempts",
        "cancel_sync_job",
        "pause_sync_job",
    ),
    *(
        "resume_sync_job",
        "retry_failed_chunks",
        "enqueue_chunks_from_rows",
        "save_email_account",
        "remove_email_account",
    ),
}
FOR_THE_SERVICE = {
    *(
        "save_sync_kind",
        "remove_sync_kind",
        "save_chunk_settings",
        "configure_chunk_processing",
        "claim_next_chunk_job_safe",
        "claim_chunk_jobs_safe",
    ),
    *("complete_chunk_job_safe", "complete_chunk_jobs_safe", "extend_chunk_lease", "extend_chunk_leases"),
    *("get_sync_state", "save_sync_state"),
    *("save_sync_limit", "block_sync_limit", "pace_sync_limit", "list_sync_limits"),
    *("release_chunk_job", "trigger_next_chunk_processing", "cleanup_stuck_chunks", "purge_sync_jobs"),
    *(
        "chunk_system_health",
        "get_email_account_secret",
        "plan_email_folder",
        "save_synced_emails",
        "save_email_flags",
    ),
    *("save_email_folders", "get_email_folder", "update_email_folder", "renumber_email_folder"),
    *("adopt_moved_emails", "begin_email_token", "save_email_token", "refuse_email_token"),
}
# The definer functions behind those for users, which check who calls.
PRIVATE_FOR_USERS = {
    *("start_sync_job", "append_sync_chunks", "cancel_sync_job", "pause_sync_job", "resume_sync_job"),
    *("retry_failed_chunks", "save_email_account", "remove_email_account", "enter_own_jobs"),
    *("waiting_for", "settle_jobs"),
}
# What even service_role may not call: it would write a Vault entry of any name, or act as a trigger.
PRIVATE_FOR_NOBODY = {
    *("save_secret", "forget_email_password", "replace_view", "set_reading_policy"),
    *("email_secret", "check_email_account", "email_oauth_secret"),
}

# table or view → what authenticated may do, what service_role may do
READ, ALL = {"SELECT"}, {"SELECT", "INSERT", "UPDATE", "DELETE"}
RELATIONS = {
    "public.sync_kinds": (READ, ALL),
    "public.sync_jobs": (READ, ALL),
    "public.chunk_processing_queue": (READ, ALL),
    "public.sync_states": (READ, ALL),
    "public.chunk_processing_status": (READ, READ),
    "public.sync_limits": (set(), ALL),
    "public.email_accounts": (READ, ALL),
    "public.synced_emails": (READ, ALL),
    "public.email_folders": (READ, ALL),
    "chunk_private.email_token_leases": (set(), set()),
    "chunk_private.settings": (set(), ALL),
    "chunk_private.lanes": (set(), ALL),
    "chunk_private.claim_lanes": (set(), READ),
    "chunk_private.newest_counters": (READ, READ),
    "chunk_private.newest_stripes": (set(), READ),
    "chunk_private.slots": (READ, ALL),
    "chunk_private.fresh_stripes": (set(), ALL),
    "chunk_private.returned_chunks": (set(), ALL),
    "chunk_private.job_counters": (READ, ALL),
    "chunk_private.chunk_attempts": (set(), ALL),
    "chunk_private.dispatches": (READ, ALL),
    "chunk_private.answered_requests": (set(), ALL),
    "chunk_private.healings": (set(), ALL),
    "chunk_private.watchdog": (set(), ALL),
    "chunk_private.limit_paces": (set(), ALL),
    "chunk_private.limit_seekers": (set(), ALL),
}
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@pytest.mark.parametrize("role", ROLES)
def test_functions(admin: Session, role: str) -> None:
    found = admin.rows(
        "select p.pronamespace::regnamespace::text as schema, p.proname as name,"
        " has_function_privilege(%s, p.oid, 'execute') as granted"
        f" from pg_proc p where p.pronamespace in {SCHEMAS}",
        role,
    )
    assert {row["name"] for row in found if row["schema"] == "public"} == FOR_USERS | FOR_THE_SERVICE
    public = {row["name"] for row in found if row["granted"] and row["schema"] == "public"}
    private = {row["name"] for row in found if row["granted"] and row["schema"] == "chunk_private"}
    everything_private = {row["name"] for row in found if row["schema"] == "chunk_private"}
    expected = {
        "anon": (set(), set()),
        "authenticated": (FOR_USERS, PRIVATE_FOR_USERS),
        "service_role": (FOR_USERS | FOR_THE_SERVICE, everything_private - PRIVATE_FOR_NOBODY),
    }
    assert (public, private) == expected[role]


def test_nobody_else_may_call_anything(admin: Session) -> None:
    """`public`, the role of everyone, is in no access list."""
    assert (
        admin.rows(
            "select p.oid::regprocedure::text from pg_proc p"
            " cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
            f" where p.pronamespace in {SCHEMAS} and a.grantee = 0"
        )
        == []
    )


@pytest.mark.parametrize("role", ROLES)
def test_tables_and_views(admin: Session, role: str) -> None:
    relations = admin.rows(
        "select c.oid, c.relnamespace::regnamespace || '.' || c.relname as name from pg_class c"
        f" where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relnamespace in {SCHEMAS}"
    )
    assert {row["name"] for row in relations} == set(RELATIONS)
    for row in relations:
        granted = {
            privilege
            for privilege in PRIVILEGES
            if admin.value("select has_table_privilege(%s, %s::oid, %s)", role, row["oid"], privilege)
        }
        for_user, for_service = RELATIONS[row["name"]]
        assert granted == {"anon": set(), "authenticated": for_user, "service_role": for_service}[role], row[
            "name"
        ]


@pytest.mark.parametrize("role", ROLES)
def test_sequences(admin: Session, role: str) -> None:
    assert (
        admin.rows(
            "select c.relname from pg_class c"
            f" where c.relnamespace in {SCHEMAS} and case c.relkind"
            " when 'S' then has_sequence_privilege(%s, c.oid, 'usage, select, update') end",
            role,
        )
        == []
    )


def test_the_private_schema(admin: Session) -> None:
    found = {
        role: admin.value("select has_schema_privilege(%s, 'chunk_private', 'usage')", role) for role in ROLES
    }
    assert found == {"anon": False, "authenticated": True, "service_role": True}
    assert not any(
        admin.value("select has_schema_privilege(%s, 'chunk_private', 'create')", role) for role in ROLES
    )


def test_row_level_security_is_on_for_every_table(admin: Session) -> None:
    assert (
        admin.rows(
            f"select c.oid::regclass::text from pg_class c where c.relkind = 'r' and c.relnamespace in {SCHEMAS}"
            " and not c.relrowsecurity"
        )
        == []
    )


def test_policies_are_for_signed_in_users_and_ask_who_once(admin: Session) -> None:
    policies = admin.rows(
        "select p.tablename, p.policyname, p.roles::text[] as roles, p.cmd, p.qual from pg_policies p"
        " where p.schemaname in ('public', 'chunk_private')"
    )
    assert policies
    for policy in policies:
        assert policy["roles"] == ["authenticated"], policy
        assert policy["cmd"] == "SELECT", policy
        # A bare auth.uid() would be called for each row.
        assert "auth.uid()" not in policy["qual"].replace("SELECT auth.uid() AS uid", ""), policy


def test_the_view_reads_as_its_caller(admin: Session) -> None:
    options = admin.value(
        "select reloptions from pg_class where oid = 'public.chunk_processing_status'::regclass"
    )
    assert options == ["security_invoker=true"]
