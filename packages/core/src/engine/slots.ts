/** So many at once, the others wait their turn. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Runs `work` when a slot is free. Whoever waits is bounded by the callers. */
  use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free === 0)
      return new Promise<void>((resolve) => this.#waiting.push(resolve)).then(() => this.#run(work));
    this.#free--;
    return this.#run(work);
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    try {
      const running = work();
      running.then(this.#release, this.#release);
      return running;
    } catch (error) {
      this.#release();
      return Promise.reject(error);
    }
  }

  readonly #release = (): void => {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  };
}
