import { serveHandler } from "../_shared/serve.ts";
import { createSyncEmails } from "./handler.ts";

export default serveHandler(createSyncEmails({ extraCa: Deno.env.get("IMAP_EXTRA_CA") }), {
  name: "sync-emails",
});
