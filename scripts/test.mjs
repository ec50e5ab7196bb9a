/**
 * `npm test`: types, lint, format, then every test. The cheap checks all run, so that one look shows everything; the
 * tests start only when they passed. Arguments go to vitest: `npm test -- packages/nbd`.
 */
import { spawnSync } from "node:child_process";

const checks = [
  ["typecheck", "tsc", "-p", "."],
  ["lint", "oxlint", "--type-aware", "--deny-warnings"],
  ["format", "oxfmt", "--check"],
];

function run(title, command, ...args) {
  const began = performance.now();
  const { status, error } = spawnSync(command, args, { stdio: "inherit", shell: process.platform === "win32" });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if (error !== undefined) console.error(`${command}: ${error.message}`);
  console.log(`${status === 0 ? "ok" : "FAILED"}  ${title} (${seconds} s)`);
  return status === 0;
}

const failed = checks.filter((check) => !run(...check)).map(([title]) => title);
if (failed.length > 0) {
  console.error(`Not tested: ${failed.join(", ")} failed. \`npm run test:unit\` runs the tests alone.`);
  process.exit(1);
}
const { status } = spawnSync("vitest", ["run", ...process.argv.slice(2)], {
  stdio: "inherit",
  shell: process.platform === "win32",
});
process.exit(status ?? 1);
