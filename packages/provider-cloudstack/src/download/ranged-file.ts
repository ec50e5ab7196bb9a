import { type Dispatcher, request } from "undici";
import { type Wait, copyInto, isProviderError } from "@diskferry/core/provider";
import { transportFailure } from "../client/transport.ts";
import { cloudstackError, isLostAnswer } from "../errors.ts";

/** Bytes of a file, at any offset. */
export interface ByteRanges {
  /** Bytes. */
  readonly length: number;
  /** Fills all of `into`, or rejects. */
  read(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
}

const expired = new WeakSet();

/** Whether an error says that the link has run out: another one has to be asked for. */
export function isExpired(error: unknown): boolean {
  return typeof error === "object" && error !== null && expired.has(error);
}

/** What the server takes for a link that is none any more. */
const GONE = new Set([401, 403, 404, 410]);

/**
 * A file behind an HTTP server that serves ranges (RFC 9110, section 14). Its length, and the `ETag` where there is one, are
 * those of the first answer; an answer with others, or with another range than the one asked for, is refused. `object`
 * stands for the file in messages; the URL, a secret, never does.
 */
export async function openRanges(url: URL, agent: Dispatcher, object: string, wait: Wait = {}): Promise<ByteRanges> {
  let tag: string | undefined;
  let length: number | undefined;
  const ranges = {
    length: 0,
    async read(offset: number, into: Uint8Array, { signal }: Wait = {}): Promise<void> {
      signal?.throwIfAborted();
      if (into.byteLength === 0) return;
      const last = offset + into.byteLength - 1;
      if (length !== undefined && last >= length)
        throw new RangeError(`${offset}+${into.byteLength} is outside of the ${length} bytes of ${object}`);
      try {
        const answer = await request(url, {
          dispatcher: agent,
          headers: { range: `bytes=${offset}-${last}`, "accept-encoding": "identity" },
          ...(signal === undefined ? {} : { signal }),
        });
        // Its errors reach the loop that reads it; one that nobody reads any more has nobody to tell.
        answer.body.on("error", () => {});
        try {
          const found = checkAnswer(answer, offset, last, object);
          if (length !== undefined && (found.length !== length || found.tag !== tag)) throw changed(object);
          [length, tag] = [found.length, found.tag];
          await fill(answer.body, into, object);
        } finally {
          // What is not wanted any more is not downloaded to its end.
          answer.body.destroy();
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (isProviderError(error)) throw error;
        const failure = transportFailure(error, `Download of ${object}`, url.host, undefined);
        if (!isLostAnswer(failure)) throw failure;
        const { code = "" } = error as NodeJS.ErrnoException;
        throw cloudstackError("UNAVAILABLE", `The download of ${object} from ${url.host} broke off (${code}).`, {
          operation: "download",
          cause: error,
        });
      }
    },
  };
  await ranges.read(0, new Uint8Array(1), wait);
  return Object.assign(ranges, { length: length ?? 0 });
}

function checkAnswer(
  { statusCode, headers }: Dispatcher.ResponseData,
  first: number,
  last: number,
  object: string,
): { length: number; tag: string | undefined } {
  const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(String(headers["content-range"] ?? ""));
  if (GONE.has(statusCode)) {
    const error = cloudstackError("UNAVAILABLE", `The link to ${object} has run out (${statusCode}).`, {
      operation: "download",
    });
    expired.add(error);
    throw error;
  }
  if (statusCode === 200) {
    throw cloudstackError(
      "UNSUPPORTED",
      `The secondary storage machine sends ${object} as a whole and no ranges of it. Set source.read to "appliance".`,
      { operation: "download" },
    );
  }
  if (statusCode === 416) throw cutShort(object, first);
  if (statusCode !== 206 || range === null) {
    const isLater = statusCode >= 500 || statusCode === 429;
    throw cloudstackError(
      isLater ? "UNAVAILABLE" : "UNEXPECTED",
      `The secondary storage machine answers the download of ${object} with status ${statusCode}.`,
      { operation: "download" },
    );
  }
  const [from, to, length] = range.slice(1).map(Number) as [number, number, number];
  if (from !== first || to > last) {
    throw cloudstackError(
      "UNEXPECTED",
      `The secondary storage machine sends bytes ${from} to ${to} of ${object} where ${first} to ${last} were asked for.`,
      { operation: "download" },
    );
  }
  if (to < last) throw cutShort(object, to + 1);
  const tag = headers["etag"];
  return { length, tag: typeof tag === "string" ? tag : undefined };
}

async function fill(body: AsyncIterable<Buffer>, into: Uint8Array, object: string): Promise<void> {
  let filled = 0;
  for await (const part of body) {
    if (filled + part.byteLength > into.byteLength) {
      throw cloudstackError("UNEXPECTED", `The download of ${object} brings more bytes than were asked for.`, {
        operation: "download",
      });
    }
    copyInto(into, part, filled);
    filled += part.byteLength;
  }
  if (filled < into.byteLength) {
    throw cloudstackError(
      "UNAVAILABLE",
      `The download of ${object} ended after ${filled} of ${into.byteLength} bytes.`,
      { operation: "download" },
    );
  }
}

function cutShort(object: string, at: number): Error {
  return cloudstackError("CORRUPT", `The file of ${object} ends at byte ${at}, where more of the disk has to be.`, {
    operation: "download",
  });
}

/** The file is another one than the one that was begun: its map would lead to wrong bytes. */
function changed(object: string): Error {
  const error = cloudstackError("UNAVAILABLE", `The file of ${object} was exchanged while it was read.`, {
    operation: "download",
  });
  expired.add(error);
  return error;
}
