import { randomUUID } from "node:crypto";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** Bytes of a block; the last one of a disk may be shorter. */
export const blockSize: number = 64 * 1024;

const MOST_TRIES = 20;

/** What the store says when something is wrong. */
export class StoreError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** A layer of blocks over its parent: a live disk, a half-written upload, or a snapshot, which never changes. */
export interface Layer {
  id: string;
  kind: "disk" | "upload" | "snapshot";
  size: number;
  parent?: string | undefined;
  /** The change list of a snapshot: the numbers of the blocks that differ from its parent. */
  changes?: number[];
  tags: Record<string, string | undefined>;
}

/**
 * A small object store: a folder for each layer, with `about.json` and a file for each block that the layer itself holds. An
 * empty file is a block of zeroes; a block without a file is the parent's, or zeroes where there is none.
 */
export class BlockStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async layers(kind: Layer["kind"]): Promise<Layer[]> {
    const ids = await readdir(`${this.#folder}/layers`).catch(() => []);
    const all = await Promise.all(ids.map((id) => this.layer(decodeURIComponent(id)).catch(() => undefined)));
    return all.filter((layer): layer is Layer => layer?.kind === kind);
  }

  async layer(id: string): Promise<Layer> {
    const text = await readFile(`${this.#at(id)}/about.json`, "utf8").catch(() => undefined);
    if (text === undefined) throw new StoreError("NoSuchLayer", `there is no ${id}`);
    return JSON.parse(text) as Layer;
  }

  /** Written beside and renamed: after a crash there is the old one or the new one. */
  async put(layer: Layer): Promise<Layer> {
    await mkdir(`${this.#at(layer.id)}/blocks`, { recursive: true });
    const beside = `${this.#at(layer.id)}/${randomUUID()}`;
    await writeFile(beside, JSON.stringify(layer), { flush: true });
    await rename(beside, `${this.#at(layer.id)}/about.json`);
    return layer;
  }

  async tag(id: string, tags: Layer["tags"]): Promise<Layer> {
    const layer = await this.layer(id);
    return this.put({ ...layer, tags: { ...layer.tags, ...tags } });
  }

  /** Fills `into` from a block boundary on, through the layers. */
  async read(id: string, offset: number, into: Uint8Array): Promise<void> {
    const chain: Layer[] = [];
    for (let at: string | undefined = id; at !== undefined; at = chain.at(-1)!.parent) chain.push(await this.layer(at));
    if (offset + into.byteLength > chain[0]!.size)
      throw new StoreError("OutOfRange", `${id} ends at ${chain[0]!.size}`);
    for (let done = 0; done < into.byteLength; done += blockSize) {
      const piece = into.subarray(done, done + blockSize);
      piece.fill(0);
      for (const layer of chain) {
        const bytes = await this.#blockOf(layer.id, (offset + done) / blockSize);
        if (bytes === undefined) continue;
        piece.set(bytes.subarray(0, piece.byteLength));
        break;
      }
    }
  }

  /** Writes whole blocks from a block boundary on; without bytes, zeroes. Durable when it resolves, as a PUT is. */
  async write(id: string, offset: number, length: number, data?: Uint8Array): Promise<void> {
    const { size } = await this.layer(id);
    if (offset + length > size) throw new StoreError("OutOfRange", `${id} ends at ${size}`);
    for (let done = 0; done < length; done += blockSize) {
      const path = this.#block(id, (offset + done) / blockSize);
      await this.#replace(path, data?.subarray(done, done + blockSize) ?? new Uint8Array());
    }
  }

  /** Written beside and renamed; once more where a snapshot took the folder meanwhile and has yet to leave another. */
  async #replace(path: string, bytes: Uint8Array): Promise<void> {
    for (let tries = 1; ; tries++) {
      const beside = `${path}.${randomUUID()}.new`;
      try {
        await writeFile(beside, bytes, { flush: true });
        return await rename(beside, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT" || tries === MOST_TRIES) throw error;
        await sleep(tries);
      }
    }
  }

  /** Makes a snapshot of a layer's blocks, all at once: it takes the folder they are in. The layer goes on above it, empty. */
  async freeze(id: string, tags: Layer["tags"]): Promise<Layer> {
    const layer = await this.layer(id);
    const { parent, size } = layer;
    const snapshot = await this.put({ id: `${id}@${randomUUID()}`, kind: "snapshot", size, parent, tags });
    await this.put({ ...layer, parent: snapshot.id });
    await rename(`${this.#at(id)}/blocks`, `${this.#at(snapshot.id)}/blocks`);
    await mkdir(`${this.#at(id)}/blocks`);
    return await this.put({ ...snapshot, changes: await this.#own(snapshot.id) });
  }

  /** What changed from one snapshot to a later one; undefined where the one is not below the other. */
  async changes(since: string, id: string): Promise<Set<number> | undefined> {
    const changed = new Set<number>();
    for (let at: string | undefined = id; at !== since;) {
      if (at === undefined) return undefined;
      const { changes = [], parent }: Layer = await this.layer(at);
      for (const block of changes) changed.add(block);
      at = parent;
    }
    return changed;
  }

  /** The blocks that may hold something else than zeroes. */
  async held(id: string): Promise<Set<number>> {
    const held = new Set<number>();
    for (let at: string | undefined = id; at !== undefined; at = (await this.layer(at)).parent)
      for (const block of await this.#own(at)) held.add(block);
    return held;
  }

  /** Removes a layer; those that stand on it get its blocks and its change list first. */
  async remove(id: string): Promise<void> {
    const gone = await this.layer(id).catch(() => undefined);
    if (gone === undefined) return;
    const all = [...(await this.layers("snapshot")), ...(await this.layers("disk")), ...(await this.layers("upload"))];
    for (const above of all.filter(({ parent }) => parent === id)) {
      const own = new Set(await this.#own(above.id));
      for (const block of await this.#own(id))
        if (!own.has(block)) await cp(this.#block(id, block), this.#block(above.id, block));
      const changes = [...new Set([...(above.changes ?? []), ...(gone.changes ?? [])])];
      await this.put({ ...above, parent: gone.parent, ...(above.kind === "snapshot" ? { changes } : {}) });
    }
    await rm(this.#at(id), { recursive: true, force: true });
  }

  async #own(id: string): Promise<number[]> {
    const names = await readdir(`${this.#at(id)}/blocks`);
    return names.filter((name) => !name.endsWith(".new")).map(Number);
  }

  async #blockOf(id: string, block: number): Promise<Uint8Array | undefined> {
    return readFile(this.#block(id, block)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
  }

  #at(id: string): string {
    return `${this.#folder}/layers/${encodeURIComponent(id)}`;
  }

  #block(id: string, block: number): string {
    return `${this.#at(id)}/blocks/${block}`;
  }
}
