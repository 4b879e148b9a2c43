/** What a handler throws to say what is to become of its chunk. */

/** Thrown by a handler: try again, not before so many seconds (null: after the usual backoff). */
export class RetryLater extends Error {
  override name = "RetryLater";

  constructor(readonly seconds: number | null = null, message = "not now") {
    super(message);
  }
}

/**
 * Thrown by a handler: what it works on asked for a pause. The chunk goes back without an attempt, and no chunk with its
 * `limit_key` is handed out for so many seconds, an hour at most.
 */
export class Throttled extends Error {
  override name = "Throttled";

  constructor(readonly seconds: number, message = "asked for a pause") {
    super(message);
  }
}

/** Thrown by a handler: trying again would not help. */
export class PermanentFailure extends Error {
  override name = "PermanentFailure";
}

/** Thrown by `save`: the claim is no longer ours, so nothing was saved. Let it end the handler. */
export class LeaseLost extends Error {
  override name = "LeaseLost";

  constructor() {
    super("the claim is no longer ours: the job was cancelled, or the chunk was given back or taken over");
  }
}
