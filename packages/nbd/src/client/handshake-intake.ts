import type { Intake, Wire } from "./wire.ts";

/** Takes exact numbers of bytes, one wait at a time: what a handshake needs. */
export class HandshakeIntake implements Intake {
  #need: { count: number; resolve: (bytes: Buffer) => void; reject: (error: unknown) => void } | undefined;
  #over: { error: unknown } | undefined;

  get wanted(): number {
    return this.#need?.count ?? 0;
  }

  get window(): number {
    return Math.max(this.wanted, 4096);
  }

  take(scratch: Buffer, start: number, end: number): number {
    const need = this.#need;
    if (need === undefined || end - start < need.count) return 0;
    this.#need = undefined;
    need.resolve(Buffer.from(scratch.subarray(start, start + need.count)));
    return need.count;
  }

  place(): undefined {
    return undefined;
  }

  placed(): number {
    return 0;
  }

  ended(error: unknown): void {
    this.#over = { error };
    this.#need?.reject(error);
    this.#need = undefined;
  }

  /** The next `count` bytes; rejects when the wire dies. */
  next(wire: Wire, count: number): Promise<Buffer> {
    if (count === 0) return Promise.resolve(Buffer.alloc(0));
    return new Promise((resolve, reject) => {
      if (this.#over !== undefined) {
        reject(this.#over.error);
        return;
      }
      this.#need = { count, resolve, reject };
      wire.poke();
    });
  }
}
