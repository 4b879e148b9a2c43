"""A sync job, to watch and to steer: `Job`, and `AsyncJob` with the same methods to await."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import operations, reads
from ._loop import warn_of_blocking
from ._show.words import describe
from ._typed import Typed
from ._watch import Watch
from .errors import UnexpectedResponse
from .states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    import pandas as pd  # type: ignore[import-untyped]  # only for the return type

    from ._driver import AsyncDriver, Driver
    from ._flow import Flow
    from .models import Attempt, ChunkRecord, Progress
    from .progress import ProgressOption
    from .states import ChunkStatusName
    from .throughput import Throughput
    from .timeline import Timeline

M = TypeVar("M")


class _Handle:
    """What both handles have: the id, and the progress seen last."""

    def __init__(self, id: UUID, snapshot: Progress | None) -> None:  # noqa: A002 - as it is called
        self.id = id
        self.snapshot = snapshot

    @property
    def snapshot(self) -> Progress | None:
        """The progress seen last, or None; `progress()` reads it anew."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, progress: Progress | None) -> None:
        self._snapshot = progress
        self._seen_at = None if progress is None else datetime.now().astimezone()

    @property
    def seen_at(self) -> datetime | None:
        """When that was, by this machine's clock."""
        return self._seen_at

    @property
    def created(self) -> bool:
        """Whether `trigger_sync` made this job, and did not find it running already under its `job_key`."""
        return self.snapshot is not None and self.snapshot.created

    def __repr__(self) -> str:
        state = "" if self.snapshot is None else f" ({describe(self.snapshot)})"
        return f"<{type(self).__name__} {self.id}{state}>"

    def _repr_html_(self) -> str:
        from ._show.html import job_line

        return job_line(self)

    def _seen(self, progress: Progress) -> Progress:
        created = self.created
        self.snapshot = progress.model_copy(update={"created": created}) if created else progress
        return progress


