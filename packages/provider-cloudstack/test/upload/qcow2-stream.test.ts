import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { qcow2Stream } from "../../src/upload/qcow2-stream.ts";

/** Disks with data at the start, over the border of a second-level table (512 MiB), and in a last cluster that is short. */
const disks: [string, number, [number, Uint8Array][]][] = [
  ["empty", 2 ** 20, []],
  ["smaller than a cluster", 512, [[0, randomBytes(512, 1)]]],
  [
    "over two tables",
    2 ** 29 + 2 ** 20 + 512,
    [
      [0, randomBytes(4096, 2)],
      [2 ** 29 - 4096, randomBytes(8192, 3)],
      [2 ** 29 + 2 ** 20, randomBytes(512, 4)],
    ],
  ],
];

describeWithPeers(["qemu-img"], "an image made while it is sent", () => {
  it.each(disks)("is whole for qemu and as long as was said: %s", async (_what, size, parts) => {
    const folder = mkdtempSync(join(tmpdir(), "diskferry-stream-"));
    try {
      const [raw, image] = [join(folder, "disk.raw"), join(folder, "disk.qcow2")];
      await using file = await open(raw, "wx+");
      await file.truncate(size);
      for (const [offset, bytes] of parts) await file.write(bytes, 0, bytes.byteLength, offset);
      const stream = await qcow2Stream(file, size);
      const sent: Uint8Array[] = [];
      for await (const part of stream.content()) sent.push(Uint8Array.from(part));
      const whole = Buffer.concat(sent);
      expect(whole.byteLength).toBe(stream.length);
      writeFileSync(image, whole);
      execFileSync("qemu-img", ["check", "-f", "qcow2", image]);
      const same = execFileSync("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", raw, image]).toString();
      expect(same).toContain("identical");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
