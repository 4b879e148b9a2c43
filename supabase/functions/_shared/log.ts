/** One structured line a fact: Supabase's log explorer and any collector can filter by its fields. */

/** What a line may carry beside its event. Never a key, a password or a payload. */
export type LogFields = Record<string, string | number | boolean | null | undefined>;

/** Writes one line: to stderr when it has an `error`, to stdout otherwise. */
export type Log = (event: string, fields?: LogFields) => void;

/** A {@link Log} whose every line carries the function's name. */
export function createLog(functionName: string): Log {
  return (event, fields = {}) => {
    const line = JSON.stringify({ event, function: functionName, ...fields });
    if (fields.error === undefined || fields.error === null) console.log(line);
    else console.error(line);
  };
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
