"""The web app: signed-in users start syncs of their own and watch them.

It holds the publishable key only. Each request acts as the user whose access token comes along, so the
database's row level security decides what they see; there is no check in this file that one could forget.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from supabase_chunks import AsyncChunksClient, AuthenticationError, ChunksError, JobNotFound, Progress

PAGE = Path(__file__).with_name("page.html")
SOURCES = {"contacts": 24, "calendar": 40, "photos": 60}  # what can be synced, and how many chunks each has
Source = Literal["contacts", "calendar", "photos"]


def user(request: Request) -> AsyncChunksClient:
    """A client that acts as the signed-in user; the connections are shared by all."""
    token = request.cookies.get("access_token")
    if token is None:
        raise HTTPException(401, "Please sign in.")
    client: AsyncChunksClient = request.app.state.client
    return client.as_user(token)


User = Annotated[AsyncChunksClient, Depends(user)]


def create_app(url: str, publishable_key: str) -> FastAPI:
    """Return the app for a Supabase project."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncChunksClient(url, publishable_key) as client:
            app.state.client = client
            yield

    app = FastAPI(title="My syncs", lifespan=lifespan)
    app.add_exception_handler(ChunksError, explain)
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/jobs", list_jobs)
    app.add_api_route("/jobs", start, methods=["POST"])
    app.add_api_route("/jobs/{id}/events", events)
    app.add_api_route("/jobs/{id}/cancel", cancel, methods=["POST"])
    app.add_api_route("/jobs/{id}/retry", retry, methods=["POST"])
    return app


async def page() -> FileResponse:
    """The page, which does the rest."""
    return FileResponse(PAGE)


async def list_jobs(user: User) -> list[Progress]:
    """The user's jobs, newest first."""
    return [job.snapshot for job in await user.jobs(limit=20) if job.snapshot]


async def start(user: User, source: Source) -> Progress:
    """Start a sync, or return the one of this source that is running already."""
    job = await user.trigger_sync(
        "import",
        chunks=[{"number": number} for number in range(1, SOURCES[source] + 1)],
        payload={"source": source},
        job_key=source,
    )
    return await job.progress()


async def events(user: User, id: UUID) -> StreamingResponse:  # noqa: A002 - named in the path
    """The job's progress as server-sent events, until it has ended."""
    job = user.job(id)
    await job.progress()  # not found: an answer with an error, and no stream

    async def stream() -> AsyncIterator[str]:
        async for progress in job.watch():
            yield f"data: {progress.model_dump_json()}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def cancel(user: User, id: UUID) -> Progress:  # noqa: A002
    """Cancel a job."""
    return await user.job(id).cancel()


async def retry(user: User, id: UUID) -> Progress:  # noqa: A002
    """Try the failed chunks of a job again."""
    return await user.job(id).retry_failed()


async def explain(_: Request, error: Exception) -> JSONResponse:
    """Answer with what went wrong; our errors hold no secrets."""
    status = 401 if isinstance(error, AuthenticationError) else 404 if isinstance(error, JobNotFound) else 400
    return JSONResponse({"detail": str(error)}, status_code=status)
