import { beforeEach, expect, test, vi } from "vitest";
import { formatConformance, runConformance } from "@diskferry/provider-testkit";
import { describeWithPeers } from "../../../../test/peers.ts";
import { freshFolder } from "../folder.ts";
import { type Judged, directoryTarget, fileTarget, nbdSource, nbdTarget, qcow2Source, rawSource } from "./harnesses.ts";

beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

const shapes: [string, (folder: string) => Judged | Promise<Judged>][] = [
  ["raw-source", rawSource],
  ["nbd-source", nbdSource],
  ["qcow2-source", qcow2Source],
  ["raw-directory-target", (folder) => directoryTarget(folder, "raw")],
  ["raw-file-target", (folder) => fileTarget(folder, "raw")],
  ["qcow2-directory-target", (folder) => directoryTarget(folder, "qcow2")],
  ["qcow2-file-target", (folder) => fileTarget(folder, "qcow2")],
  ["qcow2-chain-target", (folder) => directoryTarget(folder, "qcow2-chain")],
  ["qcow2-chain-compressed-target", (folder) => directoryTarget(folder, "qcow2-chain", { compression: "zlib" })],
  ["nbd-target", nbdTarget],
];

describeWithPeers(["qemu-img", "qemu-io", "fallocate"], "conformance", () => {
  for (const [name, make] of shapes) {
    test(`${name}: every clause holds that can be judged, and those are the ones on record`, async () => {
      await using judged = await make(freshFolder());
      const text = formatConformance(await runConformance(judged.harness));
      expect(text).not.toContain("FAILED");
      await expect(text).toMatchFileSnapshot(`clauses/${name}.txt`);
    }, 120_000);
  }
});
