/** A secret at a wrong place of a function's environment is in no error, and so in no log and no chunk. */

import assert from "node:assert/strict";
import { projectFromEnv } from "../../supabase/functions/_shared/auth.ts";
import { createRpc } from "../../supabase/functions/_shared/rpc.ts";

const MARK = "hunter2hunter2";
const SECRETS = [
  `sb_secret_${MARK}`,
  `postgresql://postgres:${MARK}@db.abc.supabase.co:5432/postgres`,
  `https://user:${MARK}@abc.supabase.co`,
  `https://${MARK}@abc.supabase.co`,
  `https://user:${MARK}@abc.supabase.co:port`,
  `{"default": "sb_secret_${MARK}"`,
  `["sb_secret_${MARK}"`,
  `"sb_secret_${MARK}`,
];

function project(settings: Record<string, string>) {
  return projectFromEnv({ get: (name) => settings[name] });
}

Deno.test("what a function's settings cannot be is said without them", () => {
  for (const value of SECRETS) {
    const places: Record<string, string>[] = [
      { SUPABASE_URL: value },
      { SUPABASE_URL: "http://127.0.0.1", SUPABASE_SECRET_KEYS: value },
    ];
    for (const settings of places) {
      assert.throws(() => project(settings), (error: Error) => {
        assert.ok(!`${error}${error.stack}${error.cause}`.includes(MARK), `${error}`);
        assert.match(error.message, /^SUPABASE_(URL|SECRET_KEYS) must /);
        return true;
      }, value);
    }
  }
  for (const nothing of ["null", "5"]) {
    assert.throws(() => project({ SUPABASE_URL: "http://127.0.0.1", SUPABASE_SECRET_KEYS: nothing }));
  }
});

Deno.test("a call that finds nobody says where it went, and not by which key", async () => {
  const rpc = createRpc("http://127.0.0.1:9", `sb_secret_${MARK}`);
  await assert.rejects(rpc("chunk_system_health", {}), (error: Error) => {
    assert.ok(!`${error}${error.stack}`.includes(MARK));
    return true;
  });
});
