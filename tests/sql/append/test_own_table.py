"""enqueue_chunks_from_rows(): rows of one's own table become chunks."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused
from tests.sql.threads import blocked, until

TABLE = """
create table public.folders (id int generated always as identity, {column} uuid, name text);
grant all on public.folders to service_role;
create trigger folders_become_chunks after insert on public.folders referencing new table as new_rows
for each statement execute function public.enqueue_chunks_from_rows({argument});
"""


@pytest.mark.parametrize(("column", "argument"), [("parent_sync_job_id", ""), ("job", "'job'")])
def test_rows_become_chunks_of_the_jobs_they_name(
    service: Session, admin: Session, column: str, argument: str
) -> None:
    admin.execute(TABLE.format(column=column, argument=argument))
    one, two = (service.start(chunks=[], sealed=False)["id"] for _ in range(2))
    service.execute(
        f"insert into public.folders ({column}, name) values (%s, 'inbox'), (%s, 'sent'), (%s, 'other')",
        one,
        one,
        two,
    )
    assert [row["payload"]["name"] for row in service.chunks(one)] == ["inbox", "sent"]
    assert service.chunks(two)[0]["payload"] == {"id": 3, column: two, "name": "other"}
    assert service.claimed(one)["payload"]["name"] == "inbox"
    invariants.check(service)


def test_a_row_without_a_job_is_refused_with_its_statement(service: Session, admin: Session) -> None:
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    job = service.start(chunks=[], sealed=False)["id"]
    with refused("SC003", "parent_sync_job_id"):
        service.execute(
            "insert into public.folders (parent_sync_job_id, name) values (%s, 'a'), (null, 'b')", job
        )
    assert service.value("select count(*) from public.folders") == 0
    assert service.progress(job)["total_chunks"] == 0


def test_rows_for_an_ended_job_are_refused(service: Session, admin: Session) -> None:
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    job = service.start(chunks=[])["id"]
    with refused("SC005"):
        service.execute("insert into public.folders (parent_sync_job_id) values (%s)", job)


def test_a_statement_may_name_a_thousand_jobs(service: Session, admin: Session) -> None:
    """More gates than that would fill the server's table of locks, for everybody."""
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    with refused("SC004", "parent_sync_job_id"):
        service.execute(
            "insert into public.folders (parent_sync_job_id) select gen_random_uuid() from generate_series(1, 1001)"
        )


def test_a_statement_without_rows_appends_nothing(service: Session, admin: Session) -> None:
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    service.execute("insert into public.folders (name) select 'x' where false")


def test_rows_for_many_jobs_of_a_user_wait_for_no_other_call_in_a_circle(
    db: Database, service: Session, admin: Session
) -> None:
    """Every gate is entered before the user's lock, which other calls take after theirs."""
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    admin.execute("grant all on public.folders to authenticated")
    user = str(uuid.uuid4())
    jobs = sorted(service.start(chunks=[], owner_id=user, sealed=False)["id"] for _ in range(2))
    inserting, appending = (db.connect("authenticated", user=user) for _ in range(2))
    holder = db.connect("supabase_admin", autocommit=False)
    holder.execute("select pg_advisory_xact_lock(uuid_hash_extended(%s, 2))", user)
    with ThreadPoolExecutor(2) as pool:
        rows = pool.submit(
            inserting.execute, "insert into public.folders (parent_sync_job_id) values (%s), (%s)", *jobs
        )
        until(lambda: blocked(admin, 1))
        append = pool.submit(appending.call, "append_sync_chunks", parent_sync_job_id=jobs[1], chunks=[{}])
        until(lambda: blocked(admin, 2))
        holder.connection.commit()
        assert rows.result(10) == 2
        assert append.result(10)["total_chunks"] == 2
