"""Import a large CSV file with Python workers: as many as you like, in as many processes as you like.

In one terminal run `supabase-chunks local`; in others set the environment that it prints, and:

    python examples/python_worker.py import orders.csv orders.db    # starts the sync and watches it
    python examples/python_worker.py work                           # works on it; Ctrl-C ends it gracefully

The first chunk plans: it counts the rows and returns a chunk for each thousand. A chunk may run again after
a worker's death, so its rows are written by their id: twice is like once. What `work` does is also done by
`supabase-chunks worker python_worker:handler --kind csv`.
"""

import csv
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from supabase_chunks import Chunk, ChunksClient, JobFailed, PermanentFailure, Result, Worker

KIND = "csv"
ROWS_PER_CHUNK = 1000
BATCH = 100


def handler(chunk: Chunk) -> Result:
    """Do the work of one chunk."""
    return import_rows(chunk) if "first" in chunk.payload else plan(chunk)


def plan(chunk: Chunk) -> Result:
    """Count the rows, and return a chunk for each thousand of them."""
    count = sum(1 for _ in rows(chunk))
    ranges = [{"first": first} for first in range(0, count, ROWS_PER_CHUNK)]
    return Result({"rows": count}, next_chunks=ranges, items_total=count)


def import_rows(chunk: Chunk) -> Result:
    """Write a thousand rows, and say from time to time how far it is."""
    first = chunk.payload["first"]
    mine = islice(rows(chunk), first, first + ROWS_PER_CHUNK)
    done = 0
    with closing(sqlite3.connect(chunk.job_payload["database"], timeout=30)) as database:
        database.execute(
            "create table if not exists orders (id integer primary key, customer text, total real)"
        )
        while (batch := list(islice(mine, BATCH))) and not chunk.cancel_requested:
            with database:
                database.executemany("insert or replace into orders values (:id, :customer, :total)", batch)
            done += len(batch)
            chunk.report(done)
    return Result({"rows": done}, items_processed=done)


def rows(chunk: Chunk) -> Iterator[dict[str, str]]:
    """The rows of the job's file."""
    path = Path(chunk.job_payload["file"])
    if not path.is_file():
        raise PermanentFailure(f"there is no file {path}")  # trying again would not help
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def main(arguments: list[str]) -> None:
    """Start an import and watch it, or work."""
    with ChunksClient.from_env() as client:
        client.save_kind(KIND, max_concurrency=8, lease_seconds=60)
        match arguments:
            case ["import", file, database]:
                payload = {"file": str(Path(file).resolve()), "database": str(Path(database).resolve())}
                job = client.trigger_sync(KIND, chunks=[{}], payload=payload, job_key=payload["file"])
                try:
                    done = job.wait(progress=True)
                except JobFailed as error:
                    sys.exit(str(error))
                print(f"{done.items_processed:,} rows in {done.total_chunks} chunks")
            case ["work"]:
                print(f"{Worker(client, handler, kinds=[KIND], concurrency=2).run()} chunks done here")
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
