import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { AwsError } from "./aws-error.ts";
import { blockSize } from "./block-pool.ts";

/** Requests longer than this are cut off: a block, or a large form. */
const longestBody = 2 ** 20;
/** Blocks' memory that is kept for requests to come. */
const mostKept = 256;
const kept: Buffer[] = [];

/** A request's body, good until it is disposed: a block's memory then goes to another request. */
export interface RequestBody extends Disposable {
  readonly bytes: Buffer;
  readonly sha256: Buffer;
}

/** Takes a body down and hashes it as it comes. @throws AwsError for one that is too long; Error when it breaks off */
export function bodyOf(request: IncomingMessage): Promise<RequestBody> {
  const told = Number(request.headers["content-length"] ?? 0);
  const isBlock = told === blockSize;
  let bytes = isBlock ? (kept.pop() ?? Buffer.allocUnsafeSlow(blockSize)) : Buffer.alloc(0);
  const others: Buffer[] = [];
  const hash = createHash("sha256");
  let length = 0;
  return new Promise((resolve, reject) => {
    request.on("data", (part: Buffer) => {
      if (length + part.length > longestBody)
        return reject(new AwsError(413, "RequestEntityTooLarge", "The body is too long."));
      hash.update(part);
      if (isBlock) bytes.set(part, length);
      else others.push(part);
      length += part.length;
    });
    request.once("end", () => {
      if (!isBlock) bytes = Buffer.concat(others);
      resolve({
        bytes,
        sha256: hash.digest(),
        [Symbol.dispose]() {
          if (isBlock && kept.length < mostKept) kept.push(bytes);
        },
      });
    });
    request.once("error", reject);
    request.once("close", () => reject(new Error("the request broke off")));
  });
}
