"""The local stack as a tool: what it serves, what it survives, and that it leaves nothing behind.

It runs with a function and a migration of its own here, so that it is tested apart from the queue.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from supabase_chunks.local import LocalStack, LocalStackError
from supabase_chunks.local.process import children_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = "2f1d3a0e-6f3f-4a44-9a57-c7f1f6a8a8aa"

MIGRATION = """
create table public.notes (id int primary key, text text);
grant select, insert on public.notes to service_role;
create function public.whoami() returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_build_object(
        'role', current_user, 'uid', auth.uid(), 'statement_timeout', current_setting('statement_timeout')
    )
$$;
create table public.runs (at timestamptz not null default clock_timestamp(), who text default current_user);
insert into public.notes select n, 'note ' || n from generate_series(1, 1500) n;
notify pgrst, 'reload schema';
"""

FUNCTION = """
import { delay } from "./delay.ts";

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (url.pathname.endsWith("/slow")) await delay(60_000);
    if (url.pathname.endsWith("/die")) Deno.exit(3);
    if (url.pathname.endsWith("/drip")) {
      const body = new ReadableStream({
        async start(controller) {
          controller.enqueue(new TextEncoder().encode("first\\n"));
          await delay(3_000);
          controller.enqueue(new TextEncoder().encode("second\\n"));
          controller.close();
        },
      });
      return new Response(body, { headers: { "content-type": "text/plain" } });
    }
    if (url.pathname.endsWith("/echo")) return new Response(request.body);
    return Response.json({
      method: request.method,
      path: url.pathname + url.search,
      apikey: request.headers.get("apikey"),
      authorization: request.headers.get("authorization"),
      body: await request.text(),
      mine: Deno.env.get("MINE"),
      keys: Deno.env.get("SUPABASE_SECRET_KEYS"),
    }, { status: 201, headers: { "x-answer": "yes" } });
  },
};
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one migration and one function."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "migrations").mkdir()
    (folder / "migrations" / "20260101000000_notes.sql").write_text(MIGRATION)
    (folder / "functions" / "hello").mkdir(parents=True)
    (folder / "functions" / "hello" / "index.ts").write_text(FUNCTION)
    (folder / "functions" / "hello" / "delay.ts").write_text(
        "export const delay = (ms: number) => new Promise((done) => setTimeout(done, ms));\n"
    )
    return folder


def _of(project: Path, **options: Any) -> LocalStack:
    return LocalStack(
        migrations=project / "migrations",
        functions=project / "functions",
        functions_env={"MINE": "1"},
        **options,
    )


@pytest.fixture(scope="module")
def plain(project: Path) -> Iterator[LocalStack]:
    """The project's stack."""
    with _of(project) as running:
        yield running


@pytest.fixture
def database(plain: LocalStack) -> Iterator[psycopg.Connection]:
    """A superuser's session."""
    with psycopg.connect(plain.db_url, autocommit=True) as connection:
        yield connection


def _eventually(look: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    """What `look` returns once it is something; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"nothing came within {seconds:g} s")


def _gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be collected by its parent has."""
    if sys.platform == "linux":
        try:
            return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _refused(url: str) -> bool:
    address = httpx.URL(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port or 0)) != 0


def _response(database: psycopg.Connection, request: int) -> tuple[Any, ...]:
    query = "select status_code, content, timed_out, error_msg, headers from net._http_response where id = %s"
    return _eventually(lambda: database.execute(query, (request,)).fetchone())


def _post(database: psycopg.Connection, url: str, **arguments: Any) -> int:
    names = "".join(f", {name} => %({name})s" for name in arguments)
    row = database.execute(f"select net.http_post(%(url)s{names})", {"url": url, **arguments}).fetchone()
    assert row is not None
    return int(row[0])


# The gateway


def _whoami(stack: LocalStack, **headers: str) -> httpx.Response:
    return httpx.post(f"{stack.url}/rest/v1/rpc/whoami", headers=headers, json={})


