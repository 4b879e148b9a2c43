"""A job of a kind with a handler, and pg_net's queue to look into."""

from __future__ import annotations

from typing import Any

from tests.sql.database import Session

URL, KEY = "http://edge.example", "sb_secret_for_the_tests"


def configure(session: Session) -> None:
    """Tell the database where the functions are."""
    session.call("configure_chunk_processing", project_url=URL, processor_key=KEY)


def sent(admin: Session) -> list[Any]:
    """The bodies of the requests that wait in pg_net, oldest first."""
    rows = admin.rows(
        "select convert_from(r.body, 'utf8')::jsonb as body from net.http_request_queue r order by r.id"
    )
    return [row["body"] for row in rows]


def lose(admin: Session) -> None:
    """Forget all requests, as a crash does: pg_net's tables are unlogged."""
    admin.execute("truncate net.http_request_queue, net._http_response")


def answer(admin: Session, **outcome: Any) -> int:
    """Let pg_net send all that waits, each with these columns of `net._http_response`; return how many."""
    columns = {"status_code": None, "content": None, "timed_out": False, "error_msg": None} | outcome
    return admin.execute(
        "with taken as (delete from net.http_request_queue r returning r.id)"
        " insert into net._http_response (id, status_code, content, timed_out, error_msg)"
        " select t.id, %s, %s, %s, %s from taken t",
        *columns.values(),
    )
