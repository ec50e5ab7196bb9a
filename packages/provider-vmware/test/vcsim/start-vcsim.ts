import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** The program built from `main.go` beside this file; `.ci/run` builds it. */
export const vcsimProgram = "diskferry-vcsim";

/** A running simulator of another team. */
export interface Vcsim extends AsyncDisposable {
  readonly url: string;
  readonly username: string;
  readonly password: string;
}

/** Starts it on a free port of this machine. */
export async function startVcsim(...args: string[]): Promise<Vcsim> {
  const child = spawn(vcsimProgram, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const lines = createInterface({ input: child.stdout });
  const line = await new Promise<string>((resolve, reject) => {
    lines.once("line", resolve);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${vcsimProgram} ended with ${String(code)}`)));
  });
  const { url, username, password } = JSON.parse(line) as { url: string; username: string; password: string };
  return {
    url,
    username,
    password,
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await ended;
    },
  };
}
