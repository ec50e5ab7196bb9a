import type { DiskLayer } from "./disk-layer.ts";
import type { Exchange } from "./exchange.ts";
import type { SimulatorCore } from "./simulator-core.ts";
import { streamOptimized } from "./stream-optimized.ts";
import type { VirtualDisk } from "./virtual-disk.ts";
import type { VirtualMachine } from "./virtual-machine.ts";

const partSize = 1 << 18;

/** GET /folder/{path}?dcPath=…&dsName=…: files of a datastore with ranges; flat files of disks that nobody locks. */
export async function serveFolder(core: SimulatorCore, exchange: Exchange): Promise<void> {
  const actions = await core.interfere(exchange, `${exchange.request.method ?? "GET"} /folder`);
  if (actions === "handled") return;
  const { parts } = core.service;
  const { basic, cookie } = exchange;
  const session = cookie === undefined ? undefined : parts.sessions.use(cookie);
  if (session === undefined && !(basic?.user === parts.userName && basic.password === parts.password)) {
    exchange.send(401, { "www-authenticate": 'Basic realm="VMware HTTP server"' });
    return;
  }
  if (parts.missingPrivileges.has("Datastore.Browse")) {
    exchange.send(403, {});
    return;
  }
  const { inventory } = parts;
  const query = exchange.url.searchParams;
  const datacenter = query.get("dcPath");
  const store = query.get("dsName");
  const path = decodeURIComponent(exchange.url.pathname.slice("/folder/".length));
  const machines = [...inventory.machines.values()].filter((machine) => {
    const site = inventory.siteOf(machine);
    const here = site.datastores.some(({ name }) => name === store);
    return here && (datacenter === null || datacenter === site.datacenter.name);
  });
  const found = fileAt(machines, `[${store}] ${path}`);
  if (found === undefined) {
    exchange.send(404, {});
    return;
  }
  if ("text" in found) {
    exchange.send(200, { "content-type": "application/octet-stream" }, found.text);
    return;
  }
  if (found.locked) {
    exchange.send(500, { "content-type": "text/plain" }, "The file is locked");
    return;
  }
  const { layer } = found;
  const range = rangeOf(exchange.header("range"), layer.capacity);
  const headers = { "content-type": "application/octet-stream", "accept-ranges": "bytes" };
  if (range === "unsatisfiable") {
    exchange.send(416, { ...headers, "content-range": `bytes */${layer.capacity}` });
    return;
  }
  const { from, to } = range ?? { from: 0, to: layer.capacity };
  exchange.response.writeHead(range === undefined ? 200 : 206, {
    ...headers,
    "content-length": String(to - from),
    ...(range === undefined ? {} : { "content-range": `bytes ${from}-${to - 1}/${layer.capacity}` }),
  });
  if (exchange.request.method === "HEAD") {
    exchange.response.end();
    return;
  }
  const truncate = actions.find(({ kind }) => kind === "truncate");
  await exchange.stream(pieces(layer, from, to), { bytesPerSecond: core.bytesPerSecond, truncate });
}

/** GET /nfc/{ticket}/disk-{n}.vmdk: a leased disk as a stream-optimized VMDK, with the session's cookie. */
export async function serveNfc(core: SimulatorCore, exchange: Exchange): Promise<void> {
  const actions = await core.interfere(exchange, "GET /nfc");
  if (actions === "handled") return;
  const { parts } = core.service;
  if (exchange.cookie === undefined || parts.sessions.use(exchange.cookie) === undefined) {
    exchange.send(401, {});
    return;
  }
  const found = parts.leases.find(exchange.url.pathname);
  if (found === undefined) {
    exchange.send(404, {});
    return;
  }
  const { disk, emptied, onEnd } = found;
  exchange.response.writeHead(200, { "content-type": "application/x-vnd.vmware-streamVmdk" });
  if (emptied) {
    exchange.response.end();
    return;
  }
  const ended = onEnd(() => exchange.cut());
  try {
    const truncate = actions.find(({ kind }) => kind === "truncate");
    const parts = streamOptimized(disk.layer, disk.capacity, disk.name);
    await exchange.stream(parts, { bytesPerSecond: core.bytesPerSecond, truncate });
  } finally {
    ended();
  }
}