class Job(_Handle):
    """A sync job. Made by `client.trigger_sync()`, `client.job()` and `client.jobs()`.

    Example:
        >>> job = client.trigger_sync("custom", chunks=[{"page": 1}])
        >>> job.cancel().status
        <JobStatus.CANCELLED: 'cancelled'>
    """

    def __init__(
        self,
        driver: Driver,
        id: UUID,  # noqa: A002 - as it is called
        snapshot: Progress | None = None,
    ) -> None:
        """Take what sends its calls."""
        super().__init__(id, snapshot)
        self._driver = driver

    def progress(self) -> Progress:
        """Read how far the job is.

        Raises:
            JobNotFound: There is no such job, or it is not yours.

        Example:
            >>> progress = job.progress()
            >>> progress.status, progress.total_chunks
            (<JobStatus.PENDING: 'pending'>, 2)
        """
        return self._seen(self._driver.run(operations.get_sync_job_progress_safe(parent_sync_job_id=self.id)))

    def watch(self, *, interval: float | None = None, timeout: float | None = None) -> Iterator[Progress]:
        """Give the progress now and at each change, until the job has ended.

        It goes on over a server's restart. Leaving the loop leaves the job alone.

        Args:
            interval: Seconds between polls; adaptive when None (0.15 s to 5 s).
            timeout: Seconds.

        Raises:
            WaitTimeout: The job has not ended in time; it goes on.

        Example:
            >>> for progress in client.trigger_sync("custom", chunks=[{"page": 1}]).watch(timeout=60):
            ...     last = progress.percent_complete
            >>> last
            100.0
        """
        warn_of_blocking("watch()", "AsyncChunksClient's jobs")
        watch = Watch(self.id, self._driver.retry, interval=interval, timeout=timeout)
        while watch.last is None or not watch.last.ended:
            progress = self._driver.run_once(watch.poll())
            if progress is not None:
                yield self._seen(progress)

    def wait(
        self,
        *,
        timeout: float | None = None,
        progress: ProgressOption = False,
        raise_on_failure: bool = True,
        interval: float | None = None,
    ) -> Progress:
        """Wait until the job has ended.

        Args:
            timeout: Seconds; None waits for ever.
            progress: True shows a bar (plain lines where there is no terminal); or a function of a Progress;
                or a bar of yours (`rich.progress.Progress`, `tqdm`).
            raise_on_failure: Whether a failed or cancelled job is an error; if not, look at the `status`.
            interval: Seconds between polls, as for `watch`.

        Returns:
            The last progress.

        Raises:
            JobFailed: Some chunks failed; it holds the counts and the first errors.
            JobCancelled: Somebody cancelled it.
            WaitTimeout: The job has not ended in time; it goes on. So it does after Ctrl-C.

        Example:
            >>> client.trigger_sync("custom", chunks=[{"page": 1}]).wait(timeout=60, progress=True).status
            <JobStatus.COMPLETED: 'completed'>
        """
        from ._wait import Waiting

        warn_of_blocking("wait()", "AsyncChunksClient's jobs")
        waiting = Waiting(self.id, self._driver.retry, interval=interval, timeout=timeout, progress=progress)
        try:
            while not waiting.is_over:
                news = self._driver.run_once(waiting.look())
                if news.progress is not None:
                    self._seen(news.progress)
                waiting.show(news)
        except KeyboardInterrupt as reason:
            waiting.interrupted(reason)
            raise
        finally:
            waiting.close()
        return self._driver.run(waiting.outcome(raise_on_failure=raise_on_failure))

    def cancel(self) -> Progress:
        """End the pending and the processing chunks; what is completed stays. Safe to repeat.

        Example:
            >>> job.cancel().cancelled_chunks
            2
        """
        return self._seen(self._driver.run(operations.cancel_sync_job(parent_sync_job_id=self.id)))

    def pause(self) -> Progress:
        """Hand out no more chunks; those that are being worked on finish. Safe to repeat.

        Example:
            >>> job.pause().status
            <JobStatus.PAUSED: 'paused'>
        """
        return self._seen(self._driver.run(operations.pause_sync_job(parent_sync_job_id=self.id)))

    def resume(self) -> Progress:
        """Go on after a pause. Safe to repeat.

        Example:
            >>> job.pause().status, job.resume().status
            (<JobStatus.PAUSED: 'paused'>, <JobStatus.PENDING: 'pending'>)
        """
        return self._seen(self._driver.run(operations.resume_sync_job(parent_sync_job_id=self.id)))

    def retry_failed(self, *, from_start: bool = False) -> Progress:
        """Reopen the failed chunks, and only them.

        Args:
            from_start: Whether they begin anew; they go on from their checkpoints otherwise.

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> client.queue.fail(claim, "there is no such page", retryable=False).outcome
            <Outcome.FAILED: 'failed'>
            >>> job.retry_failed().failed_chunks
            0
        """
        flow = operations.retry_failed_chunks(parent_sync_job_id=self.id, from_start=from_start or None)
        return self._seen(self._driver.run(flow))

    def chunks(
        self, *, status: ChunkStatus | ChunkStatusName | None = None, limit: int | None = None
    ) -> list[ChunkRecord]:
        """Read the chunks in their order, all of them or those in a state.

        Raises:
            JobNotFound: There is no such job, or it is not yours.
            InvalidArgument: There is no such state.

        Example:
            >>> [chunk.payload for chunk in job.chunks(status="pending")]
            [{'page': 1}, {'page': 2}]
        """
        from ._show.html import ChunkList

        flow = reads.list_chunks(parent_sync_job_id=self.id, status=status, limit=limit)
        return ChunkList(self._driver.run(flow))

    @overload
    def results(self) -> list[Any]: ...
    @overload
    def results(self, *, model: type[M]) -> list[M]: ...
    def results(self, *, model: type[M] | None = None) -> list[Any] | list[M]:
        """Read the results of the completed chunks in their order, as JSON or as `model`.

        Args:
            model: A pydantic model, a dataclass, a TypedDict, or what else pydantic knows.

        Raises:
            JobNotFound: There is no such job, or it is not yours.
            InvalidArgument: The `model` is nothing that can be checked.
            UnexpectedResponse: A result is not a `model`.

        Example:
            >>> class Page(BaseModel):
            ...     rows: int
            >>> done = client.trigger_sync("custom", chunks=[{"page": 1}])
            >>> done.wait().completed_chunks
            1
            >>> done.results(), done.results(model=Page)
            ([{'rows': 12}], [Page(rows=12)])
        """
        typed = None if model is None else Typed(model, "model")
        return _results(self.chunks(status=ChunkStatus.COMPLETED), typed)

    def attempts(self) -> list[Attempt]:
        """Read the attempts that did not complete, each with its error, in the order of their ends.

        Raises:
            JobNotFound: There is no such job, or it is not yours.

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> answer = client.queue.fail(claim, "the API is down", retry_after_seconds=60)
            >>> [(attempt.outcome, attempt.error) for attempt in job.attempts()]
            [('retrying', 'the API is down')]
        """
        return self._driver.run(_attempts(self.id))

    def to_pandas(self) -> pd.DataFrame:
        """Return the chunks as a DataFrame, a row a chunk. Needs pandas (the extra `plots`).

        Payload and result are JSON text, so that the table can be written to any format:
        `table["result"].map(json.loads, na_action="ignore")` makes values of them.

        Example:
            >>> job.to_pandas()["status"].value_counts().to_dict()
            {'pending': 2}
        """
        return _dataframe(self.chunks())

    def timeline(self) -> Timeline:
        """Return when each chunk ran; it prints as a chart, and its `plot()` draws one.

        Example:
            >>> print(job.timeline())
            no chunk has started yet
        """
        return self._driver.run(_timeline(self.id))

    def throughput(self) -> Throughput:
        """Return how fast the work was done; it prints as a line of bars, and its `plot()` draws a picture.

        Example:
            >>> print(job.throughput())
            no chunk has been completed yet
        """
        return _throughput(self.chunks())


