import { mkdirSync, statfsSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { isFencedForAll } from "../../src/fence/one-host.ts";
import { type LocalOptions, provider } from "../../src/index.ts";
import { freshFolder } from "../folder.ts";

async function fences(options: LocalOptions): Promise<true | undefined> {
  await using target = await provider.target!(options);
  return target.fences;
}

const isLocal = statfsSync(tmpdir()).type !== 0x6969;

describe.runIf(process.platform === "linux" && isLocal)("a target says that it fences", () => {
  test("where it writes files of this host, made or to be made", async () => {
    const folder = freshFolder();
    const path = join(folder, "disk.raw");
    writeFileSync(path, new Uint8Array(512));
    expect(await fences({ path })).toBe(true);
    expect(await fences({ path: join(folder, "later.raw") })).toBe(true);
    expect(await fences({ path: join(folder, "later.qcow2") })).toBe(true);
    expect(await fences({ directory: folder, format: "raw" })).toBe(true);
    expect(await fences({ directory: join(folder, "not", "there", "yet") })).toBe(true);
  });

  test("not where others can write what they would not meet it at: a server, a device, a file system of devices", async () => {
    expect(await fences({ uri: "nbd://127.0.0.1:10809/disk" })).toBeUndefined();
    expect(await fences({ uri: "nbd+unix:///?socket=/run/disk" })).toBeUndefined();
    expect(isFencedForAll("/dev/null")).toBe(false);
    expect(isFencedForAll("/proc/self")).toBe(false);
    const folder = freshFolder();
    mkdirSync(join(folder, "below"));
    symlinkSync("/proc/self", join(folder, "below", "link"));
    expect(isFencedForAll(join(folder, "below", "link"))).toBe(false);
  });
});
