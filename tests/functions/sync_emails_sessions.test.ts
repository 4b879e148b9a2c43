/** Logins: how many there are, what a refusal means, and being put off. */

import assert from "node:assert/strict";
import { PermanentFailure, Throttled } from "../../supabase/functions/_shared/serve.ts";
import { Pauses } from "../../supabase/functions/sync-emails/throttle.ts";
import { ImapServer, letter } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";
import { until } from "./project.ts";

/** A server that answers so many logins with a line. */
function refusing(answer: string, times = Infinity): ImapServer {
  return new ImapServer([letter(1)], async ({ name, tag }, session) => {
    if (name !== "LOGIN" || session.server.logins > times) return false;
    await session.say(`${tag} ${answer}`);
    return true;
  });
}

const FOR_GOOD = [
  "NO [AUTHENTICATIONFAILED] Invalid login or password for corporate@example.com",
  "NO [AUTHENTICATIONFAILED] Login denied, please generate an app password",
  "NO [AUTHENTICATIONFAILED] Authentication failed (too many failed attempts use up the limit)",
  "NO [AUTHORIZATIONFAILED] No access to this mailbox",
  "NO [EXPIRED] That password is no longer valid",
  "NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure connections",
  "NO [CONTACTADMIN] Your account is disabled",
  "NO [ALERT] Please log in via your web browser: https://mail.example.com/ (Failure)",
  "NO Login failed: unknown user or separate password needed",
  "NO LOGIN failed.",
];

test("a login that is refused for good fails at once, whatever words are in the answer", async () => {
  for (const answer of FOR_GOOD) {
    await using server = refusing(answer);
    await using sync = new MailSync(server, { callerMs: 1000 });
    await assert.rejects(sync.run({}), (error) => {
      assert.ok(error instanceof PermanentFailure, `${answer}: ${error}`);
      assert.match(error.message, /refused the login of ann: /);
      return true;
    });
    assert.equal(server.logins, 1);
  }
});

const FOR_NOW = [
  "NO [LIMIT] LOGIN Rate limit hit",
  "NO [UNAVAILABLE] Temporary authentication failure",
  "NO [INUSE] Mailbox is in use",
  "NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)",
  "NO [SERVERBUG] LOGIN Server error - Please try again later",
  "NO [ALERT] Too many simultaneous connections. (Failure)",
  "NO Maximum number of connections from user+IP exceeded",
  "BAD User is authenticated but not connected.",
];

/** What a chunk throws whose server asks to come back: its message, and for how many seconds. */
async function throttled(sync: MailSync, payload = {}): Promise<Throttled> {
  let thrown: unknown;
  await assert.rejects(sync.run(payload), (error) => {
    thrown = error;
    return error instanceof Throttled;
  });
  return thrown as Throttled;
}

test("a login that is refused for now is put off, and not waited for here", async () => {
  for (const answer of FOR_NOW) {
    await using server = refusing(answer);
    await using sync = new MailSync(server);
    const { seconds, message } = await throttled(sync);
    assert.match(message, /refused the login for now: /, answer);
    assert.deepEqual([seconds, server.logins], [2, 1]);
  }
});

Deno.test("a server that does not say how long is left alone for longer each time, until it works", () => {
  let now = 0;
  const pauses = new Pauses(() => now);
  assert.equal(pauses.secondsFor("work", null), 2);
  now = 1.5;
  // Whoever was at work beside it waits for the same end.
  assert.equal(pauses.secondsFor("work", null), 0.5);
  assert.equal(pauses.secondsFor("other", null), 2);
  assert.equal(pauses.secondsFor("work", 40), 40);
  const waits = [60, 600, 1600, 2600].map((at) => {
    now = at;
    return pauses.secondsFor("work", null);
  });
  assert.deepEqual(waits, [80, 160, 300, 300]);
  pauses.end("work");
  assert.equal(pauses.secondsFor("work", null), 2);
});

