import { execFile } from "node:child_process";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { workplace } from "./in-process.ts";

const run = promisify(execFile);
const guide = readFileSync(new URL("../../../docs/guide/appliance.md", import.meta.url), "utf8");

/** The commands of the guide's section on certificates, with the name that its reader puts in. */
function certificateCommands(name: string): string {
  const [, text = ""] = /## Certificates[\s\S]*?```sh\n([\s\S]*?)```/.exec(guide) ?? [];
  return text.replaceAll("DNS:appliance.example.net", name);
}

test("the appliance runs with the certificates that its guide makes, and lists what is attached", async () => {
  const place = await workplace();
  await mkdir(place.path("certificates"));
  await run("sh", ["-ec", certificateCommands("IP:127.0.0.1")], { cwd: place.path("certificates") });
  await mkdir(place.path("machine/dev/disk/by-id"), { recursive: true });
  await writeFile(place.path("machine/dev/disk/by-id/virtio-0123456789abcdef0123"), Buffer.alloc(4096));
  const started = place.spawn([
    "appliance",
    "--certificates",
    "certificates",
    "--host",
    "127.0.0.1",
    "--port",
    "0",
    "--control-port",
    "0",
    "--state",
    "state",
    "--device-root",
    "machine",
    "--json",
  ]);
  await started.until(/"type":"result".*\n/);
  const { port, controlPort } = JSON.parse(started.said.out) as { port: number; controlPort: number };
  expect(port).toBeGreaterThan(0);
  const read = (name: string): Buffer => readFileSync(place.path(`certificates/${name}`));
  const tls = { ca: read("ca-cert.pem"), cert: read("client-cert.pem"), key: read("client-key.pem") };
  const answer = await new Promise<string>((resolve, reject) => {
    const call = request({ host: "127.0.0.1", port: controlPort, path: "/v1/devices", ...tls }, (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part: string) => (text += part));
      reply.once("end", () => resolve(text));
    });
    call.once("error", reject);
    call.end();
  });
  expect(JSON.parse(answer)).toMatchObject({ version: 1, devices: [{ serial: "0123456789abcdef0123", size: 4096 }] });
  expect(await readdir(place.folder)).toContain("state");
  started.child.kill("SIGTERM");
  expect((await started.ended).code).toBe(0);
});

test("the appliance starts neither without certificates nor on a port that is none", async () => {
  const place = await workplace();
  expect(await place.run(["appliance"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("--certificates") as string,
  });
  const missing = await place.run(["appliance", "--certificates", "nowhere"]);
  expect(missing).toMatchObject({
    code: 2,
    err: expect.stringContaining("ca-cert.pem cannot be read (ENOENT)") as string,
  });
  expect(missing.err).toContain("docs/guide/appliance.md");
  for (const name of ["ca-cert.pem", "server-cert.pem", "server-key.pem"]) await place.write(`c/${name}`, "no PEM");
  const given = ["appliance", "--certificates", "c", "--state", "s", "--host", "127.0.0.1"];
  expect((await place.run([...given, "--port", "70000"])).err).toContain("a port, 0 to 65535");
  expect((await place.run([...given, "--port", "0", "--control-port", "0"])).code).toBe(2);
});

test("the guide's service is one that systemd understands line by line", () => {
  const [, unit = ""] = /```ini\n([\s\S]*?)```/.exec(guide) ?? [];
  const lines = unit.split("\n").filter((line) => line !== "");
  expect(lines.every((line) => /^(\[[A-Z][a-z]+\]|[A-Z][A-Za-z]+=.+)$/.test(line))).toBe(true);
  expect(unit).toContain("diskferry appliance --certificates /etc/diskferry-appliance");
  expect(unit).toContain("StateDirectory=diskferry-appliance");
});
