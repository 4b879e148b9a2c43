/** Planning against servers that do not list all they have: everything is found, or the plan fails and says what is missing. */

import assert from "node:assert/strict";
import { RetryLater } from "../../supabase/functions/_shared/serve.ts";
import { type Bend, ImapServer, letter } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";

/** Answers searches with at most so many of what they would find. */
function limiting(most: number, pick: "newest" | "oldest" = "newest"): Bend {
  return async ({ name, rest, tag }, session) => {
    if (name !== "UID SEARCH") return false;
    const [, from, to] = /UID (\d+):(\d+|\*)/.exec(rest) ?? [];
    const last = to === undefined || to === "*" ? Infinity : Number(to);
    const found = session.server.mails.map(({ uid }) => uid).filter((uid) =>
      uid >= Number(from ?? 1) && uid <= last
    );
    const given = pick === "newest" ? found.slice(-most) : found.slice(0, most);
    const code = given.length < found.length ? `[MESSAGELIMIT ${most} ${given[0]}] ` : "";
    await session.say(`* SEARCH ${given.join(" ")}`, `${tag} OK ${code}done`);
    return true;
  };
}

async function planned(server: ImapServer, payload: Record<string, unknown> = {}) {
  await using sync = new MailSync(server);
  const answer = await sync.run(payload);
  const { args } = sync.calls.find(({ name }) => name === "plan_email_folder")!;
  return { answer, args };
}

test("a server that lists a part at a time is asked until all is there", async () => {
  for (const pick of ["newest", "oldest"] as const) {
    const mails = upTo(2500).map((uid) => letter(uid));
    await using server = new ImapServer(mails, limiting(1000, pick));
    const { answer, args } = await planned(server, { full: true });
    assert.deepEqual([answer.items_total, args.present, args.present_count], [2500, [[1, 2500]], 2500]);
    assert.ok(server.of("UID SEARCH").length <= 7);
  }
});

test("messages that no search finds are asked for by their place", async () => {
  await using server = new ImapServer(upTo(30).map((uid) => letter(10 * uid)), limiting(0));
  const { answer, args } = await planned(server, { full: true });
  assert.deepEqual([answer.items_total, args.present_count], [30, 30]);
});

test("a list that does not add up plans nothing, marks nothing and says what is missing", async () => {
  const search = limiting(10);
  await using server = new ImapServer(upTo(30).map((uid) => letter(uid)), async (command, session) => {
    if (command.name === "UID SEARCH" && command.rest.includes("UID")) {
      await session.say("* SEARCH", `${command.tag} OK done`);
      return true;
    }
    if (command.name !== "FETCH") return await search(command, session);
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  await assert.rejects(
    sync.run({ full: true }),
    (error) => error instanceof RetryLater && /listed 10 of the 30 messages/.test(error.message),
  );
  assert.ok(!sync.calls.some(({ name }) => name === "plan_email_folder"));
});

test("a message that leaves while the folder is listed is no reason to fail", async () => {
  await using server = new ImapServer(upTo(3).map((uid) => letter(uid)), async ({ name, tag }, session) => {
    if (name !== "UID SEARCH") return false;
    await session.say("* 2 EXPUNGE", "* SEARCH 1 3", `${tag} OK done`);
    return true;
  });
  const { args } = await planned(server);
  assert.deepEqual([args.present, args.present_count], [[[1, 1], [3, 3]], 2]);
});

test("an empty folder is empty", async () => {
  await using server = new ImapServer([]);
  const { answer } = await planned(server);
  assert.deepEqual([answer.items_total, answer.next_chunks], [0, []]);
});

test("INBOX is one folder however it is spelled", async () => {
  await using server = new ImapServer([letter(1)]);
  for (const folder of ["INBOX", "Inbox", "inbox"]) {
    const { answer, args } = await planned(server, { folder });
    assert.deepEqual([args.folder, answer.next_chunks?.[0].folder], ["INBOX", "INBOX"]);
  }
});
