/** Numbers keep their digits, and what `jsonb` refuses is named before it is sent. */

import assert from "node:assert/strict";
import {
  parseAnyJson,
  parseJson,
  storableText,
  stringifyJson,
  whyNotStorable,
} from "../../supabase/functions/_shared/json.ts";

Deno.test("integers beyond 2^53 are bigint, and come out with all their digits", () => {
  const text =
    '{"small":9007199254740991,"large":9007199254740993,"negative":-12345678901234567890,"list":[1e3]}';
  const value = parseJson(text) as Record<string, unknown>;
  assert.deepEqual(value, {
    small: 9007199254740991,
    large: 9007199254740993n,
    negative: -12345678901234567890n,
    list: [1000],
  });
  assert.equal(stringifyJson(value), text.replace("1e3", "1000"));
});

Deno.test("decimals that a double would round are kept where values are only passed on", () => {
  const text = "[0.1,3.14159265358979323846264338327950288,1e400,123456789012345678901234567890.5,1.50]";
  assert.equal(
    stringifyJson(parseJson(text, { exactDecimals: true })),
    "[0.1,3.14159265358979323846264338327950288,1e400,123456789012345678901234567890.5,1.5]",
  );
  assert.deepEqual(parseJson("[3.14159265358979323846264338327950288]"), [Math.PI]);
});

Deno.test("digits within text are text", () => {
  const text = '{"id":"12345678901234567890"}';
  assert.equal(stringifyJson(parseJson(text)), text);
});

Deno.test("a key named __proto__ is a key like any other", () => {
  const text = '{"__proto__":{"a":12345678901234567890}}';
  assert.equal(stringifyJson(parseJson(text)), text);
});

Deno.test("values that jsonb refuses are named by their path", () => {
  const deep: unknown[] = [];
  let inner = deep;
  for (let level = 0; level < 100_000; level++) inner.push(inner = []);
  const cases: [unknown, RegExp][] = [
    [{ a: [{ b: "x\u0000" }] }, /^result\.a\[0\]\.b contains \\u0000$/],
    ["\udc00", /^result contains a lone surrogate$/],
    [{ "k\u0000": 1 }, /^a key in result contains \\u0000$/],
    [[Number.NaN], /^result\[0\] is NaN/],
    [{ x: -Infinity }, /^result\.x is -Infinity/],
    [deep, /^result is nested deeper than 100 levels$/],
    [{ n: [10n ** 300n] }, /^result\.n\[0\] is a number of more than 300 digits$/],
    [-(10n ** 300n), /^result is a number of more than 300 digits$/],
    [[-1e300], /^result\[0\] is a number of more than 300 digits$/],
  ];
  for (const [value, message] of cases) assert.match(whyNotStorable(value, "result") ?? "", message);
  for (
    const value of [undefined, null, 0, "", "😀", [], {}, 10n ** 300n - 1n, 9.9e299, { a: [1n, "\\u0000"] }]
  ) {
    assert.equal(whyNotStorable(value, "result"), null);
  }
});

Deno.test("what is nested too deeply to be kept stands for itself, and is not written again", () => {
  const nested = (depth: number) => '{"a":'.repeat(depth) + "1e400" + "}".repeat(depth);
  assert.equal(stringifyJson(parseAnyJson(nested(900), { exactDecimals: true })), nested(900));
  const row = parseAnyJson(`[{"id":7,"payload":${nested(10_000)}}]`, { exactDecimals: true });
  const [{ id, payload }] = row as { id: number; payload: unknown }[];
  assert.equal(id, 7);
  assert.throws(() => stringifyJson(payload), RangeError);
  assert.throws(() => parseAnyJson("[" + nested(10_000)), SyntaxError);
});

Deno.test("text is made storable", () => {
  assert.equal(storableText("a\u0000b\ud800c😀"), "ab\ufffdc😀");
});
