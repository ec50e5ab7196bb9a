/** One entry of a directory. */
export interface DirectoryEntry {
  name: string;
  directory: boolean;
}

/** A file that is open for appending. */
export interface AppendFile {
  /** Its length now, in bytes. */
  readonly length: number;
  /** Appends all of `bytes` and makes them durable. */
  append(bytes: Uint8Array): Promise<void>;
  /** Cuts it to `length` bytes, durably. */
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * What a directory state store does with files, small enough to be replaced by one that loses power. Paths are absolute.
 * Failures are `ProviderError`s that name the path; EXISTS where a name is taken.
 */
export interface StateFiles {
  /** The whole file, or undefined where there is none. */
  read(path: string): Promise<Uint8Array | undefined>;
  /** A file from its beginning in pieces; none where there is no file. */
  pieces(path: string): AsyncIterable<Uint8Array>;
  /** Makes a new file of mode 0600 with this content, durable but for its name. Rejects with EXISTS. */
  create(path: string, bytes: Uint8Array): Promise<void>;
  /** Gives a file a new name, replacing what had it; durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  /** Gives a file another name. Rejects with EXISTS. */
  link(from: string, to: string): Promise<void>;
  /** Removes a file; resolves with whether there was one. */
  remove(path: string): Promise<boolean>;
  /** Opens a file for appending, made with mode 0600 where there is none. */
  open(path: string): Promise<AppendFile>;
  /** Makes a directory of mode 0700; resolves with whether it is new. */
  makeDirectory(path: string): Promise<boolean>;
  /** The entries of a directory; none where there is none. */
  list(path: string): AsyncIterable<DirectoryEntry>;
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Sets a file's time of modification to now. */
  touch(path: string): Promise<void>;
  /** When a file was last modified, in milliseconds, or undefined where there is none. */
  modifiedAt(path: string): Promise<number | undefined>;
}
