/**
 * Runs this project side by side with the tools people use today, in alternating rounds, and prints ratios beside the
 * aims: `npm run bench -- --help`. Not a test: figures depend on the machine and on what else runs on it.
 */
import { cpus, loadavg, release, totalmem } from "node:os";
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { hasPeer } from "../test/peers.ts";
import { Arena } from "./arena.ts";
import { contest, type Row, type RowResult } from "./contest.ts";
import { readOptions } from "./options.ts";
import { rowReport, summary } from "./report.ts";
import { allRows } from "./rows.ts";

const options = readOptions(process.argv.slice(2));
const missing = ["nbdkit", "nbdcopy", "qemu-img", "qemu-nbd", "qemu-io", "openssl", "/usr/bin/python3", "cmp"].filter(
  (name) => !hasPeer(name),
);
if (missing.length > 0) {
  console.error(`The bench needs ${missing.join(", ")}; .ci/run names the packages.`);
  process.exit(69);
}
process.once("SIGINT", () => process.exit(130));
const arena = await Arena.open(options);
process.on("exit", () => {
  for (const where of ["memory", "disk"] as const) execFileSync("rm", ["-rf", arena.folder(where)]);
});
const rows = allRows(arena).filter(
  ({ name }) => options.rows.length === 0 || options.rows.some((wanted) => name.startsWith(wanted)),
);
if (options.list) {
  for (const { name, title } of rows) console.log(`${name.padEnd(20)}${title}`);
  process.exit(0);
}
if (rows.length === 0) {
  console.error(`No row begins with ${options.rows.join(" or ")}; --list names them.`);
  process.exit(64);
}

console.log(`${machine()}\n`);
const judged: { row: Row; result: RowResult }[] = [];
const failures: string[] = [];
for (const row of rows) {
  const load = loadavg()[0]!.toFixed(1);
  try {
    const rounds = Math.min(options.rounds, row.mostRounds ?? options.rounds);
    const result = await contest(row, rounds, arena, (line) => console.error(line));
    judged.push({ row, result });
    console.log(`${rowReport(row, result)}\n\n(${rounds} rounds; load before the row ${load})\n`);
  } catch (error) {
    failures.push(row.name);
    console.log(`### ${row.name}: ${row.title}\n\n**FAILED**: ${(error as Error).message}\n`);
  }
}
console.log(`## Aims\n\n${summary(judged)}\n`);
if (failures.length > 0) console.log(`Rows that failed: ${failures.join(", ")}.`);
if (options.json !== undefined) {
  const facts = {
    machine: machine(),
    arguments: process.argv.slice(2),
    from: arena.from,
    results: judged.map(({ result }) => result),
  };
  await writeFile(options.json, JSON.stringify(facts, undefined, 2));
}
await arena[Symbol.asyncDispose]();
process.exit(failures.length === 0 ? 0 : 1);

function machine(): string {
  const version = (command: string, ...args: string[]): string =>
    /\d+\.\d+(\.\d+)?/.exec(execFileSync(command, args, { encoding: "utf8" }))?.[0] ?? "?";
  const peers = [
    `nbdkit ${version("nbdkit", "--version")}`,
    `libnbd ${version("nbdcopy", "--version")}`,
    `qemu ${version("qemu-img", "--version")}`,
  ];
  const { model } = cpus()[0]!;
  return (
    `${options.cores} × ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}; ` +
    `${peers.join(", ")}. Ours runs from ${arena.from === "dist" ? "the built packages" : "source"}. ` +
    `Times of ours are of opening both ends, \`transfer\` and closing; the last column has the whole process, which is ` +
    `what is timed of the others. A ratio above 1 means that ours is faster.`
  );
}
