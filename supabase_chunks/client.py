"""The clients: `ChunksClient`, and `AsyncChunksClient` with the same methods to await."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import operations, reads
from ._credentials import AsyncToken, Credentials, FixedCredentials, SupabaseCredentials, Token, environment
from ._driver import AsyncDriver, Driver
from ._encode import encode_object
from ._flow import Flow, Retry, logger
from ._http import AsyncHttpTransport, HttpTransport
from ._pages import Chunks, pages, pages_async
from ._pool import AsyncPool, Pool
from ._trigger import Trigger, as_uuid
from .email import AsyncEmail, Email
from .errors import ChunksError
from .jobs import AsyncJob, Job
from .queue import AsyncQueue, Queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from datetime import timedelta
    from uuid import UUID

    import httpx
    import supabase

    from .health import Health
    from .models import Kind, Limit, Purged
    from .states import JobStatus, JobStatusName

T = TypeVar("T")


class ChunksClient:
    """A Supabase project that supabase-chunks is installed in. Threads may share it.

    Example:
        >>> client = ChunksClient.from_env()
        >>> job = client.trigger_sync("email", payload={"account": "work"}, job_key="work")
        >>> job.wait(progress=True).status
        <JobStatus.COMPLETED: 'completed'>
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        access_token: Token | None = None,
        http_client: httpx.Client | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> None:
        """Set up a client; nothing is sent yet.

        Args:
            url: The project's URL.
            key: A secret key, or a publishable one together with a user's access token; legacy keys work too.
            access_token: The signed-in user's token, or a function that returns it, asked at each request.
            http_client: An httpx client to use; it stays yours to close, and keeps its timeouts.
            timeout: Seconds that a request may take; 30 unless told otherwise.
            retry: How failed requests are repeated.

        Raises:
            ConfigurationError: The URL or the key cannot be right.
        """
        self._set_up(FixedCredentials(url, key, access_token), Pool(http_client, timeout), retry, owner=True)

    def _set_up(self, credentials: Credentials, pool: Pool, retry: Retry | None, *, owner: bool) -> None:
        self._credentials = credentials
        self._pool = pool
        self._owner = owner
        self._driver = Driver(HttpTransport(credentials, pool), retry or Retry())
        self.email: Email = Email(self._driver)
        self.queue: Queue = Queue(self._driver)

    @classmethod
    def _of(cls, credentials: Credentials, pool: Pool, retry: Retry | None, *, owner: bool) -> Self:
        client = cls.__new__(cls)
        client._set_up(credentials, pool, retry, owner=owner)
        return client

    @classmethod
    def from_env(
        cls,
        *,
        http_client: httpx.Client | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Set up a client from SUPABASE_URL and SUPABASE_SECRET_KEY (or SUPABASE_SERVICE_ROLE_KEY).

        Raises:
            ConfigurationError: One of them is missing; the message names it.

        Example:
            >>> ChunksClient.from_env().kinds()[0].kind
            'custom'
        """
        url, key = environment()
        return cls(url, key, http_client=http_client, timeout=timeout, retry=retry)

    @classmethod
    def from_supabase(
        cls, client: supabase.Client, *, timeout: float | None = None, retry: Retry | None = None
    ) -> Self:
        """Act as a client of supabase-py: its URL, its key, and its session's token as it is at each request.

        Raises:
            TypeError: That is an async client, or no client of supabase-py.

        Example:
            >>> client = ChunksClient.from_supabase(supabase.create_client(url, key))
            >>> len(client.jobs(kind="reports", status="pending"))
            1
        """
        return cls._of(
            SupabaseCredentials(client, asynchronous=False), Pool(None, timeout), retry, owner=True
        )

    def as_user(self, token: Token) -> Self:
        """Return a client that acts as a signed-in user, over the connections of this one.

        Example:
            >>> jobs = client.as_user(request_token).jobs()   # in a web app: this user's jobs only
        """
        credentials = FixedCredentials(self._credentials.url, self._credentials.key, token)
        return self._of(credentials, self._pool, self._driver.retry, owner=False)

    def trigger_sync(
        self,
        kind: str,
        *,
        chunks: Chunks | None = None,
        total_items: int | None = None,
        chunk_size: int | None = None,
        payload: object = None,
        job_key: str | None = None,
        priority: int | None = None,
        max_concurrency: int | None = None,
        max_retries: int | None = None,
        owner_id: UUID | str | None = None,
        limit_key: str | None = None,
    ) -> Job:
        """Start a sync.

        What there is to do is said by `chunks` (a payload a chunk), or by `total_items` and `chunk_size`, or
        by the kind's handler, which then plans in its first chunk.

        Args:
            kind: What sort of sync; `save_kind` adds one.
            chunks: Any iterable of JSON objects (mappings, pydantic models, dataclasses), or a pandas Series
                or DataFrame, whose missing values become null. Sent in pages, so it may be long and is
                never held whole.
            total_items: How many items there are to cut into chunks.
            chunk_size: How many of them a chunk gets.
            payload: What every chunk may need, a JSON object.
            job_key: With it there is at most one running job of that kind and key; if there is one already,
                that is returned (its `created` is False), and `chunks` are not read beyond the first page.
            priority: From -3 to 3; higher goes first.
            max_concurrency: How many chunks may be worked on at once; as the kind says unless given.
            max_retries: How often a failed chunk is tried again.
            owner_id: The user whose job it is. A signed-in user's is always their own.
            limit_key: What it shares limits by with other jobs, whatever their kinds; as the kind's
                `limit_by` says unless given. Not for signed-in users.

        Returns:
            The job.

        Raises:
            PayloadError: Something cannot be sent as JSON; the error names its path.
            UnknownKind: There is no such kind.
            InvalidArgument: An argument is not valid.
            LimitExceeded: A limit of the user is reached.

        Example:
            >>> job = client.trigger_sync("custom", chunks=[{"page": n} for n in range(3)])
            >>> job.wait().completed_chunks
            3
        """
        trigger = Trigger(
            kind,
            payload=payload,
            owner_id=owner_id,
            total_items=total_items,
            chunk_size=chunk_size,
            job_key=job_key,
            priority=priority,
            max_concurrency=max_concurrency,
            max_retries=max_retries,
            limit_key=limit_key,
        )
        try:
            for page, last in pages(chunks):
                self._driver.run(trigger.send(page, last=last))
                if last or trigger.joined:
                    break
        except BaseException as error:
            if trigger.unfinished:
                error.add_note(trigger.half_made())
                self._try(trigger.cancel())
            raise
        return Job(self._driver, trigger.started.id, trigger.started)

    def job(self, id: UUID | str) -> Job:  # noqa: A002 - what it is
        """Return a job by its id; nothing is sent.

        Example:
            >>> client.job(job.id).progress().total_chunks
            2
        """
        return Job(self._driver, as_uuid(id, "id"))

    def jobs(
        self,
        *,
        status: JobStatus | JobStatusName | None = None,
        kind: str | None = None,
        job_key: str | None = None,
        limit: int | None = 100,
    ) -> list[Job]:
        """Read the jobs, newest first; each has its `snapshot`. A signed-in user sees their own.

        Raises:
            InvalidArgument: There is no such state.
            UnknownKind: There is no such kind.

        Example:
            >>> for job in client.jobs(kind="reports", status="failed"):
            ...     job.retry_failed()
        """
        from ._show.html import JobList

        flow = reads.list_jobs(status=status, kind=kind, job_key=job_key, limit=limit)
        found = self._driver.run(flow)
        return JobList(Job(self._driver, progress.id, progress) for progress in found)

    def save_kind(
        self,
        kind: str,
        *,
        handler: str | None = None,
        max_concurrency: int | None = None,
        max_retries: int | None = None,
        lease_seconds: int | None = None,
        retry_delay_seconds: int | None = None,
        user_startable: bool | None = None,
        limit_by: str | None = None,
        limit_each: int | None = None,
    ) -> Kind:
        """Add a kind, or change one. Needs a secret key.

        What is None stays as it is; a new kind then has the values in brackets.

        Args:
            kind: Its name.
            handler: The Edge Function that works its chunks (none); "": Python workers do.
            max_concurrency: How many chunks of one job may be worked on at once (1).
            max_retries: How often a failed chunk is tried again (3).
            lease_seconds: How long a claim holds without a heartbeat (600).
            retry_delay_seconds: The pause before the first retry (10); it doubles with each.
            user_startable: Whether signed-in users may start it (no).
            limit_by: By what its jobs share limits (nothing): a field of their payload, or `owner_id`; "":
                nothing any more. The key is `kind:owner:value`.
            limit_each: How many chunks of those that share may be worked on at once (any); 0: any.

        Example:
            >>> client.save_kind("reports", max_concurrency=8, user_startable=True).max_retries
            3
        """
        return self._driver.run(
            operations.save_sync_kind(
                kind=kind,
                handler=handler,
                max_concurrency=max_concurrency,
                max_retries=max_retries,
                lease_seconds=lease_seconds,
                retry_delay_seconds=retry_delay_seconds,
                user_startable=user_startable,
                limit_by=limit_by,
                limit_each=limit_each,
            )
        )

    def sync_state(self, kind: str, job_key: str, *, owner_id: UUID | None = None) -> Any:
        """Read what the last completed sync of that kind, key and owner has left, or None.

        Needs a secret key.

        Example:
            >>> client.save_sync_state("reports", "nightly", {"since": "2026-01-31"})
            >>> client.sync_state("reports", "nightly")
            {'since': '2026-01-31'}
        """
        return self._driver.run(operations.get_sync_state(kind=kind, job_key=job_key, owner_id=owner_id))

    def save_sync_state(
        self, kind: str, job_key: str, state: object, *, owner_id: UUID | None = None
    ) -> None:
        """Set what the next sync of that kind, key and owner starts from. Needs a secret key.

        Jobs that are under way do not replace it when they complete.

        Args:
            kind: The kind.
            job_key: The key that the syncs are started with.
            state: A JSON object of at most 64 KB; None forgets it.
            owner_id: The user whose syncs they are; the service's own unless given.

        Raises:
            UnknownKind: There is no such kind.
            LimitExceeded: It is too large.
            PayloadError: It is no JSON object.

        Example:
            >>> client.save_sync_state("reports", "nightly", {"since": "2026-01-31"})
            >>> client.save_sync_state("reports", "nightly", None)
        """
        encoded = None if state is None else encode_object(state, "state")
        self._driver.run(
            operations.save_sync_state(kind=kind, job_key=job_key, state=encoded, owner_id=owner_id)
        )

    def remove_kind(self, kind: str) -> bool:
        """Remove a kind; returns whether there was one. Needs a secret key.

        Raises:
            InvalidState: Jobs of it exist, running or ended.

        Example:
            >>> client.remove_kind("never-saved")
            False
        """
        return self._driver.run(operations.remove_sync_kind(kind=kind))

    def kinds(self) -> list[Kind]:
        """Read the kinds.

        Example:
            >>> [kind.kind for kind in client.kinds()][:2]
            ['custom', 'email']
        """
        return self._driver.run(reads.list_kinds())

    def limits(self) -> list[Limit]:
        """Read the limit keys that have limits, are blocked, or have chunks waiting. Needs a secret key.

        Example:
            >>> client.save_limit("an-api", max_concurrency=4, rate=10)
            Limit(key='an-api', max_concurrency=4, rate=10, per_seconds=1, ...)
            >>> [limit.rate for limit in client.limits() if limit.key == "an-api"]
            [10]
        """
        return self._driver.run(operations.list_sync_limits())

    def save_limit(
        self, key: str, *, max_concurrency: int | None = None, rate: int | None = None, per_seconds: int = 1
    ) -> Limit:
        """Set what the jobs with a limit key share; what is None is not limited. Needs a secret key.

        Args:
            key: The jobs' `limit_key`.
            max_concurrency: How many of their chunks may be worked on at once, at most 10,000.
            rate: How many requests their handlers may make within `per_seconds`, as far as they ask
                `chunk.pace()`.
            per_seconds: The time that the rate is for, in seconds.

        Raises:
            InvalidArgument: An argument is not valid.

        Example:
            >>> client.save_limit("an-api", rate=100, per_seconds=60).max_concurrency
        """
        return self._driver.run(
            operations.save_sync_limit(
                key=key, max_concurrency=max_concurrency, rate=rate, per_seconds=per_seconds
            )
        )

    def block_limit(self, key: str, seconds: float, *, reason: str | None = None) -> Limit:
        """Hand out no chunk with a limit key for so many seconds; 0 ends a block. Needs a secret key.

        Chunks that are being worked on go on.

        Args:
            key: The jobs' `limit_key`.
            seconds: For how long, at most a week.
            reason: Why; shown to the service.

        Example:
            >>> client.block_limit("an-api", 60, reason="maintenance").blocked_reason
            'maintenance'
        """
        return self._driver.run(
            operations.block_sync_limit(key=key, seconds=math.ceil(seconds), reason=reason)
        )

    def configure(self, project_url: str, processor_key: str) -> Health:
        """Write the URL and the key that the database's webhooks use into Vault; return the health.

        Args:
            project_url: The project's URL as the database reaches it; in Docker's local stack an inner one.
            processor_key: A secret key of the project; it is never returned.

        Example:
            >>> client.configure(url, key).configured.processor_key
            True
        """
        flow = operations.configure_chunk_processing(project_url=project_url, processor_key=processor_key)
        return self._driver.run(flow)

    def cleanup_stuck_chunks(self, *, stuck_after: timedelta | None = None) -> int:
        """Recover chunks whose worker is gone, as the watchdog does; return how many.

        Args:
            stuck_after: Those without claim or heartbeat for that long; when None, those whose lease is over.

        Example:
            >>> client.cleanup_stuck_chunks(stuck_after=timedelta(hours=1))
            0
        """
        return self._driver.run(operations.cleanup_stuck_chunks(stuck_after=stuck_after))

    def trigger_next_chunk_processing(self, *, job_id: UUID | str | None = None) -> int:
        """Send the webhooks that are due now, of all jobs or one; return how many.

        Example:
            >>> client.trigger_next_chunk_processing(job_id=job.id)  # the kind has no handler
            0
        """
        only = None if job_id is None else as_uuid(job_id, "job_id")
        return self._driver.run(operations.trigger_next_chunk_processing(parent_sync_job_id=only))

    def purge(self, *, older_than: timedelta | None = None, batch_size: int | None = None) -> Purged:
        """Delete ended jobs (of more than 30 days ago) in one batch.

        Example:
            >>> client.purge(older_than=timedelta(days=365)).jobs
            0
        """
        return self._driver.run(operations.purge_sync_jobs(older_than=older_than, batch_size=batch_size))

    def health(self) -> Health:
        """Read how the installation is: extensions, settings, webhooks and their outcomes, stalled jobs.

        Needs a secret key.

        Example:
            >>> client.health().configured.project_url
            True
        """
        return self._driver.run(operations.chunk_system_health())

    def close(self) -> None:
        """Close the connections, unless they are an httpx client's of yours, or another client's.

        Example:
            >>> ChunksClient(url, key).close()
        """
        if self._owner:
            self._pool.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return the URL, and no secret."""
        return f"<{type(self).__name__} {self._credentials.url}>"

    def _sibling(self) -> ChunksClient:
        """Return a client of the same project on connections of its own, for another thread."""
        return ChunksClient._of(
            self._credentials, Pool(self._pool.given, self._pool.timeout), self._driver.retry, owner=True
        )

    def _try(self, flow: Flow[T]) -> None:
        try:
            self._driver.run(flow)
        except ChunksError as error:
            logger.warning("could not clean up: %s", error)


class AsyncChunksClient:
    """A Supabase project that supabase-chunks is installed in, with the methods of `ChunksClient` to await.

    It may be used under several event loops, one after the other or in several threads.

    Example:
        >>> async with AsyncChunksClient.from_env() as client:
        ...     job = await client.trigger_sync("custom", chunks=[{"page": 1}])
        ...     await job.wait()
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        access_token: AsyncToken | None = None,
        http_client: httpx.AsyncClient | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> None:
        """Set up a client; see `ChunksClient`. The token's function may be a coroutine function."""
        self._set_up(
            FixedCredentials(url, key, access_token), AsyncPool(http_client, timeout), retry, owner=True
        )

    def _set_up(self, credentials: Credentials, pool: AsyncPool, retry: Retry | None, *, owner: bool) -> None:
        self._credentials = credentials
        self._pool = pool
        self._owner = owner
        self._driver = AsyncDriver(AsyncHttpTransport(credentials, pool), retry or Retry())
        self.email: AsyncEmail = AsyncEmail(self._driver)
        self.queue: AsyncQueue = AsyncQueue(self._driver)

    @classmethod
    def _of(cls, credentials: Credentials, pool: AsyncPool, retry: Retry | None, *, owner: bool) -> Self:
        client = cls.__new__(cls)
        client._set_up(credentials, pool, retry, owner=owner)
        return client

    @classmethod
    def from_env(
        cls,
        *,
        http_client: httpx.AsyncClient | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Set up a client from SUPABASE_URL and SUPABASE_SECRET_KEY (or SUPABASE_SERVICE_ROLE_KEY)."""
        url, key = environment()
        return cls(url, key, http_client=http_client, timeout=timeout, retry=retry)

    @classmethod
    def from_supabase(
        cls, client: supabase.AsyncClient, *, timeout: float | None = None, retry: Retry | None = None
    ) -> Self:
        """Act as an async client of supabase-py; a sync one is a TypeError."""
        return cls._of(
            SupabaseCredentials(client, asynchronous=True), AsyncPool(None, timeout), retry, owner=True
        )

    def as_user(self, token: AsyncToken) -> Self:
        """Return a client that acts as a signed-in user, over the connections of this one."""
        credentials = FixedCredentials(self._credentials.url, self._credentials.key, token)
        return self._of(credentials, self._pool, self._driver.retry, owner=False)

    async def trigger_sync(
        self,
        kind: str,
        *,
        chunks: Chunks | AsyncIterable[object] | None = None,
        total_items: int | None = None,
        chunk_size: int | None = None,
        payload: object = None,
        job_key: str | None = None,
        priority: int | None = None,
        max_concurrency: int | None = None,
        max_retries: int | None = None,
        owner_id: UUID | str | None = None,
        limit_key: str | None = None,
    ) -> AsyncJob:
        """Start a sync; see `ChunksClient.trigger_sync`. `chunks` may be an async iterable."""
        trigger = Trigger(
            kind,
            payload=payload,
            owner_id=owner_id,
            total_items=total_items,
            chunk_size=chunk_size,
            job_key=job_key,
            priority=priority,
            max_concurrency=max_concurrency,
            max_retries=max_retries,
            limit_key=limit_key,
        )
        try:
            async for page, last in pages_async(chunks):
                await self._driver.run(trigger.send(page, last=last))
                if last or trigger.joined:
                    break
        except BaseException as error:
            if trigger.unfinished:
                error.add_note(trigger.half_made())
                await self._try(trigger.cancel())
            raise
        return AsyncJob(self._driver, trigger.started.id, trigger.started)

    def job(self, id: UUID | str) -> AsyncJob:  # noqa: A002 - what it is
        """Return a job by its id; nothing is sent."""
        return AsyncJob(self._driver, as_uuid(id, "id"))

    async def jobs(
        self,
        *,
        status: JobStatus | JobStatusName | None = None,
        kind: str | None = None,
        job_key: str | None = None,
        limit: int | None = 100,
    ) -> list[AsyncJob]:
        """Read the jobs, newest first; each has its `snapshot`."""
        from ._show.html import JobList

        flow = reads.list_jobs(status=status, kind=kind, job_key=job_key, limit=limit)
        return JobList(
            AsyncJob(self._driver, progress.id, progress) for progress in await self._driver.run(flow)
        )

    async def save_kind(
        self,
        kind: str,
        *,
        handler: str | None = None,
        max_concurrency: int | None = None,
        max_retries: int | None = None,
        lease_seconds: int | None = None,
        retry_delay_seconds: int | None = None,
        user_startable: bool | None = None,
        limit_by: str | None = None,
        limit_each: int | None = None,
    ) -> Kind:
        """Add a kind, or change what is given of one."""
        return await self._driver.run(
            operations.save_sync_kind(
                kind=kind,
                handler=handler,
                max_concurrency=max_concurrency,
                max_retries=max_retries,
                lease_seconds=lease_seconds,
                retry_delay_seconds=retry_delay_seconds,
                user_startable=user_startable,
                limit_by=limit_by,
                limit_each=limit_each,
            )
        )

    async def sync_state(self, kind: str, job_key: str, *, owner_id: UUID | None = None) -> Any:
        """Read what the last completed sync of that kind, key and owner has left, or None."""
        return await self._driver.run(
            operations.get_sync_state(kind=kind, job_key=job_key, owner_id=owner_id)
        )

    async def save_sync_state(
        self, kind: str, job_key: str, state: object, *, owner_id: UUID | None = None
    ) -> None:
        """Set what the next sync of that kind, key and owner starts from; None forgets it."""
        encoded = None if state is None else encode_object(state, "state")
        await self._driver.run(
            operations.save_sync_state(kind=kind, job_key=job_key, state=encoded, owner_id=owner_id)
        )

    async def remove_kind(self, kind: str) -> bool:
        """Remove a kind that has no jobs."""
        return await self._driver.run(operations.remove_sync_kind(kind=kind))

    async def kinds(self) -> list[Kind]:
        """Read the kinds."""
        return await self._driver.run(reads.list_kinds())

    async def limits(self) -> list[Limit]:
        """Read the limit keys that have limits, are blocked, or have chunks waiting."""
        return await self._driver.run(operations.list_sync_limits())

    async def save_limit(
        self, key: str, *, max_concurrency: int | None = None, rate: int | None = None, per_seconds: int = 1
    ) -> Limit:
        """Set what the jobs with a limit key share; what is None is not limited."""
        return await self._driver.run(
            operations.save_sync_limit(
                key=key, max_concurrency=max_concurrency, rate=rate, per_seconds=per_seconds
            )
        )

    async def block_limit(self, key: str, seconds: float, *, reason: str | None = None) -> Limit:
        """Hand out no chunk with a limit key for so many seconds; 0 ends a block."""
        return await self._driver.run(
            operations.block_sync_limit(key=key, seconds=math.ceil(seconds), reason=reason)
        )

    async def configure(self, project_url: str, processor_key: str) -> Health:
        """Write the URL and the key that the database's webhooks use into Vault; return the health."""
        flow = operations.configure_chunk_processing(project_url=project_url, processor_key=processor_key)
        return await self._driver.run(flow)

    async def cleanup_stuck_chunks(self, *, stuck_after: timedelta | None = None) -> int:
        """Recover chunks whose worker is gone, as the watchdog does; return how many."""
        return await self._driver.run(operations.cleanup_stuck_chunks(stuck_after=stuck_after))

    async def trigger_next_chunk_processing(self, *, job_id: UUID | str | None = None) -> int:
        """Send the webhooks that are due now, of all jobs or one; return how many."""
        only = None if job_id is None else as_uuid(job_id, "job_id")
        return await self._driver.run(operations.trigger_next_chunk_processing(parent_sync_job_id=only))

    async def purge(self, *, older_than: timedelta | None = None, batch_size: int | None = None) -> Purged:
        """Delete ended jobs (of more than 30 days ago) in one batch."""
        return await self._driver.run(
            operations.purge_sync_jobs(older_than=older_than, batch_size=batch_size)
        )

    async def health(self) -> Health:
        """Read how the installation is."""
        return await self._driver.run(operations.chunk_system_health())

    async def aclose(self) -> None:
        """Close the running loop's connections, unless they are another client's."""
        if self._owner:
            await self._pool.aclose()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""
        await self.aclose()

    def __repr__(self) -> str:
        """Return the URL, and no secret."""
        return f"<{type(self).__name__} {self._credentials.url}>"

    def _sync_sibling(self) -> ChunksClient:
        """Return a sync client of the same project, with the key alone: a coroutine may give the token."""
        credentials = FixedCredentials(self._credentials.url, self._credentials.key)
        return ChunksClient._of(credentials, Pool(None, self._pool.timeout), self._driver.retry, owner=True)

    async def _try(self, flow: Flow[T]) -> None:
        try:
            await self._driver.run(flow)
        except ChunksError as error:
            logger.warning("could not clean up: %s", error)