type DatastoreFile = { text: string } | { layer: DiskLayer; locked: boolean };

/**
 * A disk's descriptor or flat file by its datastore path; a delta's own content has a format not simulated. Raw device mappings
 * have no flat file, nor has anything on vSAN, where a disk is an object.
 */
function fileAt(machines: Iterable<VirtualMachine>, name: string): DatastoreFile | undefined {
  for (const machine of machines) {
    for (const disk of machine.disks.values()) {
      for (let layer: DiskLayer | undefined = disk.current; layer !== undefined; layer = layer.parent) {
        if (name === layer.fileName) return { text: descriptorOf(disk, layer) };
        if (hasFlatFile(disk) && layer.parent === undefined && name === flatFileOf(layer.fileName)) {
          return { layer, locked: machine.power === "poweredOn" && layer === disk.current };
        }
      }
    }
  }
  return undefined;
}

function hasFlatFile({ spec, datastore }: VirtualDisk): boolean {
  return (spec.backing ?? "flat") === "flat" && datastore.type !== "vsan";
}

function flatFileOf(descriptor: string): string {
  return descriptor.replace(/\.vmdk$/, "-flat.vmdk");
}

function descriptorOf(disk: VirtualDisk, layer: DiskLayer): string {
  const short = layer.fileName.slice(layer.fileName.lastIndexOf("/") + 1);
  const base = layer.parent === undefined;
  const { createType, extent } = extentOf(disk, layer, (ending) => short.replace(/\.vmdk$/, `-${ending}.vmdk`));
  const tracked = disk.tracker === undefined ? [] : [`changeTrackPath="${short.replace(/\.vmdk$/, "-ctk.vmdk")}"`];
  return [
    "# Disk DescriptorFile",
    "version=1",
    'encoding="UTF-8"',
    "CID=fffffffe",
    `parentCID=${base ? "ffffffff" : "fffffffe"}`,
    `createType="${createType}"`,
    ...(base ? [] : [`parentFileNameHint="${layer.parent?.fileName.replace(/^.*\//, "") ?? ""}"`]),
    `RW ${layer.capacity / 512} ${extent}`,
    ...tracked,
    `ddb.thinProvisioned = "${disk.spec.thin === false ? 0 : 1}"`,
    "",
  ].join("\n");
}

/** How a layer lies on its datastore: deltas are SEsparse on VMFS 6 and redo logs on NFS (DatastoreCapability), objects on vSAN. */
function extentOf(
  disk: VirtualDisk,
  layer: DiskLayer,
  file: (ending: string) => string,
): { createType: string; extent: string } {
  const { type } = disk.datastore;
  if (layer.parent === undefined) {
    if (disk.spec.backing === "rdm-virtual") {
      return { createType: "vmfsRawDeviceMap", extent: `VMFSRDM "${file("rdm")}"` };
    }
    if (disk.spec.backing === "rdm-physical") {
      return { createType: "vmfsPassthroughRawDeviceMap", extent: `VMFSRDM "${file("rdmp")}"` };
    }
    return { createType: "vmfs", extent: `VMFS "${type === "vsan" ? `vsan://${layer.objectId}` : file("flat")}"` };
  }
  if (type === "vsan") return { createType: "vsanSparse", extent: `VSANSPARSE "vsan://${layer.objectId}"` };
  if (type === "NFS") return { createType: "vmfsSparse", extent: `VMFSSPARSE "${file("delta")}"` };
  return { createType: "seSparse", extent: `SESPARSE "${file("sesparse")}"` };
}

function* pieces(layer: DiskLayer, from: number, to: number): Generator<Buffer> {
  for (let offset = from; offset < to; offset += partSize) {
    const part = Buffer.alloc(Math.min(partSize, to - offset));
    layer.read(offset, part);
    yield part;
  }
}

/** One range of bytes; several at once are answered in full, as HTTP allows. */
function rangeOf(header: string | undefined, size: number): { from: number; to: number } | "unsatisfiable" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return undefined;
  if (match[1] === "") return { from: Math.max(0, size - Number(match[2])), to: size };
  const from = Number(match[1]);
  const to = match[2] === "" ? size : Math.min(size, Number(match[2]) + 1);
  return from >= size || to <= from ? "unsatisfiable" : { from, to };
}