test("a server that throttles in the middle is put off, and what came is kept", async () => {
  let throttles = true;
  await using server = new ImapServer([letter(1), letter(2)], async (command, session) => {
    if (command.name !== "UID FETCH" || !throttles) return false;
    await session.send(session.server.mails[0], command.rest);
    await session.say(`${command.tag} NO [LIMIT] Too many commands`);
    return true;
  });
  await using sync = new MailSync(server);
  const range = { uidvalidity: 7, from: 1, to: 2, count: 2 };
  assert.match((await throttled(sync, range)).message, /LIMIT/);
  assert.deepEqual([...sync.rows.keys()], [1]);
  throttles = false;
  assert.equal((await sync.run(range)).items_processed, 2);
});

for (const name of ["LOGIN", "EXAMINE", "UID SEARCH", "UID FETCH"]) {
  test(`the time that a server names at ${name} is not waited here, nor the command repeated`, async () => {
    let throttles = true;
    await using server = new ImapServer([letter(1)], async (command, session) => {
      if (command.name !== name || !throttles) return false;
      const suggested = "Request is throttled. Suggested Backoff Time: 92415 milliseconds";
      await session.say(`${command.tag} BAD ${suggested}`);
      return true;
    });
    await using sync = new MailSync(server);
    const payload = name === "UID FETCH" ? { uidvalidity: 7, from: 1, to: 1, count: 1 } : {};
    const begun = performance.now();
    const { seconds } = await throttled(sync, payload);
    assert.ok(performance.now() - begun < 2000);
    assert.deepEqual([Math.round(seconds), server.of(name).length], [92, 1]);
    throttles = false;
    await sync.run(payload);
  });
}

test("a greeting that says goodbye is a refusal for now", async () => {
  await using server = new ImapServer([]);
  using turningAway = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const connection of turningAway) {
      await connection.write(
        new TextEncoder().encode("* BYE [UNAVAILABLE] Too many connections, try again later\r\n"),
      );
      // A goodbye that its connection's end overtakes is not seen by the library.
      setTimeout(() => connection.close(), 50);
    }
  })().catch(() => {});
  await using sync = new MailSync({ port: turningAway.addr.port } as ImapServer);
  assert.match((await throttled(sync)).message, /Too many connections/);
  assert.equal(server.logins, 0);
});

test("one login serves the chunks of an account one after the other, and ends with LOGOUT", async () => {
  await using server = new ImapServer(upTo(50).map((uid) => letter(uid)));
  await using sync = new MailSync(server, { idleMs: 100 });
  const answers = await sync.runAll({ batch_size: 5 });
  assert.deepEqual([answers.length, sync.rows.size, server.logins], [11, 50, 1]);
  assert.equal(server.of("EXAMINE").length, 1);
  await until(() => server.of("LOGOUT").length === 1 && server.open === 0, "the idle session ends");
});

test("chunks at the same time have as many sessions as there are chunks", async () => {
  await using server = new ImapServer(upTo(40).map((uid) => letter(uid)));
  await using sync = new MailSync(server);
  for (let round = 0; round < 3; round++) {
    const ranges = upTo(4).map((at) => ({ uidvalidity: 7, from: 10 * at - 9, to: 10 * at, count: 10 }));
    await Promise.all(ranges.map((range) => sync.run(range)));
  }
  assert.deepEqual([sync.rows.size, server.logins, server.mostOpen], [40, 4, 4]);
});

test("an idle session that the server ended is replaced without a word", async () => {
  await using server = new ImapServer([letter(1)]);
  await using sync = new MailSync(server);
  await sync.run({});
  server.bend = ({ name }, session) => {
    if (name !== "EXAMINE" || server.logins > 1) return false;
    session.drop();
    return true;
  };
  assert.equal((await sync.run({})).items_total, 1);
  assert.equal(server.logins, 2);
});

test("a chunk whose caller is gone gives no session back", async () => {
  const gone = new AbortController();
  await using server = new ImapServer([letter(1)], ({ name }) => {
    if (name !== "UID FETCH") return false;
    gone.abort();
    return true;
  });
  await using sync = new MailSync(server);
  await assert.rejects(sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 }, {}, gone.signal));
  await until(() => server.open === 0, "the session is closed");
});
