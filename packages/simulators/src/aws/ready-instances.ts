import { BlockTable } from "./block-table.ts";
import { defaultNetwork, takeAddress } from "./ec2-network.ts";
import type { Ec2Scope } from "./ec2-scope.ts";
import type { Instance } from "./resources.ts";
import type { Caller } from "./signature.ts";
import { shapeOf } from "./volume-types.ts";

/** Two running instances: Linux with three volumes, and a UEFI machine like Windows with two; all of 1 GiB. */
export function makeReadyInstances(scope: Ec2Scope, caller: Caller): { linux: string; windows: string } {
  return {
    linux: makeInstance(scope, caller, "linux", ["/dev/xvda", "/dev/sdf", "/dev/sdg"], false),
    windows: makeInstance(scope, caller, "windows", ["/dev/sda1", "xvdf"], true),
  };
}

function makeInstance(scope: Ec2Scope, caller: Caller, name: string, devices: string[], windows: boolean): string {
  const { world } = scope;
  const now = world.now();
  const { subnets, group } = defaultNetwork(scope, caller);
  const [subnet] = subnets;
  const [rootDevice] = devices;
  if (subnet === undefined || rootDevice === undefined) throw new Error("there is no subnet or no device");
  const base = { accountId: caller.accountId, region: caller.region, zone: subnet.zone };
  const instance: Instance = {
    ...base,
    id: world.newId("i"),
    tags: { Name: name },
    state: "running",
    transitionReason: "",
    type: "m5.large",
    rootDevice,
    architecture: "x86_64",
    bootMode: windows ? "uefi" : "legacy-bios",
    currentBootMode: windows ? "uefi" : "legacy-bios",
    enaSupport: true,
    imageId: world.newId("ami"),
    subnetId: subnet.id,
    vpcId: subnet.vpcId,
    groupIds: [group.id],
    interfaceId: world.newId("eni"),
    privateIp: takeAddress(scope, subnet),
    metadataTokens: "required",
    protected: false,
    impaired: false,
    managed: true,
    launchedAt: now - 86_400_000,
    ...(windows ? { platform: "windows", uefiData: Buffer.from(`AMZNUEFI ${name}`).toString("base64") } : {}),
  };
  world.instances.set(instance.id, instance);
  for (const device of devices) {
    const id = world.newId("vol");
    world.volumes.set(id, {
      ...base,
      ...shapeOf("gp3", 1),
      id,
      tags: { Name: `${name} ${device}` },
      state: "available",
      encrypted: false,
      blocks: new BlockTable(),
      createdAt: now,
      attachment: {
        instanceId: instance.id,
        device,
        status: "attached",
        deleteOnTermination: device === rootDevice,
        attachedAt: now,
      },
    });
  }
  return instance.id;
}
