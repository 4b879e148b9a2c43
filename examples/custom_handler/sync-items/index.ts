import { serveHandler } from "../_shared/serve.ts";
import { createSyncItems } from "./handler.ts";

const api = Deno.env.get("ITEMS_API");
if (!api) throw new Error("ITEMS_API is not set: the URL of the API, with a slash at the end");

export default serveHandler(createSyncItems(api));
