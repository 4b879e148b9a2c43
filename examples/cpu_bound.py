"""Compute in Python on all cores: the worker's threads hand each chunk to a pool of processes.

Run it with a Supabase project in the environment, such as that of `supabase-chunks local`:

    python examples/cpu_bound.py

Threads of one process share its interpreter, so a handler that computes in Python has one core, whatever the
worker's `concurrency` is. In a pool each computation has a process; the worker keeps leases and reports.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from supabase_chunks import Chunk, ChunksClient, PermanentFailure, Worker

KIND = "primes"


def count_primes(first: int, last: int) -> int:
    """Compute for a while. Runs in the pool, where there is no client."""
    if first < 0:
        raise PermanentFailure("there are no primes below zero")  # as in a handler
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(first, 2), last))


def main() -> None:
    """Count the primes below 200,000."""
    cores = os.cpu_count() or 1
    # Not by fork, which copies the locks of other threads in whatever state they are.
    with (
        ChunksClient.from_env() as client,
        ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):

        def handler(chunk: Chunk) -> dict[str, int]:
            primes = pool.submit(count_primes, chunk.payload["offset"], sum(chunk.payload.values()))
            return {"primes": primes.result()}

        client.save_kind(KIND, max_concurrency=64)
        job = client.trigger_sync(KIND, total_items=200_000, chunk_size=10_000)
        # As many at once as there are cores, and one more, so that none waits for the next.
        Worker(client, handler, kinds=[KIND], concurrency=cores + 1).run_until_idle()
        results = job.results()
        print(f"{sum(done['primes'] for done in results):,} primes in {len(results)} chunks")


if __name__ == "__main__":
    main()
