import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { StateFiles } from "./files.ts";

const formatFile = "diskferry-state.json";
const format = "diskferry state";
const version = 1;

/**
 * Makes sure that `root` is a state directory this version understands; an empty directory becomes one.
 * @throws ProviderError CORRUPT, UNSUPPORTED or CONFIG_INVALID, with nothing touched.
 */
export async function checkFormat(files: StateFiles, root: string): Promise<void> {
  const path = join(root, formatFile);
  const found = await files.read(path);
  if (found !== undefined) return checkContent(root, found);
  for await (const { name } of files.list(root)) {
    if (name === "lost+found" || name.startsWith(".diskferry-")) continue;
    // Another process may have begun at the same time.
    const begun = await files.read(path);
    if (begun !== undefined) return checkContent(root, begun);
    throw new ProviderError(
      "CONFIG_INVALID",
      `${root} holds other files (${name}) and is no state directory; name an empty or a new one`,
      { operation: "open state" },
    );
  }
  const made = join(root, `.diskferry-${randomUUID()}`);
  await files.create(made, Buffer.from(`${JSON.stringify({ format, version })}\n`));
  try {
    await files.link(made, path);
  } catch (error) {
    if (!isProviderError(error) || error.code !== "EXISTS") throw error;
  } finally {
    await files.remove(made);
  }
  await files.syncDirectory(root);
}

function checkContent(root: string, bytes: Uint8Array): void {
  let content: { format?: unknown; version?: unknown } | undefined;
  try {
    content = JSON.parse(Buffer.from(bytes).toString()) as typeof content;
  } catch {
    // Told below, in the same words as any other content that is not ours.
  }
  if (content?.format !== format || !Number.isSafeInteger(content.version)) {
    throw new ProviderError(
      "CORRUPT",
      `the state directory ${root} is damaged (${formatFile} is not what it should be); ` +
        "restore it from a backup, or name a new one and let the next run compare the whole disk",
      { operation: "open state" },
    );
  }
  if (content.version !== version) {
    throw new ProviderError(
      "UNSUPPORTED",
      `the state directory ${root} has version ${String(content.version)}, and this diskferry knows ${version}; ` +
        "use the diskferry that wrote it, or name a new directory",
      { operation: "open state" },
    );
  }
}
