import { parentPort, workerData } from "node:worker_threads";
import type { DigestAlgorithm } from "../provider/reader.ts";
import { digester } from "./digest.ts";
import { leafDigests } from "./leaf-digests.ts";

/** What the pool sends: blocks to hash, in the order their answers are wanted. */
export type HashRequest = readonly { readonly block: Uint8Array; readonly leaf: number }[];

/** What a thread answers: the digests of each block of a request. */
export type HashAnswer = readonly Uint8Array[];

const digest = digester((workerData as { algorithm: DigestAlgorithm }).algorithm);

parentPort?.on("message", (request: HashRequest) => {
  const answer: HashAnswer = request.map(({ block, leaf }) => leafDigests(digest, block, leaf));
  parentPort?.postMessage(answer);
});
