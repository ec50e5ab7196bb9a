import { closeSync, readSync } from "node:fs";
import { extname } from "node:path";
import { localError } from "./errors.ts";
import { openRaw } from "./raw/raw-file.ts";

/** First bytes of image formats that are not read here. */
const foreign: readonly { magic: string; name: string }[] = [
  { magic: "KDMV", name: "a VMDK image" },
  { magic: "COWD", name: "a VMDK image" },
  { magic: "vhdxfile", name: "a VHDX image" },
  { magic: "conectix", name: "a VHD image" },
  { magic: "QED\0", name: "a QED image" },
  { magic: "<<< ", name: "a VDI image" },
];
const qcow2Magic = "QFI\u00fb";
const qcow2Names = new Set([".qcow2", ".qcow", ".qcow3"]);

/**
 * What an existing file or device holds. Content is written by guests, and a guest that writes a qcow2 header onto its
 * raw disk would otherwise choose what file of this host is copied as its "backing file": so where content and name do
 * not both say qcow2, the options have to.
 * @throws ProviderError CONFIG_INVALID when the format must be stated, or is one that is not read here.
 */
export function formatOf(path: string, stated: "auto" | "raw" | "qcow2" | "qcow2-chain" | undefined): "raw" | "qcow2" {
  if (stated === "raw") return "raw";
  const start = firstBytes(path);
  const isQcow2 = start.startsWith(qcow2Magic);
  if (stated === "qcow2") {
    if (isQcow2) return "qcow2";
    throw localError(
      "CONFIG_INVALID",
      `${path} does not begin like a qcow2 image; check the file, or state format raw`,
    );
  }
  const isNamedQcow2 = qcow2Names.has(extname(path).toLowerCase());
  if (isQcow2 && isNamedQcow2) return "qcow2";
  if (isQcow2) {
    throw localError(
      "CONFIG_INVALID",
      `${path} begins like a qcow2 image but is not named so: state format qcow2, or raw if a guest may have written that`,
    );
  }
  if (isNamedQcow2) {
    throw localError(
      "CONFIG_INVALID",
      `${path} is named like a qcow2 image but does not begin like one: state its format`,
    );
  }
  const other = foreign.find(({ magic }) => start.startsWith(magic));
  if (other === undefined) return "raw";
  throw localError(
    "CONFIG_INVALID",
    `${path} begins like ${other.name}, which is not read here: serve it with qemu-nbd -r and copy from nbd+unix://, ` +
      "or state format raw if it is a disk's own content",
  );
}

/** Whether a new file of this name is to be a qcow2 image. */
export function isQcow2Name(path: string): boolean {
  return qcow2Names.has(extname(path).toLowerCase());
}

function firstBytes(path: string): string {
  const { fd } = openRaw(path, { anySize: true });
  try {
    const start = new Uint8Array(8);
    readSync(fd, start, 0, 8, 0);
    return Buffer.from(start).toString("latin1");
  } finally {
    closeSync(fd);
  }
}
