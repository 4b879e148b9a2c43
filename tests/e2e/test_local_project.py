"""An ordinary Supabase project in the local stack: what its config.toml says is done, what fails is noted."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from supabase_chunks.local import LocalStack

from .hello import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
project_id = "shop"
[api]
schemas = ["public", "shop", "nowhere"]
extra_search_path = ["public", "extensions", "shop"]
max_rows = 2
[db.seed]
sql_paths = ["./seeds/*.sql"]
[functions.open]
verify_jwt = false
entrypoint = "./functions/group/main.ts"
import_map = "./functions/group/imports.json"
[functions.broken]
verify_jwt = false
[functions.old]
verify_jwt = false
[functions.off]
enabled = false
"""
MIGRATION = """
create extension if not exists postgis with schema extensions;
create schema shop;
grant usage on schema shop to service_role;
create table shop.items (id uuid primary key default extensions.uuid_generate_v4(), name text);
grant select on shop.items to service_role;
"""
# As std's `serve` did it.
OLD = """
for await (const connection of Deno.listen({ port: 8000 })) {
  (async () => {
    const http = Deno.serveHttp(connection);
    for (let event; (event = await http.nextRequest());) {
      await event.respondWith(new Response("old " + await event.request.text()));
    }
    http.close();
  })();
}
"""
FILES = {
    "config.toml": CONFIG,
    "migrations/1_shop.sql": MIGRATION,
    "seeds/1_items.sql": "insert into shop.items (name) values ('a'), ('b'), ('c');",
    "functions/.env": "GREETING=hello",
    "functions/hello/index.ts": 'Deno.serve(() => new Response(Deno.env.get("GREETING")));',
    "functions/hello/deno.json": "{}",
    "functions/old/index.ts": OLD,
    "functions/off/index.ts": "never",
    "functions/broken/index.ts": "const = 1;",
    "functions/unreachable/index.ts": 'import "npm:no-such-thing-in-any-cache@9.9.9";\nDeno.serve(() => null);',
    "functions/group/main.ts": 'import { word } from "words";\nexport default { fetch: () => new Response(word) };',
    "functions/group/imports.json": '{"imports": {"words": "./words.ts"}}',
    "functions/group/words.ts": 'export const word = await Deno.readTextFile(new URL("word.txt", import.meta.url));',
    "functions/group/word.txt": "read",
    # Of the program that the project belongs to; none of the functions' business.
    "../package.json": '{"dependencies": {"left": "1.0.0"}}',
    "../deno.json": '{"imports": 7}',
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStack, Path]]:
    folder = tmp_path_factory.mktemp("shop")
    for name, text in FILES.items():
        path = folder / "supabase" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as unheard, pytest.MonkeyPatch.context() as patch:
        unheard.bind(("127.0.0.1", 0))
        patch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        with LocalStack(project=folder, watch=True) as stack:
            yield stack, folder / "supabase"


def call(stack: LocalStack, name: str, token: str | None = None, **options: object) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{stack.url}/functions/v1/{name}", headers=headers, **options)  # type: ignore[arg-type]


def test_what_this_machine_cannot_do_is_noted(shop: tuple[LocalStack, Path]) -> None:
    notes = sorted(shop[0].notes[:6])
    starts = (
        "Downloading what the function unreachable imports",
        "Migration 1_shop.sql, line 2: the extension postgis is not to be had",
        "The function broken did not start: ",
        "This project has no syncs yet",
        "What the function unreachable imports could not be downloaded",
        "config.toml, api.schemas: there is no schema nowhere",
    )
    assert [note[: len(start)] for note, start in zip(notes, starts, strict=True)] == list(starts)
    assert shop[0].functions == ["hello", "old", "open"]


def test_schemas_rows_and_seeds(shop: tuple[LocalStack, Path]) -> None:
    stack, _ = shop
    headers = {"apikey": stack.secret_key, "Accept-Profile": "shop"}
    answer = httpx.get(f"{stack.url}/rest/v1/items?select=name&order=name", headers=headers)
    assert answer.json() == [{"name": "a"}, {"name": "b"}]
    with psycopg.connect(stack.postgres_url) as owner:
        assert owner.execute("show search_path").fetchone() == ('"$user", public, extensions',)


def test_a_function_wants_a_token_unless_the_config_says_no(shop: tuple[LocalStack, Path]) -> None:
    stack, _ = shop
    assert call(stack, "open").text == "read"
    assert (call(stack, "hello").status_code, call(stack, "hello", "nonsense").status_code) == (401, 401)
    assert call(stack, "hello", stack.user_token("u", expires_in=-60)).json()["message"] == "Invalid JWT"
    for token in (stack.anon_key, stack.user_token("u", claims={"email": "a@b.c"})):
        assert call(stack, "hello", token).text == "hello"
    assert call(stack, "off").status_code == 404


def test_a_function_with_its_own_listener(shop: tuple[LocalStack, Path]) -> None:
    for word in ("one", "two"):
        assert call(shop[0], "old", content=word).text == f"old {word}"


def test_what_does_not_run_here_says_so(shop: tuple[LocalStack, Path]) -> None:
    stack, _ = shop
    answer = httpx.get(f"{stack.url}/storage/v1/object/avatars/a.png")
    assert answer.status_code == 501
    assert answer.json()["message"] == "The local stack has no Storage, only /rest/v1 and /functions/v1."
    broken = call(stack, "broken")
    assert (broken.status_code, broken.json()["code"]) == (503, "BOOT_ERROR")
    assert "index.ts" in json.dumps(broken.json())


def test_a_broken_function_runs_once_it_is_mended(shop: tuple[LocalStack, Path]) -> None:
    stack, folder = shop
    stack.wait_until_ready()
    source = folder / "functions" / "broken" / "index.ts"
    source.write_text('export default { fetch: () => new Response("mended") };')
    eventually(lambda: call(stack, "broken").text == "mended")
    stack.pids()
    assert stack.notes[-1] == "The function broken runs now."
    source.write_text("const = 2;")
    eventually(lambda: call(stack, "broken").status_code == 503 and stack.pids() and "= 2" in stack.notes[-1])
    assert call(stack, "open").text == "read"
