/** The header Date, as RFC 5322 writes it and as it was written before; what is not a date is none. */

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/** Minutes east of Greenwich. RFC 5322 takes other names for unknown; these are common in mail all the same. */
const ZONES: Record<string, number> = {
  ut: 0,
  utc: 0,
  gmt: 0,
  z: 0,
  wet: 0,
  west: 60,
  bst: 60,
  cet: 60,
  met: 60,
  mez: 60,
  cest: 120,
  mest: 120,
  mesz: 120,
  eet: 120,
  eest: 180,
  msk: 180,
  est: -300,
  edt: -240,
  cst: -360,
  cdt: -300,
  mst: -420,
  mdt: -360,
  pst: -480,
  pdt: -420,
  akst: -540,
  akdt: -480,
  hst: -600,
  jst: 540,
  kst: 540,
};

const DATE =
  /^(?:[a-z]+\.?,?\s*)?(\d{1,2})[\s-]+([a-z]{3})[a-z]*\.?[\s-]+(\d{2,4})[,\s]+(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2}))?(?:\.\d+)?\s*(am|pm)?\s*([+-]\s?\d{1,2}:?\d{2}|[a-z]+)?/i;
/** `Tue Nov  3 08:00:00 2026`, as C prints it. */
const ASCTIME =
  /^[a-z]{3}[a-z]*,?\s+([a-z]{3})[a-z]*\s+(\d{1,2})\s+(\d{1,2}):(\d{2})(?::(\d{2}))?\s+(?:([+-]\d{4}|[a-z]+)\s+)?(\d{4})(?:\s+([+-]\d{4}|[a-z]+))?/i;
const ISO =
  /^(\d{4})-(\d{2})-(\d{2})[T\s](\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*(z|[+-]\d{2}:?\d{2}|[a-z]+)?/i;

/** The time as ISO 8601 in UTC; null when the text is no date or one that does not exist. */
export function parseDate(text: string): string | null {
  const plain = withoutComments(text).replace(/\s+/g, " ").trim();
  let match = DATE.exec(plain);
  if (match) {
    const [, day, month, year, hour, minute, second, half, zone] = match;
    let hours = Number(hour);
    if (half && hours <= 12) hours = hours % 12 + (/pm/i.test(half) ? 12 : 0);
    return build(fullYear(year), monthOf(month), day, hours, minute, second, zone);
  }
  match = ASCTIME.exec(plain);
  if (match) {
    const [, month, day, hour, minute, second, zone, year, later] = match;
    return build(Number(year), monthOf(month), day, Number(hour), minute, second, zone ?? later);
  }
  match = ISO.exec(plain);
  if (match) {
    const [, year, month, day, hour, minute, second, zone] = match;
    return build(Number(year), Number(month) - 1, day, Number(hour), minute, second, zone);
  }
  return null;
}

function build(
  year: number,
  month: number,
  day: string,
  hour: number,
  minute: string,
  second: string | undefined,
  zone: string | undefined,
): string | null {
  const seconds = Number(second ?? 0);
  const offset = minutesEast(zone);
  if (
    year < 1 || month < 0 || month > 11 || hour > 23 || Number(minute) > 59 || seconds > 60 || offset === null
  ) {
    return null;
  }
  const date = new Date(0);
  date.setUTCFullYear(year, month, Number(day));
  // 31 February would be some day in March.
  if (date.getUTCMonth() !== month || date.getUTCDate() !== Number(day)) return null;
  // A leap second is the next minute's first: no clock that mail is stored with has it.
  date.setUTCHours(hour, Number(minute) - offset, seconds);
  const stored = date.getUTCFullYear();
  return stored >= 1 && stored <= 9999 ? date.toISOString() : null;
}

/** Two digits are RFC 5322's obsolete years; three count from 1900. */
function fullYear(text: string): number {
  const year = Number(text);
  if (text.length === 2) return year + (year < 50 ? 2000 : 1900);
  return text.length === 3 ? year + 1900 : year;
}

function monthOf(name: string): number {
  return MONTHS.indexOf(name.toLowerCase());
}

/** An unknown name is UTC, as RFC 5322 says; an offset that does not exist makes the time unknown. */
function minutesEast(zone: string | undefined): number | null {
  if (zone === undefined) return 0;
  const match = /^([+-])\s?(\d{1,2}):?(\d{2})$/.exec(zone);
  if (match === null) return ZONES[zone.toLowerCase()] ?? 0;
  const [, sign, hours, minutes] = match;
  if (Number(hours) > 14 || Number(minutes) > 59) return null;
  return (sign === "-" ? -1 : 1) * (60 * Number(hours) + Number(minutes));
}

/** Comments, which may be nested, are for people. */
function withoutComments(text: string): string {
  if (!text.includes("(")) return text.slice(0, 500);
  let depth = 0;
  let kept = "";
  for (const char of text.slice(0, 500)) {
    if (char === "(") depth += 1;
    else if (char === ")" && depth > 0) depth -= 1;
    else if (depth === 0) kept += char;
  }
  return kept;
}
