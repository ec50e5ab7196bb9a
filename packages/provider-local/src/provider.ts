import {
  type ProviderDefinition,
  type SourceConnector,
  type TargetProvider,
  defineProvider,
} from "@diskferry/core/provider";
import { formatOf } from "./disk-format.ts";
import { localError } from "./errors.ts";
import { localSchemes, optionsFromUri } from "./local-uri.ts";
import { type DiskOptions, type LocalOptions, optionsSchema } from "./options.ts";
import type { DiskSource } from "./source/disk-source.ts";
import { localSource, nameDisks } from "./source/local-source.ts";
import { nbdDisk } from "./source/nbd-disk.ts";
import { qcow2Disk } from "./source/qcow2-disk.ts";
import { rawDisk } from "./source/raw-disk.ts";
import { localTarget } from "./target/local-target.ts";

/** The provider of raw files, block devices, qcow2 images and NBD servers, as source and as target. */
export const provider: ProviderDefinition<LocalOptions, LocalOptions> = defineProvider<LocalOptions, LocalOptions>({
  spec: "v1",
  name: "local",
  schemes: localSchemes,
  config: optionsSchema,
  fromUri: optionsFromUri,
  async source(options, context): Promise<SourceConnector> {
    context?.signal?.throwIfAborted();
    if (options.directory !== undefined) {
      throw localError(
        "CONFIG_INVALID",
        `${options.directory} is a directory: a source is a disk; name one image in it by path`,
      );
    }
    const sources = (options.disks ?? [options]).map((disk) => diskSource(disk));
    return localSource(nameDisks(options, sources));
  },
  async target(options, context): Promise<TargetProvider> {
    context?.signal?.throwIfAborted();
    return localTarget(options, context);
  },
});

function diskSource(options: DiskOptions): DiskSource {
  const { path, uri } = options;
  if (uri !== undefined) return nbdDisk({ ...options, uri });
  if (path === undefined) throw localError("CONFIG_INVALID", "a source is a disk: name it by path or uri");
  return formatOf(path, options.format) === "qcow2" ? qcow2Disk({ ...options, path }) : rawDisk({ ...options, path });
}
