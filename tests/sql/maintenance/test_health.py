"""What an operator is told, and what nobody is told."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import psycopg
import pytest

from tests.sql.cleanup.hooks import KEY, URL, answer, configure
from tests.sql.database import Database, Session, refused


def test_a_new_project_knows_what_is_missing(service: Session) -> None:
    health = service.call("chunk_system_health")
    assert health["configured"] == {"project_url": False, "processor_key": False}
    assert health["watchdog"]["scheduled"] is True
    assert set(health["extensions"]) == {"pg_net", "pg_cron", "supabase_vault"}
    # `configure` asks, for it may not know whether its loopback is the database's.
    assert health["server_address"] in (None, "127.0.0.1")


def test_configuring_returns_health_and_never_a_value(service: Session) -> None:
    configure(service)
    health = service.call("configure_chunk_processing", project_url=URL + "/", processor_key=KEY + "2")
    assert health["configured"] == {"project_url": True, "processor_key": True}
    assert KEY not in str(health)
    assert URL not in str(health)


def test_configuring_again_changes_the_entries(service: Session, admin: Session) -> None:
    configure(service)
    service.call(
        "configure_chunk_processing", project_url="http://other.example", processor_key="sb_secret_other_key"
    )
    secrets = {
        row["name"]: row["decrypted_secret"] for row in admin.rows("select * from vault.decrypted_secrets")
    }
    assert secrets == {"project_url": "http://other.example", "chunk_processor_key": "sb_secret_other_key"}


def test_the_figures(service: Session) -> None:
    configure(service)
    service.start("web", chunks=[{}] * 2)
    stalled = service.start(chunks=[{}])["id"]
    service.pass_time(timedelta(seconds=90))
    health = service.call("chunk_system_health")
    assert health["active_jobs"] == 2
    assert stalled in {job["id"] for job in health["stalled_jobs"]}
    assert 90 <= health["oldest_pending_seconds"] <= 120
    assert len(health["last_dispatches"]) == 2
    assert health["webhooks_waiting"] == 2
    assert health["dead_tuples"] is not None
    assert "oldest_xmin_age" in health


def test_secrets_of_others_stay_out_of_sight(service: Session, admin: Session) -> None:
    admin.execute("select vault.create_secret('their password', 'somebody_elses')")
    assert "their password" not in str(service.call("chunk_system_health"))


def test_a_new_kind_has_the_defaults_of_the_documents(service: Session) -> None:
    saved = service.call("save_sync_kind", kind="files")
    assert {name: saved[name] for name in saved if not name.endswith("_at")} == {
        **{"kind": "files", "handler": None, "max_concurrency": 1, "max_retries": 3, "lease_seconds": 600},
        **{"retry_delay_seconds": 10, "user_startable": False, "limit_by": None, "limit_each": None},
    }


def test_what_is_not_given_of_a_kind_stays(service: Session) -> None:
    given = {
        **{"handler": "sync-files", "max_concurrency": 3, "max_retries": 7, "lease_seconds": 60},
        **{"retry_delay_seconds": 5, "user_startable": True},
    }
    service.call("save_sync_kind", kind="files", **given)
    changes = {
        **{"max_concurrency": 4, "max_retries": 0, "lease_seconds": 30, "retry_delay_seconds": 0},
        **{"user_startable": False, "handler": "sync-them"},
    }
    for name, value in changes.items():
        given[name] = value
        saved = service.call("save_sync_kind", kind="files", **{name: value})
        assert {name: saved[name] for name in given} == given
    assert service.call("save_sync_kind", kind="files", handler="")["handler"] is None
    assert service.call("save_sync_kind", kind="files")["handler"] is None


def test_a_kind_is_removed_unless_it_has_jobs(service: Session) -> None:
    service.call("save_sync_kind", kind="files", max_retries=0)
    job = service.start("files", chunks=[{}])["id"]
    with refused("SC005"):
        service.call("remove_sync_kind", kind="files")
    service.control("cancel_sync_job", job)
    with refused("SC005"):
        service.call("remove_sync_kind", kind="files")
    service.call("purge_sync_jobs", older_than=timedelta(0))
    assert service.call("remove_sync_kind", kind="files") is True
    assert service.call("remove_sync_kind", kind="files") is False
    assert service.value("select count(*) from chunk_private.lanes l where l.kind = 'files'") == 0
    service.call("save_sync_kind", kind="files")
    service.drain(service.start("files", chunks=[{}])["id"], kinds=["files"])


def test_a_running_job_keeps_its_limits_when_its_kind_changes(service: Session) -> None:
    job = service.start("private", chunks=[{}] * 5)["id"]
    service.call("save_sync_kind", kind="private", max_concurrency=1, max_retries=0)
    claimed = [service.claim(job, kinds=["private"]) for _ in range(3)]
    assert [chunk is not None for chunk in claimed] == [True, True, False]
    assert claimed[0] is not None
    assert claimed[0]["max_attempts"] == 4


def test_where_webhooks_go_can_be_compared_and_not_read(service: Session) -> None:
    assert service.call("chunk_system_health")["webhooks_go_to"] is None
    for url, place in (
        ("https://Abc.supabase.co/", "public"),
        ("http://127.0.0.1:54321", "loopback"),
        ("http://[::1]:54321", "loopback"),
        ("http://localhost:8000", "loopback"),
        ("http://kong:8000", "internal"),
        ("http://host.docker.internal:54321", "internal"),
        ("http://172.17.0.1:8000", "internal"),
    ):
        health = service.call("configure_chunk_processing", project_url=url, processor_key=KEY)
        target = health["webhooks_go_to"]
        expected = hashlib.sha256(url.lower().rstrip("/").encode()).hexdigest()
        assert (target["sha256"], target["place"]) == (expected, place)
        assert url not in str(health)


def test_passes_leave_a_mark(service: Session) -> None:
    assert service.call("chunk_system_health")["watchdog"]["last_pass_at"] is None
    service.cleanup()
    service.pass_time(timedelta(hours=1))
    before = service.call("chunk_system_health")["watchdog"]["last_pass_at"]
    service.cleanup()
    after = service.call("chunk_system_health")["watchdog"]
    assert after["last_pass_at"] > before
    assert after["seconds_without_pass"] < 60


def test_a_read_only_database_says_so(db: Database, service: Session, admin: Session) -> None:
    assert service.call("chunk_system_health")["read_only"] is False
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        db.connect(settings="-c default_transaction_read_only=on").cleanup()
    admin.execute(f"alter database {db.name} set default_transaction_read_only = on")
    # In a session of before and in one of after.
    assert service.call("chunk_system_health")["read_only"] is True
    assert db.connect().call("chunk_system_health")["read_only"] is True


def test_a_failed_webhook_is_told_until_it_no_longer_matters(service: Session, admin: Session) -> None:
    def failure() -> object:
        service.cleanup()
        return service.call("chunk_system_health")["webhook_failure"]

    def fail() -> str:
        job = str(service.start("web", chunks=[{}])["id"])
        answer(admin, error_msg="Couldn't connect to server")
        assert failure() is not None
        return job

    configure(service)
    assert failure() is None
    job = fail()
    assert job in str(failure())
    service.control("cancel_sync_job", job)
    assert failure() is None
    # Its chunk is claimed, by whomever.
    job = fail()
    chunk = service.claimed(job, kinds=None)
    assert failure() is None
    service.complete(chunk)
    # Another goes well.
    fail()
    service.start("web", chunks=[{}])
    answer(admin, status_code=202)
    assert failure() is None
    # The configuration is another.
    fail()
    configure(service)
    assert failure() is None


def test_the_log_of_the_watchdogs_runs_is_trimmed(service: Session, admin: Session) -> None:
    ours = admin.value("select command from cron.job where jobname = 'supabase-chunks-watchdog'")
    commands = [ours, "select public.cleanup_stuck_chunks()", "select 1"]
    # The first two were cut off by a crash, the first before it had begun.
    for status, began, ended in (
        ("starting", None, None),
        ("running", "2 days", None),
        ("succeeded", "2 days", "2 days"),
        ("succeeded", "0", "0"),
    ):
        admin.execute(
            "insert into cron.job_run_details (jobid, command, status, start_time, end_time, username)"
            " select 1, c, %s, now() - %s::interval, now() - %s::interval, 'postgres' from unnest(%s::text[]) c",
            *(status, began, ended, commands),
        )
    service.execute("select chunk_private.trim_logs()")
    left = admin.rows("select command, count(*) from cron.job_run_details group by 1")
    assert {row["command"]: row["count"] for row in left} == dict(zip(commands, (1, 1, 4), strict=True))
