import type { BlockReader, LaneWriter, ReaderLaneModule, WriterLaneModule } from "@diskferry/core/provider";
import { type Doom, Executioner } from "./kill-point.ts";
import { replaced } from "../replaced.ts";

/** What a doomed lane is opened with: the lane it stands in for. */
export interface DoomedLaneData {
  side: "source" | "target";
  module: string;
  data: unknown;
  doom: Doom;
}

/** Opens, in a worker thread, the reader or writer of another lane, whose reads and writes may be the process' last. */
export async function open(data: unknown): Promise<BlockReader | LaneWriter> {
  const { side, module, data: inner, doom } = data as DoomedLaneData;
  const executioner = new Executioner(doom);
  executioner.note("lane");
  if (side === "source") {
    const reader = await ((await import(module)) as ReaderLaneModule).open(inner);
    return doomedReader(reader, executioner);
  }
  const writer = await ((await import(module)) as WriterLaneModule).open(inner);
  return doomedWrites(writer, executioner);
}

/** A reader whose reads are noted and may be the process' last. */
export function doomedReader(reader: BlockReader, executioner: Executioner): BlockReader {
  return replaced<BlockReader>(reader, {
    read(offset, into, options) {
      executioner.note("read", offset, into.length);
      return executioner.at("read", () => reader.read(offset, into, options));
    },
  });
}

/** A writer whose writes are noted and may be the process' last. */
export function doomedWrites<Writer extends Pick<LaneWriter, "write" | "zero">>(
  writer: Writer,
  executioner: Executioner,
): Writer {
  const { zero } = writer;
  return replaced<Pick<LaneWriter, "write" | "zero">>(writer, {
    async write(offset, data, options) {
      executioner.note("write", offset, data.length);
      await executioner.at("write", () => writer.write(offset, data, options));
      executioner.note("wrote", offset, data.length);
    },
    ...(zero === undefined
      ? {}
      : {
          zero(offset, length, wait) {
            executioner.note("zero", offset, length);
            return executioner.at("write", () => zero.call(writer, offset, length, wait));
          },
        }),
  }) as Writer;
}
