"""Keys, users, connections and loops: how the clients behave in the places where they are used."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import psycopg
import pytest
import supabase

import supabase_chunks as sc
from supabase_chunks.health import Configured
from supabase_chunks.local import LocalStack
from tests.contract.conftest import both, done, listed

if TYPE_CHECKING:
    from tests.contract.proxy import Proxy

BOTH = pytest.mark.parametrize("which", ["sync", "async"])


def token_for(stack: LocalStack, user: uuid.UUID, seconds: float = 3600) -> str:
    """Return a user's token that expires in so many seconds."""
    claims = {"sub": str(user), "role": "authenticated", "aud": "authenticated", "exp": time.time() + seconds}
    return jwt.encode(claims, stack.jwt_secret, algorithm="HS256")


@BOTH
async def test_every_sort_of_key_works(stack: LocalStack, kind: str, which: str) -> None:
    for key in (stack.secret_key, stack.service_role_key):
        async with both(which, stack.url, key) as client:
            assert (await done(client.trigger_sync(kind, chunks=[{"n": 1}]))).created


@BOTH
async def test_a_wrong_key_is_an_authentication_error(stack: LocalStack, which: str) -> None:
    for key in ("sb_secret_not-a-key-of-this-project", "eyJhbGciOiJIUzI1NiJ9.e30.not-signed"):
        async with both(which, stack.url, key) as client:
            with pytest.raises(sc.AuthenticationError) as caught:
                await done(client.health())
            assert caught.value.status == 401
            assert key not in f"{caught.value}{caught.value!r}"


@BOTH
async def test_a_signed_in_user_sees_their_own_jobs_and_nothing_else(
    stack: LocalStack, kind: str, which: str
) -> None:
    ann, ben = uuid.uuid4(), uuid.uuid4()
    async with both(which, stack.url, stack.publishable_key) as app:
        as_ann, as_ben = app.as_user(token_for(stack, ann)), app.as_user(lambda: token_for(stack, ben))
        hers = await done(as_ann.trigger_sync(kind, chunks=[{"n": 1}]))
        assert (await done(hers.progress())).owner_id == ann
        assert [job.id for job in await done(as_ann.jobs())] == [hers.id]
        assert len(await done(as_ann.job(hers.id).chunks())) == 1
        assert await done(as_ben.jobs()) == []
        for call in (
            "chunks",
            "results",
            "timeline",
            "progress",
            "cancel",
            "pause",
            "resume",
            "retry_failed",
        ):
            with pytest.raises(sc.JobNotFound):
                await done(getattr(as_ben.job(hers.id), call)())
        with pytest.raises(sc.PermissionDenied):
            await done(as_ann.health())
        with pytest.raises(sc.PermissionDenied):
            await done(app.jobs())
        assert (await done(hers.cancel())).status == "cancelled"


@BOTH
async def test_the_service_may_start_a_job_for_a_user(stack: LocalStack, kind: str, which: str) -> None:
    ann = uuid.uuid4()
    async with both(which, stack.url, stack.secret_key) as service:
        job = await done(service.trigger_sync(kind, chunks=[{"n": 1}], owner_id=str(ann)))
        theirs = service.as_user(token_for(stack, ann))
        assert [mine.id for mine in await done(theirs.jobs())] == [job.id]


@BOTH
async def test_a_token_that_expires_while_watching_ends_the_watching(
    stack: LocalStack, kind: str, which: str
) -> None:
    ann = uuid.uuid4()
    async with both(which, stack.url, stack.publishable_key) as app:
        job = await done(app.as_user(token_for(stack, ann)).trigger_sync(kind, chunks=[{"n": 1}]))
        # PostgREST grants 30 s of clock skew, so this token is just good enough now.
        soon = token_for(stack, ann, seconds=-29)
        with pytest.raises(sc.AuthenticationError):
            await listed(app.as_user(soon).job(job.id).watch(timeout=15))


def test_a_sync_client_of_supabase_py_lends_its_project_and_its_session(stack: LocalStack, kind: str) -> None:
    ann = uuid.uuid4()
    with sc.ChunksClient.from_supabase(supabase.create_client(stack.url, stack.secret_key)) as service:
        assert service.health()
    options = supabase.ClientOptions(headers={"Authorization": f"Bearer {token_for(stack, ann)}"})
    theirs = supabase.create_client(stack.url, stack.publishable_key, options)
    with sc.ChunksClient.from_supabase(theirs) as client:
        job = client.trigger_sync(kind, chunks=[{"n": 1}])
        assert job.progress().owner_id == ann


async def test_an_async_client_of_supabase_py_does_so_too(stack: LocalStack, kind: str) -> None:
    theirs = await supabase.acreate_client(stack.url, stack.secret_key)
    async with sc.AsyncChunksClient.from_supabase(theirs) as client:
        assert (await client.trigger_sync(kind, chunks=[{"n": 1}])).created


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the loops end without aclose(): the case tested
def test_a_client_works_under_one_event_loop_after_the_other(stack: LocalStack) -> None:
    client = sc.AsyncChunksClient(stack.url, stack.secret_key)

    async def twice() -> None:
        await client.health()
        await client.health()

    asyncio.run(twice())
    asyncio.run(twice())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(twice())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_the_sync_client_works_inside_a_running_loop(stack: LocalStack, kind: str) -> None:
    with sc.ChunksClient(stack.url, stack.secret_key) as client:
        job = client.trigger_sync(kind, chunks=[{"n": 1}])
        sc.Worker(client, lambda chunk: "ok", kinds=[kind]).run_until_idle()
        assert job.wait(timeout=5).status == "completed"


