/** Who may call: only holders of one of the project's secret keys, checked by Supabase's own library. */

import { verifyAuth } from "@supabase/server/core";

/** The project's URL and the keys that open its functions. */
export interface Project {
  url: string;
  secretKeys: Record<string, string>;
}

/**
 * The project as the platform describes it to a function.
 *
 * A legacy service-role key counts as one more named key where it is set.
 *
 * @throws Error when `SUPABASE_URL` is not set or no URL, or the keys cannot be read; it holds none of them.
 */
export function projectFromEnv(env: { get(name: string): string | undefined } = Deno.env): Project {
  const url = env.get("SUPABASE_URL");
  if (!url) throw new Error("SUPABASE_URL is not set");
  checkUrl(url);
  const secretKeys: Record<string, string> = {};
  const named = env.get("SUPABASE_SECRET_KEYS");
  if (named) {
    for (const [name, key] of Object.entries(readKeys(named))) {
      if (typeof key === "string" && key !== "") secretKeys[name] = key;
    }
  }
  const single = env.get("SUPABASE_SECRET_KEY");
  if (single && !named) secretKeys.default = single;
  const legacy = env.get("SUPABASE_SERVICE_ROLE_KEY");
  if (legacy) secretKeys.legacy = legacy;
  return { url: url.replace(/\/+$/, ""), secretKeys };
}

function checkUrl(text: string): void {
  const url = URL.canParse(text) ? new URL(text) : null;
  // A failed request says where it went: into logs, and into a chunk's error.
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    throw new Error(
      "SUPABASE_URL must look like https://abc.supabase.co, without a user's name or a password",
    );
  }
}

function readKeys(text: string): Record<string, unknown> {
  try {
    const keys = JSON.parse(text);
    if (typeof keys === "object" && keys !== null) return keys;
  } catch {
    // The parser's own error quotes what it could not read.
  }
  throw new Error("SUPABASE_SECRET_KEYS must be a JSON object of keys by their names");
}

/**
 * Lets a request through only with a secret key in its `apikey` header; answers 401 otherwise.
 *
 * @param serve gets the key that authorised the request, to call the project's API with.
 */
export function authorised(
  project: Project,
  serve: (request: Request, key: string) => Promise<Response>,
): (request: Request) => Promise<Response> {
  // The library would also want a publishable key and the JWT key set, which a secret key has no use for.
  const env = { url: project.url, secretKeys: project.secretKeys, publishableKeys: {}, jwks: { keys: [] } };
  return async (request) => {
    const { error } = await verifyAuth(request, { auth: "secret:*", env });
    const key = request.headers.get("apikey");
    if (error === null && key !== null) return await serve(request, key);
    await request.body?.cancel();
    return Response.json(
      { error: error?.message ?? "a secret key is needed in the header apikey", code: error?.code },
      { status: error?.status ?? 401 },
    );
  };
}

/**
 * The headers that carry a key to the project's API and functions.
 *
 * The gateway turns an `sb_secret_…` key into a role by itself; a legacy key is a JWT and goes as a bearer token too.
 */
export function keyHeaders(key: string): Record<string, string> {
  return key.split(".").length === 3 ? { apikey: key, authorization: `Bearer ${key}` } : { apikey: key };
}
