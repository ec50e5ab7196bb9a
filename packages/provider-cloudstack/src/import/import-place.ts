import type { Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import type { Replicas } from "../launch/take-replica.ts";
import { type ImportPool, adoptFile, settledVolume } from "./adopt-file.ts";
import { ENDING, type PoolFolder, ownNameOf } from "./pool-folder.ts";

/** The pool, its folder, and what is asked of them. */
export interface ImportPlace {
  cloud: Cloud;
  folder: PoolFolder;
  pool(wait: Wait): Promise<ImportPool>;
}

/** Replicas by their files' names. A file that CloudStack was made to forget, and was not given back, is adopted again. */
export function filesAsReplicas({ cloud, folder, pool }: ImportPlace): Replicas {
  return {
    async find(id, wait) {
      const where = await pool(wait);
      const volume = await settledVolume(cloud, where, id, wait);
      if (volume !== undefined) return volume;
      if (ownNameOf(id) === undefined || (await folder.sizeOf(id)) === undefined)
        throw cloudstackError("NOT_FOUND", `There is no file ${id} on pool ${where.name}: it was removed.`);
      return adoptFile(cloud, where, id, nameFor(id), wait);
    },
    isOne: ({ path }, ids) => path !== undefined && ids.includes(path),
  };
}

/** The name of a replica's volume, by its file's alone. */
export function nameFor(file: string): string {
  return file.slice(0, -ENDING.length);
}
