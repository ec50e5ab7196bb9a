import { randomUUID } from "node:crypto";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import type { Call, CommandDefinition, Submission } from "../command.ts";
import type { Snapshot, Template, Volume } from "../entities.ts";
import { gib } from "../world.ts";

/** What a template is made of: exactly one of them (`createPrivateTemplateRecord`). */
function originOf(call: Call): { volume: Volume } | { snapshot: Snapshot } {
  const { world, parameters, caller } = call;
  const [volumeId, snapshotId] = ["volumeid", "snapshotid"].map((each) => parameters.text(each));
  if (parameters.text("zoneid") !== undefined && snapshotId === undefined)
    throw invalid("Failed to create private template record, zone ID can only be specified together with snapshot ID.");
  if (volumeId === undefined && snapshotId === undefined)
    throw invalid("Failed to create private Template record, neither volume ID nor Snapshot ID were specified.");
  if (volumeId !== undefined && snapshotId !== undefined)
    throw invalid(
      `Failed to create private Template record, please specify only one of volume ID (${volumeId}) and Snapshot ID (${snapshotId})`,
    );
  if (volumeId !== undefined) {
    const volume = world.find(world.volumes, parameters, "volumeid", caller);
    if (volume.machine !== undefined && volume.machine.state !== "Stopped")
      throw new ApiError(
        errorCodes.internal,
        `Unable to create private Template for volume: ${volume.id}; volume is attached to a non-stopped Instance, please stop ` +
          `the Instance first`,
      );
    return { volume };
  }
  const snapshot = world.find(world.snapshots, parameters, "snapshotid", caller);
  if (snapshot.state !== "BackedUp")
    throw invalid(`Snapshot ${snapshot.id} is not in BackedUp state yet and can't be used for Template creation`);
  return { snapshot };
}

function createTemplate(call: Call): Submission {
  const { world, parameters, caller } = call;
  const owner = world.ownerFor(parameters, caller);
  const name = parameters.required("name");
  const most = world.traits.longestTemplateName;
  if (name.length > most)
    throw invalid(
      most === 32
        ? "Template name cannot be null and should be less than 32 characters"
        : `Template name cannot be null and cannot be more ${most} characters`,
    );
  const origin = originOf(call);
  const osTypeId = parameters.required("ostypeid");
  if (!world.osTypes.has(osTypeId)) throw parameters.badValue("ostypeid", osTypeId);
  world.checkLimit(owner, "secondaryStorage", ("volume" in origin ? origin.volume : origin.snapshot).size / gib);
  const template: Template = { id: randomUUID(), name, zoneId: world.zone.id, owner, osTypeId, disk: undefined };
  world.templates.set(template.id, template);
  return {
    createdId: template.id,
    instanceType: "Template",
    instanceId: template.id,
    // The row of a failed one does not stay.
    failed: () => void world.templates.delete(template.id),
    work: async () => {
      const from = "volume" in origin ? origin.volume.disk : origin.snapshot.disk;
      if (from === undefined) {
        world.templates.delete(template.id);
        throw new ApiError(errorCodes.internal, "Failed to create Template");
      }
      template.disk = await world.copyOf(from);
      return { template: { id: template.id, name, isready: true, zoneid: template.zoneId, ostypeid: osTypeId } };
    },
  };
}

function deleteTemplate(call: Call): Submission {
  const { world, parameters, caller } = call;
  const template = world.find(world.templates, parameters, "id", caller);
  return {
    instanceType: "Template",
    instanceId: template.id,
    work: async () => {
      if (template.owner === undefined && !caller.rootAdmin)
        throw new ApiError(errorCodes.account, `Acct[${caller.id}-${caller.name}] does not have permission to operate`);
      const users = [...world.machines.values()].filter((each) => each.template === template).length;
      if (users > 0 && parameters.flag("forced") !== true)
        throw invalid(
          `Unable to delete template [${template.name}] because there are [${users}] VM instances using it.`,
        );
      world.templates.delete(template.id);
      await template.disk?.discard();
      return { success: true };
    },
  };
}

/** Making templates of volumes and snapshots, and deleting them. */
export const templateCommands: readonly CommandDefinition[] = [
  {
    name: "createTemplate",
    group: "user.template",
    description:
      "Creates a template of a virtual machine. A template created from this command is automatically designated as a private " +
      "template visible to the account that created it.",
    parameters: [
      "name",
      "displaytext",
      "ostypeid",
      "volumeid",
      "snapshotid",
      "zoneid",
      "ispublic",
      "requireshvm",
      "bits",
      "passwordenabled",
      "details",
      "projectid",
    ],
    submit: createTemplate,
  },
  {
    name: "deleteTemplate",
    group: "user.template",
    description:
      "Deletes a template from the system. All virtual machines using the deleted template will not be affected.",
    parameters: ["id", "zoneid", "forced"],
    submit: deleteTemplate,
  },
];
