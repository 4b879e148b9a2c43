/** A processor under test, and chunks for it to claim. */

import type { LogFields } from "../../supabase/functions/_shared/log.ts";
import type { ClaimedChunk } from "../../supabase/functions/background-sync-processor/chunk.ts";
import {
  createProcessor,
  type Processor,
} from "../../supabase/functions/background-sync-processor/handler.ts";
import type { Settings } from "../../supabase/functions/background-sync-processor/settings.ts";
import { KEY, LoopbackProject, type SqlFunctions } from "./project.ts";

export const JOB = "7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10";

/** A claimed chunk as the database would hand it out. */
export function chunkRow(over: Partial<ClaimedChunk> & Record<string, unknown> = {}): ClaimedChunk {
  return {
    chunk_id: 11,
    parent_sync_job_id: JOB,
    kind: "demo",
    handler: "demo-handler",
    chunk_index: 0,
    attempt: 1,
    payload: { page: 1 },
    job_payload: {},
    owner_id: null,
    claim_token: crypto.randomUUID(),
    checkpoint: null,
    locked_until: new Date(Date.now() + 600_000).toISOString(),
    ...over,
  };
}

/** SQL functions with one chunk to claim, that accept whatever is reported. */
export function oneChunk(chunk: ClaimedChunk = chunkRow(), over: SqlFunctions = {}): SqlFunctions {
  let claimed = false;
  return {
    claim_next_chunk_job_safe: () => claimed ? [] : (claimed = true, [chunk]),
    complete_chunk_job_safe: ({ success }) => ({ outcome: success ? "completed" : "failed", next: null }),
    extend_chunk_lease: () => ({ ok: true, cancel_requested: false, locked_until: null }),
    release_chunk_job: () => ({ outcome: "released" }),
    ...over,
  };
}

/** A handler that answers only when its caller has gone. */
export function hanging(request: Request): Promise<Response> {
  return new Promise((resolve) => request.signal.addEventListener("abort", () => resolve(new Response())));
}

/** A log line that the processor wrote. */
export type Line = { event: string } & LogFields;

export class ProcessorUnderTest {
  readonly processor: Processor;
  readonly lines: Line[] = [];
  readonly #background: Promise<unknown>[] = [];

  constructor(
    readonly project: LoopbackProject,
    settings: Partial<Settings> = {},
    workerUntil: number | null = null,
  ) {
    this.processor = createProcessor({
      url: project.url,
      settings: { wallClockMs: 10_000, chunksPerInvocation: null, heartbeatMs: 15_000, ...settings },
      log: (event, fields) => this.lines.push({ event, ...fields }),
      inBackground: (work) => this.#background.push(work),
      workerUntil,
    });
  }

  /** Sends a webhook; null sends no body. */
  async webhook(body: unknown = null): Promise<{ status: number; body: Record<string, unknown> }> {
    const text = body === null ? null : typeof body === "string" ? body : JSON.stringify(body);
    const request = new Request("http://processor/", { method: "POST", body: text });
    const response = await this.processor.handle(request, KEY);
    return { status: response.status, body: await response.json() };
  }

  /** Waits until nothing goes on in the background; throws what the background threw. */
  async settled(): Promise<void> {
    while (this.#background.length > 0) await this.#background.shift();
  }
}

/** Runs one chunk against a handler and returns what was reported about it. */
export async function reportOf(
  handler: (request: Request) => Response | Promise<Response>,
  chunk: ClaimedChunk = chunkRow(),
  settings: Partial<Settings> = {},
  // deno-lint-ignore no-explicit-any
): Promise<any> {
  await using project = new LoopbackProject(oneChunk(chunk), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project, settings);
  await test.webhook();
  await test.settled();
  const reports = project.of("complete_chunk_job_safe");
  if (reports.length !== 1) throw new Error(`${reports.length} reports: ${JSON.stringify(test.lines)}`);
  return reports[0].args;
}
