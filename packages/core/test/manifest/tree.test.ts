import { describe, expect, it } from "vitest";
import { randomBytes, randomFrom } from "../../../../test/seed.ts";
import { digester } from "../../src/manifest/digest.ts";
import { TreeHasher } from "../../src/manifest/tree.ts";
import { naiveRoot } from "./naive-tree.ts";

describe("the hash tree", () => {
  const tree = new TreeHasher(digester("sha256"));

  it("is that of RFC 6962 for every number of leaves up to 300, with and without runs of equal ones", () => {
    const random = randomFrom(11);
    for (let count = 1; count <= 300; count++) {
      const digests = randomBytes(count * 32, count);
      expect(Buffer.compare(tree.root(digests), naiveRoot(digests)), String(count)).toBe(0);
      for (let leaf = 1; leaf < count; leaf++) {
        if (random() < 0.7) digests.copyWithin(leaf * 32, (leaf - 1) * 32, leaf * 32);
      }
      expect(Buffer.compare(tree.root(digests), naiveRoot(digests)), String(count)).toBe(0);
    }
  });

  it("gives RFC 6962's root for one leaf, which differs from the leaf itself", () => {
    // SHA-256 of a zero byte and 32 zero bytes.
    expect(Buffer.from(tree.root(new Uint8Array(32))).toString("hex")).toBe(
      "7f9c9e31ac8256ca2f258583df262dbc7d6f68f2a03043d5c99a4ae5a7396ce9",
    );
  });
});
