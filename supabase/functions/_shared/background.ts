/** Work that outlives its response, and the end of the worker: on the platform and, imitated, under plain Deno. */

import { type Log, messageOf } from "./log.ts";

/** What Supabase's Edge Runtime adds to Deno; absent under plain Deno. */
interface EdgeRuntimeGlobal {
  waitUntil(promise: Promise<unknown>): void;
}

function edgeRuntime(): EdgeRuntimeGlobal | undefined {
  return (globalThis as { EdgeRuntime?: EdgeRuntimeGlobal }).EdgeRuntime;
}

/** Whether the platform, which ends workers by itself, runs this. */
export function onPlatform(): boolean {
  return edgeRuntime() !== undefined;
}

/** Keeps the worker alive until the promise settles; its failure is logged, never unhandled. */
export function inBackground(promise: Promise<unknown>, log: Log): void {
  const settled = promise.catch((error) => log("background_work_failed", { error: messageOf(error) }));
  edgeRuntime()?.waitUntil(settled);
}

/** Milliseconds that the last words may take under plain Deno. */
const GRACE_MS = 3000;

/**
 * Calls back when the worker is about to be ended: `beforeunload`, for whatever reason.
 *
 * Plain Deno sends that event only once everything is done, so on SIGTERM it is sent here, as the platform does, and
 * the process exits after the callbacks or the grace time.
 */
export function onUnload(callback: (reason: string) => Promise<void>, log: Log): void {
  let lastWords: Promise<void> = Promise.resolve();
  addEventListener("beforeunload", (event) => {
    const reason = String((event as CustomEvent<{ reason?: string } | null>).detail?.reason ?? "unknown");
    lastWords = callback(reason);
    inBackground(lastWords, log);
  });
  if (onPlatform() || Deno.build.os === "windows") return;
  Deno.addSignalListener("SIGTERM", () => {
    dispatchEvent(new CustomEvent("beforeunload", { detail: { reason: "termination" } }));
    const grace = new Promise((resolve) => setTimeout(resolve, GRACE_MS));
    Promise.race([lastWords.catch(() => {}), grace]).then(() => Deno.exit(0));
  });
}

let surviving = false;

/**
 * Logs what nobody caught instead of letting it end the worker and all its chunks.
 *
 * For the first request to call, not the module: what fails before, such as listening, must end the process.
 */
export function surviveUnhandled(log: Log): void {
  if (surviving) return;
  surviving = true;
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    log("unhandled_rejection", { error: messageOf(event.reason) });
  });
}
