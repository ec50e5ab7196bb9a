import { listed, type Call, type CommandDefinition } from "../command.ts";
import type { DiskOffering, Network, ServiceOffering, StoragePool, Template } from "../entities.ts";
import { gib } from "../world.ts";

function byIdAndName<T extends { readonly id: string; readonly name: string }>(call: Call, items: Iterable<T>): T[] {
  const id = call.parameters.text("id");
  const name = call.parameters.text("name")?.toLowerCase();
  const keyword = call.parameters.text("keyword")?.toLowerCase();
  return [...items].filter(
    (each) =>
      (id === undefined || each.id === id) &&
      (name === undefined || each.name.toLowerCase() === name) &&
      (keyword === undefined || each.name.toLowerCase().includes(keyword)),
  );
}

function inZone<T extends { readonly zoneId: string }>(call: Call, items: T[]): T[] {
  const zone = call.parameters.text("zoneid");
  return zone === undefined ? items : items.filter((each) => each.zoneId === zone);
}

function listCapabilities({ world, caller }: Call): object {
  return {
    capability: {
      securitygroupsenabled: false,
      dynamicrolesenabled: true,
      cloudstackversion: world.release,
      userpublictemplateenabled: true,
      supportELB: "false",
      projectinviterequired: false,
      allowusercreateprojects: true,
      customdiskofferingminsize: 1,
      customdiskofferingmaxsize: world.settings.largestDiskGib,
      regionsecondaryenabled: false,
      kvmsnapshotenabled: world.settings.snapshotsRunningMachines,
      allowuserviewdestroyedvm: caller.rootAdmin,
      allowuserexpungerecovervm: caller.rootAdmin || world.settings.allowUserExpunge,
      allowuserexpungerecovervolume: true,
      ...(world.settings.throttle === undefined
        ? {}
        : {
            apilimitmax: world.settings.throttle.calls,
            apilimitinterval: Math.ceil(world.settings.throttle.intervalMs / 1000),
          }),
      defaultuipagesize: 20,
    },
  };
}

function listZones(call: Call): object {
  const zones = byIdAndName(call, [call.world.zone]);
  return listed(call, "zone", zones, (zone) => ({
    id: zone.id,
    name: zone.name,
    networktype: "Advanced",
    securitygroupsenabled: false,
    allocationstate: "Enabled",
    localstorageenabled: true,
    type: "Core",
    tags: [],
  }));
}

function writeDiskOffering(call: Call, offering: DiskOffering): object {
  const pool = [...call.world.pools.values()].find((each) => each.tag === offering.tag);
  return {
    id: offering.id,
    name: offering.name,
    displaytext: offering.name,
    disksize: offering.sizeGib ?? 0,
    iscustomized: offering.sizeGib === undefined,
    iscustomizediops: false,
    storagetype: pool?.scope === "HOST" ? "local" : "shared",
    provisioningtype: "thin",
    displayoffering: true,
    state: "Active",
    ...(call.caller.rootAdmin && offering.tag !== undefined ? { tags: offering.tag } : {}),
  };
}

function writeServiceOffering(call: Call, offering: ServiceOffering): object {
  const pool = [...call.world.pools.values()].find((each) => each.tag === offering.tag);
  const custom = offering.cpuNumber === undefined;
  return {
    id: offering.id,
    name: offering.name,
    displaytext: offering.name,
    ...(custom ? {} : { cpunumber: offering.cpuNumber, cpuspeed: offering.cpuSpeed, memory: offering.memory }),
    iscustomized: custom,
    storagetype: pool?.scope === "HOST" ? "local" : "shared",
    issystem: false,
    offerha: false,
    limitcpuuse: false,
    state: "Active",
    ...(call.caller.rootAdmin && offering.tag !== undefined ? { storagetags: offering.tag } : {}),
  };
}

function listNetworks(call: Call): object {
  const { world, caller, parameters } = call;
  const visible = [...world.networks.values()].filter(
    (each) => each.owner === undefined || world.scopeOf(parameters, caller)(each.owner),
  );
  const type = parameters.text("type")?.toLowerCase();
  const found = inZone(call, byIdAndName(call, visible)).filter(
    (each) => type === undefined || each.type.toLowerCase() === type,
  );
  return listed(call, "network", found, (each: Network) => ({
    id: each.id,
    name: each.name,
    displaytext: each.name,
    traffictype: "Guest",
    type: each.type,
    gateway: `${each.prefix}.1`,
    netmask: "255.255.255.0",
    cidr: `${each.prefix}.0/24`,
    zoneid: each.zoneId,
    zonename: world.zone.name,
    state: "Implemented",
    acltype: each.owner === undefined ? "Domain" : "Account",
    ...(each.owner?.kind === "account" ? { account: each.owner.name } : {}),
    ...(each.owner?.kind === "project" ? { projectid: each.owner.id, project: each.owner.name } : {}),
    canusefordeploy: true,
    issystem: false,
    tags: [],
  }));
}

