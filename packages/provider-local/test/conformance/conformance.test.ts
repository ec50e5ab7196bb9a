import { beforeEach, expect, test, vi } from "vitest";
import { type ConformanceReport, formatConformance, runConformance } from "@diskferry/provider-testkit";
import { describeWithPeers } from "../../../../test/peers.ts";
import { freshFolder } from "../folder.ts";
import { type Judged, directoryTarget, fileTarget, nbdSource, nbdTarget, qcow2Source, rawSource } from "./harnesses.ts";

beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

/**
 * What nothing here can do: a local disk has no snapshots. A point in time is the content that is there, and when the
 * guest writes on, that one is gone: `consistency` then says `none`. Nothing is made, so nothing is owned or released.
 */
const noSnapshots = ["source.owned.lists", "source.open.not-found", "source.snapshot.idempotent", "tracker.released"];
/** And what follows for a disk that the guest writes in place. */
const inPlace = [...noSnapshots, "source.snapshot.fixed", "source.release.others", "reader.read.repeatable"];
const exempt: Record<string, string[]> = { "raw-source": inPlace, "nbd-source": inPlace, "qcow2-source": noSnapshots };

/** A clause that is exempt is on record as one that is not judged; one that holds must not be exempt. */
function excused(report: ConformanceReport, ids: readonly string[]): ConformanceReport {
  const isExempt = ({ id }: { id: string }): boolean => ids.includes(id);
  for (const id of ids) expect(report.judged, `${id} holds, so it must not be exempt`).not.toContain(id);
  const skipped = report.failed
    .filter(isExempt)
    .map(({ id }) => ({ id, reason: "a local disk has no snapshots of its own" }));
  return {
    ...report,
    skipped: [...report.skipped, ...skipped],
    failed: report.failed.filter((each) => !isExempt(each)),
  };
}

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
      const found = excused(await runConformance(judged.harness), exempt[name] ?? []);
      const text = formatConformance(found);
      expect(text).not.toContain("FAILED");
      await expect(text).toMatchFileSnapshot(`clauses/${name}.txt`);
    }, 120_000);
  }
});
