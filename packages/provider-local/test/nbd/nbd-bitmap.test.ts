import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DiskReport, MemoryStateStore, replicate } from "@diskferry/core";
import { connectNbd } from "@diskferry/nbd";
import { beforeEach, expect, test, vi } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { type RunningServer, startQemuNbd } from "../../../../test/servers.ts";
import { provider } from "../../src/index.ts";
import { freshFolder } from "../folder.ts";

const seed = seedOf(59);
const KIB = 1024;
const MIB = 1024 * KIB;
/** No multiple of the bitmap's grain, so that its last bit stands for less. */
const size = 12 * MIB + 4 * KIB;
const grain = 64 * KIB;

beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

describeWithPeers(["qemu-nbd", "qemu-img"], "runs over a dirty bitmap that QEMU keeps", () => {
  test("move what the guest wrote and no more, and once the bitmap is gone compare all; the copy is the disk each time", async () => {
    const folder = freshFolder();
    const image = join(folder, "disk.qcow2");
    const copy = join(folder, "copy.raw");
    const content = new Uint8Array(size);
    content.set(randomBytes(3 * MIB, seed), MIB);
    content.set(randomBytes(MIB + 4 * KIB, seed + 1), 11 * MIB);
    const store = new MemoryStateStore();
    await using target = await provider.target!({ path: copy });

    const serve = (...args: string[]): Promise<RunningServer> =>
      startQemuNbd(["-f", "qcow2", "-e", "8", ...args, image]);
    const run = async (server: RunningServer): Promise<DiskReport> => {
      const options = { uri: server.uri, bitmap: "b0", machine: "vm", key: "vda", frozen: true };
      await using source = await provider.source!(options);
      const report = await replicate({ id: "job", source, machine: "vm", target, store, options: { leaf: grain } });
      return report.disks[0]!;
    };
    /** The guest writes through the server, as its own client. */
    const write = async (server: RunningServer, ...places: [offset: number, bytes: Uint8Array | number][]) => {
      await using guest = await connectNbd(server.uri);
      for (const [offset, bytes] of places) {
        if (typeof bytes === "number") await guest.zero(offset, bytes);
        else await guest.write(offset, bytes);
        content.set(typeof bytes === "number" ? new Uint8Array(bytes) : bytes, offset);
      }
      await guest.flush();
    };
    const expectCopy = (server: RunningServer, when: string): void => {
      expect(Buffer.compare(readFileSync(copy), content), `${when}, seed ${seed}`).toBe(0);
      // And by someone else's word, against the disk itself.
      execFileSync("qemu-img", ["compare", "-f", "raw", "-F", "raw", server.uri, copy], { stdio: "pipe" });
    };

    const raw = join(folder, "disk.raw");
    writeFileSync(raw, content);
    execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, image]);
    execFileSync("qemu-img", ["bitmap", "--add", "-g", String(grain), image, "b0"]);
    {
      await using server = await serve("-B", "b0");
      expect(await run(server)).toMatchObject({
        mode: "full",
        moved: 4 * MIB + 4 * KIB,
        checkpoint: true,
        fallbacks: [],
      });
      expectCopy(server, "full");

      await write(
        server,
        [MIB + grain, randomBytes(grain, seed + 2)],
        // Into two grains, of which each is dirty as a whole.
        [6 * MIB - 512, randomBytes(KIB, seed + 3)],
        [2 * MIB, 2 * grain],
        [size - 512, randomBytes(512, seed + 4)],
      );
      const second = await run(server);
      expect(second).toMatchObject({ mode: "incremental", checkpoint: true, fallbacks: [] });
      expect([second.read, second.moved, second.zeroed]).toEqual([3 * grain + 4 * KIB, 3 * grain + 4 * KIB, 2 * grain]);
      expectCopy(server, "incremental");
    }
    execFileSync("qemu-img", ["bitmap", "--remove", image, "b0"]);
    await using server = await serve();
    await write(server, [3 * MIB, randomBytes(grain, seed + 5)], [MIB, grain]);
    const third = await run(server);
    expect(third).toMatchObject({ mode: "rescan", checkpoint: false });
    expect(third.fallbacks).toMatchObject([{ from: "incremental", to: "rescan" }]);
    expect([third.moved, third.zeroed]).toEqual([grain, grain]);
    expectCopy(server, "rescan");
  }, 60_000);
});
