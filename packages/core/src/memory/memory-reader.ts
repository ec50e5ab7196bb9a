import { createHash } from "node:crypto";
import type { BlockReader, DigestAlgorithm, ReadOptions } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import { GeometryGuard, memoryError, type MemoryGate } from "./memory-gate.ts";
import type { SparseBytes } from "./sparse-bytes.ts";

/** Shapes a reader of a memory place; `false` leaves the member off. */
export interface MemoryReaderOptions {
  /** Bytes. Default 512. */
  blockSize?: number | undefined;
  /** Default 8. */
  concurrency?: number | false | undefined;
  /** Default: absent. */
  preferredLength?: number | undefined;
  /** Default `any`, by leaving the member off. */
  order?: "any" | "ascending" | undefined;
  /** Digests at the far side: `true` knows SHA-256 alone, a function computes what it is asked for. Default false. */
  digests?: boolean | ((algorithm: DigestAlgorithm, data: Uint8Array) => Uint8Array) | undefined;
}

interface ReaderParts {
  gate: MemoryGate;
  side: "source" | "target";
  id: string;
  /** Throws when the bytes are gone or the session ended. */
  content: () => SparseBytes;
  size: number;
  /** Throws when the hint of a read is missing or belongs elsewhere. */
  checkHint?: (offset: number, length: number, hint: unknown) => void;
  options: MemoryReaderOptions;
}

/** Opens a reader over bytes in memory that holds its caller to every rule of the contract. */
export function openMemoryReader(parts: ReaderParts): BlockReader {
  const { gate, side, id, size, options } = parts;
  const concurrency = options.order === "ascending" ? false : (options.concurrency ?? 8);
  const geometry = {
    size,
    blockSize: options.blockSize ?? 512,
    ...(concurrency === false ? {} : { concurrency }),
    ...(options.preferredLength === undefined ? {} : { preferredLength: options.preferredLength }),
  };
  const guard = new GeometryGuard(`reader of ${id}`, geometry);
  let closed = false;
  let position = 0;

  const content = (): SparseBytes => {
    if (closed) throw new TypeError(`reader of ${id} was disposed: open it again`);
    return parts.content();
  };

  const read = (offset: number, into: Uint8Array, wait: ReadOptions = {}): Promise<void> =>
    guard.during(offset, into.byteLength, async () => {
      if (options.order === "ascending") {
        if (offset < position) {
          throw memoryError(
            "UNSUPPORTED",
            "read",
            `reader of ${id} is ascending and stands at ${position}: ` +
              `${offset} has passed; open it again to read from the start`,
          );
        }
        position = offset + into.byteLength;
      }
      await gate.pass({ side, method: "reader.read", on: id, offset, length: into.byteLength }, wait.signal, () => {
        const bytes = content();
        parts.checkHint?.(offset, into.byteLength, wait.hint);
        bytes.read(offset, into);
      });
    });

  const digests = (
    offset: number,
    length: number,
    { algorithm, leaf, signal }: { algorithm: DigestAlgorithm; leaf: number } & Wait,
  ): Promise<Uint8Array> =>
    guard.during(offset, length, () =>
      gate.pass({ side, method: "reader.digests", on: id, offset, length }, signal, () => {
        const bytes = content();
        const found: Uint8Array[] = [];
        for (let at = offset; at < offset + length; at += leaf) {
          const data = new Uint8Array(Math.min(leaf, offset + length - at));
          bytes.read(at, data);
          found.push(digestOf(options.digests, algorithm, data));
        }
        return Buffer.concat(found);
      }),
    );

  return {
    ...geometry,
    ...(options.order === undefined ? {} : { order: options.order }),
    read,
    ...(options.digests === undefined || options.digests === false ? {} : { digests }),
    async [Symbol.asyncDispose]() {
      closed = true;
    },
  };
}

function digestOf(by: MemoryReaderOptions["digests"], algorithm: DigestAlgorithm, data: Uint8Array): Uint8Array {
  if (typeof by === "function") return by(algorithm, data);
  if (algorithm !== "sha256") {
    throw memoryError(
      "UNSUPPORTED",
      "digests",
      `digests by ${algorithm} are not computed here: ask for sha256, or read`,
    );
  }
  return createHash("sha256").update(data).digest();
}
