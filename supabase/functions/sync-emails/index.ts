import { serveHandler } from "../_shared/serve.ts";
import { createSyncEmails } from "./handler.ts";
import { connect } from "./mailbox.ts";
import { SessionPool } from "./pool.ts";

const extraCa = Deno.env.get("IMAP_EXTRA_CA");
const sessions = new SessionPool((login, signal) => connect(login, signal, extraCa));
// The platform says when it ends a worker; under plain Deno idle sessions end by themselves.
addEventListener("beforeunload", () => void sessions.end());

export default serveHandler(createSyncEmails({ sessions, callerMs: callerTime(), env }), {
  name: "sync-emails",
});

function env(name: string): string | undefined {
  return Deno.env.get(name) || undefined;
}

/** How long the processor waits, which reads the same setting. */
function callerTime(): number | null {
  const seconds = Number(Deno.env.get("WALL_CLOCK_SECONDS") ?? "");
  return seconds > 0 ? seconds * 1000 : null;
}
