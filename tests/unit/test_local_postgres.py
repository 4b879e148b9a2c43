"""A PostgreSQL server of our own, and the platform in it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks.local import LocalStackError, binaries, migrations, platform
from supabase_chunks.local.postgres import PostgresServer
from supabase_chunks.local.process import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, id="embedded"),
        pytest.param(
            _DEBIAN, id="15", marks=pytest.mark.skipif(not _DEBIAN.exists(), reason="not installed")
        ),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server with the platform installed, of each version at hand."""
    with PostgresServer(bin_dir=request.param) as running:
        platform.install(running.dsn)
        yield running


@pytest.fixture
def superuser(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A superuser's session whose changes are undone."""
    with psycopg.connect(server.dsn) as connection:
        yield connection
        connection.rollback()


def _one(connection: psycopg.Connection, query: str) -> object:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_password_is_needed(server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn_for(password="guess"))


def test_installing_again_changes_nothing(server: PostgresServer) -> None:
    platform.install(server.dsn)


def test_owner_of_the_project_is_no_superuser(superuser: psycopg.Connection) -> None:
    row = superuser.execute(
        "select rolsuper, rolcreaterole, rolbypassrls from pg_roles where rolname = 'postgres'"
    ).fetchone()
    assert row == (False, True, True)
    assert (
        _one(superuser, "select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'public'")
        == "postgres"
    )


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_new_tables_are_granted_to_nobody(superuser: psycopg.Connection, role: str) -> None:
    superuser.execute("set session authorization postgres; create table public.fresh ()")
    allowed = _one(superuser, f"select has_table_privilege('{role}', 'public.fresh', 'select')")
    assert allowed is False


def test_claims_of_the_request(superuser: psycopg.Connection) -> None:
    user = "2f1d3a0e-6f3f-4a44-9a57-c7f1f6a8a8aa"
    superuser.execute(
        "select set_config('request.jwt.claims', %s, true)",
        (f'{{"sub": "{user}", "role": "authenticated", "email": "a@b.c"}}',),
    )
    row = superuser.execute(
        "select auth.uid()::text, auth.role(), auth.email(), auth.jwt() ->> 'sub'"
    ).fetchone()
    assert row == (user, "authenticated", "a@b.c", user)
    superuser.execute("select set_config('request.jwt.claims', '', true)")
    assert superuser.execute("select auth.uid(), auth.role(), auth.jwt()").fetchone() == (None, None, None)


def test_vault_keeps_and_changes_a_secret(superuser: psycopg.Connection) -> None:
    superuser.execute("set session authorization postgres")
    secret = _one(superuser, "select vault.create_secret('s3cret', 'a name')")
    superuser.execute("select vault.update_secret(%s, new_description => 'now described')", (secret,))
    query = "select decrypted_secret, name, description, secret from vault.decrypted_secrets where id = %s"
    row = superuser.execute(query, (secret,)).fetchone()
    assert row is not None
    assert row[:3] == ("s3cret", "a name", "now described")
    assert row[3] != "s3cret"


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_vault_is_closed_to_users(superuser: psycopg.Connection, role: str) -> None:
    superuser.execute(f"set local role {role}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        superuser.execute("select * from vault.decrypted_secrets")


def test_http_post_queues_a_request(superuser: psycopg.Connection) -> None:
    superuser.execute("set local role anon")
    request = _one(
        superuser,
        """select net.http_post('http://h/p?q=1', '{"a": 1}', '{"k v": "ü&"}', '{"x-a": "1"}', 250)""",
    )
    query = (
        "select method, url, headers, body, timeout_milliseconds from net.http_request_queue where id = %s"
    )
    assert superuser.execute(query, (request,)).fetchone() == (
        "POST",
        "http://h/p?q=1&k%20v=%C3%BC%26",
        {"x-a": "1", "Content-Type": "application/json"},
        b'{"a": 1}',
        250,
    )


@pytest.mark.parametrize(
    "call",
    ["net.http_post('no url')", """net.http_post('http://h', headers => '{"content-type": "text/plain"}')"""],
)
def test_http_post_refuses_what_cannot_be_sent(superuser: psycopg.Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException):
        superuser.execute(f"select {call}")


def test_scheduling_the_same_name_again_changes_the_job(superuser: psycopg.Connection) -> None:
    superuser.execute("set session authorization postgres")
    first = _one(superuser, "select cron.schedule('tidy', '30 seconds', 'select 1')")
    second = _one(superuser, "select cron.schedule('tidy', '*/5 * * * *', 'select 2')")
    assert first == second
    query = "select schedule, command, username from cron.job where jobname = 'tidy'"
    assert superuser.execute(query).fetchone() == ("*/5 * * * *", "select 2", "postgres")
    assert _one(superuser, "select cron.unschedule('tidy')") is True
    with pytest.raises(psycopg.errors.RaiseException, match="tidy"):
        superuser.execute("select cron.unschedule('tidy')")


@pytest.mark.parametrize("schedule", ["", "30", "60 seconds", "* * * *", "soon"])
def test_no_schedule(superuser: psycopg.Connection, schedule: str) -> None:
    superuser.execute("set session authorization postgres")
    with pytest.raises(psycopg.errors.RaiseException, match="invalid schedule"):
        superuser.execute("select cron.schedule('x', %s, 'select 1')", (schedule,))


def test_jobs_are_changed_by_the_functions_only(superuser: psycopg.Connection) -> None:
    superuser.execute("set session authorization postgres")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        superuser.execute("update cron.job set command = 'select 3'")


def test_migrations_run_once_in_order_as_the_owner(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "2_second.sql").write_text(
        "insert into public.steps select current_user || ' ' || count(*) from public.steps"
    )
    (tmp_path / "1_first.sql").write_text(
        "create table public.steps (who text);\ninsert into public.steps values ('x')"
    )
    (tmp_path / "README.md").write_text("not a migration")
    assert migrations.apply(server.dsn, tmp_path) == ["1", "2"]
    assert migrations.apply(server.dsn, tmp_path) == []
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("select who from public.steps").fetchall() == [("x",), ("postgres 1",)]
        query = "select version, name from supabase_migrations.schema_migrations order by 1"
        assert connection.execute(query).fetchall() == [("1", "first"), ("2", "second")]
        connection.execute("drop table public.steps; drop schema supabase_migrations cascade")


def test_failed_migration_names_its_line_and_leaves_nothing(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "1_broken.sql").write_text("create table half ();\n\nselect * from whole")
    with pytest.raises(
        LocalStackError, match=r'1_broken.sql, line 3 failed: relation "whole" does not exist'
    ):
        migrations.apply(server.dsn, tmp_path)
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("select to_regclass('public.half')").fetchone() == (None,)
        connection.execute("drop schema supabase_migrations cascade")


def test_alter_job_changes_what_it_is_told_and_only_ones_own(superuser: psycopg.Connection) -> None:
    superuser.execute("set session authorization postgres")
    job = _one(superuser, "select cron.schedule('tidy', '30 seconds', 'select 1')")
    superuser.execute("select cron.alter_job(%s, schedule := '5 4 * * *', active := false)", (job,))
    row = superuser.execute("select schedule, command, active from cron.job where jobid = %s", (job,))
    assert row.fetchone() == ("5 4 * * *", "select 1", False)
    for arguments, complaint in (
        ("schedule := 'soon'", "invalid schedule"),
        ("username := 'anon'", "must be superuser to alter username"),
    ):
        with pytest.raises(psycopg.Error, match=complaint), superuser.transaction():
            superuser.execute(f"select cron.alter_job({job}, {arguments})")
    superuser.execute("reset session authorization; update cron.job set username = 'anon'")
    superuser.execute("set session authorization postgres")
    with pytest.raises(psycopg.errors.RaiseException, match=f"Job {job} does not exist or you don't own it"):
        superuser.execute("select cron.alter_job(%s, active := true)", (job,))


@pytest.mark.skipif(
    not Path("/usr/share/postgresql/15/extension/pg_cron.control").exists(), reason="pg_cron is not installed"
)
def test_real_pg_cron_is_taken_where_the_server_has_it() -> None:
    settings = {"shared_preload_libraries": "pg_cron", "cron.database_name": "postgres"}
    with PostgresServer(bin_dir=_DEBIAN, settings=settings) as server:
        platform.install(server.dsn, passwords={"postgres": "p"})
        platform.install(server.dsn)
        with psycopg.connect(server.dsn_for(user="postgres", password="p")) as owner:
            assert _one(owner, "select count(*) from pg_extension where extname = 'pg_cron'") == 1
            assert _one(owner, "select cron.schedule('tidy', '* * * * *', 'select 1')") == 1
            assert _one(owner, "select username from cron.job") == "postgres"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute("update cron.job set command = 'select 2'")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root runs it as somebody else"
)
def test_programs_that_only_root_can_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    package = binaries.embedded_bin_dir().parent.parent
    for part in package.parent.glob(f"{package.name}*"):
        if not part.name.endswith(".dist-info"):
            shutil.copytree(part, hidden / part.name, symlinks=True)
    hidden.chmod(0o700)
    _let_others_in(tmp_path)
    monkeypatch.setattr(binaries, "_COPIES", tmp_path / "copies")
    with (
        PostgresServer(bin_dir=hidden / package.name / "pginstall" / "bin") as server,
        psycopg.connect(server.dsn) as connection,
    ):
        assert connection.execute("select 1").fetchone() == (1,)
    assert list((tmp_path / "copies").iterdir())


def test_kill_ends_busy_backends_and_start_brings_back_what_was_committed() -> None:
    with PostgresServer() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("create table kept as select 1 as n")
            assert server.pid is not None
            assert sys.platform != "linux" or connection.info.backend_pid in children_of(server.pid)
            server.kill()
            assert not server.running
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        server.start()
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("select n from kept").fetchone() == (1,)


def test_named_folder_keeps_the_cluster() -> None:
    # Not pytest's folder: another run of it as root would lock the server's user out in between.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _let_others_in(folder)
        with (
            PostgresServer(folder / "data") as server,
            psycopg.connect(server.dsn, autocommit=True) as connection,
        ):
            connection.execute("create table kept ()")
        with PostgresServer(folder / "data") as server, psycopg.connect(server.dsn) as connection:
            assert connection.execute("select to_regclass('kept')::text").fetchone() == ("kept",)


def test_temporary_cluster_is_gone_after_stop() -> None:
    with PostgresServer() as server:
        folder = server.data_dir
    assert not folder.exists()


def test_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"Port {port} for PostgreSQL is taken"):
            PostgresServer(port=port).start()


def test_folder_without_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="There is no PostgreSQL in"):
        PostgresServer(bin_dir=tmp_path).start()


def _let_others_in(folder: Path) -> None:
    """As root the server runs as another user, who must get to its data."""
    for path in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in path.parents and path.stat().st_uid == 0:
            path.chmod(0o711)
