import { transmissionFlag } from "../protocol.ts";
import { isWritable, type NbdExport } from "./backend.ts";
import type { MetaContext } from "./meta-contexts.ts";
import type { ReplyStyle } from "./reply.ts";

/** What a handshake ended with: an export, and how both sides talk about it. */
export interface Session {
  /** Without the epoch. */
  readonly exportName: string;
  readonly epoch: number | undefined;
  readonly entry: NbdExport;
  readonly style: ReplyStyle;
  /** In the order of their ids; empty: the client chose none. */
  readonly contexts: readonly MetaContext[];
}

/** The transmission flags of an export. `hasContexts`: the client chose meta contexts for it. */
export function transmissionFlagsOf(entry: NbdExport, style: ReplyStyle, hasContexts: boolean): number {
  const { backend } = entry;
  const writable = isWritable(entry);
  let flags: number = transmissionFlag.hasFlags;
  if (!writable) flags |= transmissionFlag.readOnly;
  if (backend.flush !== undefined) flags |= transmissionFlag.sendFlush | transmissionFlag.sendFua;
  if (writable) {
    flags |= transmissionFlag.sendWriteZeroes;
    if (backend.zero !== undefined) flags |= transmissionFlag.sendFastZero;
    if (backend.trim !== undefined) flags |= transmissionFlag.sendTrim;
  }
  if (backend.multiConnection ?? !writable) flags |= transmissionFlag.canMultiConnection;
  if (backend.cache !== undefined) flags |= transmissionFlag.sendCache;
  if (style !== "simple") flags |= transmissionFlag.sendDf;
  if (style === "extended" && hasContexts) flags |= transmissionFlag.blockStatusPayload;
  return flags;
}
