import { execFile } from "node:child_process";
import { globSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { startAwsSimulator, startCloudstackSimulator, startVcenterSimulator } from "@diskferry/simulators";
import { randomBytes } from "../test/seed.ts";

// The examples that need clouds, against simulators of them.

const run = promisify(execFile);
const here = fileURLToPath(new URL(".", import.meta.url));
const block = 512 * 1024;
const mib = 1 << 20;

async function example(name: string, args: string[], cwd: string, more: Record<string, string>): Promise<string> {
  const flags = ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"];
  const env = { ...process.env, NODE_OPTIONS: "", XDG_STATE_HOME: join(cwd, "state-home"), ...more };
  const { stdout } = await run(process.execPath, [...flags, join(here, `${name}.ts`), ...args], { cwd, env });
  return stdout;
}

function freshFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "diskferry-clouds-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

test("ec2-to-qcow2", async () => {
  const delays = { startVisibleMs: 5, completeMs: 5, listableMs: 5, changeMs: 5 };
  const simulator = await startAwsSimulator({ quotaScale: Number.POSITIVE_INFINITY, delays });
  onTestFinished(() => simulator.close());
  const instance = simulator.instances.linux;
  const [root = ""] = simulator.volumesOf(instance);
  for (const index of [0, 5, 40]) await simulator.writeVolume(root, index * block, randomBytes(block, index));
  const folder = freshFolder();
  mkdirSync(join(folder, "points"));
  const [key] = simulator.credentials;
  const environment = {
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL: simulator.endpoint,
    AWS_ACCESS_KEY_ID: key!.accessKeyId,
    AWS_SECRET_ACCESS_KEY: key!.secretAccessKey,
  };
  const first = await example("ec2-to-qcow2", [instance, "points"], folder, environment);
  expect(first).toMatch(/mode: 'full'/);
  await simulator.writeVolume(root, 5 * block, randomBytes(block, 99));
  const second = await example("ec2-to-qcow2", [instance, "points"], folder, environment);
  expect(second).toMatch(new RegExp(`disk: '${root}',\\s+mode: 'incremental',\\s+moved: ${block},`));
  expect(globSync("points/**/*.qcow2", { cwd: folder }).length).toBeGreaterThanOrEqual(4);
}, 600_000);

test("vsphere-to-cloudstack", async () => {
  const vcenter = await startVcenterSimulator({
    tls: false,
    machines: [{ name: "web", disks: [{ size: 3 * mib }], tracking: false }],
  });
  onTestFinished(() => vcenter.stop());
  vcenter.populate("web", 2000, 0, randomBytes(2 * mib, 3));
  const cloud = await startCloudstackSimulator({ jobMs: 1, devices: { lagMs: 1 } });
  onTestFinished(() => cloud.close());
  const { root, id } = cloud.appliance;
  const folder = freshFolder();
  const options = {
    source: { url: vcenter.url, username: vcenter.userName, password: "${VCENTER_PASSWORD}", readers: ["nfc"] },
    target: {
      endpoint: cloud.url,
      apiKey: cloud.tenant.apiKey,
      secretKey: "${CLOUD_SECRET}",
      appliance: { machine: id, devices: { byId: `${root}/dev/disk/by-id`, dev: `${root}/dev`, sys: `${root}/sys` } },
      diskOffering: "Custom",
      launch: { networks: [{ network: "production" }], testNetwork: "isolated-test" },
      timeouts: { pollMs: 1, pollMostMs: 20, requestMs: 10_000, jobMs: 10_000, deviceMs: 2_000 },
    },
  };
  writeFileSync(join(folder, "options.json"), JSON.stringify(options));
  const secrets = { VCENTER_PASSWORD: vcenter.password, CLOUD_SECRET: cloud.tenant.secretKey };
  const out = await example("vsphere-to-cloudstack", ["options.json", "web"], folder, secrets);
  expect(out).toMatch(/modes: \[ 'full' \], moved: 2097152/);
  expect(out).toMatch(/modes: \[ 'incremental' \]/);
  expect(out).toMatch(/launched: '[^']+', consumed: true/);
  expect(out.trimEnd().endsWith("moved")).toBe(true);
  expect(vcenter.machine("web").power).toBe("poweredOff");
}, 600_000);
