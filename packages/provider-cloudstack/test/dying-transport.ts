import { type Transport, openTransport } from "../src/client/transport.ts";

/** What a dead process' calls come to. */
export class Killed extends Error {
  constructor() {
    super("the process was killed");
    this.name = "Killed";
  }
}

/** A transport whose process dies after a call that was done and whose answer it never got. */
export interface DyingTransport extends Transport {
  /** Calls that were sent. */
  readonly calls: string[];
  /** Whether the death has come. */
  readonly isDead: boolean;
}

/** Sends `lives` calls; the answer of the last one is lost with the process, and so is every later call. */
export function dyingTransport(endpoint: string, lives: number): DyingTransport {
  const inner = openTransport(endpoint, {}, { connectMs: 60_000, requestMs: 120_000 });
  const calls: string[] = [];
  let isDead = false;
  return {
    calls,
    get isDead() {
      return isDead;
    },
    async post(form, command, options) {
      if (isDead) throw new Killed();
      calls.push(command);
      const answer = await inner.post(form, command, options);
      if (calls.length < lives) return answer;
      isDead = true;
      throw new Killed();
    },
    close: () => inner.close(),
  };
}
