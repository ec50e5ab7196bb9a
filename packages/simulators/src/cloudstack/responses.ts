import type { Account, Machine, MachineSnapshot, Nic, Owner, Snapshot, Tag, Volume } from "./entities.ts";
import type { Job, JobBoard } from "./job-board.ts";
import type { World } from "./world.ts";

/** How the server writes a time: `2026-11-21T04:00:00+0000`, without a colon in the zone. */
export function writeTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace(/\.\d{3}Z$/, "+0000");
}

/** What a response needs to know beside its object. */
export interface ResponseView {
  readonly world: World;
  readonly jobs: JobBoard;
  readonly caller: Account;
}

function ownerFields(owner: Owner): object {
  const place = { domainid: owner.domainId, domain: owner.domain };
  return owner.kind === "account"
    ? { account: owner.name, ...place }
    : { projectid: owner.id, project: owner.name, ...place };
}

function jobFields(jobs: JobBoard, id: string): object {
  const job = jobs.pendingOf(id);
  return job === undefined ? {} : { jobid: job.id, jobstatus: job.status };
}

/** The tags of an object. */
export function writeTags(type: string, id: string, tags: readonly Tag[]): object[] {
  return tags.map((tag) => ({
    key: tag.key,
    value: tag.value,
    resourcetype: type,
    resourceid: id,
    ...ownerFields(tag.owner),
  }));
}

/** A volume: sizes in bytes; what administrators alone see is added for them. */
export function writeVolume({ world, jobs, caller }: ResponseView, volume: Volume): object {
  const { machine, pool } = volume;
  const offering = volume.diskOffering;
  return {
    id: volume.id,
    name: volume.name,
    zoneid: volume.zoneId,
    zonename: world.zone.name,
    type: volume.type,
    ...(volume.deviceId === undefined ? {} : { deviceid: volume.deviceId }),
    ...(machine === undefined
      ? {}
      : {
          virtualmachineid: machine.id,
          vmname: machine.name,
          vmdisplayname: machine.displayName,
          vmstate: machine.state,
        }),
    provisioningtype: "thin",
    size: volume.size,
    created: writeTime(volume.created),
    ...(volume.attached === undefined ? {} : { attached: writeTime(volume.attached) }),
    state: volume.state,
    ...ownerFields(volume.owner),
    storagetype: pool?.scope === "HOST" ? "local" : "shared",
    hypervisor: volume.pool === undefined ? "None" : "KVM",
    ...(offering === undefined
      ? {}
      : { diskofferingid: offering.id, diskofferingname: offering.name, diskofferingdisplaytext: offering.name }),
    ...(volume.serviceOffering === undefined
      ? {}
      : { serviceofferingid: volume.serviceOffering.id, serviceofferingname: volume.serviceOffering.name }),
    ...(volume.template === undefined ? {} : { templateid: volume.template.id, templatename: volume.template.name }),
    ...(volume.snapshotId === undefined ? {} : { snapshotid: volume.snapshotId }),
    destroyed: volume.state === "Expunging" || volume.state === "Expunged",
    isextractable: true,
    displayvolume: true,
    quiescevm: false,
    supportsstoragesnapshot: false,
    ...(world.traits.deleteProtection ? { deleteprotection: volume.deleteProtection } : {}),
    ...(caller.rootAdmin && pool !== undefined
      ? {
          storage: pool.name,
          storageid: pool.id,
          path: volume.path,
          clusterid: pool.scope === "ZONE" ? undefined : world.clusterId,
          physicalsize: volume.size,
          virtualsize: volume.size,
        }
      : {}),
    tags: writeTags("Volume", volume.id, volume.tags),
    ...jobFields(jobs, volume.id),
  };
}

function writeNic(nic: Nic): object {
  return {
    id: nic.id,
    networkid: nic.network.id,
    networkname: nic.network.name,
    netmask: "255.255.255.0",
    gateway: `${nic.network.prefix}.1`,
    ipaddress: nic.ipAddress,
    traffictype: "Guest",
    type: nic.network.type,
    isdefault: nic.isDefault,
    deviceid: String(nic.deviceId),
    macaddress: nic.macAddress,
  };
}

/** A machine with details, and none of them the firmware, has none in its answer (`UserVmJoinDaoImpl`). */
function firmwareOf({ details }: Machine): object {
  const mode = details.get("UEFI");
  if (mode !== undefined) return { boottype: "Uefi", bootmode: mode.toLowerCase() };
  return details.size === 0 ? { boottype: "Bios", bootmode: "legacy" } : {};
}

