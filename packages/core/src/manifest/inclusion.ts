import type { JsonObject } from "../provider/extents.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import { digester, digestLength } from "./digest.ts";
import { hex, pageLeaves, type PageStore } from "./page.ts";
import { TreeHasher } from "./tree.ts";

/** That a leaf's digest is under a root, for somebody who has the root and the leaf alone. Plain JSON. */
export interface InclusionProof extends JsonObject {
  algorithm: DigestAlgorithm;
  /** Which leaf of how many. */
  index: number;
  leaves: number;
  /** The leaf's digest, 64 hexadecimal digits. */
  digest: string;
  /** The siblings on the way up, lowest first, 64 hexadecimal digits each. */
  path: string[];
}

/** The proof of leaf `index`, whose page holds the digests `page`. */
export function proveInclusion(pages: PageStore, page: Uint8Array, roots: Uint8Array, index: number): InclusionProof {
  const within = index % pageLeaves;
  const nodes = new Uint8Array(page.byteLength);
  for (let at = 0; at < page.byteLength; at += digestLength) {
    nodes.set(pages.tree.leaf(page.subarray(at, at + digestLength)), at);
  }
  // A page is an exact subtree of the whole, so the way up is the way to its root and then the way among the roots.
  const path = [...pages.tree.path(nodes, within), ...pages.tree.path(roots, Math.floor(index / pageLeaves))];
  return {
    algorithm: pages.shape.algorithm,
    index,
    leaves: pages.leaves,
    digest: hex(page.subarray(within * digestLength, (within + 1) * digestLength)),
    path: path.map(hex),
  };
}

/**
 * Whether `proof` shows that its digest is leaf `index` of a tree of `leaves` leaves with this root (RFC 9162, section
 * 2.1.3.2). Anything malformed is no proof. @throws ProviderError UNSUPPORTED where the algorithm cannot be computed.
 */
export function verifyInclusion(proof: InclusionProof, root: string): boolean {
  const { index, leaves, digest, path, algorithm } = proof;
  if (algorithm !== "blake3" && algorithm !== "sha256") return false;
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(leaves) || index < 0 || index >= leaves) return false;
  if (!Array.isArray(path) || path.length > 53 || ![digest, root, ...path].every(isDigestText)) return false;
  const tree = new TreeHasher(digester(algorithm));
  let node = tree.leaf(Buffer.from(digest, "hex"));
  let position = index;
  let last = leaves - 1;
  for (const sibling of path) {
    if (last === 0) return false;
    const other = Buffer.from(sibling, "hex");
    if (position % 2 === 1 || position === last) {
      node = tree.inner(other, node);
      while (position % 2 === 0 && position !== 0) {
        position /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      node = tree.inner(node, other);
    }
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && hex(node) === root;
}

function isDigestText(text: unknown): text is string {
  return typeof text === "string" && /^[0-9a-f]{64}$/.test(text);
}
