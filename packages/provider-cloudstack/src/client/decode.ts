/** What an answer holds, before anybody looked at it. */
export type AnswerObject = Readonly<Record<string, unknown>>;

/** The value as an object; anything else is an empty one. */
export function objectIn(value: unknown): AnswerObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as AnswerObject) : {};
}

/** A text, or a number or flag as text: ids were numbers in some versions and are texts in others. */
export function textIn(value: unknown): string | undefined {
  if (typeof value === "string") return value === "" ? undefined : value;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : undefined;
}

/** A number, or a number as text; undefined for everything else ("Unlimited" too). */
export function numberIn(value: unknown): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string" || value.trim() === "") return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}

/** A flag, or a flag as text. */
export function flagIn(value: unknown): boolean | undefined {
  if (typeof value === "boolean") return value;
  return value === "true" ? true : value === "false" ? false : undefined;
}

/** The objects of a list; a missing list is an empty one. */
export function objectsIn(value: unknown): AnswerObject[] {
  return Array.isArray(value) ? value.map(objectIn) : [];
}

/** A time as CloudStack writes it, `2021-09-29T17:50:11+0530`, as ISO 8601; undefined for what is none. */
export function timeIn(value: unknown): string | undefined {
  const text = textIn(value)?.replace(/([+-]\d\d)(\d\d)$/, "$1:$2");
  if (text === undefined) return undefined;
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : new Date(time).toISOString();
}

/**
 * The content of an answer: whatever stands under its single key, since that key cannot be derived from the command in
 * every version. @returns undefined where the answer is no such envelope
 */
export function envelopeContent(answer: unknown): AnswerObject | undefined {
  const entries = Object.entries(objectIn(answer));
  const found = entries.find(([key]) => key.toLowerCase().endsWith("response")) ?? entries[0];
  if (found === undefined) return undefined;
  const [, content] = found;
  return typeof content === "object" && content !== null ? objectIn(content) : undefined;
}

/** The items of a list's content: the one member that is a list. An empty list is an object with nothing in it. */
export function listedItems(content: AnswerObject): AnswerObject[] {
  return objectsIn(Object.values(content).find(Array.isArray));
}