@pytest.mark.parametrize(
    ("key", "bearer", "role", "timeout"),
    [
        ("publishable_key", None, "anon", "3s"),
        ("publishable_key", "publishable_key", "anon", "3s"),
        ("publishable_key", "user", "authenticated", "8s"),
        ("secret_key", None, "service_role", "8s"),
        ("secret_key", "secret_key", "service_role", "8s"),
        ("secret_key", "user", "authenticated", "8s"),
        ("anon_key", None, "anon", "3s"),
        ("anon_key", "anon_key", "anon", "3s"),
        ("service_role_key", "service_role_key", "service_role", "8s"),
    ],
)
def test_keys_become_roles(plain: LocalStack, key: str, bearer: str | None, role: str, timeout: str) -> None:
    headers = {"apikey": getattr(plain, key)}
    if bearer is not None:
        token = plain.user_token(USER) if bearer == "user" else getattr(plain, bearer)
        headers["Authorization"] = f"Bearer {token}"
    seen = _whoami(plain, **headers).json()
    assert seen == {
        "role": role,
        "uid": USER if bearer == "user" else None,
        "statement_timeout": timeout,
    }


def test_request_without_a_key_is_refused(plain: LocalStack) -> None:
    answer = _whoami(plain, Authorization=f"Bearer {plain.user_token(USER)}")
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


