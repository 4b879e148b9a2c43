/** Where a mail server is: the name is resolved once, and what a user may not reach is not connected to. */

import { lookup } from "node:dns/promises";
import ipaddr from "ipaddr.js";
import { RetryLater } from "../_shared/serve.ts";

/** What of a login says where the server is. */
export interface Server {
  host: string;
  port: number;
  /** Whether it is a user's: who may not learn what else there is in the function's network. */
  public_only?: boolean;
}

/** Where to connect, and whose certificate to ask for. */
export interface Target {
  host: string;
  servername?: string;
}

/** A name's addresses; an address's is itself, however it is written. */
export type Resolve = (host: string) => Promise<string[]>;

/** Nobody answers, or nobody who may be asked: for a user's server one and the same, so that errors map no network. */
export class Unreachable extends RetryLater {
  constructor({ host, port, public_only }: Server, why?: string) {
    const said = public_only ? ", or is no mail server on the internet" : why ? `: ${why}` : "";
    super(null, `${host}:${port} cannot be reached${said}`);
  }
}

const resolveName: Resolve = async (host) => {
  const found = await lookup(host, { all: true });
  return found.map(({ address }) => address);
};

/**
 * Where to connect to, in the order of trying. For a user's server these are addresses, all of them public, and nobody
 * looks the name up again.
 *
 * @throws Unreachable when a user's server has no address, or one that is not public.
 */
export async function targetsOf(server: Server, resolve: Resolve = resolveName): Promise<Target[]> {
  const { host, public_only } = server;
  if (!public_only) return [{ host }];
  const addresses = await resolve(host).catch(() => []);
  if (addresses.length === 0 || !addresses.every(isPublic)) throw new Unreachable(server);
  const isAddress = ipaddr.isValid(host);
  const inOrder = [...addresses.filter((address) => !address.includes(":")), ...addresses];
  return [...new Set(inOrder)].slice(0, 3)
    .map((address) => isAddress ? { host: address } : { host: address, servername: host });
}

/** Whether an address is one of the internet: not private, loopback, link-local, shared, reserved, nor a way into those. */
export function isPublic(address: string): boolean {
  if (!ipaddr.isValid(address)) return false;
  return ipaddr.process(address).range() === "unicast";
}
