export { provider } from "./provider.ts";
export {
  type DiskOptions,
  type LocalOptions,
  type RetentionOptions,
  type TlsFileOptions,
  optionsSchema,
} from "./options.ts";
export { type RawReaderOptions, openRawReader } from "./raw/raw-reader.ts";
export { type RawWriterOptions, openRawWriter } from "./raw/raw-writer.ts";