class AsyncJob(_Handle):
    """A sync job, with the methods of `Job` to await."""

    def __init__(
        self,
        driver: AsyncDriver,
        id: UUID,  # noqa: A002 - as it is called
        snapshot: Progress | None = None,
    ) -> None:
        """Take what sends its calls."""
        super().__init__(id, snapshot)
        self._driver = driver

    async def progress(self) -> Progress:
        """Read how far the job is."""
        return self._seen(
            await self._driver.run(operations.get_sync_job_progress_safe(parent_sync_job_id=self.id))
        )

    async def watch(
        self, *, interval: float | None = None, timeout: float | None = None
    ) -> AsyncIterator[Progress]:
        """Give the progress now and at each change, until the job has ended."""
        watch = Watch(self.id, self._driver.retry, interval=interval, timeout=timeout)
        while watch.last is None or not watch.last.ended:
            progress = await self._driver.run_once(watch.poll())
            if progress is not None:
                yield self._seen(progress)

    async def wait(
        self,
        *,
        timeout: float | None = None,
        progress: ProgressOption = False,
        raise_on_failure: bool = True,
        interval: float | None = None,
    ) -> Progress:
        """Wait until the job has ended; see `Job.wait`."""
        import asyncio

        from ._wait import Waiting

        waiting = Waiting(self.id, self._driver.retry, interval=interval, timeout=timeout, progress=progress)
        try:
            while not waiting.is_over:
                news = await self._driver.run_once(waiting.look())
                if news.progress is not None:
                    self._seen(news.progress)
                waiting.show(news)
        except (KeyboardInterrupt, asyncio.CancelledError) as reason:
            waiting.interrupted(reason)
            raise
        finally:
            waiting.close()
        return await self._driver.run(waiting.outcome(raise_on_failure=raise_on_failure))

    async def cancel(self) -> Progress:
        """End the pending and the processing chunks; what is completed stays."""
        return self._seen(await self._driver.run(operations.cancel_sync_job(parent_sync_job_id=self.id)))

    async def pause(self) -> Progress:
        """Hand out no more chunks; those that are being worked on finish."""
        return self._seen(await self._driver.run(operations.pause_sync_job(parent_sync_job_id=self.id)))

    async def resume(self) -> Progress:
        """Go on after a pause."""
        return self._seen(await self._driver.run(operations.resume_sync_job(parent_sync_job_id=self.id)))

    async def retry_failed(self, *, from_start: bool = False) -> Progress:
        """Reopen the failed chunks, and only them."""
        flow = operations.retry_failed_chunks(parent_sync_job_id=self.id, from_start=from_start or None)
        return self._seen(await self._driver.run(flow))

    async def chunks(
        self, *, status: ChunkStatus | ChunkStatusName | None = None, limit: int | None = None
    ) -> list[ChunkRecord]:
        """Read the chunks in their order, all of them or those in a state."""
        from ._show.html import ChunkList

        flow = reads.list_chunks(parent_sync_job_id=self.id, status=status, limit=limit)
        return ChunkList(await self._driver.run(flow))

    @overload
    async def results(self) -> list[Any]: ...
    @overload
    async def results(self, *, model: type[M]) -> list[M]: ...
    async def results(self, *, model: type[M] | None = None) -> list[Any] | list[M]:
        """Read the results of the completed chunks in their order, as JSON or as `model`."""
        typed = None if model is None else Typed(model, "model")
        return _results(await self.chunks(status=ChunkStatus.COMPLETED), typed)

    async def attempts(self) -> list[Attempt]:
        """Read the attempts that did not complete, each with its error, in the order of their ends."""
        return await self._driver.run(_attempts(self.id))

    async def to_pandas(self) -> pd.DataFrame:
        """Return the chunks as a DataFrame, a row a chunk."""
        return _dataframe(await self.chunks())

    async def timeline(self) -> Timeline:
        """Return when each chunk ran."""
        return await self._driver.run(_timeline(self.id))

    async def throughput(self) -> Throughput:
        """Return how fast the work was done."""
        return _throughput(await self.chunks())


