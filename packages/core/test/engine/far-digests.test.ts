import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { digester } from "../../src/manifest/digest.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, expectBytes, KIB, MIB, scene } from "./scene.ts";

const hashing = (algorithm: "blake3" | "sha256", data: Uint8Array): Uint8Array => digester(algorithm)(data);

describe("a source that hashes", () => {
  for (const concurrency of [false, 4] as const) {
    it(`is read only where the replica differs, with ${concurrency === false ? 1 : concurrency} calls at once`, async () => {
      const { place, job, expectEqual } = scene(
        { source: { tracker: false, digests: hashing, concurrency } },
        { root: 8 * MIB },
      );
      place.write("vm", "root", 0, randomBytes(8 * MIB, 1));
      await replicate(job());
      place.write("vm", "root", 5 * MIB, randomBytes(512, 2));
      const report = await replicate(job());
      expect(report.disks[0]).toMatchObject({ mode: "rescan", read: 64 * KIB, moved: 64 * KIB });
      expectEqual(report);
    });
  }

  it("is asked through a reader of its own, whatever becomes of the copy's", async () => {
    // Several windows of questions, so that the plan is asking while the copy is mended.
    const size = 200 * MIB;
    const it = scene({ source: { tracker: false, digests: hashing, concurrency: false } }, { root: size });
    const { place, job } = it;
    for (let at = 0; at < 200; at += 4) place.write("vm", "root", at * MIB, randomBytes(64 * KIB, at));
    await replicate(job({ verify: "none" }));
    for (let at = 0; at < 200; at += 4) place.write("vm", "root", at * MIB, randomBytes(64 * KIB, 1000 + at));
    let writes = 0;
    place.fault = async ({ method }) => {
      if (method === "reader.digests") await new Promise((resolve) => setTimeout(resolve, 20));
      if (method === "writer.write" && [3, 20].includes(writes++)) {
        throw new ProviderError("UNAVAILABLE", "the session was lost", { retryable: false });
      }
    };
    const report = await replicate(job({ journal: { bytes: MIB }, verify: "written" }));
    calm(place);
    expect(report.disks[0]!.reopened).toBeGreaterThan(0);
    for (let at = 0; at < size; at += 4 * MIB) {
      expectBytes(place.volumeBytes("volume-1", at, MIB), place.read("vm", "root", at, MIB), String(at));
    }
  });
});
