/** The longest key a store takes, in UTF-16 units. */
const longestKey = 1024;

/** A key from its parts, each of which may be any string that is not empty, such as a URI: encoded and joined by `/`. */
export function stateKey(...parts: readonly string[]): string {
  if (parts.length === 0) throw new RangeError("a state key has at least one part");
  return checkKey(parts.map(encodeKeyPart).join("/"));
}

/** The parts of a key that {@link stateKey} built. @throws RangeError for a string that is no key. */
export function keyParts(key: string): string[] {
  return checkKey(key).split("/").map(decodeKeyPart);
}

/** `key` itself. @throws RangeError when a part is empty, `.` or `..`, or holds a control or a lone surrogate. */
export function checkKey(key: string): string {
  if (key.length === 0 || key.length > longestKey) {
    throw new RangeError(`a state key has 1 to ${longestKey} characters, not ${key.length}`);
  }
  // oxlint-disable-next-line no-control-regex -- control characters are exactly what is looked for
  if (/[\u0000-\u001f\u007f]/.test(key) || !key.isWellFormed()) {
    throw new RangeError(`a state key holds no control character and no lone surrogate: ${JSON.stringify(key)}`);
  }
  for (const part of key.split("/")) {
    if (part === "" || part === "." || part === "..") {
      throw new RangeError(`no part of a state key is empty, "." or "..": ${JSON.stringify(key)}`);
    }
  }
  return key;
}

function encodeKeyPart(part: string): string {
  if (part === "") throw new RangeError("no part of a state key is empty");
  if (!part.isWellFormed()) throw new RangeError(`a part of a state key is no text: ${JSON.stringify(part)}`);
  const escaped = part.replace(/[^A-Za-z0-9._@=+,-]/gu, (character) => escapeBytes(character, "~"));
  return escaped === "." || escaped === ".." ? escaped.replaceAll(".", "~2e") : escaped;
}

function decodeKeyPart(part: string): string {
  return unescapeBytes(part, "~");
}

/** The UTF-8 bytes of a text, each as `mark` and two lower-case hexadecimal digits. */
export function escapeBytes(text: string, mark: string): string {
  return Buffer.from(text).toString("hex").replace(/../g, `${mark}$&`);
}

/** The text that {@link escapeBytes} was applied to parts of. */
export function unescapeBytes(text: string, mark: string): string {
  return text.replace(new RegExp(`(?:${mark}[0-9a-f]{2})+`, "g"), (run) =>
    Buffer.from(run.replaceAll(mark, ""), "hex").toString(),
  );
}
