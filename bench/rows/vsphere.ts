import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Arena } from "../arena.ts";
import type { VspherePlace, VsphereSimulatorOrder } from "../children/vsphere-simulator.ts";
import type { VsphereTransferOrder } from "../children/vsphere-transfer.ts";
import type { Contestant, Row } from "../contest.ts";
import { PLAIN } from "../contestants.ts";

const MACHINES = 2000;
/** Seconds of our own processor time that a list of them may take. */
const BUDGET = 3;

const simulator = fileURLToPath(new URL("../../packages/simulators/src/diskferry-simulators.ts", import.meta.url));

interface Place extends AsyncDisposable {
  readonly env: Readonly<Record<string, string>>;
}

/** The readers of a disk, and what a row of each is called. */
const readers = {
  nfc: "the export of a snapshot (compressed stream, HTTPS)",
  folder: "ranges of the datastore's file (HTTPS)",
  vddk: "nbdkit's vddk road",
} as const;

/** A simulated vCenter, which runs in a process of its own: its inventory of 2,000 machines, and a disk by each reader. */
export function vsphereRows(arena: Arena): Row[] {
  return [
    ...(Object.keys(readers) as (keyof typeof readers)[]).map((reader) => copyRow(arena, reader)),
    {
      name: "vsphere-inventory",
      title: `${MACHINES} machines of a vCenter listed with their disks and cards`,
      bytes: 0,
      aims: [
        {
          kind: "told",
          field: "machinesPerCpuSecond",
          atLeast: MACHINES / BUDGET,
          label: `≤ ${BUDGET} s of our CPU for ${MACHINES} machines`,
        },
      ],
      async open() {
        const place = await startPlace();
        const listing = (name: string, protocol: string): Contestant => ({
          name,
          prepare: () =>
            Promise.resolve({
              command: { ...arena.script("list-machines.ts", [protocol]), env: place.env },
              async [Symbol.asyncDispose]() {},
            }),
        });
        return {
          contestants: [listing("diskferry, SOAP", "soap"), listing("diskferry, VI/JSON", "vi-json")],
          [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
        };
      },
    },
  ];
}

/**
 * A full copy to a raw file in memory. No peer reads from the simulator, whose own work is on the same processors: what
 * is told is that the road is open and what ours takes on it, not what a host gives.
 */
function copyRow(arena: Arena, reader: keyof typeof readers): Row {
  const size = arena.options.quick ? 64 << 20 : 512 << 20;
  return {
    name: `vsphere-${reader}`,
    title: `${size >> 20} MiB of a simulated machine by ${readers[reader]} → raw on tmpfs; no peer exists`,
    bytes: size,
    mostRounds: 3,
    aims: [{ kind: "peak", atMost: 512 << 20, label: "peak RSS ≤ 512 MiB" }],
    async open() {
      // What an export compresses is what servers hold.
      const file = await arena.disk("compressible", size);
      const vsphere = await simulatedVsphere(arena, { file, size, vddk: reader === "vddk" });
      const { url, userName, password, thumbprint, vddk, kind, env } = vsphere.place;
      if (kind !== undefined) console.error(`vddk is ${kind}`);
      const contestant: Contestant = {
        name: "diskferry",
        async prepare() {
          await using making = new AsyncDisposableStack();
          const state = making.use(arena.name("memory", ".state"));
          const target = making.use(arena.name("memory", ".raw"));
          const order: VsphereTransferOrder = {
            source: { url, thumbprint, readers: [reader], ...(vddk === undefined ? {} : { vddk }) },
            file: target.path,
            state: state.path,
            options: PLAIN,
          };
          const stack = making.move();
          return {
            command: {
              ...arena.script("vsphere-transfer.ts", [JSON.stringify(order)]),
              env: { ...env, VSPHERE_USER: userName, VSPHERE_PASSWORD: password },
            },
            check: async () => void execFileSync("cmp", [file, target.path]),
            [Symbol.asyncDispose]: () => stack.disposeAsync(),
          };
        },
      };
      return { contestants: [contestant], [Symbol.asyncDispose]: () => vsphere[Symbol.asyncDispose]() };
    },
  };
}

/** The simulator with one machine in a process of its own, which keeps what it needs in memory. */
async function simulatedVsphere(
  arena: Arena,
  order: VsphereSimulatorOrder,
): Promise<{ place: VspherePlace } & AsyncDisposable> {
  // It stands on parts of the tests, which are not built.
  const { command, args } = arena.script("vsphere-simulator.ts", [JSON.stringify(order)], "source");
  const child = spawn(command, args, {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, TMPDIR: arena.folder("memory") },
  });
  const exited = once(child, "exit");
  const [line] = (await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    exited.then(([code]) => Promise.reject(new Error(`the simulator of vSphere ended with ${String(code)}`))),
  ])) as [string];
  return {
    place: JSON.parse(line) as VspherePlace,
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await exited;
    },
  };
}

async function startPlace(): Promise<Place> {
  const args = ["--conditions=diskferry-source", simulator, "vcenter", "--plain", "--machines", String(MACHINES)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const [line] = (await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    exited.then(([code]) => Promise.reject(new Error(`the simulator ended with ${String(code)}`))),
  ])) as [string];
  const { url, userName, password } = JSON.parse(line) as { url: string; userName: string; password: string };
  return {
    env: { VSPHERE_URL: url, VSPHERE_USER: userName, VSPHERE_PASSWORD: password },
    async [Symbol.asyncDispose]() {
      child.kill();
      await exited;
    },
  };
}
