import { randomUUID } from "node:crypto";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import type { Call, CommandDefinition, Submission } from "../command.ts";
import type { Volume } from "../entities.ts";
import type { StorageEndpoint } from "../storage-endpoint.ts";
import { writeTime } from "../responses.ts";
import { blankVolume } from "../volume-life.ts";

/** URLs given out by volume or snapshot; asking again gives the same one as long as it lives. */
type Links = Map<string, string>;

function extractResult(call: Call, key: string, entity: { id: string; name: string }, url: string): object {
  return {
    [key]: {
      id: entity.id,
      name: entity.name,
      ...(key === "volume" ? { mode: "HTTP_DOWNLOAD" } : {}),
      zoneid: call.world.zone.id,
      zonename: call.world.zone.name,
      state: "DOWNLOAD_URL_CREATED",
      url,
      accountid: call.caller.id,
      created: writeTime(call.world.now()),
    },
  };
}

function extractVolume(call: Call, storage: StorageEndpoint, links: Links): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  world.checkZone(parameters);
  parameters.required("mode");
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    queue: volume.machine?.id,
    work: async () => {
      if (volume.pool === undefined || volume.disk === undefined)
        throw invalid("The volume doesn't belong to a storage pool so can't extract it");
      if (volume.pool.type === "PowerFlex")
        throw invalid(
          "Cannot extract volume, this operation is unsupported for volumes on storage pool type PowerFlex",
        );
      if (volume.machine !== undefined && volume.machine.state !== "Stopped")
        throw new ApiError(
          errorCodes.internal,
          "Invalid state of the volume with specified ID. It should be either detached or the VM should be in stopped state.",
        );
      if (parameters.text("mode") !== "HTTP_DOWNLOAD") throw invalid("Please specify a valid extract Mode ");
      let url = links.get(volume.id);
      if (url === undefined || !storage.isLive(url)) {
        url = await storage.publish(volume.disk, volume.id, volume.pool.type === "RBD" ? "raw" : "qcow2");
        links.set(volume.id, url);
      }
      return extractResult(call, "volume", volume, url);
    },
  };
}

function extractSnapshot(call: Call, storage: StorageEndpoint, links: Links): Submission {
  const { world, parameters, caller } = call;
  const snapshot = world.find(world.snapshots, parameters, "id", caller);
  world.checkZone(parameters);
  return {
    instanceType: "Snapshot",
    instanceId: snapshot.id,
    work: async () => {
      if (snapshot.disk === undefined || snapshot.state !== "BackedUp") throw invalid("Snapshot not found.");
      let url = links.get(snapshot.id);
      if (url === undefined || !storage.isLive(url)) {
        url = await storage.publish(snapshot.disk, snapshot.name, "qcow2");
        links.set(snapshot.id, url);
      }
      return extractResult(call, "snapshot", snapshot, url);
    },
  };
}

function getUploadParams(call: Call, storage: StorageEndpoint): object {
  const { world, parameters, caller } = call;
  world.checkZone(parameters);
  const owner = world.ownerFor(parameters, caller);
  const name = parameters.required("name");
  const format = parameters.required("format").toUpperCase();
  if (format !== "QCOW2" && format !== "RAW") throw invalid(`The format ${format} is not supported by KVM`);
  const named = parameters.text("diskofferingid") !== undefined;
  const offering = named ? world.findShared(world.diskOfferings, parameters, "diskofferingid") : undefined;
  if (offering?.sizeGib !== undefined) throw invalid("Please specify a custom sized disk offering.");
  world.checkLimit(owner, "volume", 1);
  const volume: Volume = {
    ...blankVolume(world),
    id: randomUUID(),
    name,
    owner,
    type: "DATADISK",
    state: "NotUploaded",
    uploaded: true,
    size: 0,
    diskOffering: offering,
    snapshotId: undefined,
  };
  world.volumes.set(volume.id, volume);
  return { getuploadparams: { id: volume.id, ...storage.expect(volume, format, parameters.text("checksum")) } };
}

/** Bytes out of the cloud and into it by the secondary storage machine. */
export function transferCommands(storage: StorageEndpoint): readonly CommandDefinition[] {
  const links: Links = new Map();
  return [
    {
      name: "extractVolume",
      group: "user.volume",
      description: "Extracts volume",
      parameters: ["id", "mode", "zoneid", "url"],
      submit: (call) => extractVolume(call, storage, links),
    },
    {
      name: "extractSnapshot",
      group: "user.snapshot",
      since: "4.20.0.0",
      description: "Returns a download URL for extracting a snapshot. It must be in the Backed Up state.",
      parameters: ["id", "zoneid"],
      submit: (call) => extractSnapshot(call, storage, links),
    },
    {
      name: "getUploadParamsForVolume",
      group: "user.volume",
      description: "Upload a data disk to the cloudstack cloud.",
      parameters: ["name", "zoneid", "format", "checksum", "diskofferingid", "imagestoreuuid"],
      answer: (call) => getUploadParams(call, storage),
    },
  ];
}
