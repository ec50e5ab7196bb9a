import { createHash } from "node:crypto";
import type { BlockWriter, Volume, WrittenExtent } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { ExtentSet } from "./extent-set.ts";
import { GeometryGuard, memoryError, type MemoryCall, type MemoryGate, untilAborted } from "./memory-gate.ts";
import type { MemoryVolumes, StoredLine, StoredRun } from "./memory-volumes.ts";

/** Shapes a writer of a memory place; `false` leaves the member off. */
export interface MemoryWriterOptions {
  /** Bytes. Default 512. */
  blockSize?: number | undefined;
  /** Default 8. */
  concurrency?: number | false | undefined;
  /** Default: absent. */
  preferredLength?: number | undefined;
  blank?: false | undefined;
  zero?: false | undefined;
  /** Whether a writer reads back what it would commit. */
  writerRead?: false | undefined;
  /** Demands digests of every block. Default: absent. */
  digest?: "sha256" | undefined;
  /**
   * How strictly a commit compares `written`: `exact` demands all that was written and nothing more (zeroed ranges may
   * be named or not), `within` only nothing more, `covers` only all of it; each demands that all was flushed.
   * `unchecked` commits whatever is there, as a platform would that looks at nothing. Default: what the contract says, `exact`
   * with `digest` and `covers` without, as leaves may be wider than what was written in them.
   */
  written?: "exact" | "within" | "covers" | "unchecked" | undefined;
}

interface WriterParts {
  gate: MemoryGate;
  volumes: MemoryVolumes;
  line: StoredLine;
  run: StoredRun;
  epoch: number;
  options: MemoryWriterOptions;
  /** Makes the run's bytes a volume; called once per run. */
  publish: () => Volume;
  /** The volume of a run that was committed already. */
  published: () => Volume;
  discard: () => void;
}

/** Opens a writer of one run. A newer epoch, a newer run in the same place and a restart of the server end it. */
export function openMemoryWriter(parts: WriterParts): BlockWriter {
  const { gate, volumes, line, run, epoch, options } = parts;
  const { session } = volumes;
  let { connection } = volumes;
  const blockSize = options.blockSize ?? 512;
  const concurrency = options.concurrency ?? 8;
  const geometry = {
    size: run.size,
    blockSize,
    ...(concurrency === false ? {} : { concurrency }),
    ...(options.preferredLength === undefined ? {} : { preferredLength: options.preferredLength }),
  };
  const guard = new GeometryGuard(`writer of ${line.id}`, geometry);
  const opening = {};
  let closed = false;
  run.openings.add(opening);

  const alive = (operation: string): void => {
    if (closed) throw new TypeError(`writer of ${line.id} was disposed: open the run again`);
    if (session !== volumes.session) {
      throw memoryError(
        "UNAVAILABLE",
        operation,
        `the target restarted while ${line.id} was written: open the run again`,
        { retryable: false },
      );
    }
    if (line.epoch > epoch) {
      throw memoryError(
        "FENCED",
        operation,
        `${line.id} was opened by epoch ${line.epoch} while epoch ${epoch} wrote it: leave it to the newer worker`,
      );
    }
    if (line.runs.get(run.run) !== run) {
      throw memoryError(
        "FENCED",
        operation,
        `run ${run.run} of ${line.id} was abandoned or followed by another run: begin a new run`,
      );
    }
  };
  const writable = (operation: string): void => {
    alive(operation);
    if (run.committed !== undefined) {
      throw memoryError(
        "UNSUPPORTED",
        operation,
        `run ${run.run} of ${line.id} was committed: begin another run to write more`,
      );
    }
  };
  const pass = <Result>(
    method: string,
    wait: Wait | undefined,
    act: () => Result,
    range: Partial<MemoryCall> = {},
  ): Promise<Result> =>
    gate.pass({ side: "target", method: `writer.${method}`, on: line.id, ...range }, wait?.signal, act);

  const write: BlockWriter["write"] = (offset, data, { digest, signal } = {}) =>
    guard.during(offset, data.byteLength, () =>
      pass(
        "write",
        { signal },
        () => {
          writable("write");
          if (digest !== undefined && options.digest !== undefined)
            checkDigests(line.id, offset, data, digest, blockSize);
          run.disk.write(offset, data);
          run.pendingWritten.add(offset, data.byteLength);
          run.pendingZeroed.remove(offset, data.byteLength);
          if (line.disk !== undefined) line.torn = true;
        },
        { offset, length: data.byteLength },
      ),
    );

  const zero: NonNullable<BlockWriter["zero"]> = (offset, length, wait) =>
    guard.during(offset, length, () =>
      pass(
        "zero",
        wait,
        () => {
          writable("zero");
          run.disk.zero(offset, length);
          run.pendingZeroed.add(offset, length);
          if (line.disk !== undefined) line.torn = true;
        },
        { offset, length },
      ),
    );

  const read: NonNullable<BlockWriter["read"]> = (offset, into, wait) =>
    guard.during(offset, into.byteLength, () =>
      pass(
        "read",
        wait,
        () => {
          alive("read");
          run.disk.live.read(offset, into);
        },
        { offset, length: into.byteLength },
      ),
    );

  return {
    ...geometry,
    generation: run.generation,
    ...(options.blank === false ? {} : { blank: run.blank }),
    ...(options.digest === undefined ? {} : { digest: options.digest }),
    write,
    ...(options.zero === false ? {} : { zero }),
    ...(options.writerRead === false ? {} : { read }),

    flush: (wait?: Wait) =>
      pass("flush", wait, () => {
        alive("flush");
        if (connection !== volumes.connection) {
          connection = volumes.connection;
          throw memoryError(
            "UNAVAILABLE",
            "flush",
            `the connection to ${line.id} was lost since the last flush: write again what was not flushed`,
            { retryable: false },
          );
        }
        run.disk.flush();
        run.written.addAll(run.pendingWritten);
        run.zeroed.addAll(run.pendingZeroed);
        run.pendingWritten.remove(0, run.size);
        run.pendingZeroed.remove(0, run.size);
      }),

    async commit({ written, signal }) {
      signal?.throwIfAborted();
      const claimed = await collect(written, line.id, run, options, blockSize, signal);
      return pass("commit", { signal }, () => {
        alive("commit");
        if (run.committed !== undefined) return parts.published();
        const strictness = options.written ?? (options.digest === undefined ? "covers" : "exact");
        if (strictness !== "unchecked" && (guard.underWay > 0 || run.disk.hasPending)) {
          throw memoryError(
            "UNEXPECTED",
            "commit",
            `run ${run.run} of ${line.id} has writes that were not flushed: flush before the commit`,
          );
        }
        if (strictness !== "unchecked") compare(line.id, claimed, run, strictness);
        run.disk.flush();
        return parts.publish();
      });
    },

    abandon: (wait?: Wait) =>
      pass("abandon", wait, () => {
        if (closed || line.runs.get(run.run) !== run) return;
        alive("abandon");
        if (run.committed === undefined) parts.discard();
      }),

    async [Symbol.asyncDispose]() {
      closed = true;
      run.openings.delete(opening);
    },
  };
}

