/** Arithmetic of UID lists. All lists are ascending. */

/** The list as [first, last] of its runs. */
export function asRanges(uids: number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const uid of uids) {
    const last = ranges.at(-1);
    if (last !== undefined && uid <= last[1] + 1) last[1] = uid;
    else ranges.push([uid, uid]);
  }
  return ranges;
}

/** Cuts the part of the list that lies in a range (null: all of it) into [first, last, UIDs] of at most `size` UIDs. */
export function inPieces(
  uids: number[],
  range: [number, number, ...unknown[]] | null,
  size: number,
): [number, number, number][] {
  const start = range === null ? 0 : place(uids, range[0]);
  const end = range === null ? uids.length : place(uids, range[1] + 1);
  const pieces: [number, number, number][] = [];
  for (let at = start; at < end; at += size) {
    const next = Math.min(at + size, end);
    pieces.push([uids[at], uids[next - 1], next - at]);
  }
  return pieces;
}

/** The list without what lies in the ranges, which are ascending and apart. */
export function without(uids: number[], ranges: [number, number, ...unknown[]][]): number[] {
  const kept: number[] = [];
  let at = 0;
  for (const [first, last] of ranges) {
    const start = place(uids, first);
    while (at < start) kept.push(uids[at++]);
    at = place(uids, last + 1);
  }
  return kept.concat(uids.slice(at));
}

/** Where the first UID that is not smaller stands. */
function place(uids: number[], uid: number): number {
  let low = 0;
  let high = uids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (uids[middle] < uid) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A sequence set of the protocol, such as `1:3,7`. */
export function compact(uids: number[]): string {
  return asRanges(uids).map(([from, to]) => from === to ? String(from) : `${from}:${to}`).join(",");
}
