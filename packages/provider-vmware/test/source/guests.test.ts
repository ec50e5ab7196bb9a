import { channel } from "node:diagnostics_channel";
import { afterAll, beforeAll, expect, test } from "vitest";
import { guestFamily } from "../../src/inventory/guest-family.ts";
import { waysToQuiesce } from "../../src/source/quiescing.ts";
import { World } from "../world.ts";

/** VirtualMachineGuestOsIdentifier of what each is. */
const guests = [
  ["Windows Server 2016", "windows9Server64Guest"],
  ["Windows Server 2019", "windows2019srv_64Guest"],
  ["Windows Server 2022", "windows2019srvNext_64Guest"],
  ["Windows 10", "windows9_64Guest"],
  ["Windows 10 of 32 bits", "windows9Guest"],
  ["Windows 11", "windows11_64Guest"],
  ["RHEL 7", "rhel7_64Guest"],
  ["RHEL 8", "rhel8_64Guest"],
  ["RHEL 9", "rhel9_64Guest"],
  ["CentOS 7", "centos7_64Guest"],
  ["CentOS 8", "centos8_64Guest"],
  ["CentOS 9", "centos9_64Guest"],
  ["Ubuntu 18.04 to 22.04", "ubuntu64Guest"],
  ["SUSE Linux Enterprise 12", "sles12_64Guest"],
  ["SUSE Linux Enterprise 15", "sles15_64Guest"],
] as const;

let world: World;

beforeAll(async () => {
  const machines = guests.map(([, guestId]) => ({ name: guestId, guestId, disks: [{ size: 1 << 20 }] }));
  world = await World.start({ machines });
});

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

test.for(guests)("%s (%s) is known, and quiesced as it can be", async ([name, guestId]) => {
  const windows = name.startsWith("Windows");
  const source = await world.source({ protocol: "soap" });
  const machine = await source.machine(guestId);
  expect(machine.spec?.guestFamily).toBe(windows ? "windows" : "linux");
  const specs: string[] = [];
  const note = (message: unknown): void => {
    const { body } = (message as { request: { body: unknown } }).request;
    specs.push(...(/xsi:type="[^"]*?(VirtualMachine\w*QuiesceSpec)"/.exec(String(body))?.slice(1) ?? []));
  };
  const requests = channel("undici:request:create");
  requests.subscribe(note);
  try {
    const snapshot = await source.snapshot(machine, { key: "run", consistency: "filesystem" });
    // VSS brings applications to rest too; a freeze knows of file systems alone.
    expect(snapshot.consistency).toBe(windows ? "application" : "filesystem");
  } finally {
    requests.unsubscribe(note);
  }
  expect(specs).toEqual([windows ? "VirtualMachineWindowsQuiesceSpec" : "VirtualMachineGuestQuiesceSpec"]);
});

test.for([
  ["windows2019srv_64Guest", "8.0.3.0", ["windows", "default"]],
  ["windows2019srv_64Guest", "6.5", ["windows", "default"]],
  ["windows2019srv_64Guest", "6.0", ["default"]],
  ["winNetEnterpriseGuest", "8.0.3.0", ["windows", "default"]],
  ["rhel9_64Guest", "8.0.3.0", ["guest", "default"]],
  ["sles15_64Guest", "6.0", ["default"]],
  ["freebsd13_64Guest", "8.0.3.0", ["guest", "default"]],
  ["darwin21_64Guest", "8.0.3.0", ["guest", "default"]],
] as const)("the ways to quiesce %s in API %s are %j", ([guestId, apiVersion, kinds]) => {
  const windows = guestFamily(guestId) === "windows";
  expect(waysToQuiesce({ windows, apiVersion }).map(({ kind }) => kind)).toEqual(kinds);
});