@pytest.mark.parametrize("key", ["sb_secret_of_another_project", "nonsense", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
def test_unknown_key_is_refused(plain: LocalStack, key: str) -> None:
    answer = _whoami(plain, apikey=key)
    assert answer.status_code == 401
    assert answer.json()["message"] == "Invalid API key"


def test_expired_user_token_is_refused(plain: LocalStack) -> None:
    token = plain.user_token(USER, expires_in=-60)
    answer = _whoami(plain, apikey=plain.publishable_key, Authorization=f"Bearer {token}")
    assert answer.status_code == 401
    assert "JWT expired" in answer.text


def test_rest_reads_writes_and_caps_rows_like_the_platform(plain: LocalStack) -> None:
    headers = {"apikey": plain.secret_key}
    read = httpx.get(f"{plain.url}/rest/v1/notes?select=id&id=lte.1200", headers=headers)
    assert len(read.json()) == 1000
    assert read.headers["content-range"] == "0-999/*"
    written = httpx.post(f"{plain.url}/rest/v1/notes", headers=headers, json={"id": 9000, "text": "ü ☃"})
    assert written.status_code == 201
    back = httpx.get(f"{plain.url}/rest/v1/notes?id=eq.9000&text=eq.ü%20☃", headers=headers)
    assert back.json() == [{"id": 9000, "text": "ü ☃"}]
    assert httpx.head(f"{plain.url}/rest/v1/notes", headers=headers).status_code == 200


def test_tables_without_grants_are_closed(plain: LocalStack) -> None:
    answer = httpx.get(f"{plain.url}/rest/v1/runs", headers={"apikey": plain.secret_key})
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_browser_preflight_needs_no_key(plain: LocalStack) -> None:
    headers = {"Origin": "http://app", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{plain.url}/rest/v1/notes", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in {"*", "http://app"}


def test_function_gets_the_request_as_it_came(plain: LocalStack) -> None:
    answer = httpx.put(
        f"{plain.url}/functions/v1/hello/a%20b?q=%2F",
        headers={"apikey": "any", "Authorization": "Bearer sb_x"},
        content=b"body",
    )
    assert (answer.status_code, answer.headers["x-answer"]) == (201, "yes")
    assert answer.json() == {
        "method": "PUT",
        "path": "/hello/a%20b?q=%2F",
        "apikey": "any",
        "authorization": "Bearer sb_x",
        "body": "body",
        "mine": "1",
        "keys": json.dumps({"default": plain.secret_key}),
    }


def test_large_bodies_pass_both_ways(plain: LocalStack) -> None:
    body = os.urandom(5_000_000)
    assert httpx.post(f"{plain.url}/functions/v1/hello/echo", content=body).content == body
    # Without a length, in pieces.
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    assert httpx.post(f"{plain.url}/functions/v1/hello/echo", content=pieces).content == body


def test_answer_is_streamed(plain: LocalStack) -> None:
    started = time.monotonic()
    with httpx.stream("GET", f"{plain.url}/functions/v1/hello/drip") as answer:
        assert next(answer.iter_text()) == "first\n"
        assert time.monotonic() - started < 2


def test_what_is_not_there(plain: LocalStack) -> None:
    unknown = httpx.get(f"{plain.url}/functions/v1/nobody")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert httpx.get(f"{plain.url}/elsewhere").status_code == 404


# Webhooks


def test_webhook_is_sent_after_the_commit(plain: LocalStack, database: psycopg.Connection) -> None:
    with database.transaction():
        request = _post(
            database, f"{plain.url}/functions/v1/hello", body='{"a": 1}', headers='{"apikey": "k"}'
        )
        database.execute("select pg_sleep(0.2)")
        sent = database.execute(
            "select count(*) from net._http_response where id = %s", (request,)
        ).fetchone()
        assert sent == (0,)
    status, content, timed_out, error, headers = _response(database, request)
    assert (status, timed_out, error) == (201, False, None)
    assert headers["x-answer"] == "yes"
    assert json.loads(content)["body"] == '{"a": 1}'
    assert json.loads(content)["apikey"] == "k"


def test_webhook_of_a_rolled_back_transaction_is_never_sent(
    plain: LocalStack, database: psycopg.Connection
) -> None:
    with database.transaction(force_rollback=True):
        undone = _post(database, f"{plain.url}/functions/v1/hello")
    kept = _post(database, f"{plain.url}/functions/v1/hello")
    # Requests leave in order, so once the later one is answered the earlier one will not come any more.
    _response(database, kept)
    query = "select count(*) from net._http_response where id = %s"
    assert database.execute(query, (undone,)).fetchone() == (0,)


def test_outcomes_of_webhooks_that_cannot_be_delivered(
    database: psycopg.Connection, plain: LocalStack
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        refused = _post(database, f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        assert _response(database, refused)[:4] == (None, None, False, "Couldn't connect to server")
    unknown = _post(database, "http://nowhere.invalid/")
    assert _response(database, unknown)[3] == "Couldn't resolve host name"
    late = _post(database, f"{plain.url}/functions/v1/hello/slow", timeout_milliseconds=100)
    status, _, timed_out, error, _ = _response(database, late)
    assert (status, timed_out) == (None, True)
    assert error.startswith("Timeout of 100 ms reached")


def test_get_and_delete(database: psycopg.Connection, plain: LocalStack) -> None:
    url = f"{plain.url}/functions/v1/hello"
    row = database.execute(
        """select net.http_get(%s, '{"q": "1"}'), net.http_delete(%s)""", (url, url)
    ).fetchone()
    assert row is not None
    got, deleted = (json.loads(_response(database, request)[1]) for request in row)
    assert (got["method"], got["path"]) == ("GET", "/hello?q=1")
    assert deleted["method"] == "DELETE"


def test_dropped_webhooks_are_lost_silently(plain: LocalStack, database: psycopg.Connection) -> None:
    plain.set_webhooks(drop=1.0)
    lost = _post(database, f"{plain.url}/functions/v1/hello")
    _eventually(lambda: database.execute("select count(*) from net.http_request_queue").fetchone() == (0,))
    plain.set_webhooks(drop=0.0)
    _response(database, _post(database, f"{plain.url}/functions/v1/hello"))
    assert database.execute("select 1 from net._http_response where id = %s", (lost,)).fetchone() is None


def test_pace_puts_time_between_batches(plain: LocalStack, database: psycopg.Connection) -> None:
    plain.set_webhooks(pace=0.6)
    try:
        first = _post(database, f"{plain.url}/functions/v1/hello")
        _response(database, first)
        second = _post(database, f"{plain.url}/functions/v1/hello")
        _response(database, second)
    finally:
        plain.set_webhooks(pace=0.0)
    apart = database.execute(
        "select extract(epoch from max(created) - min(created)) from net._http_response where id in (%s, %s)",
        (first, second),
    ).fetchone()
    assert apart is not None
    assert apart[0] >= 0.55


# Cron


def test_cron_runs_jobs_as_their_owner_and_keeps_the_outcome(
    plain: LocalStack, database: psycopg.Connection
) -> None:
    with psycopg.connect(plain.postgres_url, autocommit=True) as owner:
        owner.execute("select cron.schedule('good', '1 second', 'insert into public.runs default values')")
        owner.execute("select cron.schedule('bad', '1 second', 'select 1 / 0')")
        runs = "select count(*) filter (where who = 'postgres') from public.runs having count(*) >= 2"
        _eventually(lambda: database.execute(runs).fetchone())
        details = """
            select d.status, d.return_message, d.username, d.end_time >= d.start_time
            from cron.job_run_details d join cron.job j using (jobid)
            where j.jobname = %s and d.status <> 'running' limit 1
        """
        good = _eventually(lambda: owner.execute(details, ("good",)).fetchone())
        assert good == ("succeeded", "INSERT 0 1", "postgres", True)
        bad = _eventually(lambda: owner.execute(details, ("bad",)).fetchone())
        assert bad[0] == "failed"
        assert "division by zero" in bad[1]
        owner.execute("select cron.unschedule('good'), cron.unschedule('bad')")


# Deaths


def test_killed_parts_come_back(plain: LocalStack) -> None:
    before = plain.pids()
    for part in ("hello", "postgrest", "postgres"):
        plain.kill(part)
        pid = before[part]
        assert pid is not None
        assert _gone(pid)
    _eventually(
        lambda: all(
            new not in {None, before[name]} for name, new in plain.pids().items() if name != "supervisor"
        )
    )
    plain.wait_until_ready()
    headers = {"apikey": plain.secret_key}
    url = f"{plain.url}/rest/v1/notes?id=eq.1"
    _eventually(lambda: httpx.get(url, headers=headers).status_code == 200)
    assert httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201
    with psycopg.connect(plain.db_url, autocommit=True) as database:
        # The sender of webhooks has found its way back, too.
        assert _response(database, _post(database, f"{plain.url}/functions/v1/hello"))[0] == 201
    assert "postgres was ended by signal 9" in (plain.logs / "supervisor.log").read_text()


def test_restart_returns_when_the_part_serves_again(plain: LocalStack) -> None:
    before = plain.pids()["hello"]
    plain.restart("functions")
    assert plain.pids()["hello"] != before
    assert httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201


def test_function_that_dies_while_it_answers_is_a_bad_gateway(plain: LocalStack) -> None:
    answer = httpx.post(f"{plain.url}/functions/v1/hello/die")
    assert answer.status_code == 502
    _eventually(lambda: httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201)


def test_unknown_part_is_named(plain: LocalStack) -> None:
    with pytest.raises(
        LocalStackError, match="There is no part 'redis'; there are hello, postgres, postgrest"
    ):
        plain.kill("redis")


# Ends


def _running(stack: LocalStack) -> tuple[list[int], str, Path]:
    return [pid for pid in stack.pids().values() if pid is not None], stack.url, stack.data_dir


def test_nothing_is_left_after_the_block(project: Path) -> None:
    with _of(project) as stack:
        pids, url, folder = _running(stack)
        assert len(pids) == 4
        assert not _refused(url)
    assert all(_gone(pid) for pid in pids)
    assert _refused(url)
    assert not folder.exists()
    with pytest.raises(LocalStackError, match="not running"):
        _ = stack.url


OWNER = """
import json, sys, time
from supabase_chunks.local import LocalStack
stack = LocalStack(migrations=sys.argv[1] + "/migrations", functions=sys.argv[1] + "/functions")
stack.start()
pids = list(stack.pids().values())
print(json.dumps([pids, stack.url, str(stack.data_dir), stack.pids()["supervisor"]]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(project: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a stack."""
    program = [sys.executable, "-c", OWNER, str(project)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield process
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _told(owner: subprocess.Popen[str]) -> tuple[list[int], str, Path, int]:
    assert owner.stdout is not None
    pids, url, folder, supervisor = json.loads(owner.stdout.readline())
    return pids, url, Path(folder), supervisor


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_owner_is_ended(
    owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    pids, url, folder, _ = _told(owner)
    owner.send_signal(number)
    _eventually(lambda: all(_gone(pid) for pid in pids))
    _eventually(lambda: not folder.exists())
    assert _refused(url)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's death signal")
def test_no_process_is_left_when_owner_and_supervisor_are_killed(owner: subprocess.Popen[str]) -> None:
    pids, url, folder, supervisor = _told(owner)
    owner.kill()
    os.kill(supervisor, signal.SIGKILL)
    _eventually(lambda: all(_gone(pid) for pid in pids))
    assert _refused(url)
    # Nobody was left to remove the folder; the next start does, once it is sure that nobody holds it.
    if folder.exists():
        past = time.time() - 3600
        os.utime(folder / "owner.lock", (past, past))
        with LocalStack(migrations=None, functions=None):
            assert not folder.exists()


# Starts


def test_named_folder_keeps_data_and_keys(project: Path, tmp_path: Path) -> None:
    _let_others_in(tmp_path)
    with _of(project, data_dir=tmp_path / "kept") as stack:
        first = (stack.secret_key, stack.jwt_secret)
        httpx.post(f"{stack.url}/rest/v1/notes", headers={"apikey": stack.secret_key}, json={"id": 7777})
        stack.kill("postgres")
    with _of(project, data_dir=tmp_path / "kept") as stack:
        assert (stack.secret_key, stack.jwt_secret) == first
        answer = httpx.get(
            f"{stack.url}/rest/v1/notes?id=eq.7777&select=id", headers={"apikey": stack.secret_key}
        )
        assert answer.json() == [{"id": 7777}]
    assert (tmp_path / "kept" / "logs" / "supervisor.log").exists()


def test_named_folder_that_is_not_kept_loses_only_what_the_stack_made(tmp_path: Path) -> None:
    _let_others_in(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with LocalStack(data_dir=tmp_path, keep=False, migrations=None, functions=None):
        assert (tmp_path / "postgres").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_of_a_running_stack_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_others_in(tmp_path)
    monkeypatch.setattr("supabase_chunks.local.scratch._WAIT_SECONDS", 0.1)
    with LocalStack(data_dir=tmp_path / "one", migrations=None, functions=None) as stack:
        with pytest.raises(LocalStackError, match="in use by another local stack"):
            LocalStack(data_dir=tmp_path / "one", keep=False).start()
        with psycopg.connect(stack.db_url) as database:
            assert database.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(("option", "part"), [("port", "the gateway"), ("db_port", "PostgreSQL")])
def test_taken_port_is_named_and_nothing_is_left(project: Path, option: str, part: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = _of(project, **{option: port})
        with pytest.raises(LocalStackError, match=f"Port {port} for {part} is taken"):
            stack.start()
    assert not stack.data_dir.exists()


def test_ports_can_be_chosen(project: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    with _of(project, port=ports[0], db_port=ports[1]) as stack:
        assert stack.url == f"http://127.0.0.1:{ports[0]}"
        assert f":{ports[1]}/" in stack.db_url


def test_function_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "functions" / "broken").mkdir(parents=True)
    (tmp_path / "functions" / "broken" / "index.ts").write_text("const = 1;\n")
    stack = LocalStack(migrations=None, functions=tmp_path / "functions")
    with pytest.raises(LocalStackError, match=r"The function broken did not start.*index\.ts"):
        stack.start()
    assert not stack.data_dir.exists()


def test_migration_that_fails_says_where(tmp_path: Path) -> None:
    (tmp_path / "1_bad.sql").write_text("select 1;\nselect nothing;\n")
    with pytest.raises(LocalStackError, match=r'Migration 1_bad.sql, line 2 failed: column "nothing"'):
        LocalStack(migrations=tmp_path, functions=None).start()


def test_first_download_without_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        monkeypatch.setenv("DENO_DIR", str(tmp_path / "deno"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("POSTGREST", raising=False)
        notes: list[str] = []
        stack = LocalStack(migrations=None, functions=None, on_note=notes.append)
        with pytest.raises(LocalStackError, match="PostgREST could not be downloaded; the first start needs"):
            stack.start()
    assert notes == ["Downloading PostgREST, this once"]


DOWNLOADER = """
import sys
from supabase_chunks.local import LocalStack
LocalStack(migrations=None, functions=None, on_note=lambda text: print(text, flush=True)).start()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_during_a_download_that_hangs(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        changed = {
            "NPM_CONFIG_REGISTRY": f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "DENO_DIR": str(tmp_path / "deno"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        environment = {name: value for name, value in os.environ.items() if name != "POSTGREST"} | changed
        with subprocess.Popen(
            [sys.executable, "-c", DOWNLOADER],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"Downloading PostgREST, this once\n"
            supervisors = children_of(owner.pid)
            owner.send_signal(signal.SIGINT)
            owner.communicate(timeout=10)
            assert owner.returncode != 0
            assert supervisors
            assert all(_gone(pid) for pid in supervisors)


def test_changed_function_is_served_anew(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    source = tmp_path / "hello" / "index.ts"
    source.write_text("export default { fetch: () => new Response('old') };\n")
    with LocalStack(migrations=None, functions=tmp_path, watch=True) as stack:
        url = f"{stack.url}/functions/v1/hello"
        assert httpx.get(url).text == "old"
        source.write_text("export default { fetch: () => new Response('new') };\n")
        _eventually(lambda: httpx.get(url).text == "new")


def _let_others_in(folder: Path) -> None:
    """As root PostgreSQL runs as another user, who must get to its data."""
    for path in (folder, folder.parent, folder.parent.parent):
        if path.stat().st_uid == 0 and path != Path("/tmp"):  # noqa: S108 - where pytest works
            path.chmod(0o711)
