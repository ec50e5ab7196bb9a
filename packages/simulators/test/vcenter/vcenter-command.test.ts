import { expect, test } from "vitest";
import { runVcenter } from "../../src/vcenter/vcenter-command.ts";
import { ask } from "./vim-client.ts";

test("the command says where it listens, serves, and stops with its signal", async () => {
  const stop = new AbortController();
  const lines: string[] = [];
  const args = ["--port", "0", "--version", "7.0", "--machines", "2", "--plain"];
  const running = runVcenter(args, (line) => void lines.push(line), { signal: stop.signal });
  await expect.poll(() => lines.length).toBe(1);
  const url = /http:\/\/127\.0\.0\.1:\d+/.exec(lines[0] ?? "")?.[0] ?? "";
  expect((await ask(`${url}/sdk/vimServiceVersions.xml`)).bytes.toString()).toContain("<version>7.0.3.0</version>");
  stop.abort();
  await running;
  await expect(ask(`${url}/sdk/vimServiceVersions.xml`)).rejects.toThrow("ECONNREFUSED");
});

test.for([
  [["--version", "1.0"], "no release '1.0'"],
  [["--port", "x"], "no port 'x'"],
  [["--machines", "-1x"], "machines"],
] as const)("the command refuses %j", async ([args, message]) => {
  await expect(runVcenter(args, () => undefined, { signal: AbortSignal.abort() })).rejects.toThrow(message);
});
