/** Syncs a paginated HTTP API whose next page is known only when this one is there: each page is a chunk. */

import { type Answer, type Chunk, type Context, PermanentFailure, Throttled } from "../_shared/serve.ts";

/** What the API answers to `GET /items?cursor=…`. */
interface Page {
  items: { id: number; name: string }[];
  next_cursor: string | null;
}

/** The work of one chunk: one page. `{}` is the first, `{"cursor": "…"}` any other. */
export function createSyncItems(api: string): (chunk: Chunk, context: Context) => Promise<Answer> {
  return async ({ payload }, { signal }) => {
    const url = new URL("items", api);
    if (payload.cursor) url.searchParams.set("cursor", payload.cursor);
    const response = await fetch(url, { signal });
    const text = await response.text();
    if (response.status === 429) throw new Throttled(Number(response.headers.get("retry-after")) || 30);
    if (response.status === 404 || response.status === 410) {
      throw new PermanentFailure(`the cursor is gone: ${text}`);
    }
    if (!response.ok) throw new Error(`the API answered ${response.status}`);
    const page: Page = JSON.parse(text);
    // Here your items go into a table of yours: upsert them by their id, since a chunk may run again.
    return {
      result: { ids: page.items.map(({ id }) => id) },
      items_processed: page.items.length,
      next_chunks: page.next_cursor === null ? [] : [{ cursor: page.next_cursor }],
    };
  };
}
