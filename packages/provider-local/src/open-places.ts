import { localError } from "./errors.ts";

/** A file, device or export as the system knows it, whatever it was called by. */
export interface Place {
  /** Unique: device and inode numbers, or an export's address. */
  place: string;
  /** Places whose bytes it shares: the file behind a loop device, the disk of a partition, backing images. */
  within?: readonly string[] | undefined;
  /** For people. */
  label: string;
}

const open = new Map<symbol, Place & { use: "source" | "target" }>();

/**
 * Notes that a disk is being copied from or to; the result ends that. Copying a disk onto itself, or onto an image that
 * the source stands on, would destroy both.
 * @throws ProviderError CONFIG_INVALID when the same bytes are open for the other use in this process.
 */
export function claimPlace(place: Place, use: "source" | "target"): () => void {
  for (const other of open.values()) {
    if (other.use === use || !overlap(place, other)) continue;
    const [from, to] = use === "source" ? [place, other] : [other, place];
    const how = from.place === to.place ? "are the same disk" : "share the same bytes";
    throw localError(
      "CONFIG_INVALID",
      `source ${from.label} and target ${to.label} ${how}; nothing was written: name another target`,
      { operation: "opening" },
    );
  }
  const claim = Symbol("place");
  open.set(claim, { ...place, use });
  return () => void open.delete(claim);
}

const read = new Map<symbol, readonly string[]>();

/** Notes that files are being read, as images of a recovery point are; the result ends that. */
export function noteReading(places: readonly string[]): () => void {
  const note = Symbol("reading");
  read.set(note, places);
  return () => void read.delete(note);
}

/** Whether this process reads from the place now. */
export function isReading(place: string): boolean {
  if (read.values().some((places) => places.includes(place))) return true;
  return open
    .values()
    .some((other) => other.use === "source" && (other.place === place || other.within?.includes(place) === true));
}

function overlap(one: Place, other: Place): boolean {
  return (
    one.place === other.place ||
    one.within?.includes(other.place) === true ||
    other.within?.includes(one.place) === true
  );
}
