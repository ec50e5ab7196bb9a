import { globSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { root } from "../scripts/workspace.ts";
import { randomBytes } from "./seed.ts";

// Every command in a block of sh is run here as it stands, page by page, in a folder that holds server.raw; or it is in
// the list of those that are not, with the reason, which the run prints.

const run = promisify(execFile);

/** Why a command is not run here, by the first pattern that fits. */
const notRun: [pattern: RegExp, why: string][] = [
  [
    /^npm (install|create|search|publish)\b/,
    "asks the npm registry; test/packaging.test.ts does the same with tarballs",
  ],
  [/^npm (start|test|ci)\b/, "is what CI runs"],
  [/^npm run bench\b/, "measures: it wants a quiet machine and the peers it is compared with"],
  [
    /^npm (run|pack)\b|^npx (publint|attw)\b|^node packages\/create-|--provider \.\/$| template:/,
    "is of a provider's own project; test/packaging.test.ts makes one, builds and tests it and copies with it",
  ],
  [/^cd /, "goes into what npm create made"],
  [
    /^npx diskferry providers add @/,
    "asks the npm registry; packages/cli/test/providers-add.test.ts installs from a folder",
  ],
  [/^(npx )?diskferry conformance /, "needs a place of one's own; packages/cli/test/conformance.test.ts runs it"],
  [
    /^npx diskferry .*(vsphere|cloudstack|aws-ebs)[:/]/,
    "needs an account; the provider's tests run it against its simulator",
  ],
  [/^(npx )?diskferry .*--config/, "needs a configuration file; packages/cli/test/config.test.ts runs one"],
  [/\b(systemctl|journalctl|nbdkit|iperf3|VDDK|vddk)\b/, "needs systemd, the VDDK or a second host"],
  [
    /^(sudo |ssh |aws |az |cmk |govc |modprobe |nbd-client |qemu-nbd |virsh |docker )/,
    "changes a machine or an account",
  ],
  [/^openssl s_client/, "asks a server"],
  [/^curl .*appliance\.example\.net/, "asks an appliance; packages/cli/test/appliance.test.ts asks one"],
];

interface Found {
  page: string;
  command: string;
}

function commandsOf(page: string): Found[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/^```(?:sh|bash|shell)\n(.*?)^```$/gms)].flatMap(([, block]) =>
    block!
      .replaceAll(/\\\n\s*/g, " ")
      .split("\n")
      .map((line) => line.replace(/\s+#.*$/, "").trim())
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((command) => ({ page, command })),
  );
}

const pages = [
  "README.md",
  ...globSync("docs/{*,{guide,authors,providers}/*}.md", { cwd: root }),
  ...globSync("{packages,examples}/*/README.md", { cwd: root }),
].sort();
const isLeft = ({ command }: Found): boolean => notRun.some(([pattern]) => pattern.test(command));

test("every command that is shown is run, or stands in the list of those that are not", async () => {
  const left = pages.flatMap(commandsOf).filter(isLeft);
  const lines = left.map(
    ({ page, command }) => `${page}: ${command}\n    ${notRun.find(([pattern]) => pattern.test(command))![1]}`,
  );
  console.log(`commands that are shown and not run:\n${lines.join("\n")}`);

  const failed: string[] = [];
  let count = 0;
  for (const page of pages) {
    const commands = commandsOf(page).filter((found) => !isLeft(found));
    if (commands.length === 0) continue;
    const folder = await mkdtemp(join(tmpdir(), "diskferry-commands-"));
    try {
      await writeFile(join(folder, "server.raw"), randomBytes(2 << 20, 5));
      await mkdir(join(folder, "copies"));
      await mkdir(join(folder, "bin"));
      // npx finds the command in the user's project; here it is the one of this workspace.
      const script = `#!/bin/sh\n[ "$1" = diskferry ] && shift\nexec "${process.execPath}" --conditions=diskferry-source --disable-warning=ExperimentalWarning "${join(root, "packages/cli/src/diskferry.ts")}" "$@"\n`;
      for (const name of ["npx", "diskferry"]) await writeFile(join(folder, "bin", name), script, { mode: 0o755 });
      const env = {
        ...process.env,
        NODE_OPTIONS: "",
        PATH: `${join(folder, "bin")}${delimiter}${process.env["PATH"]}`,
        XDG_STATE_HOME: join(folder, "state-home"),
      };
      // Pages go on from one another: what one shows was copied on the page before.
      if (/recover|troubleshooting/.test(page))
        await run("sh", ["-c", "npx diskferry copy server.raw server.qcow2 -q"], { cwd: folder, env });
      for (const { command } of commands) {
        count++;
        await run("sh", ["-c", command], { cwd: folder, env, timeout: 300_000 }).catch((error: { stderr?: string }) =>
          failed.push(`${page}: ${command}: ${error.stderr}`),
        );
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  console.log(`${count} commands were run, ${left.length} were not`);
  expect(failed).toEqual([]);
  expect(count).toBeGreaterThan(10);
}, 900_000);

test("a page that runs the command names its package, or leads to the page that does", () => {
  // npx asks the registry for a package `diskferry` where the command is not installed, and that is somebody else's.
  const silent = pages.filter((page) => {
    const text = readFileSync(join(root, page), "utf8");
    return /\bnpx diskferry\b/.test(text) && !/@diskferry\/cli|\bcommand\.md/.test(text);
  });
  expect(silent).toEqual([]);
});

test("nothing stands in the list that no page shows", () => {
  const commands = pages.flatMap(commandsOf);
  // The last ones are for pages of providers, which come and go.
  const unused = notRun.slice(0, 7).filter(([pattern]) => !commands.some(({ command }) => pattern.test(command)));
  expect(unused.map(([pattern]) => String(pattern))).toEqual([]);
});
