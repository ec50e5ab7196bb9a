import { expect, test } from "vitest";
import { nbdkitCommand, nbdkitProbeCommand, nfcPortOf } from "../../src/readers/nbdkit-command.ts";

const disk = {
  server: "vc.example.org",
  port: 443,
  user: "svc@vsphere.local",
  thumbprint: "AA:BB",
  machine: "vm-16",
  snapshot: "snapshot-42",
  file: "[datastore1] web/web.vmdk",
  throughVcenter: true,
};
const place = { socket: "/run/socket", pidFile: "/run/pid", passwordDescriptor: 3 };

test("the command line of a disk is read-only, ends with its parent, repeats nothing, and holds no password", () => {
  expect(nbdkitCommand({}, disk, place)).toEqual([
    "nbdkit",
    "--exit-with-parent",
    "--foreground",
    "--readonly",
    "--unix=/run/socket",
    "--pidfile=/run/pid",
    "--threads=16",
    "--filter=multi-conn",
    "--filter=blocksize",
    "vddk",
    "server=vc.example.org",
    "user=svc@vsphere.local",
    "password=-3",
    "thumbprint=AA:BB",
    "vm=moref=vm-16",
    "snapshot=snapshot-42",
    "transports=nbdssl",
    "file=[datastore1] web/web.vmdk",
    "multi-conn-mode=disable",
    "maxdata=2097152",
  ]);
});

test("every option of vddk is in it, and what is added stands at the end of the plugin's own", () => {
  const options = {
    libdir: "/opt/vddk",
    nbdkit: "/opt/bin/nbdkit",
    plugin: ["sh", "/opt/vddk.sh"],
    arguments: ["nfchostport=9902", "unbuffered=true"],
    transports: "san:nbdssl",
    compression: "fastlz" as const,
    readSize: 65_536,
    requests: 4,
    config: "/etc/vddk.conf",
  };
  const command = nbdkitCommand(options, { ...disk, port: 8443, throughVcenter: false }, place);
  expect(command[0]).toBe("/opt/bin/nbdkit");
  expect(command.slice(command.indexOf("sh"))).toEqual([
    "sh",
    "/opt/vddk.sh",
    "libdir=/opt/vddk",
    "config=/etc/vddk.conf",
    "server=vc.example.org",
    "port=8443",
    "user=svc@vsphere.local",
    "password=-3",
    "thumbprint=AA:BB",
    "vm=moref=vm-16",
    "snapshot=snapshot-42",
    "transports=san:nbdssl",
    "compression=fastlz",
    "nfchostport=9902",
    "unbuffered=true",
    "file=[datastore1] web/web.vmdk",
    "multi-conn-mode=disable",
    "maxdata=65536",
  ]);
  expect(command).toContain("--threads=4");
  // What is looked at before a run is what the run starts, without a disk, a server and a password.
  const probe = nbdkitProbeCommand(options);
  expect(probe.join(" ")).not.toMatch(/password|server|user|file=/);
  for (const each of command
    .slice(command.indexOf("sh"))
    .filter((word) => !/^(server|port|user|password|thumbprint|vm|snapshot|file)=/.test(word))) {
    expect(probe).toContain(each);
  }
});

test("the hosts' port is 902, or what the arguments say, and none where a transport goes past the network", () => {
  expect(nfcPortOf({})).toBe(902);
  expect(nfcPortOf({ transports: "nbd:nbdssl", arguments: ["nfchostport=1", "nfchostport=9902"] })).toBe(9902);
  for (const transports of ["san", "hotadd:nbdssl", "file:nbdssl:nbd"])
    expect(nfcPortOf({ transports })).toBeUndefined();
});
