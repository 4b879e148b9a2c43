/**
 * JSON that keeps what JavaScript's numbers cannot hold, and says beforehand what PostgreSQL's `jsonb` refuses.
 *
 * The rule: an integer beyond ±(2^53 − 1) is a `bigint` in the functions and is written back with all its digits.
 * Every other number is a `number`; {@link parseJson} can keep decimals that a double would round as they stand.
 */

/** Source text access and raw JSON, in V8 since 11.4 and not yet in TypeScript's library. */
const nativeJson = JSON as unknown as {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): unknown;
};

/** Sixteen digits in a row or an exponent: without one of them every number survives as it is. */
const MAY_BE_INEXACT = /[\d.]{16}|\d[eE]/;

/** What the database takes: beyond, there are programs that cannot read it. */
const MAX_DEPTH = 100;
const MAX_DIGITS = 300;
const TOO_LARGE = 10n ** BigInt(MAX_DIGITS);

/**
 * Parses JSON; integers beyond 2^53 become `bigint`.
 *
 * @param options.exactDecimals keep decimals that a double would round as opaque objects, which
 *   {@link stringifyJson} writes as they were: for code that only passes values on.
 * @throws SyntaxError when the text is not JSON.
 */
export function parseJson(text: string, options: { exactDecimals?: boolean } = {}): unknown {
  if (!MAY_BE_INEXACT.test(text)) return JSON.parse(text);
  return nativeJson.parse(text, (_key, value, { source }) => {
    if (typeof value !== "number" || source === undefined) return value;
    if (/^-?\d+$/.test(source)) return Number.isSafeInteger(value) ? value : BigInt(source);
    if (options.exactDecimals && canonicalNumber(source) !== canonicalNumber(String(value))) {
      return nativeJson.rawJSON(source);
    }
    return value;
  });
}

/**
 * Parses JSON in which values may be nested too deeply to be kept exact: in the place of such a value stands one that
 * {@link stringifyJson} refuses, and beside it integers beyond 2^53 are rounded.
 *
 * @throws SyntaxError when the text is not JSON.
 */
export function parseAnyJson(text: string, options: { exactDecimals?: boolean } = {}): unknown {
  try {
    return parseJson(text, options);
  } catch (error) {
    // The end of the stack. The parser itself needs none; who reads or writes what it gives does.
    if (!(error instanceof RangeError)) throw error;
    const parsed: unknown = JSON.parse(text);
    cutDeeperThan(1000, parsed);
    return parsed;
  }
}

function cutDeeperThan(deepest: number, value: unknown): void {
  const steps = [{ value, depth: 0 }];
  for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
    if (typeof step.value !== "object" || step.value === null) continue;
    const item = step.value as Record<string, unknown>;
    for (const [key, child] of Object.entries(item)) {
      if (step.depth < deepest) steps.push({ value: child, depth: step.depth + 1 });
      else item[key] = { toJSON: refuseDepth };
    }
  }
}

function refuseDepth(): never {
  throw new RangeError("it is nested too deeply");
}

/**
 * Writes JSON, a `bigint` as the integer it is.
 *
 * @throws RangeError for what is nested too deeply.
 */
export function stringifyJson(value: unknown): string {
  try {
    // Several times as fast as with a replacer, and all that most values need.
    return JSON.stringify(value);
  } catch (error) {
    // A bigint, or a circle, which fails again.
    if (!(error instanceof TypeError)) throw error;
  }
  return JSON.stringify(
    value,
    (_key, item) => typeof item === "bigint" ? nativeJson.rawJSON(item.toString()) : item,
  );
}

/** Sign, significant digits and power of ten, equal for equal decimals however they are written. */
function canonicalNumber(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (match === null) return text;
  const [, sign, whole, fraction = "", exponent = "0"] = match;
  const digits = (whole + fraction).replace(/^0+/, "");
  const significant = digits.replace(/0+$/, "");
  if (significant === "") return "0";
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}

interface Step {
  value: unknown;
  depth: number;
  key: string;
  parent: Step | null;
}

/**
 * Why `jsonb` would refuse a value, or `null` when it takes it.
 *
 * `\u0000` and lone surrogates fail in `jsonb`'s input, before any function of ours could say where they are;
 * `NaN` and infinities would silently become `null`; and the database's functions refuse what is nested too deeply, and
 * numbers of too many digits.
 *
 * @param name what the path in the message starts with.
 */
export function whyNotStorable(value: unknown, name: string): string | null {
  const steps: Step[] = [{ value, depth: 0, key: name, parent: null }];
  for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
    const item = step.value;
    if (typeof item === "string") {
      const flaw = whyNotText(item);
      if (flaw !== null) return `${pathOf(step)} contains ${flaw}`;
    } else if (typeof item === "number") {
      if (!Number.isFinite(item)) return `${pathOf(step)} is ${item}, which JSON cannot say`;
      if (Math.abs(item) >= 1e300) return `${pathOf(step)} is a number of more than ${MAX_DIGITS} digits`;
    } else if (typeof item === "bigint") {
      if (item >= TOO_LARGE || -item >= TOO_LARGE) {
        return `${pathOf(step)} is a number of more than ${MAX_DIGITS} digits`;
      }
    } else if (typeof item === "object" && item !== null) {
      if (step.depth >= MAX_DEPTH) return `${name} is nested deeper than ${MAX_DEPTH} levels`;
      for (const [key, child] of Object.entries(item)) {
        const flaw = whyNotText(key);
        if (flaw !== null) return `a key in ${pathOf(step)} contains ${flaw}`;
        const label = Array.isArray(item) ? `[${key}]` : `.${key}`;
        steps.push({ value: child, depth: step.depth + 1, key: label, parent: step });
      }
    }
  }
  return null;
}

/** Why a value is no number of items, as the database counts them, or `null` when it is one. */
export function whyNotCount(value: unknown, name: string): string | null {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return null;
  return `${name} is not a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`;
}

/** Whether a value is written as a JSON object: no list, and nothing with a form of its own such as a date or a map. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return Object.prototype.toString.call(value) === "[object Object]";
}

/** Text that `text` and `jsonb` columns take: `\u0000` dropped, lone surrogates replaced by U+FFFD. */
export function storableText(text: string): string {
  return text.replaceAll("\u0000", "").toWellFormed();
}

function whyNotText(text: string): string | null {
  if (text.includes("\u0000")) return "\\u0000";
  return text.isWellFormed() ? null : "a lone surrogate";
}

function pathOf(step: Step): string {
  const keys: string[] = [];
  for (let at: Step | null = step; at !== null; at = at.parent) keys.push(at.key);
  return keys.reverse().join("").slice(0, 200).toWellFormed();
}
