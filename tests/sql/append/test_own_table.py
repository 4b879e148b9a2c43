"""enqueue_chunks_from_rows(): rows of one's own table become chunks."""

from __future__ import annotations

import pytest

from tests.sql import invariants
from tests.sql.database import Session, refused

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


def test_a_statement_without_rows_appends_nothing(service: Session, admin: Session) -> None:
    admin.execute(TABLE.format(column="parent_sync_job_id", argument=""))
    service.execute("insert into public.folders (name) select 'x' where false")
