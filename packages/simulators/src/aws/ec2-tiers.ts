import { listing, maybe, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { SnapshotTiering } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** Quotas per Region: archives and restores in progress (EC2 user guide, snapshot archiving). */
const archivesAtOnce = 25;
const restoresAtOnce = 5;

/** The actions that move snapshots between the standard and the archive tier. */
export function tierActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  const underWay = (caller: Caller, word: string): number =>
    scope
      .mine(world.snapshots, caller)
      .filter(({ tiering }) => tiering?.status.startsWith(word) === true && tiering.status.endsWith("in-progress"))
      .length;

  function archive(form: Ec2Form, caller: Caller): XmlObject {
    const snapshot = scope.snapshot(form.need("SnapshotId"), caller);
    if (form.text("StorageTier") !== "archive")
      throw wrong("InvalidParameterValue", "A snapshot can be moved to the tier 'archive' only.");
    if (
      world.stateOf(snapshot) !== "completed" ||
      snapshot.tier === "archive" ||
      snapshot.tiering?.status === "archival-in-progress"
    )
      throw wrong("IncorrectState", `${snapshot.id} cannot be archived now.`);
    const image = scope
      .mine(world.images, caller)
      .find(({ devices, rootDeviceName }) =>
        devices.some((each) => each.snapshotId === snapshot.id && each.deviceName === rootDeviceName),
      );
    if (image !== undefined)
      throw wrong("InvalidSnapshot.InUse", `The snapshot ${snapshot.id} is currently in use by ${image.id}`);
    if (underWay(caller, "archival") >= archivesAtOnce)
      throw wrong("ResourceLimitExceeded", `At most ${archivesAtOnce} snapshots can be archived at once.`);
    const startedAt = world.now();
    snapshot.tiering = { status: "archival-in-progress", startedAt };
    world.later(world.delays.changeMs, () => {
      snapshot.tier = "archive";
      snapshot.tiering = { status: "archival-completed", startedAt, completedAt: world.now() };
    });
    return { snapshotId: snapshot.id, tieringStartTime: time(startedAt) };
  }

  function restore(form: Ec2Form, caller: Caller): XmlObject {
    const snapshot = scope.snapshot(form.need("SnapshotId"), caller);
    if (snapshot.tier !== "archive") throw wrong("IncorrectState", `${snapshot.id} is not archived.`);
    if (underWay(caller, "permanent") + underWay(caller, "temporary") >= restoresAtOnce)
      throw wrong("ResourceLimitExceeded", `At most ${restoresAtOnce} snapshots can be restored at once.`);
    const permanent = form.flag("PermanentRestore");
    const days = form.number("TemporaryRestoreDays");
    if (permanent === (days !== undefined))
      throw wrong("InvalidParameterCombination", "Either PermanentRestore or TemporaryRestoreDays has to be given.");
    const startedAt = world.now();
    const word = permanent ? "permanent" : "temporary";
    snapshot.tiering = { status: `${word}-restore-in-progress`, startedAt };
    world.later(world.delays.changeMs, () => {
      const completedAt = world.now();
      const done: SnapshotTiering = { status: `${word}-restore-completed`, startedAt, completedAt };
      snapshot.tier = "standard";
      snapshot.tiering = days === undefined ? done : { ...done, restoreExpiresAt: completedAt + days * 86_400_000 };
      if (days !== undefined)
        world.later(days * 86_400_000, () => {
          snapshot.tier = "archive";
          snapshot.tiering = { status: "archival-completed", startedAt, completedAt };
        });
    });
    return {
      snapshotId: snapshot.id,
      restoreStartTime: time(startedAt),
      restoreDuration: days,
      isPermanentRestore: permanent,
    };
  }

  function describe(form: Ec2Form, caller: Caller): XmlObject {
    const { items, nextToken } = scope.select(form, scope.mine(world.snapshots, caller), (each, filter) => {
      if (filter === "snapshot-id") return [each.id];
      if (filter === "volume-id") return [each.volumeId];
      return filter === "last-tiering-operation" ? maybe(each.tiering?.status) : undefined;
    });
    const snapshotTierStatusSet = items.map((each) => ({
      snapshotId: each.id,
      volumeId: each.volumeId,
      status: world.stateOf(each),
      ownerId: each.accountId,
      tagSet: tagSet(each.tags),
      storageTier: each.tier,
      lastTieringStartTime: each.tiering === undefined ? undefined : time(each.tiering.startedAt),
      lastTieringProgress: each.tiering === undefined ? undefined : each.tiering.completedAt === undefined ? 0 : 100,
      lastTieringOperationStatus: each.tiering?.status,
      archivalCompleteTime:
        each.tier === "archive" && each.tiering?.completedAt !== undefined ? time(each.tiering.completedAt) : undefined,
      restoreExpiryTime: each.tiering?.restoreExpiresAt === undefined ? undefined : time(each.tiering.restoreExpiresAt),
    }));
    return { snapshotTierStatusSet, nextToken };
  }

  return {
    ModifySnapshotTier: { takes: "SnapshotId StorageTier", act: archive },
    RestoreSnapshotTier: { takes: "SnapshotId TemporaryRestoreDays PermanentRestore", act: restore },
    DescribeSnapshotTierStatus: { takes: listing, act: describe },
  };
}
