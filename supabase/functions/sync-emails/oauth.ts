/**
 * Access tokens of accounts that log in by OAuth (XOAUTH2).
 *
 * Tokens live in the Vault. They are renewed by one chunk at a time, since a provider may take a refresh token only
 * once, and a new refresh token is stored before the access token that came with it is used.
 */

import type { Rpc } from "../_shared/rpc.ts";
import { PermanentFailure, RetryLater } from "../_shared/serve.ts";
import type { Budget } from "./budget.ts";

/** What `begin_email_token` answers. */
type Begun =
  | { state: "token"; access_token: string }
  | { state: "wait"; seconds: number }
  | { state: "reauth_required" }
  | ({ state: "refresh"; lease: string } & Credentials);

interface Credentials {
  provider: "google" | "microsoft" | "custom";
  client_id: string;
  refresh_token: string;
  token_url?: string;
  scope?: string;
}

/** Where the providers renew tokens, and what is asked for. */
const PROVIDERS: Record<string, { url: string; scope?: string }> = {
  google: { url: "https://oauth2.googleapis.com/token" },
  microsoft: {
    url: "https://login.microsoftonline.com/common/oauth2/v2.0/token",
    scope: "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
  },
};

/** The settings with the providers' client secrets; public clients have none. */
const CLIENT_SECRETS = {
  google: "EMAIL_OAUTH_GOOGLE_CLIENT_SECRET",
  microsoft: "EMAIL_OAUTH_MICROSOFT_CLIENT_SECRET",
  custom: "EMAIL_OAUTH_CUSTOM_CLIENT_SECRET",
};

/** Milliseconds; a lease lasts a minute. */
const REFRESH_TIMEOUT = 20_000;
/** Milliseconds between two looks whether another has renewed the token. */
const LOOK_AGAIN = 500;
/** Answers of a provider (RFC 6749) after which only a person can help. */
const ACCESS_IS_GONE = new Set([
  "invalid_grant",
  "interaction_required",
  "consent_required",
  "login_required",
]);

/** What renewing needs from outside. */
export interface TokenSource {
  accountId: string;
  /** The account's name, for messages. */
  account: string;
  rpc: Rpc;
  budget: Budget;
  /** A setting of the function. */
  env(name: string): string | undefined;
}

/**
 * A valid access token.
 *
 * @param refused one that the mail server did not take, though it had not expired.
 * @throws PermanentFailure when somebody has to give access again; RetryLater when the provider is away.
 */
export async function accessToken(source: TokenSource, refused: string | null = null): Promise<string> {
  const { accountId, rpc, budget } = source;
  for (;;) {
    const begun = await rpc("begin_email_token", { account_id: accountId, refused }) as Begun | null;
    switch (begun?.state) {
      case undefined:
        throw new PermanentFailure(`the email account ${JSON.stringify(source.account)} was removed`);
      case "token":
        return begun.access_token;
      case "reauth_required":
        throw reauthorise(source.account);
      case "refresh":
        return await renew(source, begun.lease, begun);
      case "wait":
        // Its holder needs a second, or has died.
        if (budget.isOver()) {
          throw new RetryLater(begun.seconds, "another chunk renews the account's token");
        }
        await budget.wait(LOOK_AGAIN);
    }
  }
}

async function renew(source: TokenSource, lease: string, credentials: Credentials): Promise<string> {
  const { accountId, account, rpc } = source;
  const answer = await ask(credentials, source.env(CLIENT_SECRETS[credentials.provider]));
  if ("error" in answer) {
    if (ACCESS_IS_GONE.has(answer.error)) {
      const ours = await rpc("refuse_email_token", { account_id: accountId, lease });
      throw ours ? reauthorise(account) : new RetryLater(1, "the account was saved anew meanwhile");
    }
    throw new PermanentFailure(
      `${credentials.provider} does not renew the token of the account ${
        JSON.stringify(account)
      }: ${answer.error}` +
        (answer.error === "invalid_client"
          ? `; is ${CLIENT_SECRETS[credentials.provider]} set, and right?`
          : ""),
    );
  }
  const stored = await rpc("save_email_token", { account_id: accountId, lease, ...answer });
  if (!stored) throw new RetryLater(1, "the account was saved anew meanwhile");
  return answer.access_token;
}

/** Asks the provider; neither its answer nor the request is ever part of a message. */
async function ask(
  { provider, client_id, refresh_token, token_url, scope }: Credentials,
  secret: string | undefined,
): Promise<{ access_token: string; expires_in: number; refresh_token: string | null } | { error: string }> {
  const known = PROVIDERS[provider];
  const form = new URLSearchParams({ grant_type: "refresh_token", client_id, refresh_token });
  const wanted = scope ?? known?.scope;
  if (wanted) form.set("scope", wanted);
  if (secret) form.set("client_secret", secret);
  let status: number;
  // deno-lint-ignore no-explicit-any
  let body: any;
  try {
    const response = await fetch(token_url ?? known.url, {
      method: "POST",
      body: form,
      headers: { accept: "application/json" },
      redirect: "manual",
      signal: AbortSignal.timeout(REFRESH_TIMEOUT),
    });
    status = response.status;
    body = await response.json().catch(() => null);
  } catch {
    throw new RetryLater(null, `${provider} cannot be reached to renew a token`);
  }
  if (status === 200 && typeof body?.access_token === "string" && body.access_token !== "") {
    const rotated = typeof body.refresh_token === "string" && body.refresh_token !== ""
      ? body.refresh_token
      : null;
    const seconds = Number(body.expires_in ?? 3600);
    return {
      access_token: body.access_token,
      expires_in: Number.isFinite(seconds) ? Math.min(Math.max(Math.trunc(seconds), 0), 86_400) : 3600,
      refresh_token: rotated,
    };
  }
  if ((status === 400 || status === 401 || status === 403) && /^[a-z_]{1,60}$/.test(body?.error)) {
    return { error: body.error };
  }
  throw new RetryLater(null, `${provider} answered ${status} instead of renewing a token`);
}

function reauthorise(account: string): PermanentFailure {
  return new PermanentFailure(
    `the email account ${
      JSON.stringify(account)
    } has to be given access again: run supabase-chunks email login, or ` +
      "save it with a new refresh token",
  );
}
