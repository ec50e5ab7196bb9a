import { isProviderError, type Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { type MoRef, moRefText } from "../vim/moref.ts";
import type { VimClient } from "../vim/vim-client.ts";

/** What a privilege is needed for. `copy`: without it nothing works. */
export type PrivilegePurpose = "copy" | "tracking" | "vddk" | "nfc" | "folder" | "power" | "encrypted";

/** A privilege of vSphere by its id, and what it is for. */
export interface Privilege {
  readonly id: string;
  readonly purpose: PrivilegePurpose;
  /** Where it is asked for. */
  readonly on: "machine" | "datastore";
}

/**
 * The least that a role needs (vSphere Security, "Defined Privileges"; Virtual Disk Programming Guide, "Credentials and
 * privileges"). The role's page in the documentation is made of this list.
 */
export const privileges: readonly Privilege[] = [
  { id: "VirtualMachine.State.CreateSnapshot", purpose: "copy", on: "machine" },
  { id: "VirtualMachine.State.RemoveSnapshot", purpose: "copy", on: "machine" },
  { id: "VirtualMachine.Config.ChangeTracking", purpose: "tracking", on: "machine" },
  { id: "VirtualMachine.Config.AdvancedConfig", purpose: "tracking", on: "machine" },
  { id: "VirtualMachine.Provisioning.DiskRandomRead", purpose: "tracking", on: "machine" },
  { id: "VirtualMachine.Provisioning.GetVmFiles", purpose: "vddk", on: "machine" },
  { id: "VirtualMachine.Config.DiskLease", purpose: "vddk", on: "machine" },
  { id: "VApp.Export", purpose: "nfc", on: "machine" },
  { id: "Datastore.Browse", purpose: "folder", on: "datastore" },
  { id: "Datastore.FileManagement", purpose: "folder", on: "datastore" },
  { id: "VirtualMachine.Interact.PowerOff", purpose: "power", on: "machine" },
  { id: "VirtualMachine.Interact.PowerOn", purpose: "power", on: "machine" },
  { id: "Cryptographer.Access", purpose: "encrypted", on: "machine" },
];

/** What the account lacks, or that it could not be asked. */
export interface MissingPrivilege extends Privilege {
  /** The object on which it is missing. */
  readonly object: string;
}

/**
 * Which of `wanted` the session's user lacks on these objects (HasPrivilegeOnEntities); undefined where the server does not
 * answer such questions.
 */
export async function missingPrivileges(
  client: VimClient,
  wanted: readonly Privilege[],
  objects: { readonly machine: MoRef; readonly datastores: readonly MoRef[] },
  wait: Wait = {},
): Promise<MissingPrivilege[] | undefined> {
  const { authorizationManager } = client.references;
  if (authorizationManager === undefined) return undefined;
  const missing: MissingPrivilege[] = [];
  for (const on of ["machine", "datastore"] as const) {
    const asked = wanted.filter((each) => each.on === on);
    const entity = on === "machine" ? [objects.machine] : objects.datastores;
    if (asked.length === 0 || entity.length === 0) continue;
    const args = { entity, sessionId: client.user.key, privId: asked.map(({ id }) => id) };
    let answer: Awaited<ReturnType<VimClient["call"]>>;
    try {
      answer = await client.call("HasPrivilegeOnEntities", authorizationManager, args, wait);
    } catch (error) {
      wait.signal?.throwIfAborted();
      if (isProviderError(error) && error.code === "UNSUPPORTED") return undefined;
      throw error;
    }
    for (const each of answer) {
      const object = each.reference("entity");
      for (const availability of each.all("privAvailability")) {
        if (availability.boolean("isGranted") === true) continue;
        const privilege = asked.find(({ id }) => id === availability.string("privId"));
        if (privilege === undefined || missing.some(({ id }) => id === privilege.id)) continue;
        missing.push({ ...privilege, object: object === undefined ? "" : moRefText(object) });
      }
    }
  }
  return missing;
}

/**
 * Demands, before anything is changed, what making a snapshot and taking it away again need, and what else is named. Without the
 * second, a snapshot would stay behind and grow.
 *
 * @throws ProviderError DENIED naming what is missing
 */
export async function demandPrivileges(
  client: VimClient,
  machine: { readonly ref: MoRef; readonly name: string },
  more: readonly string[],
  wait: Wait,
): Promise<void> {
  const wanted = privileges.filter(({ id, purpose }) => purpose === "copy" || more.includes(id));
  const missing = await missingPrivileges(client, wanted, { machine: machine.ref, datastores: [] }, wait);
  if (missing === undefined || missing.length === 0) return;
  const ids = missing.map(({ id }) => id).join(", ");
  throw vsphereError(
    "DENIED",
    `the account lacks ${ids} on ${machine.name}: add that to its role, and let the role's permission propagate to the ` +
      "machine. Nothing was changed.",
    { operation: "HasPrivilegeOnEntities" },
  );
}
