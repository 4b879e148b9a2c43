/** Every class of answer a handler can give ends in the right outcome, with an error a person can read. */

import assert from "node:assert/strict";
import { KEY, LoopbackProject } from "./project.ts";
import { chunkRow, hanging, oneChunk, ProcessorUnderTest, reportOf } from "./processing.ts";

const json = (body: unknown, init?: ResponseInit) => () => Response.json(body, init);
const raw = (body: string | null, init?: ResponseInit) => () => new Response(body, init);

Deno.test("a result, its counts and its next chunks are reported as they are", async () => {
  const report = await reportOf(
    json({ result: { saved: 2 }, items_processed: 2, items_total: 9, next_chunks: [{ cursor: "b" }] }),
  );
  assert.equal(report.success, true);
  assert.deepEqual(report.result, { saved: 2 });
  assert.deepEqual([report.items_processed, report.items_total], [2, 9]);
  assert.deepEqual(report.next_chunks, [{ cursor: "b" }]);
});

for (const result of [0, false, "", [], {}, null]) {
  Deno.test(`the falsy result ${JSON.stringify(result)} survives`, async () => {
    const report = await reportOf(json({ result }));
    assert.equal(report.success, true);
    assert.deepEqual(report.result, result);
  });
}

Deno.test("204 and an empty object complete the chunk without a result", async () => {
  for (const answer of [raw(null, { status: 204 }), json({})]) {
    const report = await reportOf(answer);
    assert.equal(report.success, true);
    assert.equal(report.result ?? null, null);
  }
});

for (const status of [400, 401, 403, 404, 405, 409, 410, 413, 422]) {
  Deno.test(`${status} fails the chunk for good`, async () => {
    const report = await reportOf(json({ error: "no such folder" }, { status }));
    assert.equal(report.success, false);
    assert.equal(report.retryable, false);
    assert.equal(report.error, `demo-handler answered ${status}: no such folder`);
  });
}

for (const status of [202, 206, 302, 408, 425, 500, 502, 503, 504, 546]) {
  Deno.test(`${status} is tried again`, async () => {
    const report = await reportOf(raw("busy", { status, headers: { location: "http://127.0.0.1:1/" } }));
    assert.equal(report.success, false);
    assert.equal(report.retryable, true);
    assert.equal(report.error, `demo-handler answered ${status}: busy`);
    assert.equal(report.retry_after_seconds, undefined);
  });
}

Deno.test("429 is no failure: it says throttled, for as long as Retry-After says", async () => {
  const throttled = async (headers: Record<string, string>) => {
    const report = await reportOf(raw("slow down", { status: 429, headers }));
    assert.equal(report.success, false);
    assert.equal(report.error, "demo-handler answered 429: slow down");
    assert.equal(report.retry_after_seconds, undefined);
    assert.equal(report.handler_down, undefined);
    return report.throttled_seconds;
  };
  assert.equal(await throttled({ "retry-after": "7" }), 7);
  assert.equal(await throttled({ "retry-after": "0" }), 0);
  assert.equal(await throttled({ "retry-after": "soon" }), 30);
  assert.equal(await throttled({}), 30);
});

Deno.test("Retry-After of 503 says not before, in seconds or as a date", async () => {
  const seconds = (value: string, status: number) =>
    reportOf(raw("", { status, headers: { "retry-after": value, date: "Wed, 21 Oct 2015 07:28:00 GMT" } }));
  assert.equal((await seconds("7", 503)).retry_after_seconds, 7);
  assert.equal((await seconds("1.2", 503)).retry_after_seconds, 2);
  assert.equal((await seconds("Wed, 21 Oct 2015 07:28:30 GMT", 503)).retry_after_seconds, 30);
  assert.equal((await seconds("Wed, 21 Oct 2015 07:00:00 GMT", 503)).retry_after_seconds, 0);
  assert.equal((await seconds("999999999", 503)).retry_after_seconds, 604_800);
  assert.equal((await seconds("soon", 503)).retry_after_seconds, undefined);
  assert.equal((await seconds("7", 500)).retry_after_seconds, undefined);
});

Deno.test("200 that is empty, cut off or a page is tried again", async () => {
  for (const body of ["", '{"result": [1, 2', "<!doctype html><title>Gateway</title><p>hello</p>"]) {
    const report = await reportOf(raw(body));
    assert.equal(report.success, false);
    assert.equal(report.retryable, true);
    assert.match(report.error, /^demo-handler answered 200 without JSON: /);
    assert.doesNotMatch(report.error, /[<>]/);
  }
});

Deno.test("200 in another form fails for good and names what is wrong", async () => {
  const cases: [unknown, RegExp][] = [
    [0, /not an object/],
    [[], /not an object/],
    ["done", /not an object/],
    [null, /not an object/],
    [{ nextChunks: [] }, /"nextChunks" is unknown/],
    [{ items_processed: "2" }, /items_processed/],
    [{ items_processed: -1 }, /items_processed/],
    [{ items_processed: 1.5 }, /items_processed/],
    [{ items_processed: Number.MAX_SAFE_INTEGER + 1 }, /items_processed/],
    [{ items_total: {} }, /items_total/],
    [{ next_chunks: {} }, /next_chunks/],
    [{ next_chunks: [1] }, /next_chunks/],
    [{ result: { list: ["a", "b\u0000"] } }, /result\.list\[1\] contains \\u0000/],
    [{ result: { "\ud800": 1 } }, /a key in result contains a lone surrogate/],
    [{ next_chunks: [{ cursor: "\udc00" }] }, /next_chunks\[0\]\.cursor contains a lone surrogate/],
  ];
  for (const [body, message] of cases) {
    const report = await reportOf(json(body));
    assert.equal(report.success, false, JSON.stringify(body));
    assert.equal(report.retryable, false, JSON.stringify(body));
    assert.match(report.error, message);
  }
});

