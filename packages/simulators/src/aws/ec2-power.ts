import { endInstance } from "./ec2-instances.ts";
import { wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import { instanceTypes } from "./instance-types.ts";
import { instanceCodes, type Instance } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** The actions that change instances: start, stop, terminate and attributes. */
export function powerActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;
  type State = Instance["state"];

  function change(form: Ec2Form, caller: Caller, act: (instance: Instance) => void): XmlObject {
    const instances = form.list("InstanceId").map((id) => scope.instance(id, caller));
    if (instances.length === 0) throw wrong("MissingParameter", "The request must contain the parameter InstanceId");
    const word = (state: State): XmlObject => ({ code: instanceCodes[state], name: state });
    const instancesSet = instances.map((each) => {
      const before = each.state;
      act(each);
      return { instanceId: each.id, currentState: word(each.state), previousState: word(before) };
    });
    return { instancesSet };
  }

  /** Goes through a passing state to the last one, unless something else came in between. */
  function pass(instance: Instance, through: State, to: State): void {
    instance.state = through;
    world.later(world.delays.changeMs, () => {
      if (instance.state === through) instance.state = to;
    });
  }

  function start(instance: Instance): void {
    if (instance.state === "running" || instance.state === "pending") return;
    if (instance.state !== "stopped")
      throw wrong(
        "IncorrectInstanceState",
        `The instance '${instance.id}' is not in a state from which it can be started.`,
      );
    if (
      scope
        .attached(instance.id)
        .every(({ attachment }) => attachment?.device !== instance.rootDevice || attachment.status === "detaching")
    )
      throw wrong(
        "InvalidParameterValue",
        `Invalid value '${instance.id}' for instanceId. Instance does not have a volume attached at root (${instance.rootDevice})`,
      );
    delete instance.stateReason;
    instance.transitionReason = "";
    pass(instance, "pending", "running");
  }

  function stop(instance: Instance): void {
    if (instance.state === "stopped" || instance.state === "stopping") return;
    if (instance.state !== "running")
      throw wrong(
        "IncorrectInstanceState",
        `The instance '${instance.id}' is not in a state from which it can be stopped.`,
      );
    const message = "Client.UserInitiatedShutdown: User initiated shutdown";
    instance.stateReason = { code: "Client.UserInitiatedShutdown", message };
    instance.transitionReason = `User initiated (${new Date(world.now()).toISOString()})`;
    pass(instance, "stopping", "stopped");
  }

  function terminate(instance: Instance): void {
    if (instance.state === "terminated" || instance.state === "shutting-down") return;
    if (instance.protected)
      throw wrong(
        "OperationNotPermitted",
        `The instance '${instance.id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`,
      );
    const message = "Client.UserInitiatedShutdown: User initiated shutdown";
    instance.state = "shutting-down";
    world.later(world.delays.changeMs, () =>
      endInstance(scope, instance, { code: "Client.UserInitiatedShutdown", message }),
    );
  }

  function modify(form: Ec2Form, caller: Caller): XmlObject {
    const instance = scope.instance(form.need("InstanceId"), caller);
    const stopped = (name: string): void => {
      if (instance.state !== "stopped")
        throw wrong(
          "IncorrectInstanceState",
          `The instance '${instance.id}' is not in the 'stopped' state, which ${name} needs.`,
        );
    };
    for (const mapping of form.forms("BlockDeviceMapping")) {
      mapping.only("DeviceName Ebs.DeleteOnTermination Ebs.VolumeId");
      const device = mapping.need("DeviceName");
      const volume = scope.attached(instance.id).find(({ attachment }) => attachment?.device === device);
      if (volume?.attachment === undefined)
        throw wrong("InvalidInstanceAttributeValue", `No device is currently mapped at ${device}`);
      if ((mapping.text("Ebs.VolumeId") ?? volume.id) !== volume.id)
        throw wrong("InvalidInstanceAttributeValue", `${device} is not mapped to ${mapping.text("Ebs.VolumeId")}`);
      volume.attachment.deleteOnTermination = mapping.flag("Ebs.DeleteOnTermination");
    }
    const type = form.text("InstanceType.Value");
    if (type !== undefined) {
      stopped("InstanceType");
      if (!instanceTypes.has(type))
        throw wrong("InvalidInstanceAttributeValue", `The instance type '${type}' is unknown.`);
      instance.type = type;
    }
    const userData = form.text("UserData.Value");
    if (userData !== undefined) {
      stopped("UserData");
      instance.userData = userData;
    }
    if (form.text("EnaSupport.Value") !== undefined) {
      stopped("EnaSupport");
      instance.enaSupport = form.flag("EnaSupport.Value");
    }
    if (form.text("DisableApiTermination.Value") !== undefined)
      instance.protected = form.flag("DisableApiTermination.Value");
    const groups = form.list("GroupId").map((id) => scope.own(world.groups, id, caller, "sg").id);
    if (groups.length > 0) instance.groupIds = groups;
    return { return: true };
  }

  function attribute(form: Ec2Form, caller: Caller): XmlObject {
    const instance = scope.instance(form.need("InstanceId"), caller);
    const values: Record<string, XmlObject> = {
      userData: { userData: { value: instance.userData } },
      instanceType: { instanceType: { value: instance.type } },
      rootDeviceName: { rootDeviceName: { value: instance.rootDevice } },
      disableApiTermination: { disableApiTermination: { value: instance.protected } },
      enaSupport: { enaSupport: { value: instance.enaSupport } },
      groupSet: { groupSet: instance.groupIds.map((groupId) => ({ groupId })) },
    };
    const name = form.need("Attribute");
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value === undefined) throw wrong("InvalidParameterValue", `Unknown attribute ${name}`);
    return { instanceId: instance.id, ...value };
  }

  const modified = "InstanceId BlockDeviceMapping InstanceType UserData EnaSupport DisableApiTermination GroupId";
  return {
    StartInstances: { takes: "InstanceId", act: (form, caller) => change(form, caller, start) },
    StopInstances: {
      takes: "InstanceId Force Hibernate SkipOsShutdown",
      act: (form, caller) => change(form, caller, stop),
    },
    TerminateInstances: {
      takes: "InstanceId Force SkipOsShutdown",
      act: (form, caller) => change(form, caller, terminate),
    },
    ModifyInstanceAttribute: { takes: modified, act: modify },
    DescribeInstanceAttribute: { takes: "InstanceId Attribute", act: attribute },
  };
}
