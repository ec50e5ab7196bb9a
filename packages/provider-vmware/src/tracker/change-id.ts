/**
 * A change id: the epoch of tracking, which a reset replaces, and the sequence of the snapshot in it, as the platform
 * writes them: `52 de c0 d9 2c 0b 7f 1a-8d 15 2f 6e 42 11 90 ab/81` (VirtualDisk backing, `changeId`).
 */
export interface ChangeId {
  /** 16 bytes in lower-case hexadecimal, without spaces or dash. */
  readonly epoch: string;
  readonly sequence: number;
}

/** Reads a change id; undefined for what has another form. */
export function parseChangeId(text: string): ChangeId | undefined {
  const match = /^([0-9a-f -]+)\/([0-9]{1,15})$/i.exec(text.trim());
  if (match === null) return undefined;
  const epoch = (match[1] ?? "").replace(/[ -]/g, "").toLowerCase();
  return epoch.length === 32 ? { epoch, sequence: Number(match[2]) } : undefined;
}
