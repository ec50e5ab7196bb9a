import type { Arena } from "../arena.ts";
import type { AwsTransferOrder } from "../children/aws-transfer.ts";
import { coldsnap, coldsnapVersion } from "../coldsnap.ts";
import type { Aim, Contestant, Prepared, Row } from "../contest.ts";
import { PLAIN } from "../contestants.ts";
import type { Command } from "../measure.ts";
import { simulatedAws } from "../simulated-aws.ts";

const GIB = 2 ** 30;
const BLOCK = 512 << 10;
/** Blocks that an account and a snapshot may read or write in a second (Service Quotas, EBS direct APIs). */
const QUOTA = 1000;
/** A fifth of AWS's quotas: what a machine of two cores serves and copies at once with some room left. */
const FIFTH = 0.2;
/** As good as none; Infinity would not survive the JSON by which the simulator is told. */
const NO_QUOTA = 1e9;
const REGION = "us-east-1";

type Direction = "download" | "upload";

/** EBS snapshots of the simulator, over plain HTTP, beside coldsnap's newest release. */
export function awsRows(arena: Arena): Row[] {
  return [
    ...(["download", "upload"] as const).flatMap((direction) => [
      quotaRow(arena, direction),
      farRow(arena, direction, 100),
      farRow(arena, direction, 20),
    ]),
    ...(arena.options.quick ? [1, 64] : [1, 64, 1024, 16_384]).map((gibibytes) => listingRow(arena, gibibytes)),
  ];
}

function quotaRow(arena: Arena, direction: Direction): Row {
  // So long that what surrounds the copy, a second of calls to the control plane, is what it is for a disk, not for a sample.
  const size = arena.options.quick ? 256 << 20 : 2 * GIB;
  const operation = direction === "download" ? "GetSnapshotBlock" : "PutSnapshotBlock";
  return {
    name: `aws-quota-${direction}`,
    title: `EBS ${direction}, a fifth of AWS's quotas (${QUOTA * FIFTH} blocks/s), ${size / 2 ** 20} MiB`,
    bytes: size,
    mostRounds: 3,
    aims: [
      { kind: "told", field: "share", atLeast: 0.95, label: "≥ 0.95 of the quota" },
      { kind: "speed", peers: ["coldsnap"], atLeast: 1, label: "≥ 1.0 × coldsnap" },
      { kind: "fewer", field: "throttled", peers: ["coldsnap"], label: "fewer throttled calls than coldsnap" },
    ],
    open: () => contestants(arena, { direction, size, simulator: { quotaScale: FIFTH, latencyMs: 20 }, operation }),
  };
}

function farRow(arena: Arena, direction: Direction, latencyMs: number): Row {
  const size = arena.options.quick ? 256 << 20 : 2 * GIB;
  const aims: Aim[] =
    latencyMs < 100 ? [] : [{ kind: "speed", peers: ["coldsnap"], atLeast: 1.2, label: "≥ 1.2 × coldsnap" }];
  return {
    name: `aws-${latencyMs}ms-${direction}`,
    title: `EBS ${direction}, no quota, each answer after ${latencyMs} ms, ${size / 2 ** 20} MiB`,
    bytes: size,
    mostRounds: 3,
    aims,
    open: () => contestants(arena, { direction, size, simulator: { latencyMs } }),
  };
}

/** What both contestants of a row do. */
interface Contest {
  direction: Direction;
  size: number;
  simulator: { quotaScale?: number; latencyMs: number };
  /** Whose share of the quota is told. */
  operation?: string;
}

async function contestants(
  arena: Arena,
  contest: Contest,
): Promise<{ contestants: readonly Contestant[] } & AsyncDisposable> {
  const { direction, size } = contest;
  const file = direction === "upload" ? await arena.disk("dense", size) : "";
  const peer = coldsnap();
  const ours = contestant(arena, contest, "diskferry", (place, path, prepared) => {
    const state = arena.name("memory", ".state");
    prepared.use(state);
    return transferCommand(arena, {
      action: direction,
      aws: awsOptions(place, direction === "download"),
      file: path ?? file,
      state: state.path,
      options: PLAIN,
    });
  });
  const theirs = contestant(arena, contest, "coldsnap", (place, path) => ({
    command: peer ?? "coldsnap",
    args: [
      ...["--region", REGION, "--endpoint", place.endpoint, direction],
      // Without --wait, which polls every few seconds: theirs ends before the snapshot is completed, ours after it.
      ...(direction === "download" ? [place.snapshot, path ?? ""] : [file]),
      "--no-progress",
    ],
    env: {
      AWS_ACCESS_KEY_ID: place.accessKeyId,
      AWS_SECRET_ACCESS_KEY: place.secretAccessKey,
      AWS_EC2_METADATA_DISABLED: "true",
      AWS_CONFIG_FILE: "/dev/null",
      AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    },
  }));
  if (peer !== undefined) console.error(`coldsnap is ${coldsnapVersion(peer)}`);
  return {
    contestants: [ours, ...(peer === undefined ? [] : [theirs])],
    async [Symbol.asyncDispose]() {
      if (direction === "upload" && size !== arena.options.size) await arena.forget(`dense-${size}-0.raw`);
    },
  };
}

