import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isProviderError } from "../../src/provider/error.ts";
import { isSecretName, redactUri } from "../../src/registry/secrets.ts";
import { parseUri } from "../../src/registry/uri.ts";
import { seedOf } from "../../../../test/seed.ts";

describe("parseUri", () => {
  test.each([
    ["nbd://host:10809/export", "nbd"],
    ["nbds+unix:///name?socket=%2Frun%2Fa.sock&tls-psk-file=%2Fetc%2Fkeys.psk", "nbds+unix"],
    ["nbds://user@host/export?tls-certificates=/etc/pki", "nbds"],
    ["nbd://[fe80::1]:10809/x", "nbd"],
    ["NBD://host", "nbd"],
    ["aws-ebs:eu-central-1:snap-0123", "aws-ebs"],
    ["vsphere://admin@vcenter/dc/vm?disk=2000", "vsphere"],
    ["disk.raw", "local"],
    ["/dev/vdb", "local"],
    ["./password=x:y@z", "local"],
    ["C:\\disks\\disk.raw", "local"],
    ["10.0.0.1:10809", "local"],
  ])("reads %s", (text, scheme) => {
    expect(parseUri(text)).toEqual({ scheme, text });
  });

  test.each([
    "nbd://user:hunter2@host/export",
    "nbd://user:hun@ter2@host/export",
    "nbd://user:hunter2/x@host/export",
    "nbd://user:hunter2?x@host/export",
    "nbd://:hunter2@host/export",
    "vsphere:user:hunter2@host/vm",
    "nbds://host/x?password=hunter2",
    "nbds://host/x?a=b&Access-Key=hunter2",
    "nbds://host/x?a=b;token=hunter2",
    "nbds://host/x#secret=hunter2",
    "nbds://host/x?%70assword=hunter2",
    "https://bucket/disk?X-Amz-Signature=hunter2&X-Amz-Date=20261121",
    "cloudstack://host/volume?apiKey=hunter2",
  ])("refuses %s, tells the remedy and does not repeat the secret", (text) => {
    let error: unknown;
    try {
      parseUri(text);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: "CONFIG_INVALID" });
    const { message } = error as Error;
    expect(message).toMatch(/give it as an option of the provider, for example from an environment variable/);
    expect(message).not.toMatch(/hun|ter2/);
    expect(redactUri(text)).not.toMatch(/hun|ter2/);
  });

  test.each(["", "  ", "disk\0.raw", "nbd://host/\nx"])("refuses %j", (text) => {
    expect(() => parseUri(text)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }) as Error);
  });

  test("never shows a password, wherever in a URI it stands and whatever it is made of", () => {
    const secret = fc.string({
      unit: fc.constantFrom(..."a B 7 % : @ / ? # & = ; + ü".split(" "), " "),
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(secret, fc.constantFrom("user", "", "a.b"), (tail, user) => {
        const text = `nbd://${user}:SECRET${tail}@host/export`;
        expect(redactUri(text)).not.toContain("SECRET");
        expect(() => parseUri(text)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }) as Error);
        const query = `nbd://host/export?password=SECRET${encodeURIComponent(tail)}&disk=7`;
        expect(redactUri(query)).toBe("nbd://host/export?password=***&disk=7");
      }),
      { seed: seedOf(20261121), numRuns: 500 },
    );
  });

  test("answers any text within its bounds: a scheme or a ProviderError", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.webUrl({ withQueryParameters: true, withFragments: true })), (text) => {
        try {
          expect(parseUri(text).text).toBe(text);
        } catch (error) {
          expect(isProviderError(error)).toBe(true);
        }
      }),
      { seed: seedOf(20261121), numRuns: 500 },
    );
  });
});

test("names of secrets are told from names of places", () => {
  const secret = [
    "password",
    "DB_PASSWORD",
    "apiKey",
    "secretAccessKey",
    "X-Amz-Security-Token",
    "clientSecret",
    "psk-key",
  ];
  const harmless = [
    "tls-psk-file",
    "passwordFile",
    "tokenPath",
    "socket",
    "disk",
    "keyboard",
    "monkey",
    "host",
    "region",
  ];
  expect(secret.filter((name) => !isSecretName(name))).toEqual([]);
  expect(harmless.filter((name) => isSecretName(name))).toEqual([]);
});
