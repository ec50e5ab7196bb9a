import { vsphereError } from "../errors.ts";
import type { VimElement } from "./vim-element.ts";

/** What a server says of itself (AboutInfo). */
export interface AboutInfo {
  /** A vCenter, or a host by itself. */
  readonly kind: "vcenter" | "esxi";
  /** `VMware vCenter Server 8.0.3 build-24022515`. */
  readonly fullName: string;
  /** `8.0.3`. */
  readonly version: string;
  readonly build: string;
  /** `8.0.3.0`. */
  readonly apiVersion: string;
  /** The vCenter's own UUID; a host has none here. */
  readonly instanceUuid: string | undefined;
}

/** Reads it from RetrieveServiceContent's answer. */
export function readAbout(content: VimElement): AboutInfo {
  const about = content.child("about");
  const apiType = about?.string("apiType");
  if (about === undefined || (apiType !== "VirtualCenter" && apiType !== "HostAgent")) {
    throw vsphereError("UNSUPPORTED", `the server calls itself '${apiType ?? ""}': it is neither vCenter nor ESXi`);
  }
  return {
    kind: apiType === "VirtualCenter" ? "vcenter" : "esxi",
    fullName: about.string("fullName") ?? "",
    version: about.string("version") ?? "",
    build: about.string("build") ?? "",
    apiVersion: about.string("apiVersion") ?? "",
    instanceUuid: about.string("instanceUuid"),
  };
}
