"""A project with one migration and one function, to test the local stack apart from the queue."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

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


def write_project(folder: Path) -> Path:
    """Write the project's files."""
    (folder / "migrations").mkdir()
    (folder / "migrations" / "20260101000000_notes.sql").write_text(MIGRATION)
    (folder / "functions" / "hello").mkdir(parents=True)
    (folder / "functions" / "hello" / "index.ts").write_text(FUNCTION)
    (folder / "functions" / "hello" / "delay.ts").write_text(
        "export const delay = (ms: number) => new Promise((done) => setTimeout(done, ms));\n"
    )
    return folder


def hello(project: Path, **options: Any) -> LocalStack:
    """A stack of the project, not started yet."""
    return LocalStack(
        migrations=project / "migrations",
        functions=project / "functions",
        functions_env={"MINE": "1"},
        **options,
    )


def eventually(look: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What `look` returns once it is something; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"nothing came within {seconds:g} s")


def gone(pid: int) -> bool:
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


def refused(url: str) -> bool:
    """Whether nobody listens at the address of a URL."""
    address = httpx.URL(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port or 0)) != 0


def response(database: psycopg.Connection, request: int) -> tuple[Any, ...]:
    """Status, content, whether it timed out, error and headers of a webhook, once it has come back."""
    query = "select status_code, content, timed_out, error_msg, headers from net._http_response where id = %s"
    return eventually(lambda: database.execute(query, (request,)).fetchone())


def post(database: psycopg.Connection, url: str, **arguments: Any) -> int:
    """Queue a webhook; returns its id."""
    names = "".join(f", {name} => %({name})s" for name in arguments)
    row = database.execute(f"select net.http_post(%(url)s{names})", {"url": url, **arguments}).fetchone()
    assert row is not None
    return int(row[0])


def let_others_in(folder: Path) -> None:
    """As root PostgreSQL runs as another user, who must get to its data."""
    temporary = Path(tempfile.gettempdir())
    for path in (folder, *folder.parents):
        if temporary in path.parents and path.stat().st_uid == 0:
            path.chmod(0o711)
