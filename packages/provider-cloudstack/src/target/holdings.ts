import type { Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { attach, awaitStragglers, detach, inUse, knownVolume } from "./attachment.ts";
import type { Bench, OpenVolume } from "./bench.ts";
import { type WriteState, advanceWriteState, newGeneration, runMark, writeStateOf } from "./write-state.ts";

/** Who wants to write. */
export interface WriteClaim {
  run: string;
  epoch: number;
}

/** A volume that this process has open on the appliance, for one or several users. */
interface Holding {
  /** Of a writer; a reader has none. */
  state: WriteState | undefined;
  /** The version of the write state under which it was opened; 0: nobody had written. */
  version: number;
  opened: Promise<OpenVolume>;
  users: number;
  /** Whether the volume is detached when the last user leaves. */
  detaches: boolean;
}

/** One user's share of a holding. */
export interface Share {
  readonly volume: OpenVolume;
  /** Of a writer. */
  readonly state: WriteState | undefined;
  /** The writer's run begins anew under another generation. */
  renew(wait?: Wait): Promise<void>;
  /** @throws ProviderError FENCED when a newer epoch has come, UNAVAILABLE when the volume was detached under it */
  check(wait?: Wait): Promise<void>;
  /** Closes, and detaches the volume when nobody else in this process uses it. Idempotent. */
  leave(): Promise<void>;
}

/** All that this process has open, whichever connection opened it: by server and volume. */
const held = new Map<string, Holding>();
/** Openings of one volume take turns. */
const turns = new Map<string, Promise<unknown>>();
/** How long a volume's detachment may hold up a writer's end. */
const LEAVE_MS = 10 * 60_000;

/**
 * Opens a volume for writing on the appliance. A newer epoch or another run ends every earlier writer first: those of this
 * process at once, all others by detaching the volume, whereupon their devices are gone. A job that they left at work is
 * waited for. Who has the volume is written in its tags.
 * @throws ProviderError FENCED, IN_USE, NOT_FOUND and what opening a device throws; nothing was written then
 */
export function holdForWriting(cloud: Cloud, bench: Bench, id: string, claim: WriteClaim, wait: Wait): Promise<Share> {
  return inTurn(cloud, id, async (place) => {
    const appliance = await cloud.appliance(wait);
    const mark = runMark(claim.run);
    let volume = await knownVolume(cloud, id, wait);
    let state = writeStateOf(volume);
    refuseOlder(id, state, claim.epoch);
    const mine = held.get(place);
    if (mine?.state !== undefined && mine.state.epoch === claim.epoch && mine.state.run === mark) {
      if (state?.generation === mine.state.generation && volume.machineId === appliance.id) {
        // Only a device that still answers is shared; one that was lost is opened anew.
        const shared = await usable(mine);
        if (shared !== undefined) return share(cloud, place, id, mine, shared);
      }
    }
    await cutOff(place, () => fencedError(id, claim.epoch));
    volume = await awaitStragglers(cloud, id, wait);
    state = writeStateOf(volume);
    refuseOlder(id, state, claim.epoch);
    const isOurs = volume.machineId === undefined || [appliance.id, state?.appliance].includes(volume.machineId);
    if (!isOurs) throw inUse(volume);
    const isSameRun = state !== undefined && state.run === mark;
    if (!isSameRun || state?.epoch !== claim.epoch || state.appliance !== appliance.id) {
      const generation = isSameRun && state !== undefined ? state.generation : newGeneration();
      const next = { epoch: claim.epoch, run: mark, generation, appliance: appliance.id };
      state = writeStateOf(await advanceWriteState(cloud, volume, state, next, wait));
    }
    if (volume.machineId !== undefined) await detach(cloud, id, volume.machineId, wait);
    const attached = await attach(cloud, id, appliance.id, undefined, wait);
    const holding: Holding = {
      state,
      version: state?.version ?? 0,
      opened: bench.open({ id, size: attached.size }, { mode: "write", epoch: claim.epoch }, wait),
      users: 0,
      detaches: true,
    };
    return await settle(cloud, place, id, holding);
  });
}

/** Opens a committed volume for reading; shares what a writer of this process has open. */
export function holdForReading(cloud: Cloud, bench: Bench, id: string, wait: Wait): Promise<Share> {
  return inTurn(cloud, id, async (place) => {
    const volume = await knownVolume(cloud, id, wait);
    const mine = held.get(place);
    const shared = mine === undefined ? undefined : await usable(mine);
    if (mine !== undefined && shared !== undefined) return share(cloud, place, id, mine, shared);
    const appliance = await cloud.appliance(wait);
    if (volume.machineId !== undefined && volume.machineId !== appliance.id) throw inUse(volume);
    const attached = await attach(cloud, id, appliance.id, undefined, wait);
    const holding: Holding = {
      state: undefined,
      version: writeStateOf(volume)?.version ?? 0,
      opened: bench.open({ id, size: attached.size }, { mode: "read" }, wait),
      users: 0,
      // A writer of another process has it attached already: then it is that one's to detach.
      detaches: volume.machineId === undefined,
    };
    return await settle(cloud, place, id, holding);
  });
}

/** Ends whatever this process has open of a volume, and detaches it from the appliance. */
export function letGo(cloud: Cloud, id: string, wait: Wait): Promise<void> {
  return inTurn(cloud, id, async (place) => {
    await cutOff(place, () => cloudstackError("NOT_FOUND", `Volume ${id} was taken away from its writers.`));
    const volume = await cloud.volume(id, wait);
    if (volume?.machineId === undefined) return;
    const { machineId } = volume;
    // Where no appliance writes, whoever has it is somebody else.
    if (cloud.options.appliance === undefined) return;
    const appliance = await cloud.appliance(wait);
    if (machineId === appliance.id || machineId === writeStateOf(volume)?.appliance)
      await detach(cloud, id, machineId, wait);
  });
}

function refuseOlder(id: string, state: WriteState | undefined, epoch: number): void {
  if (state !== undefined && state.epoch > epoch) throw fencedError(id, state.epoch);
}

function fencedError(id: string, epoch: number): Error {
  return cloudstackError("FENCED", `Volume ${id} belongs to a newer run (epoch ${epoch}); this one must stop.`, {
    operation: "open",
  });
}

/** Puts a new holding in its place; where its device does not open, the volume is not left attached. */
async function settle(cloud: Cloud, place: string, id: string, holding: Holding): Promise<Share> {
  let opened: OpenVolume;
  try {
    opened = await holding.opened;
  } catch (error) {
    if (holding.detaches) await detachIfOurs(cloud, id, holding.version);
    throw error;
  }
  held.set(place, holding);
  return share(cloud, place, id, holding, opened);
}

function share(cloud: Cloud, place: string, id: string, holding: Holding, opened: OpenVolume): Share {
  holding.users++;
  let left: Promise<void> | undefined;
  return {
    volume: opened,
    state: holding.state,
    async renew(wait = {}) {
      const volume = await knownVolume(cloud, id, wait);
      const { state } = holding;
      if (state === undefined) return;
      refuseOlder(id, writeStateOf(volume), state.epoch);
      const next = { ...state, generation: newGeneration() };
      holding.state = writeStateOf(await advanceWriteState(cloud, volume, writeStateOf(volume), next, wait));
      holding.version = holding.state?.version ?? holding.version;
    },
    async check(wait = {}) {
      const volume = await knownVolume(cloud, id, wait);
      const now = writeStateOf(volume);
      if (holding.state !== undefined && now !== undefined && now.epoch > holding.state.epoch)
        throw fencedError(id, now.epoch);
      const appliance = await cloud.appliance(wait);
      if (volume.machineId === appliance.id) return;
      throw cloudstackError(
        "UNAVAILABLE",
        `Volume ${id} was detached from the appliance under its writer; it has to be opened anew.`,
        { operation: "check", retryable: false },
      );
    },
    leave() {
      left ??= inTurn(cloud, id, async () => {
        holding.users--;
        if (holding.users > 0) return;
        await opened.close();
        // Another writer may have taken the place: what it has attached is not ours to detach.
        if (held.get(place) !== holding) return;
        held.delete(place);
        if (holding.detaches) await detachIfOurs(cloud, id, holding.version);
      });
      return left;
    },
  };
}

/** Detaches at an end, unless a newer writer has it: a straggling detachment would strike that one. */
async function detachIfOurs(cloud: Cloud, id: string, version: number): Promise<void> {
  const wait = { signal: AbortSignal.timeout(LEAVE_MS) };
  try {
    const volume = await cloud.volume(id, wait);
    if (volume === undefined || (writeStateOf(volume)?.version ?? 0) > version) return;
    await detach(cloud, id, (await cloud.appliance(wait)).id, wait);
  } catch (error) {
    cloud.notice(`Volume ${id} stays attached to the appliance; the next run detaches it. ${String(error)}`);
  }
}

async function usable(holding: Holding): Promise<OpenVolume | undefined> {
  const opened = await holding.opened;
  try {
    await opened.read(0, new Uint8Array(opened.blockSize));
    return opened;
  } catch {
    return undefined;
  }
}

async function cutOff(place: string, reason: () => Error): Promise<void> {
  const older = held.get(place);
  if (older === undefined) return;
  held.delete(place);
  const opened = await older.opened;
  await opened.shut(reason);
  await opened.close();
}

function inTurn<T>(cloud: Cloud, id: string, work: (place: string) => Promise<T>): Promise<T> {
  const place = `${cloud.client.endpoint} ${id}`;
  const before = turns.get(place) ?? Promise.resolve();
  const result = before.then(() => work(place));
  const ended = result
    .catch(() => undefined)
    .finally(() => {
      if (turns.get(place) === ended) turns.delete(place);
    });
  turns.set(place, ended);
  return result;
}
