import type { Wait } from "@diskferry/core/provider";

/**
 * One login that many calls share. A call that finds it ended asks for a new one; of several that ask at once, one logs in
 * and the others wait for it.
 */
export class VimSession {
  readonly #login: (wait: Wait) => Promise<string>;
  #credential: string | undefined;
  #generation = 0;
  #underWay: Promise<void> | undefined;

  /** `login` resolves to what later calls send to be known. */
  constructor(login: (wait: Wait) => Promise<string>) {
    this.#login = login;
  }

  /** Grows with every login: collectors, views and leases belong to one of them. */
  get generation(): number {
    return this.#generation;
  }

  /** What a call sends to be known; undefined before the first login. */
  get credential(): string | undefined {
    return this.#credential;
  }

  /** Logs in unless that happened since `generation`. */
  async renew(generation: number, wait: Wait = {}): Promise<void> {
    if (this.#generation !== generation) return;
    // The login is everybody's: one caller that gives up does not end it for the others.
    this.#underWay ??= this.#renew().finally(() => {
      this.#underWay = undefined;
    });
    await abandonable(this.#underWay, wait.signal);
  }

  /** Forgets the login, as after Logout. */
  end(): void {
    this.#credential = undefined;
  }

  async #renew(): Promise<void> {
    this.#credential = undefined;
    this.#credential = await this.#login({});
    this.#generation++;
  }
}

/** Waits for `work` until the signal fires; the work itself goes on. */
export async function abandonable<Result>(work: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return work;
  // Nobody may be left to hear how it ended.
  work.catch(() => undefined);
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
