import { type Digester, digestLength } from "./digest.ts";

/**
 * The hash tree of RFC 6962, section 2.1, over leaf digests: a leaf's node is H(0x00 ‖ digest), an inner node
 * H(0x01 ‖ left ‖ right), and n > 1 leaves are split at the largest power of two below n. So a run of leaves that is
 * aligned to a power of two is one exact subtree, which is what lets pages carry their own root.
 */
export class TreeHasher {
  readonly #digest: Digester;
  readonly #leafInput = new Uint8Array(1 + digestLength);
  readonly #innerInput = new Uint8Array(1 + 2 * digestLength);

  constructor(digest: Digester) {
    this.#digest = digest;
    this.#innerInput[0] = 1;
  }

  /** The node of one leaf digest. */
  leaf(digest: Uint8Array): Uint8Array {
    this.#leafInput.set(digest, 1);
    return this.#digest(this.#leafInput);
  }

  /** The node above two nodes. */
  inner(left: Uint8Array, right: Uint8Array): Uint8Array {
    this.#innerInput.set(left, 1);
    this.#innerInput.set(right, 1 + digestLength);
    return this.#digest(this.#innerInput);
  }

  /** The root over `digests`, 32 bytes per leaf, at least one. */
  root(digests: Uint8Array): Uint8Array {
    const tree = new GrowingTree(this);
    for (let at = 0; at < digests.byteLength; at += digestLength) tree.addLeaf(digests.subarray(at, at + digestLength));
    return tree.root();
  }

  /** The root over `nodes`, 32 bytes each: subtrees of equal height, of which only the last may be lower. */
  rootOfNodes(nodes: Uint8Array): Uint8Array {
    const tree = new GrowingTree(this);
    for (let at = 0; at < nodes.byteLength; at += digestLength) tree.addNode(nodes.subarray(at, at + digestLength));
    return tree.root();
  }

  /** The siblings of node `index` of `nodes` on its way to their root, lowest first. */
  path(nodes: Uint8Array, index: number): Uint8Array[] {
    const count = nodes.byteLength / digestLength;
    if (count === 1) return [];
    const split = largestPowerBelow(count);
    const left = nodes.subarray(0, split * digestLength);
    const right = nodes.subarray(split * digestLength);
    return index < split
      ? [...this.path(left, index), this.rootOfNodes(right)]
      : [...this.path(right, index - split), this.rootOfNodes(left)];
  }
}

/** Builds a root from leaves as they come, in memory that grows with the tree's height alone. */
export class GrowingTree {
  readonly #hasher: TreeHasher;
  /** Complete subtrees from the left, their sizes falling powers of two. */
  readonly #nodes: { node: Uint8Array; size: number }[] = [];
  /** The last leaf, and the last pair of equal nodes: runs of equal leaves (zeroes) cost next to nothing. */
  #lastLeaf: { digest: Uint8Array; node: Uint8Array } | undefined;
  readonly #doubled: { below: Uint8Array; node: Uint8Array }[] = [];

  constructor(hasher: TreeHasher) {
    this.#hasher = hasher;
  }

  addLeaf(digest: Uint8Array): void {
    if (this.#lastLeaf === undefined || !equal(this.#lastLeaf.digest, digest)) {
      this.#lastLeaf = { digest: new Uint8Array(digest), node: this.#hasher.leaf(digest) };
    }
    this.addNode(this.#lastLeaf.node);
  }

  /** Adds a subtree; `node` is not written to while the tree grows. */
  addNode(node: Uint8Array): void {
    let size = 1;
    let height = 0;
    for (let left = this.#nodes.at(-1); left !== undefined && left.size === size; left = this.#nodes.at(-1)) {
      this.#nodes.pop();
      node = this.#join(left.node, node, height++);
      size *= 2;
    }
    this.#nodes.push({ node, size });
  }

  /** The root of what was added, at least one leaf. */
  root(): Uint8Array {
    const last = this.#nodes.at(-1);
    if (last === undefined) throw new RangeError("a tree has at least one leaf");
    let node = last.node;
    for (let at = this.#nodes.length - 2; at >= 0; at--) node = this.#hasher.inner(this.#nodes[at]!.node, node);
    return node;
  }

  #join(left: Uint8Array, right: Uint8Array, height: number): Uint8Array {
    if (left !== right) return this.#hasher.inner(left, right);
    const known = this.#doubled[height];
    if (known?.below === left) return known.node;
    const node = this.#hasher.inner(left, right);
    this.#doubled[height] = { below: left, node };
    return node;
  }
}

/** The largest power of two below `count`, which is at least 2. */
export function largestPowerBelow(count: number): number {
  return 2 ** Math.floor(Math.log2(count - 1));
}

function equal(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}
