import { parentPort, workerData } from "node:worker_threads";
import { digester } from "../manifest/digest.ts";
import { leafDigests } from "../manifest/leaf-digests.ts";
import { errorToJson } from "../provider/error-json.ts";
import type { Lane, LaneWriter, ReaderLaneModule, WriterLaneModule } from "../provider/lane.ts";
import type { BlockReader } from "../provider/reader.ts";
import { Copier } from "./copier.ts";
import type { FromWorker, ToWorker, WorkerSetup } from "./copy-lane.ts";
import { ReopeningReader } from "./reopening-reader.ts";
import { boundedLayer, depthOf } from "./session.ts";

/** A worker thread that copies: it opens its own reader and writer and takes batches until it is told to close. */
const setup = workerData as WorkerSetup;
const port = parentPort!;

function tell(message: FromWorker): void {
  port.postMessage(message);
}

async function openReader(lane: Lane): Promise<BlockReader> {
  const module = (await import(lane.module)) as ReaderLaneModule;
  return new ReopeningReader(await module.open(lane.data), (wait) => module.open(lane.data, wait));
}

async function openWriter(lane: Lane | undefined): Promise<LaneWriter | undefined> {
  if (lane === undefined) return undefined;
  const module = (await import(lane.module)) as WriterLaneModule;
  return module.open(lane.data);
}

function hashOf(algorithm: WorkerSetup["algorithm"]): ((block: Uint8Array, leaf: number) => Uint8Array) | undefined {
  if (algorithm === undefined) return undefined;
  const digest = digester(algorithm);
  return (block, leaf) => leafDigests(digest, block, leaf);
}

const opening = Promise.all([openReader(setup.reader), openWriter(setup.writer)]).then(([reader, writer]) => ({
  reader,
  writer,
  copier: new Copier({
    reader,
    writer,
    passDigests: false,
    leaf: setup.leaf,
    itemLength: setup.itemLength,
    depth: depthOf(reader, writer, setup.depth),
    hash: hashOf(setup.algorithm),
    layer: boundedLayer(reader, writer, setup.policy),
  }),
}));

function failed(error: unknown): void {
  tell({ type: "failed", error: errorToJson(error) });
}

async function close(): Promise<void> {
  const { reader, writer, copier } = await opening;
  await copier[Symbol.asyncDispose]();
  await reader[Symbol.asyncDispose]();
  await writer?.[Symbol.asyncDispose]();
}

port.on("message", (message: ToWorker) => {
  if (message.type === "run") {
    opening
      .then(({ copier }) => copier.run(message.batch))
      .then((result) => tell({ type: "done", id: message.batch.id, result }))
      .catch(failed);
  } else if (message.type === "settle") {
    opening
      .then(({ writer }) => writer?.settle())
      .then((note) => tell({ type: "settled", id: message.id, note }))
      .catch(failed);
  } else {
    close()
      .catch(() => {})
      .finally(() => tell({ type: "closed" }));
  }
});
opening.catch(failed);
