/** What a reader or writer says of the disk behind it. */
export interface Geometry {
  /** Bytes; a multiple of 512. */
  readonly size: number;
  /** The unit that offsets and lengths must be multiples of, in bytes; a power of two of at least 512. */
  readonly blockSize: number;
  /** How many calls may be under way at once. Absent: 1. */
  readonly concurrency?: number;
  /** The request length the far side serves best, in bytes. Absent: core's own choice. */
  readonly preferredLength?: number;
}
