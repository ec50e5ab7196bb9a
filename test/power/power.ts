import { ProviderError, type BlockWriter, type TargetProvider, type Wait } from "@diskferry/core/provider";
import { replaced } from "../replaced.ts";

/** The power of a target, which goes at a chosen call and takes a part of what was not flushed with it. */
export class Power {
  /** Calls of the target that are left before it goes. */
  callsLeft: number = Infinity;
  /** Told at the moment it goes; what it returns is waited for by the call that was cut. */
  gone: () => Promise<void> | void = () => {};
  #isOff = false;
  #start = 0;
  readonly #underWay = new Set<Promise<unknown>>();

  get isOff(): boolean {
    return this.#isOff;
  }

  /** How often it came back: whatever was opened before is lost. */
  get start(): number {
    return this.#start;
  }

  cut(): void {
    this.#isOff = true;
  }

  /** Comes back, once nothing that began before can touch the target any more. */
  async restore(): Promise<void> {
    this.cut();
    this.callsLeft = Infinity;
    await Promise.allSettled(this.#underWay);
    this.#start++;
    this.#isOff = false;
  }

  /** Runs a call of the target that was opened at `start`; the power may go before it takes effect, or after. */
  async call<Result>(start: number, act: () => Promise<Result> | Result): Promise<Result> {
    this.#check(start);
    if (this.callsLeft-- <= 0) return this.#goes();
    const acting = (async () => act())();
    this.#underWay.add(acting);
    try {
      const result = await acting;
      this.#check(start);
      if (this.callsLeft-- <= 0) return await this.#goes();
      return result;
    } finally {
      this.#underWay.delete(acting);
    }
  }

  async #goes(): Promise<never> {
    this.callsLeft = Infinity;
    await this.gone();
    throw lost();
  }

  #check(start: number): void {
    if (this.#isOff || start !== this.#start) throw lost();
  }
}

function lost(): ProviderError {
  return new ProviderError("UNAVAILABLE", "the target lost its power", { retryable: false });
}

/** A target that has no more power than it is given. A writer is closed by whoever restores the power. */
export function powered(target: TargetProvider, power: Power, opened: (writer: BlockWriter) => void): TargetProvider {
  const { read } = target;
  const call = <Result>(act: () => Promise<Result>): Promise<Result> => power.call(power.start, act);
  return replaced<TargetProvider>(target, {
    create: (request) => call(() => target.create(request)),
    async open(volume, request) {
      const { start } = power;
      const writer = await call(async () => {
        const made = await target.open(volume, request);
        opened(made);
        return made;
      });
      return poweredWriter(writer, power, start);
    },
    ...(read === undefined ? {} : { read: (volume, wait) => call(() => read.call(target, volume, wait)) }),
  });
}

function poweredWriter(writer: BlockWriter, power: Power, start: number): BlockWriter {
  const call = <Result>(act: () => Promise<Result>): Promise<Result> => power.call(start, act);
  const { zero, read } = writer;
  return replaced<BlockWriter>(writer, {
    write: (offset, data, options) => call(() => writer.write(offset, data, options)),
    flush: (wait) => call(() => writer.flush(wait)),
    commit: (request) => call(() => writer.commit(request)),
    ...(zero === undefined
      ? {}
      : { zero: (offset: number, length: number, wait?: Wait) => call(() => zero.call(writer, offset, length, wait)) }),
    ...(read === undefined
      ? {}
      : { read: (offset: number, into: Uint8Array, wait?: Wait) => call(() => read.call(writer, offset, into, wait)) }),
    async [Symbol.asyncDispose]() {
      if (!power.isOff && power.start === start) await writer[Symbol.asyncDispose]();
    },
  });
}
