"""The web app on this machine: a project, a worker, and two users to sign in as.

    pip install 'supabase-chunks[local]' fastapi uvicorn
    python examples/fastapi_app/run.py

In a project of yours users sign in with Supabase Auth, and the worker is a process of its own.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid5

import uvicorn
from app import create_app
from fastapi.responses import HTMLResponse, RedirectResponse

from supabase_chunks import Chunk, ChunksClient, PermanentFailure, RetryLater, Worker
from supabase_chunks.local import LocalStack

USERS = ("Ada", "Grace")
NAMESPACE = UUID("5a0c1a5e-0000-4000-8000-000000000000")


def handler(chunk: Chunk) -> dict[str, int]:
    """Do a chunk: here it takes a moment, is refused once, and one cannot be done."""
    time.sleep(0.1)
    number, source = chunk.payload["number"], chunk.job_payload["source"]
    if source == "calendar" and number % 10 == 5 and chunk.attempt == 1:
        raise RetryLater(1, "the calendar asks for a pause")
    if source == "photos" and number == 33:
        raise PermanentFailure("photo 33 is no picture")
    return {"entries": 10}


@contextmanager
def working(stack: LocalStack) -> Iterator[None]:
    """A worker with the secret key, which the web app does not have."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("import", max_concurrency=4, user_startable=True)
        worker = Worker(client, handler, kinds=["import"], concurrency=8)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            thread.join()


def main() -> None:
    """Start everything; Ctrl-C ends it."""
    with LocalStack(on_note=print) as stack, working(stack):
        app = create_app(stack.url, stack.publishable_key)

        @app.get("/sign-in")
        def choose() -> HTMLResponse:
            links = "".join(f'<p><a href="/sign-in/{name}">Sign in as {name}</a>' for name in USERS)
            return HTMLResponse(
                f'<meta charset="utf-8"><body style="font: 18px system-ui; margin: 3em">{links}'
            )

        @app.get("/sign-in/{name}")
        def sign_in(name: str) -> RedirectResponse:
            answer = RedirectResponse("/", status_code=303)
            token = stack.user_token(str(uuid5(NAMESPACE, name)))
            answer.set_cookie("access_token", token, httponly=True, samesite="strict")
            answer.set_cookie("name", name, samesite="strict")
            return answer

        port = int(os.environ.get("PORT", "8000"))
        print(f"Open http://127.0.0.1:{port}/ (Ctrl-C ends it).", flush=True)
        uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
