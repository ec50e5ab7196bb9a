import { userSession } from "./sessions.ts";
import { objectNotFound, VimFault } from "./vim-fault.ts";
import { data, list, reference } from "./vim-value.ts";
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

  HasPrivilegeOnEntities: {
    on: "AuthorizationManager",
    run: ({ parts }, { args }) => privileges(parts.missingPrivileges, args.all("entity"), args.strings("privId")),
  },
  HasUserPrivilegeOnEntities: {
    on: "AuthorizationManager",
    run: ({ parts }, { args }) => privileges(parts.missingPrivileges, args.all("entities"), args.strings("privId")),
  },
  CancelTask: {
    on: "Task",
    run: ({ parts }, { self }) => {
      parts.tasks.cancel(self.id);
      return undefined;
    },
  },
};

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
          ids.map((id) => data("PrivilegeAvailability", { privId: id, isGranted: !missing.has(id) })),
        ),
      }),
    ),
  );
}
