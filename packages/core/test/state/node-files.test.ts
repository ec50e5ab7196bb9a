import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { nodeFiles } from "../../src/state/node-files.ts";

describe("the files of this machine", () => {
  it("are flushed before a call says that something is durable", async () => {
    const directory = await mkdtemp(join(tmpdir(), "diskferry-files-"));
    const file = await open(join(directory, "any"), "w");
    const prototype = Object.getPrototypeOf(file) as { sync(): Promise<void>; datasync(): Promise<void> };
    await file.close();
    const flushes: string[] = [];
    for (const kind of ["sync", "datasync"] as const) {
      const real = prototype[kind];
      vi.spyOn(prototype, kind).mockImplementation(async function flush(this: typeof prototype) {
        await real.call(this);
        flushes.push(kind);
      });
    }
    try {
      await nodeFiles.create(join(directory, "made"), Buffer.from("made"));
      expect(flushes.splice(0)).toEqual(["sync"]);
      await nodeFiles.syncDirectory(directory);
      expect(flushes.splice(0)).toEqual(["sync"]);
      const log = await nodeFiles.open(join(directory, "log"));
      for (const text of ["one", "two"]) {
        await log.append(Buffer.from(text));
        expect(flushes.splice(0)).toEqual(["datasync"]);
      }
      await log.truncate(3);
      expect(flushes.splice(0)).toEqual(["sync"]);
      expect(log.length).toBe(3);
      await log.append(Buffer.from("!"));
      await log.close();
      expect(Buffer.from((await nodeFiles.read(join(directory, "log")))!).toString()).toBe("one!");
    } finally {
      vi.restoreAllMocks();
      await rm(directory, { recursive: true });
    }
  });
});