type Place = Awaited<ReturnType<typeof simulatedAws>>["place"];

/** A run against a simulator of its own, with what the simulator saw of it. */
function contestant(
  arena: Arena,
  { direction, size, simulator, operation }: Contest,
  name: string,
  command: (place: Place, path: string | undefined, stack: AsyncDisposableStack) => Command,
): Contestant {
  return {
    name,
    async prepare(): Promise<Prepared> {
      await using making = new AsyncDisposableStack();
      const blocks = size / BLOCK;
      const aws = making.use(
        await simulatedAws(arena, {
          options: {
            quotaScale: NO_QUOTA,
            emptyPageEvery: 0,
            keepUploads: false,
            // The snapshot to read is an old one: coldsnap gives up when the list call does not know it yet.
            delays: { completeMs: 0, listableMs: 0 },
            ...simulator,
          },
          // Less than a GiB of data lies in one, spread evenly.
          snapshot:
            direction === "download"
              ? { sizeGib: Math.max(1, size / GIB), stride: Math.max(1, GIB / size), digests: blocks }
              : undefined,
        }),
      );
      const written = direction === "download" ? making.use(arena.name("memory", ".raw")) : undefined;
      const prepared = command(aws.place, written?.path, making);
      const stack = making.move();
      return {
        command: prepared,
        async told(seconds) {
          const { cpuSeconds, calls, throttled } = await aws.report();
          const refused = Object.values(throttled).reduce((sum, each) => sum + each, 0);
          // A bucket begins full: the first second's worth of calls is free.
          const rate = QUOTA * (simulator.quotaScale ?? Infinity);
          const share = operation === undefined ? {} : { share: (blocks - rate) / (rate * seconds) };
          console.error(`${name}: the simulator used ${cpuSeconds.toFixed(1)} s of CPU; ${refused} calls throttled`);
          return { ...share, throttled: refused, calls, simulatorCpuSeconds: cpuSeconds };
        },
        [Symbol.asyncDispose]: () => stack.disposeAsync(),
      };
    },
  };
}

function awsOptions(place: Place, reading: boolean): Record<string, unknown> {
  const { endpoint, accessKeyId, secretAccessKey, snapshot } = place;
  const credentials = { accessKeyId, secretAccessKey };
  return { region: REGION, endpoint, credentials, ...(reading ? { resource: snapshot } : {}) };
}

function transferCommand(arena: Arena, order: AwsTransferOrder): Command {
  return arena.script("aws-transfer.ts", [JSON.stringify(order)]);
}

/** Peak memory of a whole listing: every block of the snapshot holds data, and none is read. */
function listingRow(arena: Arena, gibibytes: number): Row {
  return {
    name: `aws-listing-${gibibytes}g`,
    title: `ListSnapshotBlocks over ${gibibytes} GiB, all blocks in use, no quota`,
    bytes: 0,
    mostRounds: 1,
    aims: [{ kind: "peak", atMost: 200 << 20, label: "peak RSS ≤ 200 MiB" }],
    async open() {
      const aws = await simulatedAws(arena, {
        options: { quotaScale: NO_QUOTA, emptyPageEvery: 0 },
        snapshot: { sizeGib: gibibytes, digests: 0 },
      });
      const command = transferCommand(arena, { action: "list", aws: awsOptions(aws.place, true) });
      const prepared = { command, async [Symbol.asyncDispose]() {} };
      return {
        contestants: [{ name: "diskferry", prepare: () => Promise.resolve(prepared) }],
        [Symbol.asyncDispose]: () => aws[Symbol.asyncDispose](),
      };
    },
  };
}
