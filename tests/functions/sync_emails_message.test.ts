/** Messages turned into rows: what is written in them, however it is written, and what is said where it cannot be read. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readAddresses } from "../../supabase/functions/sync-emails/addresses.ts";
import { parseDate } from "../../supabase/functions/sync-emails/dates.ts";
import { Draft } from "../../supabase/functions/sync-emails/draft.ts";
import { Headers } from "../../supabase/functions/sync-emails/headers.ts";
import { htmlToText } from "../../supabase/functions/sync-emails/html.ts";
import { emptyRow } from "../../supabase/functions/sync-emails/message.ts";
import { headerEnd } from "../../supabase/functions/sync-emails/mime.ts";

const ALL = 1 << 24;

function row(source: string | Uint8Array, over: Record<string, unknown> = {}, body = false) {
  const bytes = typeof source === "string" ? Buffer.from(source.replaceAll("\n", "\r\n")) : source;
  const cut = headerEnd(bytes);
  const draft = new Draft({ uid: 7, ...over }, body);
  draft.readHeader(bytes.subarray(0, cut), ALL);
  draft.readStart(bytes.subarray(cut), ALL);
  assert.ok(draft.isDone);
  return draft.giveRow();
}

function html(content: string): string | null {
  return row(`Content-Type: text/html; charset=utf-8\nSubject: x\n\n${content}\n`).preview;
}

function to(header: string) {
  return row(`To: ${header}\n\nx\n`).to_addresses.map(({ name, address }) => `${name}|${address}`);
}

Deno.test("headers are decoded in their charsets", () => {
  const email = row(
    "From: =?iso-8859-1?q?J=F8rn?= <j@example.com>\nTo: A <a@x.example>, Team: b@x.example, c@x.example;\n" +
      "Cc: =?iso-2022-jp?b?GyRCJF4kXyRgJGEkYhsoQg==?= <d@x.example>\nSubject: =?koi8-r?b?8NLJ18XU?=\n" +
      "Date: Tue, 3 Nov 2026 08:00:00 +0100\nMessage-ID: <1@x>\nIn-Reply-To: <0@x>\n\nHello\n\n  World\n",
    { flags: new Set(["\\Seen", "Work"]), size: 400, internalDate: new Date("2026-11-03T07:01:00Z") },
  );
  assert.equal(email.subject, "Привет");
  assert.deepEqual(email.from_addresses, [{ name: "Jørn", address: "j@example.com" }]);
  assert.deepEqual(email.to_addresses.map(({ address }) => address), [
    "a@x.example",
    "b@x.example",
    "c@x.example",
  ]);
  assert.equal(email.cc_addresses[0].name, "まみむめも");
  assert.equal(email.sent_at, "2026-11-03T07:00:00.000Z");
  assert.equal(email.received_at, "2026-11-03T07:01:00.000Z");
  assert.deepEqual([email.message_id, email.in_reply_to], ["<1@x>", "<0@x>"]);
  assert.deepEqual([email.preview, email.size, email.flags], ["Hello World", 400, ["Work", "\\Seen"]]);
  assert.deepEqual([email.parse_error, email.body_text], [null, null]);
});

Deno.test("headers in raw bytes are decoded by the charset that the message declares", () => {
  const latin1 = Buffer.from(
    "From: Jürgen Öz <j@example.com>\r\nSubject: Grüße aus Köln\r\n" +
      "Content-Type: text/plain; charset=iso-8859-1\r\n\r\nSchöne Grüße\r\n",
    "latin1",
  );
  assert.deepEqual([row(latin1).subject, row(latin1).preview], ["Grüße aus Köln", "Schöne Grüße"]);
  assert.equal(row(latin1).from_addresses[0].name, "Jürgen Öz");

  // 你好 in GBK, and the charset stands in a part.
  const gbk = Buffer.concat([
    Buffer.from("Subject: "),
    Buffer.from([0xc4, 0xe3, 0xba, 0xc3]),
    Buffer.from(
      '\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain; charset=gbk\r\n\r\n',
    ),
    Buffer.from([0xc4, 0xe3, 0xba, 0xc3]),
    Buffer.from("\r\n--b--\r\n"),
  ]);
  assert.deepEqual([row(gbk).subject, row(gbk).preview, row(gbk).parse_error], ["你好", "你好", null]);

  const utf8 = row("Subject: Grüße\nFrom: Zoë <z@example.com>\n\nHallo\n");
  assert.deepEqual([utf8.subject, utf8.from_addresses[0].name, utf8.parse_error], ["Grüße", "Zoë", null]);

  const unknown = row(Buffer.from("Subject: Gr\xfc\xdfe\r\n\r\nHallo\r\n", "latin1"));
  assert.match(unknown.parse_error ?? "", /header is not in UTF-8, and no charset is declared/);
});

Deno.test("charsets that browsers do not know are read too, and unknown ones are named", () => {
  const old = row(
    "Subject: =?utf-7?Q?Gr+APwA3w-e?=\nFrom: =?utf-7?Q?J+APw-rgen?= <j@example.com>\n" +
      "Content-Type: text/plain; charset=UTF-7\n\nGr+APwA3w-e +IKw 10\n",
  );
  assert.deepEqual([old.subject, old.preview, old.parse_error], ["Grüße", "Grüße € 10", null]);
  assert.equal(old.from_addresses[0].name, "Jürgen");
  const unknown = row("Subject: =?x-klingon?Q?abc?=\nContent-Type: text/plain; charset=x-klingon\n\nabc\n");
  assert.match(unknown.parse_error ?? "", /text is in the unknown charset x-klingon/);
  assert.match(unknown.parse_error ?? "", /subject is in the unknown charset x-klingon/);
  assert.equal(unknown.preview, "abc");
});

Deno.test("dates are read as they are written, and those that do not exist are none", () => {
  const cases: [string, string | null][] = [
    ["Tue, 3 Nov 2026 08:00:00 +0100", "2026-11-03T07:00:00.000Z"],
    ["3 Nov 2026 08:00 GMT", "2026-11-03T08:00:00.000Z"],
    ["Tue, 3 Nov 2026 08:00:00 CET", "2026-11-03T07:00:00.000Z"],
    ["Tue, 3 Nov 2026 08:00:00 +0100 CET", "2026-11-03T07:00:00.000Z"],
    ["Tue, 3 Nov 2026 08:00:00 +0100 (Central (European) Time)", "2026-11-03T07:00:00.000Z"],
    ["Tue, 3 Nov 2026 08:00:00 EST", "2026-11-03T13:00:00.000Z"],
    ["Tue, 3 Nov 2026 08:00:00 XYZ", "2026-11-03T08:00:00.000Z"],
    ["Tue, 03 Nov 2026 08:00:00 -0000", "2026-11-03T08:00:00.000Z"],
    ["Tue,  3  Nov  2026\n 08:00:00 +0530", "2026-11-03T02:30:00.000Z"],
    ["Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00.000Z"],
    ["Tue Nov  3 08:00:00 2026", "2026-11-03T08:00:00.000Z"],
    ["Tue, 3 Nov 99 08:00:00 +0000", "1999-11-03T08:00:00.000Z"],
    ["Tue, 3 Nov 103 08:00:00 +0000", "2003-11-03T08:00:00.000Z"],
    ["3-Nov-2026 8:00:00 PM +0000", "2026-11-03T20:00:00.000Z"],
    ["2026-11-03T08:00:00+01:00", "2026-11-03T07:00:00.000Z"],
    ["Tuesday, 3 November 2026 08:00:00 +0000", "2026-11-03T08:00:00.000Z"],
    ["29 Feb 2028 00:00:00 +0000", "2028-02-29T00:00:00.000Z"],
    ["10", null],
    ["", null],
    ["Someday, 99 Foo 12345", null],
    ["31 Feb 2026 08:00:00 +0000", null],
    ["29 Feb 2026 08:00:00 +0000", null],
    ["Tue, 03 Nov 2026 08:00:00 +9999", null],
    ["Tue, 03 Nov 0000 08:00:00 +0000", null],
    ["Tue, 3 Nov 2026 25:00:00 +0000", null],
    ["Tue, 3 Nov 2026 08:61:00 +0000", null],
    ["1 Jan 275760 00:00:00 +0000", null],
  ];
  for (const [text, expected] of cases) assert.equal(parseDate(text), expected, text);
  const broken = row("Subject: Hi\nDate: Someday, 99 Foo 12345\n\nText\n");
  assert.deepEqual([broken.subject, broken.sent_at, broken.preview], ["Hi", null, "Text"]);
  assert.match(broken.parse_error ?? "", /Date is no date: Someday/);
});

Deno.test("addresses are read with all that was ever allowed in them", () => {
  const cases: [string, string[]][] = [
    ["Ann <ann@example.com>", ["Ann|ann@example.com"]],
    ["ann@example.com (Ann)", ["Ann|ann@example.com"]],
    ["Ann (at work) <ann@example.com>", ["Ann|ann@example.com"]],
    ["Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", ["Pete|pete@silly.test"]],
    ["John Doe <jdoe@machine(comment).  example>", ["John Doe|jdoe@machine.example"]],
    ["jdoe @ machine . example", ["|jdoe@machine.example"]],
    ["A Group(Some people)\n :Chris <c@(his host.)public.example>,\n joe@example.org (Joe);", [
      "Chris|c@public.example",
      "Joe|joe@example.org",
    ]],
    ["(Empty list)(start)Hidden recipients  :(nested comment(really)) ;", []],
    ["undisclosed-recipients:;", []],
    ['"Doe, John" <john@example.com>, "a@b" <c@example.com>', [
      "Doe, John|john@example.com",
      "a@b|c@example.com",
    ]],
    ["J. R. Doe <jr@example.com>; Ann <ann@example.com>", [
      "J. R. Doe|jr@example.com",
      "Ann|ann@example.com",
    ]],
    ["=?utf-8?q?Doe=2C_J=C3=BCrgen?= <j@example.com>", ["Doe, Jürgen|j@example.com"]],
    ["Only A Name", ["Only A Name|"]],
    ["<ann@example.com", ["|ann@example.com"]],
  ];
  for (const [header, expected] of cases) assert.deepEqual(to(header), expected, header);
  const authors = row("From: Ann <ann@example.com>, Bob <bob@example.com>\nSender: bot@example.com\n\nx\n");
  assert.deepEqual(authors.from_addresses.map(({ name }) => name), ["Ann", "Bob"]);
  assert.equal(row("Sender: bot@example.com\n\nx\n").from_addresses[0].address, "bot@example.com");
});

Deno.test("an address reads the same in a list of its kind and beside one that needs more reading", () => {
  const addresses = [
    "ann@example.com",
    " ann.b+c@mail.example.com ",
    "Ann <ann@example.com>",
    "Ann B. Cole <ann@example.com>",
    "O'Hara-Smith 2nd <o_hara@example.com>",
    "=?utf-8?q?Gr=C3=BC=C3=9Fe?= <ann@example.com>",
    "=?utf-8?B?5bGx55Sw?= =?utf-8?B?6Iqx5a2Q?= <hanako@example.com>",
    "=?utf-8?q?Ann?= von =?utf-8?q?K=C3=B6ln?= <ann@example.com>",
    "=?utf-8?q?ann=40example=2Ecom?= <ann@example.com>",
    "=?utf-8?q?evil=40example=2Eorg=2C?= <ann@example.com>",
    "=?hz-gb-2312?q?x?= <ann@example.com>",
    "=?utf-8?q?broken <ann@example.com>",
    "Ann<ann@example.com>",
    "Ann  <ann@example.com>",
    "ann@@example.com",
    "Ann ann@example.com",
    "ann",
    "",
  ];
  const read = (list: string) => readAddresses(new Headers(Buffer.from(`To: ${list}\n\n`)), "to", []);
  const beside = '"by, hand" <hand@example.com>';
  for (const address of addresses) {
    assert.deepEqual([...read(address), ...read(beside)], read(`${address}, ${beside}`), address);
  }
});

Deno.test("more recipients than are stored are counted", () => {
  const many = Array.from({ length: 1500 }, (_, at) => `P${at} <p${at}@example.com>`).join(",\n ");
  const email = row(`To: ${many}\nSubject: All\n\nx\n`);
  assert.deepEqual([email.to_addresses.length, email.subject], [1000, "All"]);
  assert.match(email.parse_error ?? "", /to has 1500 addresses, 1000 are stored/);
});

Deno.test("a preview is what a person would read first", () => {
  assert.equal(
    html(
      "<html><head><title>T</title><style>p{}</style></head><!-- no --><p>Gr&uuml;n &amp; blau&nbsp;&#x1F600;</p>" +
        "<script>1 < 2</script>end",
    ),
    "Grün & blau 😀 end",
  );
  assert.equal(
    html("<p>10&nbsp;&euro; &ndash; G&uuml;ltig f&uuml;r &bdquo;Caf&eacute;&ldquo; &hellip;</p>"),
    "10 € – Gültig für „Café“ …",
  );
  assert.equal(
    html("<div>Neu&#847;&zwnj;&nbsp;&#847;&zwnj;&nbsp;&shy;&#8203;&#65279;</div><p>da</p>"),
    "Neu da",
  );
  // Joiners within words are part of them.
  assert.equal(html("<p>می&zwnj;خواهم 👩‍💻</p>"), "می\u200cخواهم 👩‍💻");
  assert.equal(html("<img alt=\"a > b\" src=x><a title='1 > 0'>more</a>"), "more");
  assert.equal(html("<p>1 < 2 and 3 > 2</p>"), "1 < 2 and 3 > 2");
  assert.equal(html('<p class="broken>text</p> after'), "text after");
  assert.equal(html("<p>don't</p><a href=x>it's</a>"), "don't it's");
  const both = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\nplain\n" +
    "--b\nContent-Type: text/html\n\n<p>html</p>\n--b--\n";
  assert.equal(row(both).preview, "plain");
  assert.equal(row(both.replace("plain\n--b", " \n--b")).preview, "html");
});

Deno.test("every message is read in linear time, however hostile it is", () => {
  const longest = (what: string, work: () => unknown) => {
    const started = performance.now();
    work();
    const ms = performance.now() - started;
    assert.ok(ms < 3000, `${what}: ${ms} ms`);
  };
  for (const piece of ["<script", "<", "<!--", "&", '<a "', "<a ='", '="', "&amp;&", "<style>", "</"]) {
    longest(`html ${piece}`, () => htmlToText(piece.repeat(150_000 / piece.length)));
  }
  const pieces = [
    "(",
    ")",
    "<",
    ">",
    '"',
    ",",
    ":",
    ";",
    "@",
    ".",
    " ",
    "=?",
    "=?a?Q?",
    "\\",
    "a@b,",
    " .@",
    "\n ",
    "a (",
    "<a@",
  ];
  for (const piece of pieces) {
    const text = piece.repeat(150_000 / piece.length);
    longest(
      `header ${piece}`,
      () => row(`To: ${text}\nSubject: ${text}\nDate: ${text}\nContent-Type: ${text}\n\nx\n`),
    );
  }
  for (const piece of ["\n", " ", "\u200c", "\u200ca", "\u00ad", "--b\n", "--b--\n", "=\n", "=3D"]) {
    const body = piece.repeat(150_000 / piece.length);
    const type = 'multipart/mixed; boundary="b"';
    longest(`text ${piece}`, () => row(`Content-Transfer-Encoding: quoted-printable\n\na${body}b\n`));
    longest(`parts ${piece}`, () => row(`Content-Type: ${type}\n\n${body}\n`));
  }
});

Deno.test("parts are found in their encodings, and attachments are none", () => {
  const source = 'Content-Type: multipart/mixed; boundary="x y"\n\npreamble\n--x y\n' +
    "Content-Type: text/plain; name=a.txt\nContent-Disposition: attachment; filename=a.txt\n\nattached\n--x y\n" +
    "Content-Type: multipart/alternative; boundary=x\n\n--x\nContent-Type: text/plain; charset=utf-8\n" +
    "Content-Transfer-Encoding: base64\n\nR3LDvMOf\nZQ==\n--x\nContent-Type: text/html; charset=utf-8\n" +
    "Content-Transfer-Encoding: quoted-printable\n\n<p>Gr=C3=BC=\n=C3=9Fe</p>\n--x--\n--x y--\n";
  const email = row(source, {}, true);
  assert.deepEqual([email.body_text, email.body_html, email.preview], ["Grüße", "<p>Grüße</p>", "Grüße"]);
});

Deno.test("parts that are nested too deeply are said not to be read", () => {
  let body = "Content-Type: text/plain\n\ninnermost\n";
  for (let level = 0; level < 300; level++) {
    body = `Content-Type: multipart/mixed; boundary=b${level}\n\n--b${level}\n${body}--b${level}--\n`;
  }
  const email = row(`Subject: Nested\n${body}`);
  assert.equal(email.subject, "Nested");
  assert.match(email.parse_error ?? "", /nested deeper than 30 levels: not all were read/);
});

Deno.test("nothing of a message breaks the database", () => {
  const email = row(
    "Subject: a\u0000b =?utf-8?q?=00=ED=A0=80?=\nDate: 1 Jan 275760 00:00:00 +0000\n\nx\u0000y\n",
    {},
    true,
  );
  assert.ok(!JSON.stringify(email).includes("\\u0000"));
  assert.ok(JSON.stringify(email).isWellFormed());
  assert.equal(email.sent_at, null);
  assert.match(email.subject ?? "", /^ab/);
  const emoji = row(`Subject: x\n\n${"😀".repeat(300)}\n`);
  assert.ok(emoji.preview?.isWellFormed());
  assert.equal(row("").subject, null);
});

Deno.test("flags of the session are not the message's", () => {
  assert.deepEqual(emptyRow({ uid: 1, flags: new Set(["\\Seen", "\\Recent", "\\recent"]) }).flags, [
    "\\Seen",
  ]);
});
