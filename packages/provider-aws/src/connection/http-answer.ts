import { AwsFailure } from "../errors.ts";

/** Status and headers of an answer. */
export interface AnswerHead {
  readonly status: number;
  /** By names in lower case; of a header that comes several times the values are joined by commas. */
  readonly headers: Readonly<Record<string, string | undefined>>;
}

/** The longest head, line of a chunk or trailer that is read, in bytes. */
const longestHead = 64 * 1024;
const headEnd = Buffer.from("\r\n\r\n");
const headerName = /^[!#$%&'*+.^_`|~\w-]+$/;

/** What the parser waits for. */
type Part = "head" | "length" | "chunk line" | "chunk" | "chunk end" | "trailer" | "close" | "done";

/**
 * Takes the answer to one request apart as it comes (RFC 9112), without keeping its body. What is not plainly an answer is
 * refused: bytes that are taken for another block's are worse than a call that is repeated.
 */
export class AnswerParser {
  readonly #onHead: (head: AnswerHead) => void;
  readonly #onBody: (bytes: Buffer) => void;
  #part: Part = "head";
  /** Bytes that are missing of the body or the chunk. */
  #left = 0;
  /** The beginning of a head or line that has not come whole. */
  #kept: Buffer | undefined;
  #trailerBytes = 0;
  #isLast = false;

  /** `onBody` gets views of what `push` was given: they are to be used at once. */
  constructor(onHead: (head: AnswerHead) => void, onBody: (bytes: Buffer) => void) {
    this.#onHead = onHead;
    this.#onBody = onBody;
  }

  /** Whether the whole answer was read. */
  get isDone(): boolean {
    return this.#part === "done";
  }

  /** Whether the connection may carry another request afterwards, as far as the answer tells. */
  get leavesConnection(): boolean {
    return this.isDone && !this.#isLast;
  }

  /**
   * Takes the next bytes; how many of them belong to the answer: fewer than all only when it is done.
   * @throws AwsFailure for what is no answer, and what the callbacks throw
   */
  push(bytes: Buffer): number {
    let at = 0;
    while (at < bytes.byteLength && this.#part !== "done") {
      switch (this.#part) {
        case "head":
          at = this.#takeHead(bytes, at);
          break;
        case "length":
        case "chunk":
          at = this.#takeBody(bytes, at);
          break;
        case "close":
          this.#onBody(bytes.subarray(at));
          at = bytes.byteLength;
          break;
        default:
          at = this.#takeLine(bytes, at);
      }
    }
    return at;
  }

  /** Tells that nothing more comes. @throws AwsFailure unless the answer is whole */
  close(): void {
    if (this.#part === "close") this.#part = "done";
    if (this.#part !== "done") throw new AwsFailure("ERR_STREAM_PREMATURE_CLOSE", "The answer broke off");
  }

  #takeBody(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.byteLength, at + this.#left);
    this.#left -= end - at;
    if (this.#left === 0) this.#part = this.#part === "chunk" ? "chunk end" : "done";
    this.#onBody(at === 0 && end === bytes.byteLength ? bytes : bytes.subarray(at, end));
    return end;
  }

  #takeHead(bytes: Buffer, at: number): number {
    const before = this.#kept?.byteLength ?? 0;
    const all = this.#kept === undefined ? bytes.subarray(at) : Buffer.concat([this.#kept, bytes.subarray(at)]);
    const end = all.indexOf(headEnd, Math.max(0, before - headEnd.byteLength));
    if (end > longestHead || (end < 0 && all.byteLength > longestHead)) throw malformed("a head without an end");
    if (end < 0) {
      this.#kept = this.#kept === undefined ? Buffer.from(all) : all;
      return bytes.byteLength;
    }
    this.#kept = undefined;
    this.#begin(all.toString("latin1", 0, end).split("\r\n"));
    return at + end + headEnd.byteLength - before;
  }

  #begin(lines: string[]): void {
    const [, minor, code] = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: |$)/.exec(lines[0]!) ?? [];
    const status = Number(code);
    if (code === undefined) throw malformed("a first line that is no HTTP/1.1");
    const headers = headersOf(lines);
    // 100 Continue and 103 Early Hints come before the answer; 101 was not asked for.
    if (status < 200 && status !== 101) return;
    if (status === 101) throw malformed("another protocol");
    const { connection = "", "content-length": length, "transfer-encoding": coding } = headers;
    this.#isLast = minor === "0" || /\bclose\b/i.test(connection);
    if (status === 204 || status === 304) this.#part = "done";
    else if (coding !== undefined) {
      if (length !== undefined || coding.toLowerCase() !== "chunked") throw malformed("a body of unclear length");
      this.#part = "chunk line";
    } else if (length !== undefined) {
      // Told twice it comes as `5, 5`, and is refused with whatever else is no number.
      if (!/^\d{1,15}$/.test(length)) throw malformed("a length that is no number");
      this.#left = Number(length);
      this.#part = this.#left === 0 ? "done" : "length";
    } else {
      this.#part = "close";
      this.#isLast = true;
    }
    this.#onHead({ status, headers });
  }

  #takeLine(bytes: Buffer, at: number): number {
    const feed = bytes.indexOf(10, at);
    const end = feed < 0 ? bytes.byteLength : feed + 1;
    const piece = bytes.subarray(at, end);
    const line = this.#kept === undefined ? piece : Buffer.concat([this.#kept, piece]);
    if (line.byteLength > longestHead) throw malformed("a line without an end");
    if (feed < 0) {
      this.#kept = Buffer.from(line);
      return end;
    }
    this.#kept = undefined;
    const text = line.toString("latin1");
    if (!text.endsWith("\r\n")) throw malformed("a line that ends otherwise");
    this.#lineEnded(text.slice(0, -2));
    return end;
  }

  #lineEnded(line: string): void {
    if (this.#part === "chunk end") {
      if (line !== "") throw malformed("a chunk that is longer than told");
      this.#part = "chunk line";
    } else if (this.#part === "chunk line") {
      const [, size] = /^([\da-f]{1,12})[ \t]*(?:;|$)/i.exec(line) ?? [];
      if (size === undefined) throw malformed("a chunk of unclear length");
      this.#left = Number.parseInt(size, 16);
      this.#part = this.#left === 0 ? "trailer" : "chunk";
    } else {
      this.#trailerBytes += line.length;
      if (this.#trailerBytes > longestHead) throw malformed("a trailer without an end");
      if (line === "") this.#part = "done";
    }
  }
}

function headersOf(lines: string[]): Record<string, string> {
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (let at = 1; at < lines.length; at++) {
    const line = lines[at]!;
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon)).toLowerCase();
    if (!headerName.test(name)) throw malformed("a header that is none");
    const value = line.slice(colon + 1).trim();
    const known = headers[name];
    headers[name] = known === undefined ? value : `${known}, ${value}`;
  }
  return headers;
}

function malformed(what: string): AwsFailure {
  return new AwsFailure("MalformedHttpAnswer", `The answer is not to be understood as HTTP: it has ${what}`);
}
