import { userSession } from "./sessions.ts";
import { invalidArgument, objectNotFound, VimFault } from "./vim-fault.ts";
import { data, enumerated, list, long, reference, subtype } from "./vim-value.ts";
import type { VimValue } from "./vim-value.ts";
import type { VimMethods } from "./vim-service.ts";

function invalidLogin(): VimFault {
  return new VimFault("InvalidLogin", "Cannot complete login due to an incorrect user name or password.");
}

/** Sessions, property collection, views, search, privileges and the clock. */
export const serviceMethods: VimMethods = {
  Login: {
    on: "SessionManager",
    run: ({ parts }, call) => {
      const userName = call.args.string("userName") ?? "";
      const matches = userName === parts.userName && call.args.string("password") === parts.password;
      if (!matches) throw invalidLogin();
      const session = parts.sessions.open(userName, call.remoteAddress, call.userAgent);
      if (session === undefined) {
        throw new VimFault("SystemError", "The maximum number of sessions has been reached", { reason: "sessions" });
      }
      call.opened(session);
      return userSession(session);
    },
  },
  CloneSession: {
    on: "SessionManager",
    run: ({ parts }, call) => {
      const origin = parts.sessions.redeem(call.args.string("cloneTicket") ?? "");
      if (origin === undefined) throw invalidLogin();
      const session = parts.sessions.open(origin.userName, call.remoteAddress, call.userAgent);
      if (session === undefined) {
        throw new VimFault("SystemError", "The maximum number of sessions has been reached", { reason: "sessions" });
      }
      call.opened(session);
      return userSession(session);
    },
  },
  AcquireCloneTicket: { on: "SessionManager", run: ({ parts }, { session }) => parts.sessions.ticket(session) },
  SessionIsActive: {
    on: "SessionManager",
    run: ({ parts }, { args }) => {
      const session = parts.sessions.peek(args.string("sessionID") ?? "");
      return session !== undefined && session.userName === args.string("userName");
    },
  },
  TerminateSession: {
    on: "SessionManager",
    privilege: "Sessions.TerminateSession",
    run: ({ parts }, { args }) => {
      for (const key of args.strings("sessionId")) parts.sessions.close(key);
      return undefined;
    },
  },
  Logout: {
    on: "SessionManager",
    run: ({ parts }, { session }) => {
      parts.sessions.close(session.key);
      return undefined;
    },
  },
  CurrentTime: { on: "ServiceInstance", run: () => new Date() },

  RetrievePropertiesEx: {
    on: "PropertyCollector",
    run: (service, call) => service.collectors(call).retrieve(call.args),
  },
  RetrieveProperties: {
    on: "PropertyCollector",
    run: (service, call) => service.collectors(call).retrieveAll(call.args),
  },
  ContinueRetrievePropertiesEx: {
    on: "PropertyCollector",
    run: (service, call) => service.collectors(call).next(call.args.string("token") ?? ""),
  },
  CancelRetrievePropertiesEx: {
    on: "PropertyCollector",
    run: (service, call) => {
      service.collectors(call).cancelPages(call.args.string("token") ?? "");
      return undefined;
    },
  },
  CreatePropertyCollector: {
    on: "PropertyCollector",
    run: (service, call) => service.collectors(call).create(call.session.key),
  },
  DestroyPropertyCollector: {
    on: "PropertyCollector",
    run: (service, call) => {
      service.collectors(call).destroy(call.self.id);
      return undefined;
    },
  },
  CreateFilter: {
    on: "PropertyCollector",
    run: (service, call) => {
      const specification = call.args.child("spec");
      if (specification === undefined) throw new VimFault("InvalidRequest", "CreateFilter without spec");
      return service.collectors(call).createFilter(call.self.id, specification, call.session.key);
    },
  },
  DestroyPropertyFilter: {
    on: "PropertyFilter",
    run: (service, call) => {
      service.collectors(call).destroyFilter(call.self);
      return undefined;
    },
  },
  WaitForUpdatesEx: {
    on: "PropertyCollector",
    run: (service, call) => service.collectors(call).wait(call.self.id, call.args, call.signal),
  },
  CancelWaitForUpdates: {
    on: "PropertyCollector",
    run: (service, call) => {
      service.collectors(call).cancelWait(call.self.id);
      return undefined;
    },
  },

  CreateContainerView: {
    on: "ViewManager",
    run: (service, { args }) => {
      const container = args.ref("container");
      if (container === undefined || !service.parts.inventory.entities.has(container.id)) {
        throw objectNotFound(container ?? reference("Folder", ""));
      }
      return service.createView(container.id, args.strings("type"), args.boolean("recursive") === true);
    },
  },
  DestroyView: {
    on: "ContainerView",
    run: (service, { self }) => {
      service.destroyView(self);
      return undefined;
    },
  },

  FindByInventoryPath: {
    on: "SearchIndex",
    run: ({ parts }, { args }) => parts.inventory.find(args.string("inventoryPath") ?? ""),
  },
  FindByUuid: {
    on: "SearchIndex",
    run: ({ parts }, { args }) => {
      const uuid = (args.string("uuid") ?? "").toLowerCase();
      if (args.boolean("vmSearch") !== true) return undefined;
      const byInstance = args.boolean("instanceUuid") === true;
      for (const machine of parts.inventory.machines.values()) {
        if ((byInstance ? machine.instanceUuid : machine.biosUuid).toLowerCase() !== uuid) continue;
        return reference("VirtualMachine", machine.id);
      }
      return undefined;
    },
  },

  FindAllByUuid: {
    on: "SearchIndex",
    run: ({ parts }, { args }) => {
      const uuid = (args.string("uuid") ?? "").toLowerCase();
      const byInstance = args.boolean("instanceUuid") === true;
      const datacenter = args.ref("datacenter");
      const found = [...parts.inventory.machines.values()].filter(
        (machine) =>
          (byInstance ? machine.instanceUuid : machine.biosUuid).toLowerCase() === uuid &&
          (datacenter === undefined || parts.inventory.siteOf(machine).datacenter.id === datacenter.id),
      );
      const matches = args.boolean("vmSearch") === true ? found : [];
      return list(
        "ManagedObjectReference",
        matches.map(({ id }) => reference("VirtualMachine", id)),
      );
    },
  },

  HasPrivilegeOnEntities: {
    on: "AuthorizationManager",
    run: ({ parts }, { args }) => {
      if (parts.sessions.peek(args.string("sessionId") ?? "") === undefined) throw invalidArgument("sessionId");
      return privileges(parts.missingPrivileges, args.all("entity"), args.strings("privId"));
    },
  },
  HasUserPrivilegeOnEntities: {
    on: "AuthorizationManager",
    run: ({ parts }, { args }) => privileges(parts.missingPrivileges, args.all("entities"), args.strings("privId")),
  },
  QueryPerf: {
    on: "PerformanceManager",
    run: ({ parts }, { args }) =>
      list(
        "PerfEntityMetricBase",
        args.all("querySpec").map((query) => {
          const entity = query.ref("entity");
          if (entity === undefined || parts.inventory.entities.get(entity.id)?.type !== "HostSystem") {
            throw objectNotFound(entity ?? reference("HostSystem", ""));
          }
          const samples = Math.max(1, query.number("maxSample") ?? 1);
          const asked = query.all("metricId").map((metric) => metric.number("counterId") ?? 0);
          return subtype("PerfEntityMetric", {
            entity,
            sampleInfo: list(
              "PerfSampleInfo",
              Array.from({ length: samples }, (_, index) =>
                data("PerfSampleInfo", {
                  timestamp: new Date(Date.now() - (samples - 1 - index) * 20_000),
                  interval: 20,
                }),
              ),
            ),
            value: list(
              "PerfMetricSeries",
              asked.flatMap((counterId) => {
                const counter = perfCounters.find(({ key }) => key === counterId);
                if (counter === undefined) throw invalidArgument("querySpec.metricId");
                return subtype("PerfMetricIntSeries", {
                  id: data("PerfMetricId", { counterId, instance: "" }),
                  value: list(
                    "xsd:long",
                    Array.from({ length: samples }, () => long(counter.value)),
                  ),
                });
              }),
            ),
          });
        }),
      ),
  },
  CancelTask: {
    on: "Task",
    run: ({ parts }, { self }) => {
      parts.tasks.cancel(self.id);
      return undefined;
    },
  },
};

