import { escapeBytes, unescapeBytes } from "./state-key.ts";

/** What a file of a state directory holds, which is how its name ends. */
export type FileKind = "json" | "blob" | "log";

/** The longest name of a directory or file, without its ending; file systems allow 255 bytes. */
const longestName = 200;

/**
 * The path of a key's file, relative to the directory of all keys. Capitals are escaped, for file systems that do not
 * tell case apart, and dots, so that a directory's name is never a file's. A part too long for one name becomes several
 * directories, of which all but the last end in a lone `%`.
 */
export function fileOfKey(key: string, kind: FileKind): string[] {
  const names = directoriesOfParts(key.split("/"));
  names.push(`${names.pop()!}.${kind}`);
  return names;
}

/** The directories that hold every key beginning with these parts. */
export function directoriesOfParts(parts: readonly string[]): string[] {
  return parts.map(escapeName).flatMap((part) => {
    const names: string[] = [];
    for (; part.length > longestName; part = part.slice(longestName)) names.push(`${part.slice(0, longestName)}%`);
    return [...names, part];
  });
}

/** The key of a file from the names on its way, or undefined for a file that is none of a key. */
export function keyOfFile(names: readonly string[]): string | undefined {
  const last = names.at(-1)!;
  const dot = last.indexOf(".");
  if (dot <= 0 || !/^\.(?:json|blob|log)$/.test(last.slice(dot))) return undefined;
  const parts: string[] = [];
  let begun = "";
  for (const name of [...names.slice(0, -1), last.slice(0, dot)]) {
    // An escape is a percent sign and two digits, so that one at the end is the mark of a part that goes on.
    if (name.endsWith("%")) {
      begun += name.slice(0, -1);
      continue;
    }
    parts.push(unescapeBytes(begun + name, "%"));
    begun = "";
  }
  return parts.join("/");
}

function escapeName(part: string): string {
  return part.replace(/[^a-z0-9_@=+,~-]/gu, (character) => escapeBytes(character, "%"));
}