function listTemplates(call: Call): object {
  const { world, caller, parameters } = call;
  const filter = parameters.required("templatefilter");
  const known = ["featured", "self", "selfexecutable", "sharedexecutable", "executable", "community", "all"];
  if (!known.includes(filter)) throw parameters.badValue("templatefilter", filter, "it is no filter");
  const scope = world.scopeOf(parameters, caller);
  const found = inZone(call, byIdAndName(call, world.templates.values())).filter((each) => {
    // What is not ready yet is shown to its owner alone.
    if (filter.includes("executable") && each.disk === undefined) return false;
    if (filter.startsWith("self")) return each.owner !== undefined && scope(each.owner);
    return each.owner === undefined || world.mayUse(caller, each.owner);
  });
  return listed(call, "template", found, (each: Template) => ({
    id: each.id,
    name: each.name,
    displaytext: each.name,
    ispublic: each.owner === undefined,
    isready: each.disk !== undefined,
    isfeatured: each.owner === undefined,
    format: "QCOW2",
    hypervisor: "KVM",
    ...(each.disk === undefined
      ? { status: "Creating" }
      : { status: "Download Complete", size: each.disk.size, physicalsize: each.disk.size }),
    templatetype: "USER",
    ostypeid: each.osTypeId,
    ostypename: world.osTypes.get(each.osTypeId),
    zoneid: each.zoneId,
    zonename: world.zone.name,
    tags: [],
  }));
}

function listOsTypes(call: Call): object {
  const types = [...call.world.osTypes].map(([id, name]) => ({ id, name }));
  const description = call.parameters.text("description")?.toLowerCase();
  const found = byIdAndName(call, types).filter(
    (each) => description === undefined || each.name.toLowerCase() === description,
  );
  return listed(call, "ostype", found, (each) => ({ id: each.id, description: each.name, isuserdefined: false }));
}

function listStoragePools(call: Call): object {
  const pools = inZone(call, byIdAndName(call, call.world.pools.values()));
  return listed(call, "storagepool", pools, (pool: StoragePool) => ({
    id: pool.id,
    name: pool.name,
    zoneid: pool.zoneId,
    zonename: call.world.zone.name,
    type: pool.type,
    scope: pool.scope,
    ...(pool.scope === "ZONE" ? {} : { clusterid: call.world.clusterId, clustername: "cluster1" }),
    state: pool.maintenance ? "Maintenance" : "Up",
    managed: pool.managed,
    ...(pool.tag === undefined ? {} : { tags: pool.tag }),
    disksizetotal: pool.capacity,
    disksizeallocated: call.world.usedOf(pool),
    hypervisor: "KVM",
  }));
}

function listHosts(call: Call): object {
  const hosts = byIdAndName(call, [{ id: call.world.hostId, name: "kvm1" }]);
  return listed(call, "host", hosts, (host) => ({
    ...host,
    type: "Routing",
    state: "Up",
    resourcestate: "Enabled",
    hypervisor: "KVM",
    zoneid: call.world.zone.id,
    clusterid: call.world.clusterId,
    memorytotal: 64 * gib,
  }));
}

function listClusters(call: Call): object {
  const clusters = byIdAndName(call, [{ id: call.world.clusterId, name: "cluster1" }]);
  return listed(call, "cluster", clusters, (cluster) => ({
    ...cluster,
    hypervisortype: "KVM",
    clustertype: "CloudManaged",
    allocationstate: "Enabled",
    zoneid: call.world.zone.id,
    zonename: call.world.zone.name,
  }));
}

/** What the cloud offers. */
export const catalogCommands: readonly CommandDefinition[] = [
  {
    name: "listCapabilities",
    group: "user.config",
    description: "Lists capabilities",
    parameters: [],
    answer: listCapabilities,
  },
  { name: "listZones", group: "user.zone", description: "Lists zones", parameters: ["id", "name"], answer: listZones },
  {
    name: "listDiskOfferings",
    group: "user.offering",
    description: "Lists all available disk offerings.",
    parameters: ["id", "name", "zoneid"],
    answer: (call) =>
      listed(call, "diskoffering", byIdAndName(call, call.world.diskOfferings.values()), (each) =>
        writeDiskOffering(call, each),
      ),
  },
  {
    name: "listServiceOfferings",
    group: "user.offering",
    description: "Lists all available service offerings.",
    parameters: ["id", "name", "zoneid", "virtualmachineid"],
    answer: (call) =>
      listed(call, "serviceoffering", byIdAndName(call, call.world.serviceOfferings.values()), (each) =>
        writeServiceOffering(call, each),
      ),
  },
  {
    name: "listNetworks",
    group: "user.network",
    description: "Lists all available networks.",
    parameters: ["id", "name", "type", "zoneid"],
    answer: listNetworks,
  },
  {
    name: "listTemplates",
    group: "user.template",
    description: "List all public, private, and privileged templates.",
    parameters: ["id", "name", "templatefilter", "zoneid"],
    answer: listTemplates,
  },
  {
    name: "listOsTypes",
    group: "user.guest",
    description: "Lists all supported OS types for this cloud.",
    parameters: ["id", "description"],
    answer: listOsTypes,
  },
  {
    name: "listStoragePools",
    group: "admin.storage",
    rootAdmin: true,
    description: "Lists storage pools.",
    parameters: ["id", "name", "zoneid"],
    answer: listStoragePools,
  },
  {
    name: "listHosts",
    group: "admin.host",
    rootAdmin: true,
    description: "Lists hosts.",
    parameters: ["id", "name"],
    answer: listHosts,
  },
  {
    name: "listClusters",
    group: "admin.cluster",
    rootAdmin: true,
    description: "Lists clusters.",
    parameters: ["id", "name", "zoneid"],
    answer: listClusters,
  },
];
