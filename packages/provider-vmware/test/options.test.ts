import { configProblems, knownProviders, Registry } from "@diskferry/core";
import { describe, expect, test } from "vitest";
import { type VsphereOptions, optionsSchema } from "../src/options.ts";
import { provider } from "../src/provider.ts";
import { optionsFromUri } from "../src/vsphere-uri.ts";

const sha1 = Array.from({ length: 20 }, () => "0A").join(":");

async function problems(options: unknown): Promise<string[]> {
  return (await configProblems(provider, options)).map(({ path, message }) => `${path.join(".")}: ${message}`);
}

describe("the options", () => {
  test("accept all that is documented", async () => {
    const options: VsphereOptions = {
      url: "https://vc.example.org/sdk",
      username: "svc@vsphere.local",
      password: "p",
      thumbprint: sha1,
      datacenter: "folder/DC0",
      machine: "web",
      protocol: "soap",
      timeoutSeconds: 300,
      retrySeconds: 0,
      connections: 8,
      tracking: { enable: true, enableOnRunning: true, reset: true, allocated: false },
      snapshots: { quiesce: "windows", quiesceMinutes: 5, vssBackup: "copy", onQuiesceFailure: "fail", sweep: true },
      readers: ["vddk", "nfc", "folder"],
      vddk: { libdir: "/opt/vddk", transports: "nbdssl:nbd", compression: "fastlz", readSize: 2 << 20, requests: 16 },
      readersPerHost: 12,
      onPowerChange: "pause",
    };
    expect(await problems(options)).toEqual([]);
    expect(optionsSchema.parse(options)).toEqual(options);
  });

  test.each([
    [{}, /^url: /],
    [{ url: "vc.example.org", nonsense: 1 }, /nonsense/],
    [{ url: "ftp://vc.example.org" }, /https, not ftp/],
    [{ url: "https://user:pw@vc.example.org" }, /user or a password/],
    [{ url: "https://vc.example.org/folder" }, /path/],
    [{ url: "vc.example.org", thumbprint: "0A:0B" }, /SHA-256 \(64 digits\)/],
    [{ url: "vc.example.org", thumbprint: sha1, ca: "/ca.pem" }, /exclude each other/],
    [{ url: "vc.example.org", password: "a", passwordFile: "/p" }, /exclude each other/],
    [{ url: "vc.example.org", password: "a", cloneTicket: "t" }, /instead of a password/],
    [{ url: "vc.example.org", readers: ["nfc", "nfc"] }, /twice/],
    [{ url: "vc.example.org", readers: ["tape"] }, /^readers\.0: /],
    [{ url: "vc.example.org", vddk: { transports: "nbd;rm -rf" } }, /names transports/],
    [{ url: "vc.example.org", vddk: { readSize: 100_000 } }, /multiple of 65536/],
    [{ url: "vc.example.org", snapshots: { quiesceMinutes: 4 } }, /^snapshots\.quiesceMinutes: /],
  ])("refuse %j by name", async (options, expected) => {
    expect((await problems(options)).join("\n")).toMatch(expected);
  });
});

describe("a URI", () => {
  test("names a server and a machine, and never carries a secret", () => {
    expect(optionsFromUri("vsphere://vc.example.org/DC0/vm/prod/web-1")).toEqual({
      url: "vc.example.org",
      machine: "DC0/vm/prod/web-1",
    });
    expect(optionsFromUri("vsphere://svc%40vsphere.local@vc.example.org:8443/vm-42?protocol=soap")).toEqual({
      url: "vc.example.org:8443",
      username: "svc@vsphere.local",
      machine: "vm-42",
      protocol: "soap",
    });
    expect(optionsFromUri("vsphere://vc.example.org")).toEqual({ url: "vc.example.org" });
    expect(optionsFromUri("vsphere://[::1]:443/db%252f1").machine).toBe("db%2f1");
    expect(optionsFromUri(`vsphere://h/web?thumbprint=${sha1}&datacenter=DC0`)).toMatchObject({ thumbprint: sha1 });
  });

  test.each([
    ["vsphere://user:Secr3t@vc.example.org/web", /no password/],
    ["vsphere://vc.example.org/web?passwort=x", /no parameter passwort \(known: /],
    ["vsphere:///web", /vsphere:\/\/vcenter/],
    ["vsphere://vc.example.org/100%", /broken escape/],
  ])("%s is refused", (uri, expected) => {
    expect(() => optionsFromUri(uri)).toThrow(expected);
    expect(() => optionsFromUri(uri)).not.toThrow(/Secr3t/);
  });

  test("is read by the registry under the name that core knows", () => {
    const registry = new Registry([provider]);
    expect(registry.resolve("vsphere://vc.example.org/web")).toMatchObject({
      definition: { name: "vsphere" },
      options: { url: "vc.example.org", machine: "web" },
    });
    expect(() => registry.resolve("vsphere://u:Secr3t@vc.example.org/web")).toThrow(/password/);
    expect(knownProviders.find(({ name }) => name === "vsphere")).toMatchObject({
      package: "@diskferry/provider-vmware",
      schemes: provider.schemes,
    });
  });
});
