"""A sync from start to end on this machine: pip install 'supabase-chunks[local]', then run this file."""

from supabase_chunks import Chunk, ChunksClient, PermanentFailure, Worker
from supabase_chunks.local import LocalStack


def handler(chunk: Chunk) -> dict[str, int]:
    """Do one chunk's work; what it returns is kept as the chunk's result."""
    if chunk.payload["page"] == 13:
        raise PermanentFailure("page 13 does not exist")
    return {"rows": 100}


def main() -> None:
    """Start a job of 40 pages, work on it, look at what failed, and finish it."""
    with LocalStack(on_note=print) as stack, ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("pages", max_concurrency=8)
        job = client.trigger_sync(
            "pages", chunks=[{"page": page} for page in range(1, 41)], job_key="nightly"
        )
        Worker(client, handler, kinds=["pages"], concurrency=8).run_until_idle()

        progress = job.progress()
        print(
            f"{progress.completed_chunks} of {progress.total_chunks} pages, {progress.failed_chunks} failed"
        )
        for chunk in job.chunks(status="failed"):
            print(f"  page {chunk.payload['page']}: {chunk.error}")

        job.retry_failed()  # opens only the failed page again
        Worker(client, lambda _: {"rows": 0}, kinds=["pages"]).run_until_idle()
        print(f"{job.progress().status}: {sum(result['rows'] for result in job.results()):,} rows")


if __name__ == "__main__":
    main()
