import type { Arena, Transport, Where } from "../arena.ts";
import type { Aim, Row } from "../contest.ts";
import { type Copy, NBDCOPY_PEERS, QEMU_PEERS, nbdcopies, ours, qemuImgs, vates } from "../contestants.ts";

interface Shape {
  name: string;
  title: string;
  source: Copy["source"];
  target: Copy["target"];
  where: Where;
  atLeast: number;
}

const SHAPES: readonly Shape[] = [
  { name: "nbd-to-null", title: "NBD→null", source: "nbd", target: "null", where: "memory", atLeast: 0.95 },
  { name: "nbd-to-raw", title: "NBD→raw on tmpfs", source: "nbd", target: "raw", where: "memory", atLeast: 0.95 },
  { name: "nbd-to-disk", title: "NBD→raw on a disk", source: "nbd", target: "raw", where: "disk", atLeast: 0.95 },
  { name: "raw-to-nbd", title: "raw→NBD", source: "raw", target: "nbd", where: "memory", atLeast: 0.95 },
  { name: "nbd-to-nbd", title: "NBD→NBD", source: "nbd", target: "nbd", where: "memory", atLeast: 0.9 },
];

/** Dense disks over unix sockets, TCP and TLS, against nbdcopy, qemu-img and @vates/nbd-client. */
export function denseRows(arena: Arena): Row[] {
  return (["unix", "tcp", "tls"] as const).flatMap((transport) =>
    SHAPES.filter(({ where }) => transport !== "tls" || where === "memory").map((shape) =>
      denseRow(arena, shape, transport),
    ),
  );
}

function denseRow(arena: Arena, shape: Shape, transport: Transport): Row {
  const { size } = arena.options;
  const aims: Aim[] =
    transport === "tls"
      ? [{ kind: "speed", peers: NBDCOPY_PEERS, atLeast: 0.75, label: "≥ 0.75 of nbdcopy over TLS" }]
      : [
          {
            kind: "speed",
            peers: NBDCOPY_PEERS,
            atLeast: shape.atLeast,
            label: `≥ ${shape.atLeast.toFixed(2)} of nbdcopy`,
          },
          { kind: "speed", peers: QEMU_PEERS, atLeast: 1, label: "≥ 1.0 of qemu-img" },
          { kind: "cpu", peers: NBDCOPY_PEERS, atMost: 1.1, label: "CPU s/GiB ≤ 1.1 of nbdcopy" },
        ];
  const withVates = shape.target === "null" && transport === "tcp";
  if (withVates)
    aims.push({ kind: "speed", peers: ["@vates/nbd-client"], atLeast: 2, label: "≥ 2 × @vates/nbd-client" });
  return {
    name: `${shape.name}-${transport}`,
    title: `${shape.title}, ${transport === "tls" ? "TLS over TCP" : transport}`,
    bytes: size,
    newBytes: shape.where === "disk" ? size : 0,
    aims,
    async open() {
      const { source, target, where } = shape;
      const file = await arena.disk("dense", size);
      const kept = where === "memory" ? { kept: true as const } : {};
      const copy: Copy = { file, size, source, target, where, transport, ...kept };
      return {
        contestants: [
          ours(arena, copy),
          ...nbdcopies(arena, copy),
          ...(transport === "tls" ? [] : qemuImgs(arena, copy)),
          ...(withVates ? await vates(arena, copy) : []),
        ],
        async [Symbol.asyncDispose]() {},
      };
    },
  };
}
