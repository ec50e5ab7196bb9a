/**
 * Reads JSON. The runtime's own complaint quotes the text, which may hold a session's token; this one does not.
 *
 * @throws Error for what is no JSON
 */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Error(`${text.length} characters that are no JSON, or JSON that was cut short`);
  }
}