def test_eight_threads_share_a_client_though_the_server_closes_idle_connections(
    stack: LocalStack, proxy: Proxy, kind: str
) -> None:
    proxy.idle_seconds = 0.02
    with sc.ChunksClient(proxy.url, stack.secret_key) as client:
        job = client.trigger_sync(kind, chunks=[{"n": 1}])

        def poll(number: int) -> int:
            found = 0
            for turn in range(20):
                time.sleep(0.015 + (number + turn) % 3 * 0.005)
                found += job.progress().total_chunks
            return found

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(poll, range(8))) == [20] * 8
    assert proxy.connections > 8, "or nothing was closed, and the test says nothing"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as above
def test_an_async_client_is_shared_by_the_loops_of_several_threads(stack: LocalStack) -> None:
    client = sc.AsyncChunksClient(stack.url, stack.secret_key)
    failures: list[BaseException] = []

    async def calls() -> None:
        await asyncio.gather(*(client.health() for _ in range(5)))

    def loop() -> None:
        try:
            asyncio.run(calls())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@BOTH
async def test_hundreds_of_polls_leave_no_file_open(stack: LocalStack, kind: str, which: str) -> None:
    async with both(which, stack.url, stack.secret_key) as client:
        job = await done(client.trigger_sync(kind, chunks=[{"n": 1}]))
        await done(job.progress())
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(500):
            await done(job.progress())
        assert len(os.listdir("/proc/self/fd")) <= before + 2


@BOTH
async def test_a_project_without_our_functions_says_how_to_install_them(which: str) -> None:
    with LocalStack(migrations=None, functions=None) as bare:
        async with both(which, bare.url, bare.secret_key) as client:
            for call in (
                lambda: client.health(),
                lambda: client.jobs(),
                lambda: client.trigger_sync("email"),
            ):
                with pytest.raises(sc.FunctionsNotInstalled, match="supabase db push"):
                    await done(call())


@BOTH
async def test_accounts_are_saved_listed_and_removed_and_the_password_never_comes_back(
    stack: LocalStack, which: str
) -> None:
    name = f"work-{uuid.uuid4().hex[:8]}"
    async with both(which, stack.url, stack.secret_key) as client:
        account = await done(
            client.email.save_account(name, host="imap.example.com", username="me", password="pw-1")
        )
        again = await done(
            client.email.save_account(
                name, host="imap2.example.com", username="me", password="pw-2", port=143
            )
        )
        assert account == again
        (found,) = [one for one in await done(client.email.accounts()) if one.name == name]
        assert (found.id, found.host, found.port, found.tls) == (
            account,
            "imap2.example.com",
            143,
            "implicit",
        )
        assert "pw-" not in repr(found)
        assert await done(client.email.folders(name)) == []
        with psycopg.connect(stack.db_url) as connection:
            connection.execute(
                "insert into public.email_folders (account_id, folder, special_use) select %s, 'Sent', '\\Sent'",
                [account],
            )
        assert [one.special_use for one in await done(client.email.folders(name))] == ["\\Sent"]
        with pytest.raises(sc.InvalidArgument, match=f"has no email account named '{name}'") as refused:
            await done(client.email.folders(name, owner_id=uuid.uuid4()))
        assert refused.value.details == "account"
        with pytest.raises(
            sc.InvalidArgument, match=f"no email account named '{name}x'; did you mean '{name}'"
        ):
            await done(client.email.folders(f"{name}x"))
        assert await done(client.email.remove_account(name)) is True
        users = [uuid.uuid4(), uuid.uuid4()]
        for user in users:
            login: dict[str, Any] = {"host": "imap.example.com", "username": "me", "password": "pw-3"}
            await done(client.email.save_account(name, owner_id=user, **login))
        with pytest.raises(sc.InvalidArgument, match=r"2 users have an email account .* owner_id says whose"):
            await done(client.email.folders(name))
        for user in users:
            assert await done(client.email.folders(name, owner_id=user)) == []
            await done(client.email.remove_account(name, owner_id=user))
        assert await done(client.email.remove_account(name)) is False


@BOTH
async def test_a_kind_keeps_what_is_not_given_and_is_removed_when_it_has_no_jobs(
    stack: LocalStack, which: str
) -> None:
    name = f"kept-{uuid.uuid4().hex[:8]}"
    async with both(which, stack.url, stack.secret_key) as client:
        await done(client.save_kind(name, handler="do-it", max_retries=7))
        saved = await done(client.save_kind(name, max_concurrency=2))
        assert (saved.handler, saved.max_retries, saved.max_concurrency) == ("do-it", 7, 2)
        assert (await done(client.save_kind(name, handler=""))).handler is None
        job = await done(client.trigger_sync(name, chunks=[{}]))
        with pytest.raises(sc.InvalidState, match="has jobs"):
            await done(client.remove_kind(name))
        await done(job.cancel())
        while (await done(client.purge(older_than=timedelta(0)))).more:
            pass
        assert await done(client.remove_kind(name)) is True
        assert await done(client.remove_kind(name)) is False


@BOTH
async def test_configure_answers_with_the_health_and_never_with_the_key(
    stack: LocalStack, which: str
) -> None:
    async with both(which, stack.url, stack.secret_key) as client:
        answer: sc.Health = await done(client.configure(stack.url, "sb_secret_for-the-processor"))
        assert answer.configured == Configured(project_url=True, processor_key=True)
        assert "for-the-processor" not in str(answer)
        with pytest.raises(sc.InvalidArgument):
            await done(client.configure("not a url", "sb_secret_x"))
