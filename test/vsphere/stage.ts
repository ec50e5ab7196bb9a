import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TargetProvider } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import type { ReaderName, VsphereOptions } from "@diskferry/provider-vmware";
import { afterEach, beforeEach } from "vitest";
import { VddkStandIn } from "../../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import type { World } from "../../packages/provider-vmware/test/world.ts";

/** What the tests of a file open, and a folder for each of them: closed and removed after it, the last first. */
export class Stage {
  readonly #open: AsyncDisposable[] = [];
  #folder = "";

  constructor() {
    beforeEach(() => {
      this.#folder = mkdtempSync(join(tmpdir(), "diskferry-vsphere-"));
    });
    afterEach(async () => {
      for (const each of this.#open.splice(0).reverse()) await each[Symbol.asyncDispose]();
      rmSync(this.#folder, { recursive: true, force: true });
    });
  }

  get folder(): string {
    return this.#folder;
  }

  /** Closes it after the test. */
  keep<Opened extends AsyncDisposable>(opened: Opened): Opened {
    this.#open.push(opened);
    return opened;
  }

  /** The options of a source that reads in these ways, with the stand-in for VMware's library where one of them needs it. */
  async readBy(
    world: World,
    readers: readonly ReaderName[],
  ): Promise<Required<Pick<VsphereOptions, "readers">> & Pick<VsphereOptions, "vddk">> {
    if (!readers.includes("vddk")) return { readers: [...readers] };
    const { options } = this.keep(await VddkStandIn.start(world.simulator));
    return { readers: [...readers], vddk: options };
  }

  /** A target that keeps a chain of recovery points. */
  async chain(): Promise<TargetProvider> {
    const directory = join(this.#folder, "chain");
    mkdirSync(directory);
    return this.keep(await local.target!({ directory, format: "qcow2-chain" }));
  }
}
