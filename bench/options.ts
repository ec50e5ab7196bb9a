import { availableParallelism, tmpdir } from "node:os";
import { parseArgs } from "node:util";

/** What the command line asks for. */
export interface BenchOptions {
  /** Rows whose names begin with one of these; empty: all. */
  rows: string[];
  rounds: number;
  /** Bytes of the dense disks. */
  size: number;
  /** Small sizes and two rounds: to see that everything runs, not how fast. */
  quick: boolean;
  /** Where the rows that mean a disk work; fast ones work in memory. */
  folder: string;
  memoryFolder: string;
  /** Where all that was measured goes, as JSON. */
  json: string | undefined;
  /** Whether ours runs from the built packages (`dist`) or from source. */
  from: "dist" | "source" | undefined;
  list: boolean;
  cores: number;
}

const USAGE = `npm run bench -- [option …]
  --rows a,b          rows whose names begin so (default: all; --list names them)
  --rounds 5          counted rounds of each row
  --size 2G           bytes of the dense disks
  --quick             small disks, two rounds: to see that it runs
  --folder path       where the disk rows work (default: the temporary folder)
  --memory path       where the fast rows work (default: /dev/shm)
  --from dist|source  what of ours runs (default: dist where it is built)
  --json path         all that was measured`;

/** Reads the command line; prints the usage and ends where it cannot. */
export function readOptions(args: readonly string[]): BenchOptions {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        rows: { type: "string" },
        rounds: { type: "string" },
        size: { type: "string" },
        quick: { type: "boolean" },
        folder: { type: "string" },
        memory: { type: "string" },
        json: { type: "string" },
        from: { type: "string" },
        list: { type: "boolean" },
        help: { type: "boolean" },
      },
    });
    if (values.help === true) {
      console.log(USAGE);
      process.exit(0);
    }
    const quick = values.quick ?? false;
    const rounds = Number(values.rounds ?? (quick ? 2 : 5));
    if (!Number.isInteger(rounds) || rounds < 1) throw new TypeError("--rounds is a whole number above 0");
    if (values.from !== undefined && values.from !== "dist" && values.from !== "source") {
      throw new TypeError("--from is dist or source");
    }
    return {
      rows: (values.rows ?? "").split(",").filter((name) => name !== ""),
      rounds,
      size: bytesOf(values.size ?? (quick ? "64M" : "2G")),
      quick,
      folder: values.folder ?? tmpdir(),
      memoryFolder: values.memory ?? "/dev/shm",
      json: values.json,
      from: values.from,
      list: values.list ?? false,
      cores: availableParallelism(),
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(64);
  }
}

/** `2G`, `64M`, `4096` in bytes. */
function bytesOf(text: string): number {
  const found = /^(\d+)([KMGT]?)$/.exec(text);
  if (found === null) throw new TypeError(`--size ${text}: a number and K, M, G or T`);
  const bytes = Number(found[1]) * 1024 ** " KMGT".indexOf(found[2] === "" ? " " : found[2]!);
  if (bytes === 0 || bytes % (1 << 20) !== 0) throw new TypeError("--size is a multiple of 1M");
  return bytes;
}
