"""Limits of what a user leaves in the database: chunks, ended ones too, request ids, webhooks, accounts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.cleanup.hooks import answer, configure, sent
from tests.sql.database import Database, Session, refused

ANNA = str(uuid.uuid4())
LOGIN = {"host": "mail.example", "username": "anna", "password": "p4ss"}


@pytest.fixture
def anna(db: Database) -> Session:
    """A signed-in user."""
    return db.connect("authenticated", user=ANNA)


def limit(service: Session, **settings: Any) -> None:
    """Change settings."""
    service.call("save_chunk_settings", settings=settings)


def test_starting_and_cancelling_again_and_again_leaves_so_many_chunks(
    anna: Session, service: Session
) -> None:
    limit(service, user_max_kept_chunks=20)
    for _ in range(2):
        anna.control("cancel_sync_job", anna.start(chunks=[{}] * 9)["id"])
    with refused("SC004", "user_max_kept_chunks"):
        anna.start(chunks=[{}] * 3)
    job = anna.start(chunks=[{}], sealed=False)["id"]
    with refused("SC004", "user_max_kept_chunks"):
        anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}, {}])
    anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}])
    with refused("SC004", "user_max_kept_chunks"):
        anna.start(chunks=[])
    assert service.value("select count(*) from public.chunk_processing_queue") == 20
    assert service.start(chunks=[{}] * 30, owner_id=ANNA)["created"] is True
    service.call("purge_sync_jobs", older_than=timedelta(0))
    service.control("cancel_sync_job", job)


def test_after_a_month_only_what_runs_counts(anna: Session, service: Session) -> None:
    """Nobody is refused one day since the project never purges."""
    limit(service, user_max_kept_chunks=10)
    anna.start(chunks=[{}] * 4)
    anna.control("cancel_sync_job", anna.start(chunks=[{}] * 5)["id"])
    with refused("SC004", "user_max_kept_chunks"):
        anna.start(chunks=[{}] * 2)
    service.pass_time(timedelta(days=31))
    with refused("SC004", "user_max_kept_chunks"):
        anna.start(chunks=[{}] * 7)
    anna.start(chunks=[{}] * 6)
    fullest = service.call("chunk_system_health")["fullest_user"]
    assert fullest == {"owner_id": ANNA, "chunks": 6, "most": 10}


def test_empty_jobs_count_too(anna: Session, service: Session) -> None:
    limit(service, user_max_kept_chunks=5)
    for _ in range(5):
        anna.start(chunks=[])
    with refused("SC004", "user_max_kept_chunks"):
        anna.start(chunks=[])


def test_a_job_remembers_the_newest_requests(anna: Session, service: Session) -> None:
    limit(service, user_max_requests=5)
    remembered = "select count(*) from chunk_private.answered_requests"
    job = anna.start(chunks=[{}], job_key="k", sealed=False)["id"]
    requests = [uuid.uuid4() for _ in range(30)]
    for request in requests:
        assert anna.start(chunks=[{}], job_key="k", request_id=request)["id"] == job
    assert service.value(remembered) == 5
    for request in requests:
        anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}], request_id=request)
    assert service.value(remembered) == 10
    repeated = {"parent_sync_job_id": job, "chunks": [{}], "request_id": requests[-1]}
    assert anna.call("append_sync_chunks", **repeated)["total_chunks"] == 31
    anna.control("cancel_sync_job", job)
    assert anna.start(chunks=[{}], job_key="k", request_id=requests[-1])["id"] == job


@pytest.fixture
def web(db: Database, service: Session) -> Session:
    """Webhooks can be sent, and users may start what needs them; pg_net's queue to look into."""
    configure(service)
    service.call("save_sync_kind", kind="web", handler="do-it", max_concurrency=4, user_startable=True)
    return db.connect("supabase_admin")


def pause_and_resume(session: Session, job: str) -> None:
    """As one who cannot decide."""
    session.control("pause_sync_job", job)
    session.control("resume_sync_job", job)


