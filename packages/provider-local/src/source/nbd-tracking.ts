import { type NbdClient, changesLostFlag, changesPrefix } from "@diskferry/nbd";
import type { Checkpoint, DiskSnapshot, Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { blockSizeOf, endsSession } from "../nbd/nbd-place.ts";

const bitmapPrefix = "qemu:dirty-bitmap:";

/** The token's first member, so that a token of another kind or age is seen for what it is. */
const tokenKind = "nbd-bitmap-1";

/** The meta context that holds a bitmap: QEMU's, unless the name is that of a context itself, such as our own server's. */
function contextOf(bitmap: string): string {
  return bitmap.includes(":") ? bitmap : bitmapPrefix + bitmap;
}

/** Whether a context is a tracking of our own server by its name alone, which one that began later may bear too. */
function lacksIdentity(context: string): boolean {
  return context.startsWith(changesPrefix) && !context.slice(changesPrefix.length).includes(":");
}

/**
 * What to ask a server for: the bitmap, and those of its kind beside it, since a checkpoint may name another one than the
 * options do.
 */
export function contextsToAsk(bitmap: string): string[] {
  const context = contextOf(bitmap);
  const kind = [bitmapPrefix, changesPrefix].find((prefix) => context.startsWith(prefix));
  return kind === undefined ? [context] : [context, `${kind}*`];
}

/**
 * The context that a bitmap of the options stands for at a server. Of our own server it is the one with an identity, so
 * that a tracking that was begun anew is another one; a server that shows none shows nothing to rely on.
 */
export function shownAs(bitmap: string, shown: readonly string[]): string | undefined {
  const context = contextOf(bitmap);
  return shown.find((each) => (lacksIdentity(context) ? each.startsWith(`${context}:`) : each === context));
}

/** Whether no tracking of our own server was begun anew, by restart or reset, since this session asked for them. */
export async function knowsTrackings(client: NbdClient, wait: Wait = {}): Promise<boolean> {
  const contexts = client.metaContexts.filter((each) => each.startsWith(changesPrefix));
  if (contexts.length === 0) return true;
  try {
    const extents = client.blockStatus(0, blockSizeOf(client), { contexts, signal: wait.signal });
    for await (const { flags } of extents) if (contexts.some((each) => isLost(flags, each))) return false;
  } catch (error) {
    if (!endsSession(error)) throw error;
    return false;
  }
  return true;
}

/** Whether the server says, instead of what changed, that it does not know. The bit means this in contexts of ours alone. */
export function isLost(flags: Readonly<Record<string, number>>, context: string): boolean {
  return context.startsWith(changesPrefix) && ((flags[context] ?? 0) & changesLostFlag) !== 0;
}

/** The token of a disk whose changes this context tells. */
export function trackingToken(disk: DiskSnapshot, context: string): Checkpoint {
  return JSON.stringify([tokenKind, disk.machine, disk.disk, disk.size, context]);
}

/**
 * The context that a token names. A disk is known by its machine and key; where neither was stated, its address stands in
 * for the machine.
 * @throws ProviderError TRACKING_LOST
 */
export function contextIn(since: Checkpoint, uri: string, disk: DiskSnapshot): string {
  let token: unknown;
  try {
    token = JSON.parse(since);
  } catch {
    token = undefined;
  }
  const [kind, machine, key, size, bitmap] = Array.isArray(token) ? (token as unknown[]) : [];
  if (kind !== tokenKind || typeof bitmap !== "string")
    throw trackingLost(uri, "its checkpoint is not one of a dirty bitmap");
  if (machine !== disk.machine || key !== disk.disk) {
    throw trackingLost(uri, `its checkpoint belongs to the disk ${String(key)} of ${String(machine)}`);
  }
  if (size !== disk.size) throw trackingLost(uri, `it had ${String(size)} bytes and has ${disk.size}`);
  if (lacksIdentity(bitmap)) throw trackingLost(uri, `its checkpoint does not say which tracking ${bitmap} was`);
  return contextOf(bitmap);
}

/** Says of a context that a checkpoint names that the server shows it no more. */
export function notShown(uri: string, context: string): unknown {
  if (context.startsWith(bitmapPrefix)) {
    const bitmap = context.slice(bitmapPrefix.length);
    const remedy = `start it with that bitmap (qemu-nbd -B ${bitmap})`;
    return trackingLost(uri, `the server does not show the dirty bitmap ${bitmap}; ${remedy}`);
  }
  return begunAnew(uri, context);
}

/** Says that a tracking of our own server, or whatever else bears such a name, is another one by now. */
export function begunAnew(uri: string, context: string): unknown {
  return trackingLost(uri, `the server no longer knows ${context}; it was started again, or that tracking reset`);
}

function trackingLost(uri: string, why: string): unknown {
  return localError("TRACKING_LOST", `${uri}: what changed since the last run is not known: ${why}`, {
    operation: "changes",
  });
}
