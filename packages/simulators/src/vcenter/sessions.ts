import { randomUUID } from "node:crypto";
import { data } from "./vim-value.ts";
import type { Data } from "./vim-value.ts";

/** One login. */
export interface Session {
  readonly key: string;
  readonly userName: string;
  readonly loginTime: Date;
  lastActive: Date;
  callCount: number;
  readonly ipAddress: string;
  readonly userAgent: string;
}

/** The logins of a simulator with their idle time-out, tickets for clones included. */
export class Sessions {
  readonly #sessions = new Map<string, Session>();
  readonly #tickets = new Map<string, Session>();
  readonly #idleMs: number;
  readonly #limit: number;

  constructor(idleMs: number, limit: number) {
    this.#idleMs = idleMs;
    this.#limit = limit;
  }

  /** How many logins are alive. */
  get count(): number {
    return this.#sessions.size;
  }

  /** Logs in; undefined where the limit of logins is reached. */
  open(userName: string, ipAddress: string, userAgent: string): Session | undefined {
    for (const key of this.#sessions.keys()) this.peek(key);
    if (this.#sessions.size >= this.#limit) return undefined;
    const now = new Date();
    const session = {
      key: randomUUID(),
      userName,
      loginTime: now,
      lastActive: now,
      callCount: 0,
      ipAddress,
      userAgent,
    };
    this.#sessions.set(session.key, session);
    return session;
  }

  /** The session of this key if it is alive; does not count as activity. */
  peek(key: string): Session | undefined {
    const session = this.#sessions.get(key);
    if (session === undefined || Date.now() - session.lastActive.getTime() <= this.#idleMs) return session;
    this.close(key);
    return undefined;
  }

  /** The session of this key if it is alive, whose idle time begins anew. */
  use(key: string): Session | undefined {
    const session = this.peek(key);
    if (session === undefined) return undefined;
    session.lastActive = new Date();
    session.callCount++;
    return session;
  }

  /** A ticket with which another connection joins as the same user, once. */
  ticket(session: Session): string {
    const ticket = randomUUID();
    this.#tickets.set(ticket, session);
    return ticket;
  }

  /** The session whose ticket this is. */
  redeem(ticket: string): Session | undefined {
    const session = this.#tickets.get(ticket);
    this.#tickets.delete(ticket);
    return session === undefined ? undefined : this.peek(session.key);
  }

  /** Ends one login. */
  close(key: string): void {
    this.#sessions.delete(key);
  }

  /** Ends every login. */
  clear(): void {
    this.#sessions.clear();
    this.#tickets.clear();
  }
}

/** A session as Login returns it. */
export function userSession(session: Session): Data {
  return data("UserSession", {
    key: session.key,
    userName: session.userName,
    fullName: session.userName,
    loginTime: session.loginTime,
    lastActiveTime: session.lastActive,
    locale: "en_US",
    messageLocale: "en_US",
    extensionSession: false,
    ipAddress: session.ipAddress,
    userAgent: session.userAgent,
    callCount: session.callCount,
  });
}
