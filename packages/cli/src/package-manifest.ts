import { readFileSync } from "node:fs";

/** What this package's own package.json says. The file is one folder up from the sources' and from the built ones. */
export function packageManifest(): { version: string; engines: { node: string } } {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return JSON.parse(text) as { version: string; engines: { node: string } };
}
