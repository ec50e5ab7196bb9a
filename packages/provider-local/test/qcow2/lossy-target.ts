import type { BlockWriter, TargetProvider } from "@diskferry/core/provider";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import type { LossyFiles } from "./lossy-files.ts";

const path = "/disks/target.qcow2";

/** A target of one qcow2 image in place, over files that lose writes, renames and tables alike. */
export function lossyQcow2Target(files: LossyFiles): TargetProvider {
  return {
    async create({ size }) {
      if (!files.has(path)) await createQcow2({ path, size, files });
      return { id: path, size };
    },
    async open(volume, { run }) {
      const writer = await openQcow2Writer(path, { run, files });
      const sealed = writer.commit.bind(writer);
      const commit = async (request: Parameters<BlockWriter["commit"]>[0]): Promise<typeof volume> => {
        await sealed(request);
        return volume;
      };
      return Object.assign(writer, { commit });
    },
    read: () => openQcow2Reader(path, { files }),
    async remove() {},
    async *owned() {},
    async [Symbol.asyncDispose]() {},
  };
}

/** The first bytes of the disk in the image, which has to be sound. */
export async function lossyQcow2Bytes(files: LossyFiles, length: number): Promise<Uint8Array> {
  const found = await checkQcow2(path, { files });
  if (found.dirty || found.corruptions + found.leaks > 0)
    throw new Error(`the image is damaged: ${JSON.stringify(found)}`);
  await using reader = await openQcow2Reader(path, { files });
  const bytes = new Uint8Array(length);
  await reader.read(0, bytes);
  return bytes;
}
