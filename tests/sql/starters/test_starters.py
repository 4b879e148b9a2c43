"""The migrations of ordinary Supabase projects run in the local stack, and do there what they are for."""

from __future__ import annotations

import functools
import hmac
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supabase_chunks.local import LocalStackError, migrations, platform, seeds
from tests.sql.database import Database
from tests.sql.server import Cluster

FILES = Path(__file__).parent / "migrations"
USER = "6f0f3a52-6f54-4e6c-8f0f-0c8f6a1f7d11"


class Starter:
    """A database of its own, and what was said while migrations ran there."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.notes: list[str] = []

    def migrate(self, *names: str) -> None:
        """Apply files of `migrations/` in this order."""
        for number, name in enumerate(names, start=1):
            shutil.copyfile(FILES / f"{name}.sql", self.folder / f"{number}_{name}.sql")
        self.apply()

    def write(self, text: str) -> None:
        """Apply a migration written here."""
        (self.folder / "1_mine.sql").write_text(text)
        self.apply()

    def apply(self) -> None:
        migrations.apply(self.database.dsn, self.folder, note=self.notes.append)

    def ask(
        self, query: str, *parameters: object, role: str = "postgres", user: str | None = None
    ) -> list[tuple]:
        """Run statements in one transaction as a role; returns the last one's rows."""
        with psycopg.connect(self.database.dsn) as connection:
            connection.execute("set search_path to public, extensions")
            if user is not None:
                claims = f'{{"sub": "{user}", "role": "authenticated"}}'
                connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            connection.execute(f"set local role {role}")
            cursor = connection.execute(query, parameters or None)
            while cursor.nextset():
                continue
            return cursor.fetchall() if cursor.description else []


# Once a server, as the cluster is: side by side, a worker may come back to this file after others.
@pytest.fixture(scope="session")
def projects(cluster: Cluster) -> Cluster:
    """The server with a template that has the platform and nothing else."""
    with psycopg.connect(cluster.server.dsn, autocommit=True) as connection:
        connection.execute("create database template_platform owner postgres")
    platform.install(cluster.server.dsn_for("template_platform"))
    return cluster


@pytest.fixture
def starter(projects: Cluster, tmp_path: Path) -> Iterator[Starter]:
    with projects.database(template="template_platform") as database:
        made = Starter(database, tmp_path)
        yield made
        made.ask("alter role authenticator reset pgrst.db_pre_request")  # a role is of the whole server


def test_profiles_are_made_by_a_trigger_on_the_users(starter: Starter) -> None:
    starter.migrate("profiles")
    starter.ask(
        "insert into auth.users (id, email, raw_user_meta_data) values (%s, 'a@b.c', '{\"full_name\": \"Ada\"}')",
        USER,
    )
    assert starter.ask("select id::text, full_name from profiles") == [(USER, "Ada")]
    assert starter.notes == []


def test_todos_are_seen_by_their_owner_only(starter: Starter) -> None:
    starter.migrate("todos")
    starter.ask("insert into auth.users (id) values (%s)", USER)
    starter.ask("insert into todos (task) values ('water the plants')", role="authenticated", user=USER)
    query = "select task from todos"
    assert starter.ask(query, role="authenticated", user=USER) == [("water the plants",)]
    assert starter.ask(query, role="authenticated", user=USER.replace("6f0f", "0000")) == []


