"""Webhooks and cron jobs of the local project."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import psycopg

from tests.e2e.hello import eventually, post, response

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack


def test_webhook_is_sent_after_the_commit(plain: LocalStack, database: psycopg.Connection) -> None:
    with database.transaction():
        request = post(
            database, f"{plain.url}/functions/v1/hello", body='{"a": 1}', headers='{"apikey": "k"}'
        )
        database.execute("select pg_sleep(0.2)")
        sent = database.execute(
            "select count(*) from net._http_response where id = %s", (request,)
        ).fetchone()
        assert sent == (0,)
    status, content, timed_out, error, headers = response(database, request)
    assert (status, timed_out, error) == (201, False, None)
    assert headers["x-answer"] == "yes"
    assert json.loads(content)["body"] == '{"a": 1}'
    assert json.loads(content)["apikey"] == "k"


def test_webhook_of_a_rolled_back_transaction_is_never_sent(
    plain: LocalStack, database: psycopg.Connection
) -> None:
    with database.transaction(force_rollback=True):
        undone = post(database, f"{plain.url}/functions/v1/hello")
    kept = post(database, f"{plain.url}/functions/v1/hello")
    # Requests leave in order, so once the later one is answered the earlier one will not come any more.
    response(database, kept)
    query = "select count(*) from net._http_response where id = %s"
    assert database.execute(query, (undone,)).fetchone() == (0,)


def test_outcomes_of_webhooks_that_cannot_be_delivered(
    database: psycopg.Connection, plain: LocalStack
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        refused = post(database, f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        assert response(database, refused)[:4] == (None, None, False, "Couldn't connect to server")
    unknown = post(database, "http://nowhere.invalid/")
    assert response(database, unknown)[3] == "Couldn't resolve host name"
    late = post(database, f"{plain.url}/functions/v1/hello/slow", timeout_milliseconds=100)
    status, _, timed_out, error, _ = response(database, late)
    assert (status, timed_out) == (None, True)
    assert error.startswith("Timeout of 100 ms reached")


def test_get_and_delete(database: psycopg.Connection, plain: LocalStack) -> None:
    url = f"{plain.url}/functions/v1/hello"
    row = database.execute(
        """select net.http_get(%s, '{"q": "1"}'), net.http_delete(%s)""", (url, url)
    ).fetchone()
    assert row is not None
    got, deleted = (json.loads(response(database, request)[1]) for request in row)
    assert (got["method"], got["path"]) == ("GET", "/hello?q=1")
    assert deleted["method"] == "DELETE"


def test_dropped_webhooks_are_lost_silently(plain: LocalStack, database: psycopg.Connection) -> None:
    plain.set_webhooks(drop=1.0)
    lost = post(database, f"{plain.url}/functions/v1/hello")
    eventually(lambda: database.execute("select count(*) from net.http_request_queue").fetchone() == (0,))
    plain.set_webhooks(drop=0.0)
    response(database, post(database, f"{plain.url}/functions/v1/hello"))
    assert database.execute("select 1 from net._http_response where id = %s", (lost,)).fetchone() is None


def test_pace_puts_time_between_batches(plain: LocalStack, database: psycopg.Connection) -> None:
    plain.set_webhooks(pace=0.6)
    try:
        first = post(database, f"{plain.url}/functions/v1/hello")
        response(database, first)
        second = post(database, f"{plain.url}/functions/v1/hello")
        response(database, second)
    finally:
        plain.set_webhooks(pace=0.0)
    apart = database.execute(
        "select extract(epoch from max(created) - min(created)) from net._http_response where id in (%s, %s)",
        (first, second),
    ).fetchone()
    assert apart is not None
    assert apart[0] >= 0.55


def test_cron_runs_jobs_as_their_owner_and_keeps_the_outcome(
    plain: LocalStack, database: psycopg.Connection
) -> None:
    with psycopg.connect(plain.postgres_url, autocommit=True) as owner:
        owner.execute("select cron.schedule('good', '1 second', 'insert into public.runs default values')")
        owner.execute("select cron.schedule('bad', '1 second', 'select 1 / 0')")
        runs = "select count(*) filter (where who = 'postgres') from public.runs having count(*) >= 2"
        eventually(lambda: database.execute(runs).fetchone())
        details = """
            select d.status, d.return_message, d.username, d.end_time >= d.start_time
            from cron.job_run_details d join cron.job j using (jobid)
            where j.jobname = %s and d.status <> 'running' limit 1
        """
        good = eventually(lambda: owner.execute(details, ("good",)).fetchone())
        assert good == ("succeeded", "INSERT 0 1", "postgres", True)
        bad = eventually(lambda: owner.execute(details, ("bad",)).fetchone())
        assert bad[0] == "failed"
        assert "division by zero" in bad[1]
        owner.execute("select cron.unschedule('good'), cron.unschedule('bad')")
