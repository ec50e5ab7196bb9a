import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { startVcenterSimulator } from "@diskferry/simulators";
import { expect, test } from "vitest";
import { jsonLines, workplace } from "../packages/cli/test/in-process.ts";
import { describeWithPeers } from "./peers.ts";
import { randomBytes } from "./seed.ts";

const provider = fileURLToPath(new URL("../packages/provider-vmware", import.meta.url));
const mib = 1 << 20;

interface Line {
  readonly type: string;
  readonly message?: string;
  readonly [name: string]: unknown;
}

// A vSphere agent's configuration, a simulated vCenter with a certificate of its own, and the command.
describeWithPeers(["openssl"], "a vSphere agent's configuration", () => {
  test("is looked over by doctor and plan, copied by sync, and copied again by what changed", async () => {
    await using simulator = await startVcenterSimulator({
      password: "Secr3t-of-the-test",
      machines: [
        { name: "web-1", folder: "prod", disks: [{ size: 8 * mib }] },
        { name: "mail", disks: [{ size: mib }] },
      ],
    });
    const bytes = randomBytes(2 * mib, 1);
    simulator.populate("web-1", 2000, mib, bytes);
    const place = await workplace();
    await place.write(
      "jobs.yaml",
      `
vmware:
  vcenter_url: "${simulator.url}"
  username: "${simulator.userName}"
  password: "\${VCENTER_PASSWORD}"
  thumbprint: "${simulator.tls!.sha256}"
  datacenter: "DC0"
  validate_ssl: true
cbt:
  auto_enable: true
  block_size: 262144
  initialization_method: "snapshot"
  cleanup_old_snapshots: true
performance:
  max_concurrent_backups: 5
  bandwidth_limit_mbps: 8000
  backup_window: "00:00-24:00"
jobs:
  web:
    machine: prod/web-1
    target: ./web-1.raw
`,
    );
    const env = { VCENTER_PASSWORD: simulator.password };
    const run = async (...args: string[]): Promise<{ code: number; lines: Line[]; out: string }> => {
      const said = await place.run([...args, "--config", "jobs.yaml", "--provider", provider, "--json"], { env });
      expect(said.out + said.err).not.toContain(simulator.password);
      return { code: said.code, lines: jsonLines(said.out) as unknown as Line[], out: said.out };
    };

    const doctor = await run("doctor");
    expect(doctor).toMatchObject({ code: 0 });
    expect(doctor.out).toMatch(/VMware vCenter Server 8\.0\.3/);

    const planned = await run("plan");
    expect(planned.code).toBe(0);
    // The simulated host's name leads nowhere, and the plan says what that closes.
    expect(planned.out).toMatch(
      /reader nfc: port 443 of host esx1\.example\.org cannot be reached.*fall back to the reader folder/,
    );
    expect(planned.out).toMatch(/cbt\.block_size: 262144 is not used/);
    expect([...simulator.machine("web-1").snapshots()]).toEqual([]);

    const first = await run("sync");
    expect(first.lines.filter(({ type }) => type === "error")).toEqual([]);
    expect(first.code).toBe(0);
    const copied = readFileSync(place.path("web-1.raw"));
    expect(copied.equals(Buffer.from(simulator.readDisk("web-1", 2000, {})))).toBe(true);
    expect([...simulator.machine("web-1").snapshots()]).toEqual([]);

    simulator.write("web-1", 2000, 5 * mib, randomBytes(64 << 10, 2));
    const second = await run("sync");
    expect(second.code).toBe(0);
    const result = second.lines.find(({ type }) => type === "result");
    const { disks } = result!["report"] as { disks: { mode: string; moved: number }[] };
    expect(disks).toMatchObject([{ mode: "incremental" }]);
    expect(disks[0]!.moved).toBeLessThan(mib);
    const again = readFileSync(place.path("web-1.raw"));
    expect(again.equals(Buffer.from(simulator.readDisk("web-1", 2000, {})))).toBe(true);
    expect(simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
  });

  test("stopped by SIGTERM leaves no session and no lease, and the same command goes on from its snapshot", async () => {
    await using simulator = await startVcenterSimulator({
      machines: [{ name: "web-1", disks: [{ size: 48 * mib }], tracking: true }],
      bytesPerSecond: 16 * mib,
    });
    simulator.populate("web-1", 2000, 0, randomBytes(48 * mib, 3));
    const held = Buffer.from(simulator.readDisk("web-1", 2000, {}));
    const place = await workplace();
    await place.write(
      "jobs.yaml",
      `
vmware:
  vcenter_url: "${simulator.url}"
  username: "${simulator.userName}"
  password: "\${VCENTER_PASSWORD}"
  thumbprint: "${simulator.tls!.sha256}"
jobs:
  web:
    machine: web-1
    target: ./web-1.raw
`,
    );
    Object.assign(place.env, { VCENTER_PASSWORD: simulator.password });
    const args = ["sync", "--config", "jobs.yaml", "--provider", provider, "--json"];
    const syncing = place.spawn(args);
    await syncing.until(/"phase":"copying","doneBytes":[1-9]/);
    expect(simulator.alive.leases).toBe(1);
    syncing.child.kill("SIGTERM");
    expect(await syncing.ended).toMatchObject({ code: 75 });
    expect(simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
    // The point in time that the rest is read from.
    expect([...simulator.machine("web-1").snapshots()]).toHaveLength(1);
    simulator.write("web-1", 2000, 0, randomBytes(4096, 4));

    expect(await place.spawn(args).ended).toMatchObject({ code: 0 });
    expect(readFileSync(place.path("web-1.raw")).equals(held)).toBe(true);
    expect([...simulator.machine("web-1").snapshots()]).toEqual([]);
    expect(simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
  }, 120_000);
});