def test_a_bucket_with_policies(starter: Starter) -> None:
    starter.migrate("avatars")
    insert = "insert into storage.objects (bucket_id, name) values ('avatars', %s)"
    starter.ask(insert, f"{USER}/me.png", role="authenticated", user=USER)
    for name in ("someone/me.png", f"{USER}/me.exe"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            starter.ask(insert, name, role="authenticated", user=USER)
    assert starter.ask("select path from uploads") == [(f"{USER}/me.png",)]
    assert starter.ask("select storage.filename(name), path_tokens from storage.objects", role="anon") == [
        ("me.png", [USER, "me.png"])
    ]


def test_documents_are_found_by_embedding(starter: Starter) -> None:
    starter.migrate("documents")
    starter.ask("insert into documents (content, embedding) values ('near', '[1,0,0]'), ('far', '[-1,0,0]')")
    assert starter.ask("select content from match_documents('[1,0.1,0]', 0.5, 10)") == [("near",)]


def test_a_chat_with_publication_and_broadcast(starter: Starter) -> None:
    starter.migrate("chat")
    starter.ask(
        "insert into channels (slug) values ('all'); insert into messages (message, channel_id) values ('hi', 1)"
    )
    published = "select tablename from pg_publication_tables where pubname = 'supabase_realtime' order by 1"
    assert starter.ask(published) == [("channels",), ("messages",)]
    said = "select topic, payload -> 'record' ->> 'message' from realtime.messages"
    assert starter.ask(said) == [("channel:1", "hi")]


def test_subscriptions(starter: Starter) -> None:
    starter.migrate("stripe")
    assert starter.ask("select count(*) from pg_publication_tables where pubname = 'supabase_realtime'") == [
        (2,)
    ]


def test_tenants_by_claims_and_a_hook_for_tokens(starter: Starter) -> None:
    starter.migrate("tenants")
    starter.ask("insert into auth.users (id) values (%s)", USER)
    starter.ask("insert into members (user_id, role) values (%s, 'admin')", USER)
    event = f'{{"user_id": "{USER}", "claims": {{}}}}'
    hook = "select custom_access_token_hook(%s) -> 'claims' ->> 'user_role'"
    assert starter.ask(hook, event, role="supabase_auth_admin") == [("admin",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        starter.ask(hook, event, role="authenticated")


def test_webhooks_and_cron(starter: Starter) -> None:
    starter.migrate("webhooks")
    starter.ask("insert into orders values (7)")
    (sent,) = starter.ask("select url, convert_from(body, 'utf8') from net.http_request_queue")
    assert sent == ("http://127.0.0.1:9/hook", '{"id": 7}')
    assert starter.ask("select schedule, active from cron.job where jobname = 'nightly'") == [
        ("0 3 * * *", False)
    ]


def test_ids_by_uuid_ossp_and_pgcrypto(starter: Starter) -> None:
    starter.migrate("ids")
    (found,) = starter.ask(
        "select hash = crypt('secret', hash), hash = crypt('other', hash), length(token), signature from keys"
    )
    assert found == (True, False, 32, hmac.new(b"key", b"body", "sha1").hexdigest())


def test_moddatetime(starter: Starter) -> None:
    starter.migrate("stamps")
    starter.ask("insert into notes (id) values (1); update notes set id = 2")
    assert starter.ask(
        "select updated_at = now() or updated_at > now() - interval '1 minute' from notes"
    ) == [(True,)]


def test_search(starter: Starter) -> None:
    starter.migrate("search")
    starter.ask("insert into people values ('Ada@b.c', 'Áda Lovelace')")
    assert starter.ask("select email from find_people('ada lovelace') where email = 'ada@B.C'") == [
        ("Ada@b.c",)
    ]


def test_a_dumped_schema_leaves_the_next_file_its_search_path(starter: Starter) -> None:
    starter.migrate("dumped", "profiles")
    assert starter.ask(
        "select valid, payload ->> 'a' from extensions.verify(extensions.sign('{\"a\": 1}', 'k'), 'k')"
    ) == [(True, "1")]
    assert starter.notes == [
        "Migration 1_dumped.sql, line 10: pgsodium: only its name is here, none of its functions (the functions of"
        " the schema vault do work).",
        "Migration 1_dumped.sql, line 12: pg_graphql: only its name is here, GraphQL requests are answered with an"
        " error.",
    ]


def test_what_hosted_lends_the_owner(starter: Starter) -> None:
    starter.migrate("guarded")
    assert starter.ask("select relrowsecurity from pg_class where relname = 'sheltered'") == [(True,)]
    # The platform is looked at again at each start, whatever the project's trigger does.
    platform.install(starter.database.dsn)


def test_all_of_them_in_one_project(starter: Starter) -> None:
    starter.migrate(*sorted(path.stem for path in FILES.glob("*.sql") if path.stem not in {"guarded"}))


def test_contrib_of_an_older_server_is_taken(cluster_15: Cluster, tmp_path: Path) -> None:
    with cluster_15.database(template=None) as database:
        platform.install(database.dsn)
        starter = Starter(database, tmp_path)
        starter.migrate("ids", "stamps", "search", "webhooks")
        assert starter.ask("select left(hash, 4) from keys") == [("$2a$",)]
        assert starter.notes == []


def test_what_is_known_to_be_missing_is_noted_and_passed_over(starter: Starter) -> None:
    starter.write("""
        create extension if not exists postgis with schema extensions;
        create extension pgmq;
        comment on extension pgmq is 'queues';
        select pgmq.create('jobs');
        create extension vector with version '0.1.0';
        create table still_made ();
    """)
    assert starter.ask("select count(*) from still_made") == [(0,)]
    assert starter.notes == [
        f"Migration 1_mine.sql, line {line}: {text}."
        for line, text in (
            (2, "the extension postgis is not to be had on this machine; going on without it"),
            (3, "the extension pgmq is not to be had on this machine; going on without it"),
            (5, 'passed over, since pgmq is missing: schema "pgmq" does not exist'),
            (6, "this machine has another version of the extension vector"),
        )
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("create extension pgcryptoo;", 'line 1 failed: extension "pgcryptoo" is not available'),
        ("create table a ();\n\ncreate table a ();", 'line 3 failed: relation "a" already exists'),
        ("create table a ();\ninsert into a\nvalues (1);", "line 3 failed: INSERT has more expressions"),
        ("select nothing.at_all();", 'line 1 failed: schema "nothing" does not exist'),
        (
            "create extension postgis;\ncreate table a (place geography);",
            'line 2 failed: type "geography" does not exist. This machine lacks an extension that the file asks for:'
            " postgis (line 1)",
        ),
        ("begin;\ncreate table a ();\ncommit;\nselect 1/0;", "line 4 failed: division by zero"),
        ("create table auth.mine ();", "line 1 failed: permission denied for schema auth"),
    ],
)
def test_an_error_of_ones_own_ends_with_file_line_and_message(
    starter: Starter, text: str, complaint: str
) -> None:
    with pytest.raises(LocalStackError) as caught:
        starter.write(text)
    assert str(caught.value).startswith(f"Migration 1_mine.sql, {complaint}")
    assert starter.ask("select count(*) from supabase_migrations.schema_migrations") == [(0,)]


def test_seeds_run_once(starter: Starter) -> None:
    starter.migrate("ids")
    seed = starter.folder / "seed.sql"
    seed.write_text("insert into keys (token) values ('a;b');\nset session_replication_role = replica;\n")
    run = functools.partial(
        seeds.run, starter.database.dsn, {"supabase/seed.sql": seed}, note=starter.notes.append
    )
    assert run() == ["supabase/seed.sql"]
    assert run() == []
    seed.write_text("insert into keys (token) values ('c');\nselect 1/0;\n")
    assert run() == []
    assert starter.notes == [
        "supabase/seed.sql has changed and is not run again: delete the data folder to start anew."
    ]
    assert starter.ask("select count(*) from keys") == [(2,)]
    other = {"supabase/seeds/more.sql": seed}
    with pytest.raises(LocalStackError, match=r"^supabase/seeds/more.sql, line 2 failed: division by zero"):
        seeds.run(starter.database.dsn, other)
    assert starter.ask("select count(*) from keys") == [(2,)]