def test_a_chunk_has_one_webhook_on_its_way(anna: Session, web: Session) -> None:
    job = anna.start("web", chunks=[{}] * 9)["id"]
    for _ in range(50):
        pause_and_resume(anna, job)
    assert len(sent(web)) == 4
    # What has arrived is on its way no longer: who pauses and resumes then need not wait for the watchdog.
    answer(web, status_code=200)
    pause_and_resume(anna, job)
    assert len(sent(web)) == 4


def test_a_webhook_that_was_held_back_is_the_watchdogs(anna: Session, service: Session, web: Session) -> None:
    job = anna.start("web", chunks=[{}] * 2)["id"]
    pause_and_resume(anna, job)
    web.execute("delete from net.http_request_queue")
    service.pass_time(timedelta(minutes=1))
    service.cleanup()
    assert len(sent(web)) == 2


Action = Callable[[Session, str], Any]
CAUSES: dict[str, Action] = {
    "start": lambda anna, _job: anna.start("web", chunks=[{}]),
    "append": lambda anna, job: anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}]),
    "resume": lambda anna, job: anna.control("resume_sync_job", job),
    "retry": lambda anna, job: anna.control("retry_failed_chunks", job),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_webhooks_of_a_user_in_a_minute(anna: Session, service: Session, web: Session, cause: str) -> None:
    limit(service, user_max_webhooks=8)
    job = anna.start("web", chunks=[{}] * 9, sealed=False)["id"]
    answer(web, status_code=200)
    pause_and_resume(anna, job)
    anna.control("pause_sync_job", job)
    with refused("SC004", "user_max_webhooks"):
        CAUSES[cause](anna, job)
    CAUSES[cause](service, job)
    service.pass_time(timedelta(minutes=1))
    anna.control("resume_sync_job", job)
    CAUSES[cause](anna, job)


def test_what_others_cause_does_not_count(anna: Session, service: Session, web: Session) -> None:
    limit(service, user_max_webhooks=5)
    job = anna.start("web", chunks=[{}] * 20)["id"]
    for _ in range(15):
        service.complete(service.claimed(job, kinds=None))
    assert len(sent(web)) == 19
    assert anna.start("web", chunks=[{}])["created"] is True


def test_accounts(anna: Session, service: Session) -> None:
    limit(service, user_max_email_accounts=2)
    for name in ("one", "two", "one"):
        anna.call("save_email_account", name=name, **LOGIN)
    with refused("SC004", "user_max_email_accounts"):
        anna.call("save_email_account", name="three", **LOGIN)
    service.call("save_email_account", name="three", **LOGIN, owner_id=ANNA)
    anna.call("remove_email_account", name="one")
    anna.call("remove_email_account", name="two")
    anna.call("save_email_account", name="four", **LOGIN)


@pytest.mark.parametrize("port", [25, 22, 5432, 994])
def test_ports(anna: Session, service: Session, port: int) -> None:
    with refused("SC003", "port"):
        anna.call("save_email_account", name="work", **LOGIN, port=port)
    with refused("SC003", "port"):
        service.call("save_email_account", name="work", **LOGIN, port=port, owner_id=ANNA)
    service.call("save_email_account", name="work", **LOGIN, port=port)
    assert service.call("get_email_account_secret", account="work")["public_only"] is False
    limit(service, user_email_ports=[143, 993, port])
    anna.call("save_email_account", name="work", **LOGIN, port=port)
    login = service.call("get_email_account_secret", account="work", owner_id=ANNA)
    assert (login["port"], login["public_only"]) == (port, True)
    limit(service, user_email_ports=None, user_email_private_hosts=True)
    with refused("SC003", "port"):
        service.call("get_email_account_secret", account="work", owner_id=ANNA)
    anna.call("save_email_account", name="work", **LOGIN)
    assert service.call("get_email_account_secret", account="work", owner_id=ANNA)["public_only"] is False
