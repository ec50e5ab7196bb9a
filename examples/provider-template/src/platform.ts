import { randomUUID } from "node:crypto";
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";

/** What the platform says when something is wrong. */
export class PlatformError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Disks of a machine that were snapshot together. */
export interface Group {
  id: string;
  machine: string;
  takenAt: string;
  tags: Record<string, string | undefined>;
  images: { id: string; disk: string; size: number }[];
}

export interface PlatformVolume {
  id: string;
  size: number;
  tags: Record<string, string | undefined>;
}

export type Kind = "snapshots" | "volumes";

/** Bytes of a snapshot or volume, while they are open. */
export interface Session {
  size: number;
  /** Fills all of `into`, or rejects. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Writes all of `data`, or rejects. */
  write(offset: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Stands in for your platform's client, so that this package works and is tested from its first day. Put yours in its
 * place. Here the platform is a folder: `machines/<machine>/<disk>` are disks, and snapshots and volumes are copies.
 */
export class Platform {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async machines(): Promise<string[]> {
    return readdir(this.#disk());
  }

  async disks(machine: string): Promise<{ name: string; size: number }[]> {
    if (!(await readdir(this.#disk())).includes(machine))
      throw new PlatformError("NoSuchMachine", `machine ${machine}`);
    const names = await readdir(this.#disk(machine));
    return Promise.all(names.map(async (name) => ({ name, size: (await stat(this.#disk(machine, name))).size })));
  }

  async snapshots(): Promise<Group[]> {
    return this.#loadAll<Group>("snapshots");
  }

  /** Copies disks. Nothing stops the guest meanwhile, so this is no point in time. */
  async snapshot(machine: string, disks: readonly string[], tags: Group["tags"]): Promise<Group> {
    const group: Group = { id: randomUUID(), machine, takenAt: new Date().toISOString(), tags, images: [] };
    await mkdir(`${this.#folder}/snapshots`, { recursive: true });
    for (const disk of disks) {
      const id = randomUUID();
      await copyFile(this.#disk(machine, disk), this.#path("snapshots", id, "img"));
      group.images.push({ id, disk, size: (await stat(this.#path("snapshots", id, "img"))).size });
    }
    return this.#save("snapshots", group);
  }

  async deleteSnapshot(id: string, images: readonly { id: string }[]): Promise<void> {
    await rm(this.#path("snapshots", id, "json"), { force: true });
    for (const image of images) await rm(this.#path("snapshots", image.id, "img"), { force: true });
  }

  /** A page of where an image differs from an older one of the same disk; without an older one, from zeroes. */
  async changes(id: string, since: string | undefined, from: number, to: number): Promise<Page> {
    const images = (await this.snapshots()).flatMap((group) => group.images);
    const [image, base] = [id, since].map((wanted) => images.find((each) => each.id === wanted));
    if (image === undefined) throw new PlatformError("NoSuchThing", `image ${id}`);
    if (since !== undefined && (base?.disk !== image.disk || base.size !== image.size))
      throw new PlatformError("NotComparable", `image ${since} is gone, or of another disk or size`);
    const now = await this.open("snapshots", id);
    const before = since === undefined ? undefined : await this.open("snapshots", since);
    try {
      const end = Math.min(to, from + pageLength);
      return { changes: await compared(now, before, from, end), ...(end < to ? { next: end } : {}) };
    } finally {
      await now.close();
      await before?.close();
    }
  }

  async volumes(): Promise<PlatformVolume[]> {
    return this.#loadAll<PlatformVolume>("volumes");
  }

  async volume(id: string): Promise<PlatformVolume> {
    return this.#load<PlatformVolume>("volumes", id);
  }

  /** The volume of this name, made or grown where that is needed. */
  async createVolume(name: string, size: number, tags: PlatformVolume["tags"]): Promise<PlatformVolume> {
    const id = encodeURIComponent(name);
    await mkdir(`${this.#folder}/volumes`, { recursive: true });
    const known = await this.volume(id).catch(() => ({ id, size, tags }));
    const volume = { ...known, size: Math.max(size, known.size) };
    await writeFile(this.#path("volumes", id, "img"), "", { flag: "a" });
    await truncate(this.#path("volumes", id, "img"), volume.size);
    return this.#save("volumes", volume);
  }

  async tagVolume(id: string, tags: PlatformVolume["tags"]): Promise<void> {
    const volume = await this.volume(id);
    await this.#save("volumes", { ...volume, tags: { ...volume.tags, ...tags } });
  }

  async deleteVolume(id: string): Promise<void> {
    for (const type of ["json", "img"]) await rm(this.#path("volumes", id, type), { force: true });
  }

  /** Where a volume or an image lies, for a look at it that goes past the provider. */
  pathOf(kind: Kind, id: string): string {
    return this.#path(kind, id, "img");
  }

  async open(kind: Kind, id: string): Promise<Session> {
    const file = await open(this.#path(kind, id, "img"), kind === "volumes" ? "r+" : "r").catch(() => {
      throw new PlatformError("NoSuchThing", `${kind} ${id}`);
    });
    const { size } = await file.stat();
    return {
      size,
      async read(offset, into) {
        const { bytesRead } = await file.read(into, 0, into.byteLength, offset);
        if (bytesRead < into.byteLength) throw new PlatformError("OutOfRange", `${id} ends at ${offset + bytesRead}`);
      },
      async write(offset, data) {
        if (offset + data.byteLength > size) throw new PlatformError("OutOfRange", `${id} ends at ${size}`);
        const { bytesWritten } = await file.write(data, 0, data.byteLength, offset);
        if (bytesWritten < data.byteLength) throw new PlatformError("ENOSPC", `there is no room for ${id}`);
      },
      flush: () => file.datasync(),
      close: () => file.close(),
    };
  }

  #disk(...names: string[]): string {
    return [this.#folder, "machines", ...names].join("/");
  }

  #path(kind: string, id: string, type: string): string {
    return `${this.#folder}/${kind}/${encodeURIComponent(id)}.${type}`;
  }

  async #loadAll<Thing>(kind: string): Promise<Thing[]> {
    const names = await readdir(`${this.#folder}/${kind}`).catch(() => []);
    const ids = names.filter((name) => name.endsWith(".json")).map((name) => decodeURIComponent(name.slice(0, -5)));
    return Promise.all(ids.map((id) => this.#load<Thing>(kind, id)));
  }

  async #load<Thing>(kind: string, id: string): Promise<Thing> {
    const text = await readFile(this.#path(kind, id, "json"), "utf8").catch(() => undefined);
    if (text === undefined) throw new PlatformError("NoSuchThing", `${kind} ${id}`);
    return JSON.parse(text) as Thing;
  }

  /** Written beside and renamed: after a crash there is the old one or the new one. */
  async #save<Thing extends { id: string }>(kind: string, thing: Thing): Promise<Thing> {
    await writeFile(this.#path(kind, thing.id, "new"), JSON.stringify(thing), { flush: true });
    await rename(this.#path(kind, thing.id, "new"), this.#path(kind, thing.id, "json"));
    return thing;
  }
}

/** Ranges, and whether each differs; `next` is where the next page begins. */
export interface Page {
  changes: { offset: number; length: number; differs: boolean }[];
  next?: number;
}

const step = 64 * 1024;
const pageLength = 16 * step;

async function compared(now: Session, before: Session | undefined, from: number, to: number): Promise<Page["changes"]> {
  const changes: Page["changes"] = [];
  for (let offset = from; offset < to; offset += step) {
    const length = Math.min(step, to - offset);
    const [here, there] = [new Uint8Array(length), new Uint8Array(length)];
    await Promise.all([now.read(offset, here), before?.read(offset, there)]);
    changes.push({ offset, length, differs: Buffer.compare(here, there) !== 0 });
  }
  return changes;
}
