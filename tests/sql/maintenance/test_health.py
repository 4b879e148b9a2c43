"""What an operator is told, and what nobody is told."""

from __future__ import annotations

from datetime import timedelta

from tests.sql.cleanup.hooks import KEY, URL, configure
from tests.sql.database import Session


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


def test_kinds_are_added_and_changed(service: Session) -> None:
    saved = service.call("save_sync_kind", kind="files", handler="sync-files", max_concurrency=3)
    assert (saved["handler"], saved["max_concurrency"], saved["max_retries"]) == ("sync-files", 3, 3)
    changed = service.call("save_sync_kind", kind="files", lease_seconds=30)
    assert (changed["handler"], changed["max_concurrency"], changed["lease_seconds"]) == (None, 1, 30)


def test_a_running_job_keeps_its_limits_when_its_kind_changes(service: Session) -> None:
    job = service.start("private", chunks=[{}] * 5)["id"]
    service.call("save_sync_kind", kind="private", max_concurrency=1, max_retries=0)
    claimed = [service.claim(job, kinds=["private"]) for _ in range(3)]
    assert [chunk is not None for chunk in claimed] == [True, True, False]
    assert claimed[0] is not None
    assert claimed[0]["max_attempts"] == 4
