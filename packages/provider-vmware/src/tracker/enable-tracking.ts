import type { Machine, PowerState, TrackerStatus, Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { shownName } from "../inventory/entity-names.ts";
import type { MoRef } from "../vim/moref.ts";
import { powerStateOf } from "../vim/power-calls.ts";
import { readSeen } from "../vim/property-collector.ts";
import { demandReaders } from "../readers/reader-fitness.ts";
import { demandPrivileges } from "../preflight/privileges.ts";
import { removeOfKey, takePlainSnapshot } from "../source/take-snapshot.ts";
import { snapshotTree } from "../vim/snapshot-calls.ts";
import { readTrackingState, setTracking, type TrackingState } from "../vim/tracking-calls.ts";
import { readDisks, slotOf, type VirtualDisk } from "../vim/virtual-disk.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";

const trackingPrivilege = "VirtualMachine.Config.ChangeTracking";

/** A machine whose tracking is spoken of. */
export interface TrackedMachine {
  readonly ref: MoRef;
  readonly machine: Machine;
}

/** What there is to know of a machine's tracking. */
interface Standing {
  readonly state: TrackingState;
  /** The disks that may be copied. */
  readonly disks: readonly VirtualDisk[];
  readonly snapshots: number;
  readonly name: string;
  readonly power: PowerState | undefined;
}

/**
 * Turns change tracking on for every disk that may be copied, and begins it by a stun: a snapshot that is made and removed at
 * once (Virtual Disk Development Kit, "Enabling Changed Block Tracking"). Where it cannot be turned on the run goes on without,
 * and a notice says why.
 *
 * @throws ProviderError DENIED where the account may not; UNSUPPORTED where no disk could be read afterwards. Nothing is changed then
 */
export async function enableTracking(
  connection: VsphereConnection,
  tracked: TrackedMachine,
  wait: Wait = {},
): Promise<void> {
  wait.signal?.throwIfAborted();
  const { name } = tracked.machine;
  const standing = await standingOf(connection, tracked, wait);
  const off = standing.disks.filter((disk) => !runs(disk));
  if (off.length === 0 && standing.state.enabled) return;
  const obstacle = obstacleTo(connection, standing);
  if (obstacle !== undefined) {
    connection.notice(`${name}: change tracking is not on (${obstacle}); runs read whole disks until it is`);
    return;
  }
  const about = { ...wait, about: name };
  await demandPrivileges(connection.client, { ref: tracked.ref, name }, [trackingPrivilege], wait);
  await demandReaders(connection, tracked.machine, wait);
  const bySlot = new Map<string, boolean>();
  for (const disk of off) {
    const slot = slotOf(disk);
    // The machine's flag covers a slot of which nothing is said; one that says FALSE stays off by it.
    if (slot !== undefined && standing.state.enabled && standing.state.bySlot.get(slot) !== true)
      bySlot.set(slot, true);
  }
  if (!standing.state.enabled || bySlot.size > 0) {
    await setTracking(connection.client, tracked.ref, { enabled: true, bySlot }, about);
  }
  await stun(connection, tracked, wait);
  const after = await standingOf(connection, tracked, wait);
  const still = after.disks.filter((disk) => !runs(disk));
  if (still.length === 0) {
    connection.notice(`${name}: change tracking was turned on`);
    return;
  }
  const which = still.map(({ key }) => key).join(", ");
  connection.notice(
    `${name}: change tracking is turned on and has not begun for disk ${which}; it begins when the machine is powered on ` +
      "or moved, and until then runs read these disks whole",
  );
}

/**
 * Begins tracking anew: off, a stun, on, a stun (KB 320557). Every earlier checkpoint is lost by it, which is the purpose.
 * With snapshots in the way it is only turned off and on, and begins when they are gone.
 */
export async function resetTracking(
  connection: VsphereConnection,
  tracked: TrackedMachine,
  wait: Wait = {},
): Promise<void> {
  wait.signal?.throwIfAborted();
  const { client } = connection;
  const { name } = tracked.machine;
  const about = { ...wait, about: name };
  const standing = await standingOf(connection, tracked, wait);
  const { state, disks, snapshots } = standing;
  if (!state.supported) {
    throw vsphereError(
      "UNSUPPORTED",
      `${name} cannot track changes: its hardware version is older than 7; upgrade it`,
      {
        operation: "reset tracking",
      },
    );
  }
  if (!mayStun(connection, standing)) {
    throw vsphereError(
      "UNSUPPORTED",
      `tracking of ${name} is not begun anew: the machine runs and tracking.enableOnRunning is false`,
      { operation: "reset tracking" },
    );
  }
  await demandPrivileges(client, { ref: tracked.ref, name }, [trackingPrivilege], wait);
  const slots = disks.flatMap((disk) => slotOf(disk) ?? []);
  await setTracking(
    client,
    tracked.ref,
    { enabled: false, bySlot: new Map(slots.map((slot) => [slot, false])) },
    about,
  );
  await stun(connection, tracked, wait);
  await setTracking(client, tracked.ref, { enabled: true, bySlot: new Map(slots.map((slot) => [slot, true])) }, about);
  await stun(connection, tracked, wait);
  connection.notice(
    snapshots === 0
      ? `${name}: change tracking began anew`
      : `${name}: change tracking was reset; it begins anew when the machine's ${snapshots} snapshots are removed`,
  );
}

/**
 * Begins tracking anew where it was found broken, unless snapshots are in the way, with which it would stay off, or the options
 * forbid to stun a machine that runs for it. Resolves to whether it was done.
 */
export async function mendTracking(
  connection: VsphereConnection,
  tracked: TrackedMachine,
  wait: Wait = {},
): Promise<boolean> {
  const { name } = tracked.machine;
  const standing = await standingOf(connection, tracked, wait);
  const { snapshots } = standing;
  if (!mayStun(connection, standing)) {
    connection.notice(
      `${name}: change tracking is broken; it is begun anew when the machine is off, since tracking.enableOnRunning is false`,
    );
    return false;
  }
  if (snapshots > 0) {
    connection.notice(`${name}: change tracking is broken; remove its ${snapshots} snapshots, then it is begun anew`);
    return false;
  }
  await demandReaders(connection, tracked.machine, wait);
  connection.notice(
    `${name}: change tracking was found broken and is begun anew; the next copy compares its disks whole`,
  );
  await resetTracking(connection, tracked, wait);
  return true;
}

/**
 * Tells all there is to know of one disk's tracking in one answer: whether the machine supports it, whether it runs, the disk's
 * newest change id, and the machine's name and power state now.
 */
export async function describeTracking(
  connection: VsphereConnection,
  tracked: TrackedMachine,
  disk: string,
  wait: Wait = {},
): Promise<TrackerStatus> {
  const standing = await standingOf(connection, tracked, wait);
  const { state, name, power } = standing;
  const found = standing.disks.find(({ key }) => String(key) === disk);
  const changeId = found?.backing.changeId;
  const enabled = changeId !== undefined;
  const known = tracked.machine.disks.find(({ key }) => key === disk);
  const supported = found !== undefined && state.supported;
  const detail =
    found === undefined
      ? (known?.ineligible ?? `there is no disk ${disk} that may be copied`)
      : enabled
        ? `at ${changeId}`
        : whyOff(standing, found);
  return {
    supported,
    enabled: supported && enabled,
    detail,
    machine: name,
    ...(power === undefined ? {} : { power }),
    ...(changeId === undefined ? {} : { changeId }),
  };
}

/** Why tracking of a disk does not run. */
function whyOff({ state, snapshots }: Standing, disk: VirtualDisk): string {
  if (!state.supported) return "needs virtual hardware version 7 or newer";
  if (!state.enabled) return "changeTrackingEnabled is not set";
  const slot = slotOf(disk);
  if (slot !== undefined && state.bySlot.get(slot) === false) return `${slot}.ctkEnabled is FALSE`;
  return `turned on, not begun: ${snapshots > 0 ? `the machine has ${snapshots} snapshots` : "it waits for a stun"}`;
}

function runs({ backing }: VirtualDisk): boolean {
  return backing.changeId !== undefined;
}

/** Whether a stun is allowed, which a machine that is off does not feel. */
function mayStun({ options }: VsphereConnection, { power }: Standing): boolean {
  return power !== "on" || options.tracking?.enableOnRunning !== false;
}

function obstacleTo(connection: VsphereConnection, standing: Standing): string | undefined {
  const { enable = true } = connection.options.tracking ?? {};
  if (!standing.state.supported) return "the machine's hardware version is older than 7; upgrade it";
  if (!enable) return "tracking.enable is false";
  if (!mayStun(connection, standing)) return "the machine runs and tracking.enableOnRunning is false";
  // Deltas that exist when tracking begins are not in its map (KB 320557).
  if (standing.snapshots > 0) return `the machine has ${standing.snapshots} snapshots; remove them`;
  return undefined;
}

async function standingOf(
  { client }: VsphereConnection,
  { ref, machine }: TrackedMachine,
  wait: Wait,
): Promise<Standing> {
  const about = { ...wait, about: machine.name };
  const state = await readTrackingState(client, ref, about);
  const paths = ["config.hardware.device", "snapshot", "runtime.powerState", "name"];
  const properties = await readSeen(client, ref, paths, about);
  const eligible = new Set(machine.disks.filter(({ ineligible }) => ineligible === undefined).map(({ key }) => key));
  return {
    state,
    disks: readDisks(properties.get("config.hardware.device")).filter(({ key }) => eligible.has(String(key))),
    snapshots: snapshotTree(properties.get("snapshot")).length,
    name: shownName(properties.string("name") ?? machine.name),
    power: powerStateOf(properties.string("runtime.powerState")),
  };
}

/** Stuns the machine by a snapshot that is removed at once; one that a broken connection left is removed by the next. */
async function stun(connection: VsphereConnection, { ref, machine }: TrackedMachine, wait: Wait): Promise<void> {
  const about = { ref, name: machine.name };
  const key = `diskferry stun of ${machine.id}`;
  try {
    await takePlainSnapshot(connection, about, key, wait);
  } catch (error) {
    await removeOfKey(connection, about, key, wait).catch((second: unknown) => {
      connection.notice(`${machine.name}: a snapshot named ${key} may be left: ${(second as Error).message}`);
    });
    throw error;
  }
  await removeOfKey(connection, about, key, wait);
}
