/**
 * Makes a fresh clone ready and then runs the command it was given, with the project's own Node first in PATH:
 *
 *     node scripts/setup.mjs <command> [argument …]
 *
 * Plain JavaScript without dependencies, because it runs before anything is installed and on whatever Node is there
 * (18 and up). It installs only when node_modules does not match package-lock.json.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const modules = join(root, "node_modules");
const bin = join(modules, ".bin");
const stamp = join(modules, ".diskferry-setup.json");
const attempts = 3;
const pauseMs = 3000;
/** The sources use `await using`, which Node runs unaided from version 24 on. */
const leastNode = 24;

/** Where npm puts the project's own Node, and whether there is one for this machine. */
const nodePackage = `node_modules/node-${process.platform}-${process.arch}`;
const bringsNode = existsSync(join(root, "package-lock.json"))
  ? JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages[nodePackage] !== undefined
  : process.platform === "linux" && ["x64", "arm64"].includes(process.arch);

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}

/** What node_modules was made from: the lockfile, each manifest and the platform. */
function wanted() {
  const lockfile = join(root, "package-lock.json");
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return JSON.stringify({
    lock: existsSync(lockfile) ? readFileSync(lockfile, "utf8") : "none",
    dependencies: [manifest.dependencies, manifest.devDependencies, manifest.optionalDependencies],
    platform: `${process.platform}-${process.arch}`,
  });
}

/** Whether an installation that this script did not make (a plain `npm ci`) holds what the lockfile names. */
function matchesLockfile() {
  const installed = join(modules, ".package-lock.json");
  const lockfile = join(root, "package-lock.json");
  if (!existsSync(installed) || !existsSync(lockfile)) return false;
  const have = JSON.parse(readFileSync(installed, "utf8")).packages;
  const want = JSON.parse(readFileSync(lockfile, "utf8")).packages;
  for (const [path, entry] of Object.entries(want)) {
    if (!path.includes("node_modules/")) continue;
    if (have[path] === undefined ? entry.optional !== true && entry.devOptional !== true : false) return false;
    if (have[path] !== undefined && entry.version !== undefined && have[path].version !== entry.version) return false;
  }
  return true;
}

function isReady() {
  if (!existsSync(modules) || (bringsNode && !existsSync(join(root, nodePackage, "bin", "node")))) return false;
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted()) return true;
  if (!matchesLockfile()) return false;
  writeFileSync(stamp, wanted());
  return true;
}

function npm(...given) {
  // npm names itself to what it starts; going through it avoids a second npm of another version in PATH.
  const entry = process.env["npm_execpath"];
  const viaNode = entry !== undefined && /npm-cli\.[cm]?js$/.test(entry) && existsSync(entry);
  const [command, args] = viaNode ? [process.execPath, [entry, ...given]] : ["npm", given];
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    shell: !viaNode && process.platform === "win32",
  });
  if (result.error !== undefined) fail(`npm could not be started (${result.error.message}). Install npm 10 or newer.`);
  return { ok: result.status === 0, output: `${result.stdout}${result.stderr}`.trim() };
}

function pause() {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
}

function install() {
  const locked = existsSync(join(root, "package-lock.json"));
  let verb = locked ? "ci" : "install";
  const began = Date.now();
  console.error(`setup: npm ${verb}, once; it takes some seconds to a minute …`);
  // Workspaces ask for Node ≥ 22.18, which the Node that is installed right now may not be: no warning about that.
  const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
  // NODE_ENV=production or a user's .npmrc may leave these out; without them nothing here works.
  const include = ["--include=dev", "--include=optional"];
  for (let attempt = 1; ; attempt++) {
    const result = npm(verb, ...(locked && verb === "install" ? ["--no-save"] : []), ...quiet, ...include);
    if (result.ok) break;
    if (verb === "ci" && /code EUSAGE/.test(result.output)) {
      const remedy = "package-lock.json does not fit package.json; `npm install && npm run lockfile` mends it";
      if (process.env["CI"] !== undefined) fail(`${remedy}.\n${result.output}`);
      console.error(`setup: ${remedy}. Going on with npm install.`);
      verb = "install";
      continue;
    }
    if (attempt === attempts) fail(`npm ${verb} failed ${attempts} times; the last time:\n${result.output}`);
    console.error(`setup: npm ${verb} failed (attempt ${attempt} of ${attempts}), trying again.`);
    pause();
  }
  writeFileSync(stamp, wanted());
  console.error(`setup: done in ${Math.round((Date.now() - began) / 1000)} s.`);
}

/** npm 10 takes the link away again when it drops the package of the other processor, which has the same command. */
function linkNode() {
  const program = join(root, nodePackage, "bin", "node");
  if (process.platform === "win32" || !existsSync(program) || existsSync(join(bin, "node"))) return;
  symlinkSync(join("..", nodePackage.slice("node_modules/".length), "bin", "node"), join(bin, "node"));
}

function checkNode(environment) {
  const probe = spawnSync("node", ["--version"], { env: environment, encoding: "utf8" });
  const version = probe.error === undefined ? probe.stdout.trim() : "";
  if (Number(/^v(\d+)\./.exec(version)?.[1] ?? 0) >= leastNode) return;
  const found = version === "" ? "none" : version;
  fail(
    `the sources need Node ${leastNode} or newer, and PATH gives ${found}. ` +
      (bringsNode
        ? `npm was to bring it as ${nodePackage}, which does not run here: remove node_modules and try again.`
        : `npm brings it on Linux x64 and arm64 alone; install Node ${leastNode} from nodejs.org.`),
  );
}

function run(command, args, environment) {
  const child = spawn(command, args, {
    cwd: root,
    env: environment,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  // A terminal sends Ctrl-C to the command as well; this process waits for the command to end in its own way.
  process.on("SIGINT", () => undefined);
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => fail(`${command} could not be started: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

if (!isReady()) install();
linkNode();
const [command, ...args] = process.argv.slice(2);
const environment = { ...process.env };
// Windows spells it Path; two spellings in one environment would hide one of them.
const pathName = Object.keys(environment).find((name) => name.toUpperCase() === "PATH") ?? "PATH";
environment[pathName] = [bin, environment[pathName] ?? ""].join(delimiter);
checkNode(environment);
if (command !== undefined) run(command, args, environment);
