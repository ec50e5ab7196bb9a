/**
 * A state store of your own: the five kinds of call over SQLite, so that jobs of many processes on one machine share one
 * file. Over a database on the network it is the same: compare-and-set, durable appends and epochs that only grow.
 *
 *   node examples/own-state-store.ts server.raw recovery-points/ state.sqlite
 */
import { randomUUID } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import {
  type Json,
  type Lease,
  openSource,
  openTarget,
  replicate,
  type StateRecord,
  type StateStore,
} from "@diskferry/core";
import { ProviderError, type Wait } from "@diskferry/core/provider";
import { provider as local } from "@diskferry/provider-local";

export class SqliteStateStore implements StateStore {
  readonly #db: DatabaseSync;

  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    // FULL: what a call acknowledged survives a power loss, as the contract demands.
    this.#db.exec(`
      PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
      CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision TEXT NOT NULL);
      CREATE TABLE IF NOT EXISTS blobs (key TEXT PRIMARY KEY, bytes BLOB NOT NULL);
      CREATE TABLE IF NOT EXISTS logs (id INTEGER PRIMARY KEY, key TEXT NOT NULL, bytes BLOB NOT NULL);
      CREATE INDEX IF NOT EXISTS logs_by_key ON logs (key, id);
      CREATE TABLE IF NOT EXISTS leases (job TEXT PRIMARY KEY, epoch INTEGER NOT NULL, released INTEGER NOT NULL, seen TEXT NOT NULL);
    `);
  }

  async get(key: string, wait?: Wait): Promise<StateRecord | undefined> {
    wait?.signal?.throwIfAborted();
    const row = this.#db.prepare("SELECT value, revision FROM records WHERE key = ?").get(key);
    return row && { value: JSON.parse(String(row["value"])) as Json, revision: String(row["revision"]) };
  }

  async set(key: string, value: Json, { revision, signal }: { revision: string | null } & Wait): Promise<string> {
    signal?.throwIfAborted();
    const next = randomUUID();
    const text = JSON.stringify(value);
    // One statement each, so that no other process comes between the comparison and the write.
    const { changes } =
      revision === null
        ? this.#db.prepare("INSERT OR IGNORE INTO records VALUES (?, ?, ?)").run(key, text, next)
        : this.#db
            .prepare("UPDATE records SET value = ?, revision = ? WHERE key = ? AND revision = ?")
            .run(text, next, key, revision);
    if (Number(changes) === 1) return next;
    throw new ProviderError("IN_USE", `the record ${key} was changed meanwhile; read it again`, {
      operation: "set state",
    });
  }

  async delete(key: string, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    for (const table of ["records", "blobs", "logs"]) this.#db.prepare(`DELETE FROM ${table} WHERE key = ?`).run(key);
  }

  async *list(prefix: string, wait?: Wait): AsyncIterable<string> {
    const all = "SELECT key FROM records UNION SELECT key FROM blobs UNION SELECT key FROM logs";
    const keys = this.#db.prepare(`SELECT key FROM (${all}) WHERE substr(key, 1, ?) = ?`).all(prefix.length, prefix);
    for (const { key } of keys) {
      wait?.signal?.throwIfAborted();
      yield String(key);
    }
  }

  async put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    this.#db.prepare("INSERT OR REPLACE INTO blobs VALUES (?, ?)").run(key, bytes);
  }

  async bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined> {
    wait?.signal?.throwIfAborted();
    return this.#db.prepare("SELECT bytes FROM blobs WHERE key = ?").get(key)?.["bytes"] as Uint8Array | undefined;
  }

  async append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    this.#db.prepare("INSERT INTO logs (key, bytes) VALUES (?, ?)").run(key, bytes);
  }

  async *log(key: string, wait?: Wait): AsyncIterable<Uint8Array> {
    for (const { bytes } of this.#db.prepare("SELECT bytes FROM logs WHERE key = ? ORDER BY id").iterate(key)) {
      wait?.signal?.throwIfAborted();
      yield bytes as Uint8Array;
    }
  }

  async acquire(job: string, wait?: Wait): Promise<Lease> {
    wait?.signal?.throwIfAborted();
    const now = (): string => new Date().toISOString();
    this.#db.exec("BEGIN IMMEDIATE");
    const before = this.#db.prepare("SELECT epoch, released, seen FROM leases WHERE job = ?").get(job);
    const epoch = Number(before?.["epoch"] ?? 0) + 1;
    this.#db.prepare("INSERT OR REPLACE INTO leases VALUES (?, ?, 0, ?)").run(job, epoch, now());
    this.#db.exec("COMMIT");
    const own = (set: string): number =>
      Number(this.#db.prepare(`UPDATE leases SET ${set} WHERE job = ? AND epoch = ?`).run(job, epoch).changes);
    const release = async (): Promise<void> => void own("released = 1");
    return {
      job,
      epoch,
      ...(before && {
        previous: {
          epoch: Number(before["epoch"]),
          released: before["released"] === 1,
          alive: undefined, // nobody here can tell, so core waits out the other's longest request
          seenAt: String(before["seen"]),
        },
      }),
      async check(asking) {
        asking?.signal?.throwIfAborted();
        if (own(`seen = '${now()}'`) === 1) return;
        throw new ProviderError("FENCED", `another worker took over the job ${job}; this one stops`, {
          operation: "check lease",
        });
      },
      release,
      [Symbol.asyncDispose]: release,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#db.isOpen) this.#db.close();
  }
}

const [from = "server.raw", directory = "recovery-points", file = "state.sqlite"] = process.argv.slice(2);
await using store = new SqliteStateStore(file);
await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { directory, format: "qcow2-chain" });
const report = await replicate({ id: "server", source, machine: "server", target, store });
for (const { mode, read, moved } of report.disks) console.log({ mode, read, moved });
