import { type NbdAddress, parseNbdUri } from "@diskferry/nbd";
import { resolve } from "node:path";
import type { DiskOptions } from "../options.ts";

/** The address that options of an NBD disk mean: the URI, and what TLS needs besides. */
export function nbdAddress(options: DiskOptions & { uri: string }): NbdAddress {
  const address = parseNbdUri(options.uri);
  const { tls } = options;
  if (tls === undefined) return address;
  const from = address.tlsFiles;
  return {
    ...address,
    tlsFiles: {
      certificates: pathOf(tls.certificates) ?? from?.certificates,
      pskFile: pathOf(tls.pskFile) ?? from?.pskFile,
      username: tls.username ?? from?.username,
      serverName: tls.serverName ?? from?.serverName,
    },
  };
}

/** A worker thread and a later start of the program may have another working directory. */
function pathOf(path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(path);
}
