import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Arena } from "../arena.ts";
import type { Contestant, Row } from "../contest.ts";

const MACHINES = 2000;
/** Seconds of our own processor time that a list of them may take. */
const BUDGET = 3;

const simulator = fileURLToPath(new URL("../../packages/simulators/src/diskferry-simulators.ts", import.meta.url));

interface Place extends AsyncDisposable {
  readonly env: Readonly<Record<string, string>>;
}

/** The inventory of a simulated vCenter of 2,000 machines, which runs in a process of its own. */
export function vsphereRows(arena: Arena): Row[] {
  return [
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
