export { type RawReaderOptions, openRawReader } from "./raw/raw-reader.ts";
export { type RawWriterOptions, openRawWriter } from "./raw/raw-writer.ts";
