/** The end of a worker and work that outlives its response, on a platform that has `EdgeRuntime`. */

import assert from "node:assert/strict";
import { inBackground, onPlatform, onUnload } from "../../supabase/functions/_shared/background.ts";
import type { LogFields } from "../../supabase/functions/_shared/log.ts";

const lines: ({ event: string } & LogFields)[] = [];
const log = (event: string, fields?: LogFields) => void lines.push({ event, ...fields });

/** Runs with the platform's global in place, and waits for what it was asked to wait for. */
async function onEdgeRuntime(run: () => void, expected = 1): Promise<void> {
  const scope = globalThis as { EdgeRuntime?: unknown };
  const waited: Promise<unknown>[] = [];
  scope.EdgeRuntime = { waitUntil: (promise: Promise<unknown>) => waited.push(promise) };
  try {
    assert.equal(onPlatform(), true);
    run();
    assert.equal(waited.length, expected);
    await Promise.all(waited);
  } finally {
    delete scope.EdgeRuntime;
  }
}

Deno.test("background work is handed to the platform, and its failure is a line in the log", async () => {
  await onEdgeRuntime(() => inBackground(Promise.reject(new Error("lost")), log));
  assert.deepEqual(lines.splice(0), [{ event: "background_work_failed", error: "lost" }]);
});

Deno.test("background work goes on under plain Deno too, and cannot end the process", async () => {
  inBackground(Promise.reject(new Error("lost")), log);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(lines.splice(0), [{ event: "background_work_failed", error: "lost" }]);
});

Deno.test("beforeunload calls back with each of the platform's reasons, and the platform waits for it", async () => {
  const heard: string[] = [];
  const reasons = ["cpu", "memory", "wall_clock", "early_drop", "termination"];
  await onEdgeRuntime(() => {
    onUnload((reason) => Promise.resolve(void heard.push(reason)), log);
    for (const reason of reasons) dispatchEvent(new CustomEvent("beforeunload", { detail: { reason } }));
  }, reasons.length);
  assert.deepEqual(heard, reasons);
});
