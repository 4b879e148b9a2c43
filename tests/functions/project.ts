/**
 * A project on loopback for the functions' tests: a gateway whose `/rest/v1/rpc/*`, `/rest/v1/*` and `/functions/v1/*`
 * are plain functions of the test, over real HTTP, and that keeps what was asked.
 */

export const KEY = "sb_secret_for_tests_only";

/** One call of an SQL function, its body as it was sent; or a read of a table, `args` its filters. */
export interface RpcCall {
  name: string;
  text: string;
  // deno-lint-ignore no-explicit-any
  args: any;
  headers: Headers;
}

type Answer = (args: Record<string, unknown>, call: RpcCall) => unknown;

/** SQL functions, and tables, by name: what each answers; a `Response` is sent as it is. */
export type SqlFunctions = Record<string, Answer>;

export class LoopbackProject implements AsyncDisposable {
  readonly calls: RpcCall[] = [];
  readonly url: string;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(
    readonly sql: SqlFunctions,
    readonly functions: Record<string, (request: Request) => Response | Promise<Response>> = {},
  ) {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      (request) => this.#answer(request),
    );
    this.url = `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** The calls of one SQL function. */
  of(name: string): RpcCall[] {
    return this.calls.filter((call) => call.name === name);
  }

  async [Symbol.asyncDispose]() {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname: path, searchParams } = new URL(request.url);
    const functionName = /^\/functions\/v1\/([^/]+)$/.exec(path)?.[1];
    if (functionName !== undefined) {
      return await this.functions[functionName]?.(request) ??
        new Response("no such function", { status: 404 });
    }
    const name = /^\/rest\/v1\/(?:rpc\/)?([^/]+)$/.exec(path)?.[1] ?? "";
    const text = await request.text();
    const args = request.method === "GET" ? Object.fromEntries(searchParams) : JSON.parse(text || "{}");
    const call = { name, text, args, headers: request.headers };
    this.calls.push(call);
    const answer = await this.sql[name]?.(call.args, call);
    if (answer instanceof Response) return answer;
    if (answer === undefined) {
      return Response.json({ code: "PGRST202", message: `no ${name}` }, { status: 404 });
    }
    return Response.json(answer);
  }
}

/** Waits for something to become true, at most so long. */
export async function until(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
  const ends = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > ends) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
