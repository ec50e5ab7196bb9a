import { randomBytes } from "node:crypto";
import type { Account } from "./entities.ts";

/** A browser's session. */
export interface Session {
  readonly id: string;
  readonly key: string;
  readonly account: Account;
  lastUsed: number;
}

/** How long a session lives unused, in seconds (`session.timeout` of the web server: 30 minutes). */
export const sessionTimeoutSeconds = 1800;

/** Sessions by cookie; each call carries the session's key as well. */
export class Sessions {
  readonly #sessions = new Map<string, Session>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  open(account: Account): Session {
    const session: Session = {
      id: randomBytes(16).toString("hex").toUpperCase(),
      key: randomBytes(20).toString("base64url"),
      account,
      lastUsed: this.#now(),
    };
    this.#sessions.set(session.id, session);
    return session;
  }

  /** The session of a cookie; undefined where there is none, or it was unused too long. */
  find(id: string | undefined): Session | undefined {
    const session = id === undefined ? undefined : this.#sessions.get(id);
    if (session === undefined) return undefined;
    if (this.#now() - session.lastUsed > sessionTimeoutSeconds * 1000) {
      this.#sessions.delete(session.id);
      return undefined;
    }
    session.lastUsed = this.#now();
    return session;
  }

  end(session: Session): void {
    this.#sessions.delete(session.id);
  }

  /** Ends all, as a restart of the management server does. */
  clear(): void {
    this.#sessions.clear();
  }
}
