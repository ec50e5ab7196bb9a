import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { workplace } from "./in-process.ts";

const memory = fileURLToPath(new URL("memory-provider", import.meta.url));

test("installs a provider from a folder, checks it, and finds it from then on", async () => {
  const cli = await workplace();
  await cli.write("package.json", '{ "name": "project", "private": true }');
  const added = await cli.run(["providers", "add", memory]);
  expect(added, added.err).toMatchObject({ code: 0 });
  expect(added.out).toBe("provider memory of spec v1: diskferry-provider-memory 1.0.0; URIs: memory:\n");
  expect((await cli.run(["providers"])).out).toMatch(/^memory\s+installed\s+v1\s+1\.0\.0\s+diskferry-provider-memory/m);
});

test("refuses what is no provider, runs none of its scripts, and says how to take it out again", async () => {
  const cli = await workplace();
  await cli.write("package.json", '{ "name": "project", "private": true }');
  const scripts = { install: "touch ../ran", postinstall: "touch ../ran" };
  await cli.write("plain/package.json", JSON.stringify({ name: "plain", version: "1.0.0", scripts }));
  const { code, err } = await cli.run(["providers", "add", cli.path("plain")]);
  expect(code).toBe(2);
  expect(err).toMatch(/is no diskferry provider.*npm uninstall/s);
  expect(existsSync(cli.path("ran"))).toBe(false);
  expect((await cli.run(["providers", "add", cli.path("nowhere")])).code).not.toBe(0);
  expect((await cli.run(["providers", "add", "--global"])).code).toBe(2);
  expect((await cli.run(["providers", "add"])).code).toBe(2);
});
