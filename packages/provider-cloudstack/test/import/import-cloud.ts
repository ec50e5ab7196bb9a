import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CloudstackOptions } from "../../src/index.ts";
import { type SimulatorOptions, type TestCloud, startCloud } from "../cloud.ts";

/** A simulator whose pool is mounted here, and the options of its root administrator. */
export interface ImportCloud extends TestCloud {
  /** The pool's folder. */
  folder: string;
  spool: string;
}

/** Starts a simulator; `pool` is what files are put on. */
export async function startImportCloud(given: SimulatorOptions = {}, pool = "primary-zone"): Promise<ImportCloud> {
  const cloud = await startCloud(given);
  const { simulator } = cloud;
  const spool = await mkdtemp(join(tmpdir(), "diskferry-import-"));
  const { appliance: _, diskOffering: __, ...rest } = cloud.options;
  const folder = simulator.poolFolder(pool);
  const options: CloudstackOptions = {
    ...rest,
    apiKey: simulator.admin.apiKey,
    secretKey: simulator.admin.secretKey,
    mode: "import",
    spool,
    import: { pool, folder },
    launch: { networks: [{ network: "shared" }], testNetwork: "shared" },
  };
  return {
    simulator,
    options,
    folder,
    spool,
    async [Symbol.asyncDispose]() {
      await cloud[Symbol.asyncDispose]();
      await rm(spool, { recursive: true, force: true });
    },
  };
}
