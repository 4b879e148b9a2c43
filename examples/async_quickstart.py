"""Three syncs at once with asyncio.

In one terminal run `supabase-chunks local`; in another set the environment that it prints, and run this file.
"""

import asyncio

from supabase_chunks import AsyncChunksClient, AsyncJob, AsyncWorker, Chunk, RetryLater

SHOPS = {"books": 12, "records": 20, "plants": 8}  # name and number of pages


async def handler(chunk: Chunk) -> dict[str, int]:
    """Fetch one page of a shop's orders."""
    await asyncio.sleep(0.05)  # here would be the request to the shop
    if chunk.payload["page"] == 3 and chunk.attempt == 1:
        raise RetryLater(1, "the shop asks for a pause")
    return {"orders": 25}


async def follow(shop: str, job: AsyncJob) -> None:
    """Print the progress of one shop's sync, whenever it changes."""
    async for progress in job.watch(timeout=60):
        done = f"{progress.completed_chunks}/{progress.total_chunks} pages"
        again = f", {progress.retrying_chunks} to try again" if progress.retrying_chunks else ""
        print(f"{shop:>8} {progress.percent_complete:5.1f} %  {done}{again}")


async def main() -> None:
    """Start a job a shop, work on all of them, and follow them side by side."""
    async with AsyncChunksClient.from_env() as client:
        # Each shop gets at most four requests at a time, however many workers there are.
        await client.save_kind("shop-orders", max_concurrency=4)
        jobs = {
            shop: await client.trigger_sync(
                "shop-orders",
                chunks=[{"page": page} for page in range(1, pages + 1)],
                payload={"shop": shop},
                job_key=shop,
            )
            for shop, pages in SHOPS.items()
        }
        worker = AsyncWorker(client, handler, kinds=["shop-orders"], concurrency=12)
        working = asyncio.create_task(worker.run())
        try:
            async with asyncio.TaskGroup() as group:
                for shop, job in jobs.items():
                    group.create_task(follow(shop, job))
        finally:
            worker.stop()
            await working
        for shop, job in jobs.items():
            print(f"{shop}: {sum(page['orders'] for page in await job.results())} orders")


if __name__ == "__main__":
    asyncio.run(main())
