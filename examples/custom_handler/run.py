"""Sync a paginated API with a handler of one's own, all of it on this machine."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from supabase_chunks import ChunksClient
from supabase_chunks.assets import functions_dir
from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEMS = 95
PAGE = 10


class ItemsApi(BaseHTTPRequestHandler):
    """`GET /v1/items?cursor=…`: ten items, and the cursor of the next ten."""

    def do_GET(self) -> None:
        """Answer one page."""
        first = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        last = min(first + PAGE, ITEMS)
        page = {
            "items": [{"id": number, "name": f"item {number}"} for number in range(first, last)],
            "next_cursor": str(last) if last < ITEMS else None,
        }
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the terminal for the progress."""


@contextmanager
def api() -> Iterator[str]:
    """The API's address, while it runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), ItemsApi) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/"
        server.shutdown()
        thread.join()


@contextmanager
def functions() -> Iterator[Path]:
    """The functions of supabase-chunks and this example's one, together as in a project."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "functions"
        shutil.copytree(functions_dir(), folder)
        shutil.copytree(Path(__file__).parent / "sync-items", folder / "sync-items")
        yield folder


def main() -> None:
    """Start everything, sync, and print what came of it."""
    with (
        api() as url,
        functions() as folder,
        LocalStack(functions=folder, functions_env={"ITEMS_API": url}, on_note=print) as stack,
        ChunksClient(stack.url, stack.secret_key) as client,
    ):
        client.save_kind("items", handler="sync-items")
        job = client.trigger_sync("items", job_key="items")
        job.wait(progress=True, timeout=60)
        ids = [item for page in job.results() for item in page["ids"]]
        once = sorted(ids) == list(range(ITEMS))
        print(f"{len(ids)} items in {job.progress().total_chunks} pages, each once: {once}")


if __name__ == "__main__":
    main()
