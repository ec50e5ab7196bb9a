import { isProviderError } from "@diskferry/core/provider";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seedOf } from "../../../test/seed.ts";
import { formatNbdUri, parseNbdUri } from "../src/uri.ts";

describe("an NBD URI", () => {
  it.each([
    ["nbd://example.com", { host: "example.com", port: 10809, exportName: "" }],
    ["nbd://example.com/disk", { host: "example.com", port: 10809, exportName: "disk" }],
    ["nbd://example.com//disk", { host: "example.com", port: 10809, exportName: "/disk" }],
    ["nbd://example.com:1/hello%20world", { host: "example.com", port: 1, exportName: "hello world" }],
    ["nbd://[::1]:10810/a/b", { host: "::1", port: 10810, exportName: "a/b" }],
    ["nbd+unix:///disk?socket=nbd.sock", { socketPath: "nbd.sock", exportName: "disk" }],
    ["nbd+unix:?socket=/run/a%20b", { socketPath: "/run/a b", exportName: "" }],
    ["nbd+unix:///?socket=%00/abstract", { socketPath: "\0/abstract", exportName: "" }],
  ])("%s tells where the export is", (uri, address) => {
    expect(parseNbdUri(uri)).toEqual(address);
  });

  it("of TLS tells where the certificates or keys lie", () => {
    expect(parseNbdUri("nbds://alice@h/d?tls-psk-file=/keys")).toEqual({
      host: "h",
      port: 10809,
      exportName: "d",
      tlsFiles: { pskFile: "/keys", username: "alice" },
    });
    expect(parseNbdUri("nbds+unix:///d?socket=s&tls-certificates=/pki&tls-hostname=n&tls-verify-peer=1")).toEqual({
      socketPath: "s",
      exportName: "d",
      tlsFiles: { certificates: "/pki", serverName: "n" },
    });
  });

  it.each([
    ["http://example.com", /begins with nbd/],
    ["nbd:///disk", /host is missing/],
    ["nbd+unix:///disk", /socket is missing/],
    ["nbd+unix://host/disk?socket=s", /no host/],
    ["nbd://h/d?socket=s", /needs the scheme nbd\+unix/],
    ["nbd://h/d?tls-certificates=/pki", /needs the scheme nbds/],
    ["nbd://h:99999/d", /port is out of range/],
    ["nbd://h/%zz", /percent-encoded/],
    ["nbd://h/d#fragment", /#fragment/],
    ["nbds://h/d?tls-verify-peer=0", /always verified/],
    ["nbds://h/d?tls-type=anon", /always verified/],
    ["nbds://h/d?tls-psk-file=a&tls-certificates=b", /exclude/],
    ["nbds://h/d?tls-type=psk", /needs tls-psk-file/],
    ["nbds://h/d?tls-hostname=a&tls-hostname=b", /given twice/],
    ["nbds://h/d?hunter2=x", /unknown parameter/],
    ["nbds://user:hunter2@h/d", /no password/],
  ])("%s is refused, saying why", (uri, message) => {
    expect(() => parseNbdUri(uri)).toThrow(message);
  });

  it("is never repeated in an error, since it may hold a secret", () => {
    for (const uri of ["nbds://u:s3cret@h", "nbd://h/d?k=s3cret", "s3cret", "nbd://h:s3cret/", "nbd://h/d?S3cret=1"]) {
      try {
        parseNbdUri(uri);
        expect.unreachable(uri);
      } catch (error) {
        expect(isProviderError(error) && error.code).toBe("CONFIG_INVALID");
        expect(String(error).toLowerCase()).not.toContain("s3cret");
      }
    }
  });

  it("written from an address names no key and no user", () => {
    const address = parseNbdUri("nbds://alice@h:1/d?tls-psk-file=/home/alice/keys");
    expect(formatNbdUri(address)).toBe("nbds://h:1/d");
  });

  it("written from any address is read back as the same address", () => {
    const name = fc.string({ unit: "grapheme", maxLength: 40 }).filter((text) => !text.includes("\0"));
    const tcp = fc.record({
      host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
      port: fc.integer({ min: 1, max: 65535 }),
      exportName: name,
    });
    const unix = fc.record({ socketPath: name.filter((text) => text !== ""), exportName: name });
    fc.assert(
      fc.property(fc.oneof(tcp, unix), (address) => {
        expect(parseNbdUri(formatNbdUri(address))).toEqual(address);
      }),
      { seed: seedOf(20261121), numRuns: 500 },
    );
  });

  it("made of anything gives an address or a ProviderError", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.webUrl({ validSchemes: ["nbd", "nbds", "nbd+unix"], withQueryParameters: true }),
    );
    fc.assert(
      fc.property(text, (uri) => {
        try {
          parseNbdUri(uri);
        } catch (error) {
          expect(isProviderError(error)).toBe(true);
        }
      }),
      { seed: seedOf(20261121), numRuns: 1000 },
    );
  });
});
