import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { readConfig } from "../src/config/read-config.ts";
import { workplace } from "./in-process.ts";

/** The sample of a vSphere agent's configuration, as the provider's page shows it. */
const page = readFileSync(new URL("../../../docs/providers/vsphere.md", import.meta.url), "utf8");
const [, shown = ""] = /## The configuration of an agent[\s\S]*?```yaml\n([\s\S]*?)```/.exec(page) ?? [];
const sample = shown.slice(0, shown.indexOf("jobs:"));
const jobs = `
jobs:
  web:
    machine: prod/web-1
    target: ./web.raw
`;
/** The package as a user's project has it installed. */
const provider = fileURLToPath(new URL("../../provider-vmware", import.meta.url));
const env = { VCENTER_PASSWORD: "Secr3t-of-the-test" };

async function read(text: string): ReturnType<typeof readConfig> {
  const place = await workplace();
  return readConfig(await place.write("jobs.yaml", text), { io: { env }, packages: [provider] });
}

async function problemsOf(text: string): Promise<string> {
  const failure: unknown = await read(text).catch((error: unknown) => error);
  return failure instanceof Error ? failure.message : "it was accepted";
}

test("the sample becomes jobs that copy machines of that vCenter", async () => {
  const { jobs: found, concurrency, notes } = await read(sample + jobs);
  expect(concurrency).toBe(5);
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject({
    id: "web",
    machine: "prod/web-1",
    bytesPerSecond: 125_000_000,
    window: "22:00-06:00",
    source: {
      definition: { name: "vsphere" },
      options: {
        url: "https://vcenter.company.com",
        username: "backup-service@vsphere.local",
        password: env.VCENTER_PASSWORD,
        datacenter: "DC0",
        tracking: { enable: true, enableOnRunning: true },
        snapshots: { sweep: true },
      },
    },
  });
  expect(found[0]!.source.label).not.toContain(env.VCENTER_PASSWORD);
  expect(notes.join("\n")).toMatch(/block_size: 262144 is not used/);
  expect(notes.join("\n")).toMatch(/1000 megabits are 125000000 bytes per second/);
  expect(notes.join("\n")).toMatch(/only snapshots that the same job made/);
  expect(notes.join("\n")).toMatch(/backup_window: is in this machine's time zone/);
});

test("the page's own sample, its jobs included, is read without a problem", async () => {
  expect(await problemsOf(shown)).toBe("it was accepted");
});

test("what a job says itself goes before the sections, and other sources are left alone", async () => {
  const { jobs: found, notes } = await read(`${sample}
defaults: { timeZone: Europe/Berlin }
jobs:
  web:
    source: { provider: vsphere, machine: web-1, username: other, tracking: { enable: false } }
    target: ./web.raw
    bandwidth: 1MiB
  disk:
    source: ./disk.raw
    target: ./copy.raw
`);
  expect(found[0]).toMatchObject({
    bytesPerSecond: 1 << 20,
    timeZone: "Europe/Berlin",
    source: { options: { username: "other", machine: "web-1", tracking: { enable: false, enableOnRunning: true } } },
  });
  expect(found[1]?.source.definition.name).toBe("local");
  expect(notes.join("\n")).not.toMatch(/time zone/);
});

test("the sections hold for sources that name their vCenter themselves, and never pass a URI by unsaid", async () => {
  const text = `
cbt: { auto_enable: false, cleanup_old_snapshots: true }
jobs:
  web:
    source: { provider: vsphere, url: "https://vcenter.company.com", username: a, password: b, machine: web-1 }
    target: ./web.raw
`;
  expect((await read(text)).jobs[0]).toMatchObject({
    source: { options: { username: "a", tracking: { enable: false }, snapshots: { sweep: true } } },
  });
  const byUri = `${sample}jobs: { web: { source: "vsphere://vcenter.company.com/DC0/web", target: ./web.raw } }\n`;
  expect(await problemsOf(byUri)).toMatch(/jobs\.web\.source: a URI takes nothing of the sections vmware and cbt/);
});

test("the tunnel is refused by each name that has a value, and passes without", async () => {
  const text = await problemsOf(`${sample}${jobs}
tunnel:
  control_plane_host: "control.company.com"
  tunnel_port: 443
  ssh_key_path: "/opt/agent/ssh/tunnel_key"
`);
  for (const name of ["control_plane_host", "tunnel_port", "ssh_key_path"]) {
    expect(text).toMatch(new RegExp(`tunnel\\.${name}: there is no tunnel: .*NBD over TLS`));
  }
  const unset = `tunnel: { control_plane_host: "", tunnel_port: null, ssh_key_path: }\n`;
  expect((await read(sample + jobs + unset)).jobs).toHaveLength(1);
  expect((await read(`${sample}${jobs}tunnel:\n`)).jobs).toHaveLength(1);
});

test("a certificate that is not to be checked is refused with what to do instead, and a pin is taken", async () => {
  const unchecked = sample.replace("validate_ssl: true", "validate_ssl: false") + jobs;
  expect(await problemsOf(unchecked)).toMatch(
    /vmware\.validate_ssl: certificates are always verified; .*vmware\.thumbprint/,
  );
  const pinned = sample.replace("validate_ssl: true", `thumbprint: "${"0A".repeat(32)}"`) + jobs;
  expect((await read(pinned)).jobs[0]?.source.options).toMatchObject({ thumbprint: "0A".repeat(32) });
});

test("everything else that is wrong is told by its own name", async () => {
  const text = await problemsOf(`
concurrency: 2
vmware: { vcenter_url: 7, usrname: x }
cbt: { auto_enable: yes please, block_size: 1.5, initialization_method: magic, cleanup_old_snapshots: 1 }
performance: { max_concurrent_backups: 0, bandwidth_limit_mbps: fast, backup_window: 22 }
tunnel: 443
${jobs}`);
  for (const expected of [
    /vmware\.vcenter_url: has to be text/,
    /vmware\.usrname: is not known \(did you mean username\?\)/,
    /cbt\.auto_enable: has to be true or false/,
    /cbt\.block_size: has to be a whole number/,
    /cbt\.initialization_method: has to be snapshot/,
    /cbt\.cleanup_old_snapshots: has to be true or false/,
    /performance\.max_concurrent_backups: has to be a whole number/,
    /performance\.bandwidth_limit_mbps: has to be a whole number/,
    /performance\.backup_window: has to be text/,
    /tunnel: has to be a mapping/,
  ]) {
    expect(text).toMatch(expected);
  }
  const twice = `${sample}${jobs}concurrency: 2\ndefaults: { window: 01:00-02:00, bandwidth: 1MiB }\n`;
  const said = await problemsOf(twice);
  for (const name of ["backup_window", "bandwidth_limit_mbps", "max_concurrent_backups"]) {
    expect(said).toMatch(new RegExp(`performance\\.${name}: .*leave one of them out`));
  }
});

test("a password that is not set is told by its variable, and one that is set is never shown", async () => {
  const place = await workplace();
  await place.write("jobs.yaml", sample + jobs);
  const unset = await place.run(["plan", "--config", "jobs.yaml", "--provider", provider]);
  expect(unset).toMatchObject({
    code: 2,
    err: expect.stringContaining("vmware.password: VCENTER_PASSWORD is not set") as string,
  });
  await place.write("jobs.yaml", sample.replace("https://vcenter.company.com", "https://127.0.0.1:1") + jobs);
  const refused = await place.run(["plan", "--config", "jobs.yaml", "--provider", provider], { env });
  expect(refused.code).not.toBe(0);
  expect(refused).toMatchObject({ err: expect.stringContaining("ECONNREFUSED") as string });
  expect(refused.err).toContain("cbt.block_size: 262144 is not used");
  expect(refused.out + refused.err).not.toContain(env.VCENTER_PASSWORD);
});