/** A machine. */
export function writeMachine({ world, jobs, caller }: ResponseView, machine: Machine): object {
  const root = world.rootOf(machine);
  const running = machine.state === "Running";
  return {
    id: machine.id,
    name: machine.name,
    displayname: machine.displayName,
    ...ownerFields(machine.owner),
    created: writeTime(machine.created),
    state: machine.state,
    haenable: false,
    zoneid: machine.zoneId,
    zonename: world.zone.name,
    ...(running && caller.rootAdmin ? { hostid: world.hostId, hostname: "kvm1" } : {}),
    ...(machine.template === undefined ? {} : { templateid: machine.template.id, templatename: machine.template.name }),
    serviceofferingid: machine.offering.id,
    serviceofferingname: machine.offering.name,
    cpunumber: machine.cpuNumber,
    cpuspeed: machine.cpuSpeed,
    memory: machine.memory,
    guestosid: machine.osTypeId,
    osdisplayname: world.osTypes.get(machine.osTypeId),
    ostypeid: machine.osTypeId,
    ...(root === undefined ? {} : { rootdeviceid: root.deviceId, rootdevicetype: "ROOT" }),
    nic: machine.nics.map(writeNic),
    hypervisor: "KVM",
    details: Object.fromEntries(machine.details),
    ...firmwareOf(machine),
    isdynamicallyscalable: false,
    ...(world.traits.deleteProtection ? { deleteprotection: machine.deleteProtection } : {}),
    tags: writeTags("UserVm", machine.id, machine.tags),
    ...jobFields(jobs, machine.id),
  };
}

/** A snapshot. */
export function writeSnapshot({ world, jobs }: ResponseView, snapshot: Snapshot): object {
  const chain = [snapshot];
  for (let at = snapshot; at.parentId !== undefined;) {
    const parent = world.snapshots.get(at.parentId);
    if (parent === undefined) break;
    chain.push(parent);
    at = parent;
  }
  return {
    id: snapshot.id,
    name: snapshot.name,
    ...ownerFields(snapshot.owner),
    created: writeTime(snapshot.created),
    volumeid: snapshot.volume.id,
    volumename: snapshot.volume.name,
    volumetype: snapshot.volumeType,
    volumestate: snapshot.volume.state,
    snapshottype: "MANUAL",
    intervaltype: "MANUAL",
    locationtype: "SECONDARY",
    state: snapshot.state,
    physicalsize: snapshot.size,
    virtualsize: snapshot.size,
    revertable: snapshot.state === "BackedUp",
    zoneid: snapshot.zoneId,
    zonename: world.zone.name,
    ...(world.traits.snapshotChains
      ? { chainsize: chain.length, ...(snapshot.parentId === undefined ? {} : { parent: snapshot.parentId }) }
      : {}),
    tags: writeTags("Snapshot", snapshot.id, snapshot.tags),
    ...jobFields(jobs, snapshot.id),
  };
}

/** A snapshot of a machine. */
export function writeMachineSnapshot({ world, jobs }: ResponseView, snapshot: MachineSnapshot): object {
  return {
    id: snapshot.id,
    name: snapshot.name,
    displayname: snapshot.displayName,
    state: snapshot.state,
    type: snapshot.type,
    virtualmachineid: snapshot.machine.id,
    virtualmachinename: snapshot.machine.name,
    hypervisor: "KVM",
    zoneid: world.zone.id,
    zonename: world.zone.name,
    current: true,
    created: writeTime(snapshot.created),
    ...ownerFields(snapshot.owner),
    ...jobFields(jobs, snapshot.id),
  };
}

/** A job. */
export function writeJob(job: Job): object {
  return {
    jobid: job.id,
    accountid: job.ownerId,
    userid: job.userId,
    cmd: job.cmd,
    jobstatus: job.status,
    jobprocstatus: 0,
    jobresultcode: job.resultCode,
    ...(job.result === undefined ? {} : { jobresulttype: "object", jobresult: job.result }),
    ...(job.instanceType === undefined ? {} : { jobinstancetype: job.instanceType, jobinstanceid: job.instanceId }),
    created: writeTime(job.created),
    ...(job.completed === undefined ? {} : { completed: writeTime(job.completed) }),
  };
}