Deno.test("a result nested without end fails for good", async () => {
  const report = await reportOf(raw(`{"result": ${"[".repeat(50_000)}${"]".repeat(50_000)}}`));
  assert.equal(report.retryable, false);
  assert.match(report.error, /nested/);
});

Deno.test("an error page becomes one short line of text", async () => {
  const page = `<html><head><style>p{color:red}</style></head><body><h1>502</h1>\n<p>${
    "so sad ".repeat(100)
  }`;
  const report = await reportOf(raw(page, { status: 502 }));
  assert.match(report.error, /^demo-handler answered 502: 502 so sad/);
  assert.ok(report.error.length < 350);
  assert.doesNotMatch(report.error, /[<>\n]|color/);
});

Deno.test("of an answer of 10 MB no more is read than the limit", async () => {
  let sent = 0;
  const endless = (status: number) => () => {
    sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 65_536;
        if (sent > 100_000_000) controller.close();
        else controller.enqueue(new Uint8Array(65_536).fill(0x20));
      },
    });
    return new Response(body, { status });
  };
  const success = await reportOf(endless(200));
  assert.equal(success.retryable, false);
  assert.match(success.error, /more than 8 MiB/);
  assert.ok(sent < 30_000_000, `${sent} bytes were sent`);
  const error = await reportOf(endless(500));
  assert.equal(error.retryable, true);
  assert.ok(sent < 10_000_000, `${sent} bytes were sent`);
});

Deno.test("integers beyond 2^53 keep their digits to the handler and back", async () => {
  const digits = "123456789012345678901234567890";
  const row = JSON.stringify([chunkRow({ payload: { id: "@" }, job_payload: { since: "@" } })])
    .replaceAll('"@"', digits);
  let received = "";
  const handler = async (request: Request) => {
    received = await request.text();
    return new Response(`{"result": {"id": ${digits}, "rate": 0.12345678901234567890123, "n": 1e400}}`);
  };
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), { claim_next_chunk_job_safe: () => new Response(row) }),
    { "demo-handler": handler },
  );
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 1 });
  await test.webhook();
  await test.settled();
  assert.match(received, new RegExp(`"payload":{"id":${digits}},"job_payload":{"since":${digits}}`));
  const { text } = project.of("complete_chunk_job_safe")[0];
  assert.ok(text.includes(`"result":{"id":${digits},"rate":0.12345678901234567890123,"n":1e400}`), text);
});

Deno.test("a reset connection is tried again", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const reset = (async () => {
    for await (const connection of listener) connection.close();
  })();
  const error = await unreachable(`http://127.0.0.1:${listener.addr.port}`);
  assert.match(error, /^demo-handler could not be reached: /);
  listener.close();
  await reset;
});

Deno.test("an answer that breaks off is tried again", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const cut = (async () => {
    for await (const connection of listener) {
      await connection.read(new Uint8Array(65_536));
      await connection.write(
        new TextEncoder().encode('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"result":'),
      );
      connection.close();
    }
  })();
  const error = await unreachable(`http://127.0.0.1:${listener.addr.port}`);
  assert.match(error, /^demo-handler answered 200, then broke off: /);
  listener.close();
  await cut;
});

Deno.test("a refused connection and an unknown host are tried again", async () => {
  assert.match(await unreachable("http://127.0.0.1:1"), /could not be reached/);
  assert.match(await unreachable("http://no-such-host.invalid"), /could not be reached/);
});

Deno.test("a handler that does not answer in time is tried again", async () => {
  const report = await reportOf(hanging, chunkRow(), { wallClockMs: 1000 });
  assert.equal(report.retryable, true);
  assert.match(report.error, /^demo-handler did not answer within 1 s$/);
});

Deno.test("a kind without a handler fails for good", async () => {
  const report = await reportOf(raw(""), chunkRow({ handler: null }));
  assert.equal(report.retryable, false);
  assert.match(report.error, /the kind demo has no handler/);
});

Deno.test("a handler's name cannot lead anywhere else", async () => {
  const report = await reportOf(json({}), chunkRow({ handler: "../../rest/v1/rpc/purge_sync_jobs" }));
  assert.equal(report.success, false);
});

Deno.test("a handler that echoes its request does not put the key into the error", async () => {
  const report = await reportOf((request) =>
    new Response(`bad key ${request.headers.get("apikey")}`, { status: 403 })
  );
  assert.equal(report.error, "demo-handler answered 403: bad key [key]");
  assert.ok(!JSON.stringify(report).includes(KEY));
});

/** The error that is reported when the functions' host fails, while the Data API works. */
async function unreachable(functionsUrl: string): Promise<string> {
  await using project = new LoopbackProject(oneChunk());
  const test = new ProcessorUnderTest(project);
  const realFetch = globalThis.fetch;
  // Only the address is changed: the failure itself is a real one of the network.
  globalThis.fetch = (input, init) =>
    realFetch(String(input).replace(/^.*(?=\/functions\/v1)/, functionsUrl), init);
  try {
    await test.webhook();
    await test.settled();
  } finally {
    globalThis.fetch = realFetch;
  }
  const { args } = project.of("complete_chunk_job_safe")[0];
  assert.equal(args.success, false);
  assert.equal(args.retryable, true);
  return args.error;
}
