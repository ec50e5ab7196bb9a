import { globSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

/** Where the scripts lie that the bench runs in processes of their own. */
export const children: string = fileURLToPath(new URL("./children/", import.meta.url));

/**
 * The same as JavaScript, and the folder they are in: that is what somebody runs who uses the built packages. A Node that
 * strips types starts with 50 ms of processor time and 16 MiB more.
 */
export async function buildChildren(): Promise<string> {
  const files = globSync("*.ts", { cwd: children });
  const bundle = await rolldown({
    input: Object.fromEntries(files.map((file) => [basename(file, ".ts"), join(children, file)])),
    platform: "node",
    external: (id) => !id.startsWith("./") && !id.startsWith(children),
  });
  const folder = fileURLToPath(new URL("./dist/", import.meta.url));
  await bundle.write({ dir: folder, format: "esm" });
  await bundle.close();
  return folder;
}
