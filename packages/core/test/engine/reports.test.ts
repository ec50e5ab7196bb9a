import { generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { beginRun } from "../../src/engine/transfer.ts";
import { Limits } from "../../src/engine/limits.ts";
import { plan } from "../../src/engine/plan.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import { verifyReceipt } from "../../src/receipt/receipt.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import type { ProgressReport } from "../../src/telemetry/progress.ts";
import { calm, failing, KIB, MIB, scene } from "./scene.ts";

const keys = generateKeyPairSync("ed25519", {
  publicKeyEncoding: { type: "spki", format: "pem" },
  privateKeyEncoding: { type: "pkcs8", format: "pem" },
});

describe("receipts", () => {
  it("are signed, name the root of what the volume holds, and fit no other volume", async () => {
    const { place, job } = scene({}, { root: MIB + 512, data: MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    place.write("vm", "data", 0, randomBytes(MIB, 2));
    const report = await replicate(job({ receiptKey: keys.privateKey }));
    expect(report.receipts).toHaveLength(2);
    for (const receipt of report.receipts) {
      const { volume, root } = report.disks.find(({ disk }) => disk === receipt.disk)!;
      await using reader = await place.target.read!(volume!);
      const verdict = await verifyReceipt(JSON.parse(JSON.stringify(receipt)), {
        publicKey: keys.publicKey,
        reader,
        root,
      });
      expect(verdict).toMatchObject({ signature: "valid", root: "equal", content: "equal" });
      expect(receipt.verified).toEqual({ mode: "written", bytes: MIB });
    }
    await using other = await place.target.read!(report.disks[0]!.volume!);
    await expect(verifyReceipt(report.receipts[1], { reader: other })).rejects.toMatchObject({ code: "CORRUPT" });
    const altered = { ...report.receipts[0]!, run: "another" };
    await expect(verifyReceipt(altered, { publicKey: keys.publicKey })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("tell what an interrupted run had verified already", async () => {
    const { place, job } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"));
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    const report = await replicate(job());
    expect(report.receipts[0]!.verified).toEqual({ mode: "written", bytes: MIB });
  });

  it("are not given without digests", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const report = await replicate(job({ digest: "none" }));
    expect(report.receipts).toEqual([]);
    expect(report.disks[0]!.digest).toBe("none");
    expectEqual(report);
    place.write("vm", "root", 0, randomBytes(512, 2));
    const next = await replicate(job({ digest: "none" }));
    expect(next.disks[0]).toMatchObject({ mode: "incremental" });
    expectEqual(next);
    // Without digests lost tracking costs a full copy, and says so.
    place.breakTracking("lost");
    place.trim("vm", "root", 0, 256 * KIB);
    const full = await replicate(job({ digest: "none" }));
    expect(full).toMatchObject({ fallbacks: [{ to: "full" }], disks: [{ mode: "full" }] });
    expectEqual(full);
  });
});

describe("digests by SHA-256", () => {
  // S3.128.
  it("are kept where they are asked for, and a record of other digests is copied in full, reported", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const first = await replicate(job({ digest: "sha256" }));
    expect(first.disks[0]!.digest).toBe("sha256");
    await using reader = await place.target.read!(first.disks[0]!.volume!);
    expect(await verifyReceipt(first.receipts[0], { reader })).toMatchObject({ content: "equal" });
    place.write("vm", "root", 0, randomBytes(512, 2));
    expect((await replicate(job({ digest: "sha256" }))).disks[0]!.mode).toBe("incremental");
    const other = await replicate(job({ digest: "blake3" }));
    expect(other).toMatchObject({
      fallbacks: [{ from: "incremental", to: "full" }],
      disks: [{ mode: "full", digest: "blake3" }],
    });
    expectEqual(other);
    // Nobody asked: the record's go on.
    const next = await replicate(job());
    expect(next.disks[0]).toMatchObject({ mode: "incremental", digest: "blake3" });
  });
});

describe("plan", () => {
  it("says what a run would do and touches nothing", async () => {
    const { place, job, store } = scene({ target: { fences: false, read: false } }, { root: 2 * MIB, data: MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const calls: string[] = [];
    place.fault = ({ method }) => void calls.push(method);
    const limits = new Limits({ bytesPerSecond: MIB / 60 });
    const first = await plan(job({ limits }));
    expect(first.disks.map(({ disk, mode }) => [disk, mode])).toEqual([
      ["root", "full"],
      ["data", "full"],
    ]);
    expect(first.minutes).toEqual({ value: 3, kind: "bound" });
    expect(first.findings.map(({ message }) => message).join(" ")).toMatch(/cannot be read back.*waits/s);
    expect(calls).toEqual(["machine"]);
    expect(await store.get("jobs/job/state")).toBeUndefined();
    await replicate(job({ limits: new Limits() }));
    expect((await plan(job())).disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
    place.grow("vm", "root", 3 * MIB);
    const grown = await plan(job());
    expect(grown.disks[0]).toMatchObject({ mode: "rescan", fallbacks: [{ from: "incremental", to: "rescan" }] });
    expect((await replicate(job())).disks[0]!.mode).toBe("rescan");
    const asked = { source: place.source, target: place.target };
    const told = await plan({
      ...job({ limits: new Limits({ bytesPerSecond: MIB }) }),
      source: {
        ...asked.source,
        preflight: async (machine, { disks }) => ({
          calls: [{ operation: "GetBlock", count: { value: disks.length, kind: "exact" } }],
          minutes: { value: 90, kind: "estimate" },
          privileges: { needed: ["read"], missing: ["read"] },
          findings: [{ severity: "warning", subject: machine!.name, message: "old" }],
        }),
      },
      target: {
        ...asked.target,
        preflight: async ({ machine, disks }) => ({
          costs: [{ item: "blocks", amount: { value: 1, kind: "bound" }, currency: "USD", pricesOf: "2026-01-01" }],
          findings: [{ severity: "blocker", subject: machine!.name!, message: `no room for ${disks[0]!.base!.id}` }],
        }),
      },
    });
    expect(told).toMatchObject({
      calls: [{ side: "source", operation: "GetBlock", count: { value: 2, kind: "exact" } }],
      costs: [{ item: "blocks" }],
      minutes: { value: 90, kind: "estimate" },
      privileges: { source: { missing: ["read"] } },
    });
    expect(told.findings[0]).toMatchObject({ severity: "blocker", subject: "vm" });
    const ticket = await beginRun(job());
    expect((await plan(job())).resumes).toBe(ticket.run);
  });
});

describe("status", () => {
  it("tells of nothing, of a run under way, of a record and of what is torn", async () => {
    const { place, job, store } = scene();
    expect(await status(store, "job")).toEqual({ job: "job", torn: [], launches: [] });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const ticket = await beginRun(job());
    expect(await status(store, "job")).toMatchObject({
      run: { id: ticket.run, phase: "copying", disks: ["root"] },
      torn: ["root"],
    });
    const report = await replicate(job());
    const found = await status(store, "job");
    expect(found.run).toBeUndefined();
    expect(found.torn).toEqual([]);
    expect(found.record).toMatchObject({
      run: report.run,
      machine: "vm",
      disks: [{ disk: "root", size: 2 * MIB, root: report.disks[0]!.root, incrementalNext: true, mode: "full" }],
    });
  });

  it("refuses a document that is not one", async () => {
    const store = new MemoryStateStore();
    await store.set("jobs/job/state", { version: 2 }, { revision: null });
    await expect(status(store, "job")).rejects.toMatchObject({ code: "CORRUPT" });
  });
});

describe("progress", () => {
  it("grows, ends at its total, and passes through its phases, also when a session is lost on the way", async () => {
    for (const losing of [false, true]) {
      const { place, job } = scene({}, { root: 8 * MIB, data: 3 * MIB + 512 });
      place.write("vm", "root", 0, randomBytes(6 * MIB, 1));
      place.write("vm", "data", MIB, randomBytes(MIB, 2));
      if (losing) {
        failing(place, "writer.flush", () => new ProviderError("UNAVAILABLE", "gone", { retryable: false }), {
          after: 1,
        });
      }
      const reports: ProgressReport[] = [];
      const onProgress = (report: ProgressReport): void => void reports.push(report);
      const report = await replicate(job({ journal: { bytes: MIB }, memory: MIB }), { onProgress });
      expect(report.disks.some(({ reopened }) => reopened > 0)).toBe(losing);
      for (let at = 1; at < reports.length; at++) {
        expect(reports[at]!.doneBytes).toBeGreaterThanOrEqual(reports[at - 1]!.doneBytes);
      }
      const last = reports.at(-1)!;
      expect(last).toMatchObject({
        final: true,
        job: "job",
        run: report.run,
        machine: "vm",
        totalBytes: 11 * MIB + 512,
      });
      expect(last.disks.map(({ doneBytes }) => doneBytes)).toEqual([8 * MIB, 3 * MIB + 512]);
      expect(last.phase).toBe("committing");
      expect(last.movedBytes).toBeGreaterThanOrEqual(7 * MIB);
    }
  });
});
