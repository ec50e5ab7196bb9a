import type {
  BlockReader,
  ChangesOptions,
  Checkpoint,
  Disk,
  DiskSnapshot,
  JsonObject,
  Tile,
  TrackerStatus,
  Wait,
} from "@diskferry/core/provider";

/** A point in time of one disk, before the machine's name is put to it. */
export interface DiskMoment {
  /** Made of everything that tells two contents apart. */
  id: string;
  size: number;
  /** Whether nothing writes to the disk, stated or enforced: only then is it one point in time. */
  frozen: boolean;
  data: JsonObject;
}

/** One disk that can be copied from, of whatever kind. */
export interface DiskSource {
  /** The default name of its machine, when it has none: a path or a URI, never a secret. */
  readonly place: string;
  describe(wait?: Wait): Promise<Omit<Disk, "key">>;
  /** `key`: what the snapshot is asked for with; it tells points in time apart where the content cannot. */
  moment(key: string, wait?: Wait): Promise<DiskMoment>;
  /** `live`: this process fixed the moment itself, so a disk that is not frozen may have changed since. */
  open(disk: DiskSnapshot, live: boolean, wait?: Wait): Promise<BlockReader>;
  checkpoint(disk: DiskSnapshot, wait?: Wait): Promise<Checkpoint | undefined>;
  changes(disk: DiskSnapshot, options: ChangesOptions): AsyncIterable<Tile>;
  status(wait?: Wait): Promise<TrackerStatus>;
  /** Closes connections. */
  close(): Promise<void>;
}
