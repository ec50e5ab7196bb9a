/** An answer ready for the wire. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  /** Pieces are sent one after the other and not changed. */
  body: string | readonly Buffer[];
}

/** An answer in JSON. */
export function jsonAnswer(status: number, value: unknown, type = "application/json"): Answer {
  return { status, headers: { "content-type": type }, body: JSON.stringify(value) };
}