/** Reads `written` to its end, and judges its order and its digests as it comes. */
async function collect(
  written: AsyncIterable<WrittenExtent>,
  id: string,
  run: StoredRun,
  options: MemoryWriterOptions,
  blockSize: number,
  signal: AbortSignal | undefined,
): Promise<ExtentSet> {
  const claimed = new ExtentSet();
  const iterator = written[Symbol.asyncIterator]();
  for (let end = 0; ;) {
    const { done, value } = await untilAborted(iterator.next(), signal);
    if (done === true) return claimed;
    const { offset, length, digests } = value;
    if (offset < end || length <= 0 || offset + length > run.size) {
      throw memoryError(
        "CORRUPT",
        "commit",
        `${id}: what was written is listed out of order at ${offset}+${length}, after ${end}`,
      );
    }
    end = offset + length;
    claimed.add(offset, length);
    if (options.digest !== undefined && options.written !== "unchecked" && run.committed === undefined) {
      const data = new Uint8Array(length);
      run.disk.live.read(offset, data);
      checkDigests(id, offset, data, digests ?? new Uint8Array(), blockSize);
    }
  }
}

function compare(id: string, claimed: ExtentSet, run: StoredRun, strictness: "exact" | "within" | "covers"): void {
  const held = new ExtentSet();
  held.addAll(run.written);
  held.addAll(run.zeroed);
  const invented = strictness === "covers" ? undefined : claimed.firstOutside(held);
  if (invented !== undefined) {
    throw memoryError(
      "CORRUPT",
      "commit",
      `${id}: ${invented.offset}+${invented.length} is listed as written and was not: copy it again`,
    );
  }
  const forgotten = strictness === "within" ? undefined : run.written.firstOutside(claimed);
  if (forgotten !== undefined) {
    throw memoryError(
      "CORRUPT",
      "commit",
      `${id}: ${forgotten.offset}+${forgotten.length} was written and is not listed: the journal lost it, copy again`,
    );
  }
}

function checkDigests(id: string, offset: number, data: Uint8Array, digests: Uint8Array, blockSize: number): void {
  const found = Buffer.concat(
    Array.from({ length: Math.ceil(data.byteLength / blockSize) }, (_, index) =>
      createHash("sha256")
        .update(data.subarray(index * blockSize, (index + 1) * blockSize))
        .digest(),
    ),
  );
  if (found.equals(digests)) return;
  throw memoryError(
    "CORRUPT",
    "write",
    `${id} at ${offset}+${data.byteLength}: the digests are not those of its blocks of ${blockSize} bytes: send it again`,
  );
}
