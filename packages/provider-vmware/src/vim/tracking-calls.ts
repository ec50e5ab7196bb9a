import { vsphereError } from "../errors.ts";
import type { MoRef } from "./moref.ts";
import { readSeen } from "./property-collector.ts";
import { runTask, type TaskWait } from "./tasks.ts";
import { vimData, VimTyped } from "./vim-argument.ts";
import type { CallWait, VimClient } from "./vim-client.ts";

/** One answer of QueryChangedDiskAreas: what changed within the range that it covers. Bytes. */
export interface ChangedAreas {
  readonly startOffset: number;
  /** How much of the disk this answer speaks of; the next query starts at `startOffset + length`. */
  readonly length: number;
  /** As answered: order, overlap and bounds are the caller's to check. */
  readonly areas: readonly { readonly start: number; readonly length: number }[];
}

/**
 * One call of QueryChangedDiskAreas. `changeId` is that of the point in time to compare with, or `*`; `snapshot` may only be
 * left out while the machine is off. A start at or past the disk's end is refused by vSphere.
 *
 * @throws ProviderError with the fault as cause: a FileFault, among others, where the change id is of another epoch
 */
export async function queryChangedDiskAreas(
  client: VimClient,
  machine: MoRef,
  query: { snapshot?: MoRef | undefined; deviceKey: number; startOffset: number; changeId: string },
  wait: CallWait = {},
): Promise<ChangedAreas> {
  const { snapshot, deviceKey, startOffset, changeId } = query;
  const args = { snapshot, deviceKey, startOffset, changeId };
  const [info] = await client.call("QueryChangedDiskAreas", machine, args, wait);
  const at = info?.number("startOffset");
  const length = info?.number("length");
  if (info === undefined || at === undefined || length === undefined) {
    throw vsphereError("UNEXPECTED", `QueryChangedDiskAreas of ${machine.value} returned no range`);
  }
  return {
    startOffset: at,
    length,
    areas: info.all("changedArea").map((area) => ({
      start: area.number("start") ?? NaN,
      length: area.number("length") ?? NaN,
    })),
  };
}

/** What a machine says of change tracking. */
export interface TrackingState {
  /** `capability.changeTrackingSupported`: the hardware version allows it. */
  readonly supported: boolean;
  /** `config.changeTrackingEnabled`. It may be set and wait for a stun. */
  readonly enabled: boolean;
  /** By slot (`scsi0:1`): what the machine's configuration file says of single disks (`scsi0:1.ctkEnabled`). */
  readonly bySlot: ReadonlyMap<string, boolean>;
}

/** Reads what a machine says of change tracking. */
export async function readTrackingState(
  client: VimClient,
  machine: MoRef,
  wait: CallWait = {},
): Promise<TrackingState> {
  const properties = await readSeen(
    client,
    machine,
    ["capability.changeTrackingSupported", "config.changeTrackingEnabled", "config.extraConfig"],
    wait,
  );
  const bySlot = new Map<string, boolean>();
  for (const option of properties.get("config.extraConfig")?.children ?? []) {
    const slot = /^(.+)\.ctkEnabled$/.exec(option.string("key") ?? "")?.[1];
    if (slot !== undefined) bySlot.set(slot, option.string("value")?.trim().toLowerCase() === "true");
  }
  return {
    supported: properties.boolean("capability.changeTrackingSupported") ?? false,
    enabled: properties.boolean("config.changeTrackingEnabled") ?? false,
    bySlot,
  };
}

/**
 * Sets the machine's flag and, where given, those of single slots (`scsi0:1`). On a running machine it takes effect at the
 * next stun, which making and removing a snapshot is.
 */
export async function setTracking(
  client: VimClient,
  machine: MoRef,
  wish: { enabled?: boolean | undefined; bySlot?: ReadonlyMap<string, boolean> | undefined },
  wait: TaskWait = {},
): Promise<void> {
  const slots = [...(wish.bySlot ?? [])];
  const spec = vimData("VirtualMachineConfigSpec", {
    extraConfig:
      slots.length === 0
        ? undefined
        : slots.map(([slot, enabled]) =>
            vimData("OptionValue", {
              key: `${slot}.ctkEnabled`,
              value: new VimTyped("string", enabled ? "TRUE" : "FALSE"),
            }),
          ),
    changeTrackingEnabled: wish.enabled,
  });
  await runTask(client, "ReconfigVM_Task", machine, { spec }, wait);
}