/** Counters of hosts: percentages in hundredths, as vSphere counts them. */
const perfCounters: readonly { key: number; group: string; name: string; value: number }[] = [
  { key: 2, group: "cpu", name: "usage", value: 750 },
  { key: 24, group: "mem", name: "usage", value: 2500 },
];

/** The property `perfCounter` of PerformanceManager. */
export function perfCounterList(): VimValue {
  return list(
    "PerfCounterInfo",
    perfCounters.map(({ key, group, name }) =>
      data("PerfCounterInfo", {
        key,
        nameInfo: subtype("ElementDescription", { label: name, summary: name, key: name }),
        groupInfo: subtype("ElementDescription", { label: group, summary: group, key: group }),
        unitInfo: subtype("ElementDescription", { label: "%", summary: "Percentage", key: "percent" }),
        rollupType: enumerated("PerfSummaryType", "average"),
        statsType: enumerated("PerfStatsType", "rate"),
        level: 1,
        perDeviceLevel: 3,
      }),
    ),
  );
}

/** What the user's role has besides the system's own, so that a wrong name in a client's table is noticed. */
export const knownPrivileges: readonly string[] = [
  "System.Anonymous",
  "System.Read",
  "System.View",
  "Cryptographer.Access",
  "Datastore.Browse",
  "Datastore.FileManagement",
  "Datastore.AllocateSpace",
  "Global.DisableMethods",
  "Global.EnableMethods",
  "Global.Licenses",
  "Sessions.TerminateSession",
  "Sessions.ValidateSession",
  "VApp.Export",
  "VirtualMachine.Config.AddExistingDisk",
  "VirtualMachine.Config.AdvancedConfig",
  "VirtualMachine.Config.ChangeTracking",
  "VirtualMachine.Config.DiskLease",
  "VirtualMachine.Config.EditDevice",
  "VirtualMachine.Config.Resource",
  "VirtualMachine.Config.Settings",
  "VirtualMachine.Interact.AnswerQuestion",
  "VirtualMachine.Interact.GuestControl",
  "VirtualMachine.Interact.PowerOff",
  "VirtualMachine.Interact.PowerOn",
  "VirtualMachine.Interact.Reset",
  "VirtualMachine.Interact.Suspend",
  "VirtualMachine.Provisioning.DiskRandomAccess",
  "VirtualMachine.Provisioning.DiskRandomRead",
  "VirtualMachine.Provisioning.GetVmFiles",
  "VirtualMachine.Provisioning.MarkAsTemplate",
  "VirtualMachine.State.CreateSnapshot",
  "VirtualMachine.State.RemoveSnapshot",
  "VirtualMachine.State.RevertToSnapshot",
];

function privileges(
  missing: ReadonlySet<string>,
  entities: readonly { reference: ReturnType<typeof reference> }[],
  ids: readonly string[],
): ReturnType<typeof list> {
  return list(
    "EntityPrivilege",
    entities.map((entity) =>
      data("EntityPrivilege", {
        entity: entity.reference,
        privAvailability: list(
          "PrivilegeAvailability",
          ids.map((id) =>
            data("PrivilegeAvailability", { privId: id, isGranted: knownPrivileges.includes(id) && !missing.has(id) }),
          ),
        ),
      }),
    ),
  );
}
