/**
 * Adds to package-lock.json the platform packages that npm left out of it. npm drops an optional package of another
 * platform when the registry it asked does not carry it, and `npm ci` then refuses the lockfile ("Missing: … from lock
 * file") everywhere. The entries added hold what the dependent declares; on a matching platform npm looks up the rest.
 * Run it after every change of dependencies: `npm run lockfile`.
 */
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
const systems = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"];
const processors = { x64: "x64", arm64: "arm64", arm: "arm", ia32: "ia32", ppc64: "ppc64", riscv64: "riscv64" };
Object.assign(processors, { s390x: "s390x", loong64: "loong64", mips64el: "mips64el", wasm32: "wasm32" });

/** `os`, `cpu` and `libc` as the words of a platform package's name tell them. */
function platformOf(name) {
  const words = name.replace(/^@[^/]*\//, "").split(/[-./]/);
  const os = systems.find((system) => words.includes(system));
  const cpu = Object.keys(processors).find((processor) => words.includes(processor));
  const libc = words.includes("musl") ? "musl" : words.includes("gnu") ? "glibc" : undefined;
  return {
    ...(cpu === undefined ? {} : { cpu: [cpu] }),
    ...(os === "linux" && libc !== undefined ? { libc: [libc] } : {}),
    ...(os === undefined ? {} : { os: [os] }),
  };
}

/** Where the package at `path` finds `name`, walking up as Node does. */
function find(path, name) {
  for (let place = path; ; place = place.slice(0, Math.max(0, place.lastIndexOf("node_modules/") - 1))) {
    const candidate = place === "" ? `node_modules/${name}` : `${place}/node_modules/${name}`;
    if (lock.packages[candidate] !== undefined) return candidate;
    if (place === "" || !place.includes("node_modules/")) return place === "" ? undefined : find("", name);
  }
}

let added = 0;
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (find(path, name) !== undefined) continue;
    const platform = platformOf(name);
    if ((platform.os === undefined && platform.cpu === undefined) || !/^\d/.test(version)) {
      console.error(
        `${name} (of ${path}) is not in package-lock.json, and its platform or exact version is not known: add it by hand.`,
      );
      process.exitCode = 1;
      continue;
    }
    lock.packages[`node_modules/${name}`] = {
      version,
      ...(platform.cpu === undefined ? {} : { cpu: platform.cpu }),
      ...(entry.dev === true ? { dev: true } : {}),
      ...(platform.libc === undefined ? {} : { libc: platform.libc }),
      optional: true,
      ...(platform.os === undefined ? {} : { os: platform.os }),
    };
    added++;
  }
}
const order = ([one], [other]) => (one < other ? -1 : one > other ? 1 : 0);
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(order));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} platform packages added.`);