def _results(chunks: list[ChunkRecord], typed: Typed[M] | None) -> list[Any] | list[M]:
    if typed is None:
        return [chunk.result for chunk in chunks]
    return [_result(chunk, typed) for chunk in chunks]


def _result(chunk: ChunkRecord, typed: Typed[M]) -> M:
    what = f"the result of chunk {chunk.chunk_index}"
    return typed.read(chunk.result, lambda misfit: UnexpectedResponse(f"{what} {misfit}"))


def _timeline(job_id: UUID) -> Flow[Timeline]:
    from .timeline import Timeline

    chunks = yield from reads.list_chunks(parent_sync_job_id=job_id)
    return Timeline.of(chunks, (yield from operations.list_chunk_attempts(parent_sync_job_id=job_id)))


def _attempts(job_id: UUID) -> Flow[list[Attempt]]:
    found = yield from operations.list_chunk_attempts(parent_sync_job_id=job_id)
    if not found:
        yield from reads.check_job(job_id)
    return found


def _throughput(chunks: list[ChunkRecord]) -> Throughput:
    from .throughput import Throughput

    return Throughput(chunks)


def _dataframe(chunks: list[ChunkRecord]) -> pd.DataFrame:
    from ._show.dataframe import dataframe
    from .models import ChunkRecord

    # An enum's values become text, as pandas would otherwise keep objects.
    rows = [{**chunk.model_dump(), "status": chunk.status.value} for chunk in chunks]
    return dataframe(rows, list(ChunkRecord.model_fields))
