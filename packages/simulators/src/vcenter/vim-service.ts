import { isA } from "./inventory.ts";
import type { Inventory, Properties } from "./inventory.ts";
import { leaseMethods } from "./lease-methods.ts";
import { machineMethods } from "./machine-methods.ts";
import type { NfcLeases } from "./nfc-leases.ts";
import { PropertyCollectors } from "./property-collector.ts";
import type { Release } from "./releases.ts";
import { perfCounterList, serviceMethods } from "./service-methods.ts";
import type { Session, Sessions } from "./sessions.ts";
import type { TaskBoard } from "./task-board.ts";
import type { VimElement } from "./vim-element.ts";
import { methodNotFound, objectNotFound, VimFault } from "./vim-fault.ts";
import { data, list, reference } from "./vim-value.ts";
import type { Data, Reference, VimValue } from "./vim-value.ts";

/** One call of a vim25 method, however it was encoded. */
export interface VimCall {
  readonly method: string;
  readonly self: Reference;
  readonly args: VimElement;
  readonly session: Session | undefined;
  readonly remoteAddress: string;
  readonly userAgent: string;
  readonly signal: AbortSignal;
  /** What the fault plan lets the task of this call fail with. */
  readonly taskFailure: VimFault | undefined;
  /** Called with the session that Login or CloneSession opened. */
  readonly opened: (session: Session) => void;
}

/** A call that is known to have a session. */
export interface AuthenticatedCall extends VimCall {
  readonly session: Session;
}

/** A method that needs a login. */
export type VimMethod = (
  service: VimService,
  call: AuthenticatedCall,
) => VimValue | undefined | Promise<VimValue | undefined>;

/** The methods of some types of managed objects by name; `on` is the type that has the method. */
export type VimMethods = Record<string, { readonly on: string; readonly privilege?: string; readonly run: VimMethod }>;

/** What the service is made of. */
export interface ServiceParts {
  readonly kind: "vcenter" | "esxi";
  readonly release: Release;
  readonly instanceUuid: string;
  readonly userName: string;
  readonly password: string;
  readonly inventory: Inventory;
  readonly sessions: Sessions;
  readonly tasks: TaskBoard;
  readonly leases: NfcLeases;
  readonly missingPrivileges: Set<string>;
  readonly pageSize: number;
  /** Milliseconds that a guest takes to shut down. */
  readonly shutdownMs: number;
  readonly changed: () => void;
  readonly nextChange: (signal: AbortSignal) => Promise<void>;
}

const readPrivilege = "System.Read";

const methods: VimMethods = { ...serviceMethods, ...machineMethods, ...leaseMethods };

/** The vim25 service: managed objects and their methods, without any encoding. */
export class VimService {
  readonly parts: ServiceParts;
  readonly #collectors = new Map<string, PropertyCollectors>();
  readonly #views = new Map<string, { container: string; types: string[]; recursive: boolean }>();
  #counter = 0;

  constructor(parts: ServiceParts) {
    this.parts = parts;
  }

  /** The ids of the service's own objects, which differ on a host. */
  get singletons(): Record<string, [type: string, id: string]> {
    const esxi = this.parts.kind === "esxi";
    const pick = (type: string, vcenter: string, host: string): [string, string] => [type, esxi ? host : vcenter];
    return {
      rootFolder: pick("Folder", "group-d1", "ha-folder-root"),
      propertyCollector: pick("PropertyCollector", "propertyCollector", "ha-property-collector"),
      viewManager: pick("ViewManager", "ViewManager", "ViewManager"),
      setting: pick("OptionManager", "VpxSettings", "HostAgentSettings"),
      userDirectory: pick("UserDirectory", "UserDirectory", "ha-user-directory"),
      sessionManager: pick("SessionManager", "SessionManager", "ha-sessionmgr"),
      authorizationManager: pick("AuthorizationManager", "AuthorizationManager", "ha-authmgr"),
      serviceManager: pick("ServiceManager", "ServiceMgr", "ha-servicemanager"),
      perfManager: pick("PerformanceManager", "PerfMgr", "ha-perfmgr"),
      scheduledTaskManager: pick("ScheduledTaskManager", "ScheduledTaskManager", ""),
      alarmManager: pick("AlarmManager", "AlarmManager", ""),
      eventManager: pick("EventManager", "EventManager", "ha-eventmgr"),
      taskManager: pick("TaskManager", "TaskManager", "ha-taskmgr"),
      extensionManager: pick("ExtensionManager", "ExtensionManager", ""),
      customizationSpecManager: pick("CustomizationSpecManager", "CustomizationSpecManager", ""),
      customFieldsManager: pick("CustomFieldsManager", "CustomFieldsManager", ""),
      diagnosticManager: pick("DiagnosticManager", "DiagMgr", "ha-diagnosticmgr"),
      licenseManager: pick("LicenseManager", "LicenseManager", "ha-license-manager"),
      searchIndex: pick("SearchIndex", "SearchIndex", "ha-searchindex"),
      fileManager: pick("FileManager", "FileManager", "ha-nfc-file-manager"),
      datastoreNamespaceManager: pick("DatastoreNamespaceManager", "DatastoreNamespaceManager", ""),
      virtualDiskManager: pick("VirtualDiskManager", "virtualDiskManager", "ha-vdiskmanager"),
      snmpSystem: pick("HostSnmpSystem", "SnmpSystem", ""),
      vmProvisioningChecker: pick("VirtualMachineProvisioningChecker", "ProvChecker", ""),
    };
  }

  /** What RetrieveServiceContent returns. */
  content(): Data {
    const { release, kind, instanceUuid } = this.parts;
    const esxi = kind === "esxi";
    const product = esxi ? "VMware ESXi" : "VMware vCenter Server";
    const at = this.singletons;
    // In the order of the schema; a host lacks what has no id there.
    const all = Object.entries(at).filter(([, [, id]]) => id !== "");
    const refs = (from: number, to?: number): Record<string, VimValue> =>
      Object.fromEntries(all.slice(from, to).map(([name, [type, id]]) => [name, reference(type, id)]));
    return data("ServiceContent", {
      ...refs(0, 3),
      about: data("AboutInfo", {
        name: product,
        fullName: `${product} ${release.version} build-${release.build}`,
        vendor: "VMware, Inc.",
        version: release.version,
        build: release.build,
        localeVersion: "INTL",
        localeBuild: "000",
        osType: esxi ? "vmnix-x86" : "linux-x64",
        productLineId: esxi ? "embeddedEsx" : "vpx",
        apiType: esxi ? "HostAgent" : "VirtualCenter",
        apiVersion: release.apiVersion,
        instanceUuid: esxi ? undefined : instanceUuid,
        licenseProductName: esxi ? "VMware ESX Server" : "VMware VirtualCenter Server",
        licenseProductVersion: `${release.version.split(".")[0] ?? ""}.0`,
      }),
      ...refs(3),
    });
  }

  /**
   * Does one call.
   *
   * @throws VimFault as vCenter would answer
   */
  async call(call: VimCall): Promise<VimValue | undefined> {
    const method = methods[call.method];
    if (call.method === "RetrieveServiceContent") return this.content();
    const anonymous = call.method === "Login" || call.method === "CloneSession";
    if (call.session === undefined && call.self.type === "PropertyCollector" && call.method in withoutSession) {
      return withoutSession[call.method]?.(this.#strangersCollectors(), call.args);
    }
    if (call.session === undefined && !anonymous) throw notAuthenticated(call.self, "System.View");
    if (method === undefined || method.on !== call.self.type) throw methodNotFound(call.self, call.method);
    if (call.method.startsWith("CreateSnapshotEx") && !this.parts.release.snapshotEx) {
      throw methodNotFound(call.self, call.method);
    }
    if (method.privilege !== undefined) this.demand(method.privilege, call.self);
    return method.run(this, call as AuthenticatedCall);
  }

  /** Refuses where the user lacks a privilege. */
  demand(privilege: string, object: Reference): void {
    if (!this.parts.missingPrivileges.has(privilege)) return;
    throw new VimFault("NoPermission", "Permission to perform this operation was denied.", {
      object,
      privilegeId: privilege,
    });
  }

  /** The collectors of the call's session. */
  collectors(call: AuthenticatedCall): PropertyCollectors {
    const known = this.#collectors.get(call.session.key);
    if (known !== undefined) return known;
    const made = new PropertyCollectors({
      properties: (object) => this.properties(object, call.session),
      nextChange: this.parts.nextChange,
      unreadable: (object) => this.#unreadable(object),
      pageSize: this.parts.pageSize,
    });
    this.#collectors.set(call.session.key, made);
    return made;
  }

  /** What whoever has no session collects: objects that exist, and of each property only that it may not be seen. */
  #strangersCollectors(): PropertyCollectors {
    return new PropertyCollectors({
      // Views belong to their sessions.
      properties: (object) => (object.type === "ContainerView" ? undefined : this.properties(object)),
      nextChange: this.parts.nextChange,
      unreadable: (object) => notAuthenticated(object, "System.Read"),
      pageSize: this.parts.pageSize,
    });
  }

  /** Of the inventory nothing is told to a role without System.Read. */
  #unreadable(object: Reference): VimFault | undefined {
    if (!this.parts.missingPrivileges.has(readPrivilege)) return undefined;
    if (this.parts.inventory.properties(object) === undefined) return undefined;
    return new VimFault("NoPermission", "Permission to perform this operation was denied.", {
      object,
      privilegeId: readPrivilege,
    });
  }

  /** Starts a task on a machine. */
  start(
    call: AuthenticatedCall,
    about: { entity: Reference; name: string },
    work: () => VimValue | undefined,
  ): Reference {
    const { entity, name } = about;
    return this.parts.tasks.start(
      call.method,
      { entity, entityName: name, userName: call.session.userName },
      work,
      call.taskFailure,
    );
  }

  /** Makes a container view. */
  createView(container: string, types: string[], recursive: boolean): Reference {
    const id = `session[view]${++this.#counter}`;
    this.#views.set(id, { container, types, recursive });
    return reference("ContainerView", id);
  }

  /** Removes a view. */
  destroyView(view: Reference): void {
    if (!this.#views.delete(view.id)) throw objectNotFound(view);
  }

  /** Forgets collectors and views, as a restart does. */
  forget(): void {
    this.#collectors.clear();
    this.#views.clear();
  }

  /** The properties of any managed object as a session sees it; undefined where it does not exist. */
  properties(object: Reference, session?: Session): Properties | undefined {
    switch (object.type) {
      case "Task":
        return this.parts.tasks.properties(object.id);
      case "HttpNfcLease":
        return this.parts.leases.properties(object.id);
      case "ContainerView": {
        const view = this.#views.get(object.id);
        if (view === undefined) return undefined;
        return {
          view: () => list("ManagedObjectReference", this.#inView(view)),
          container: () => reference("Folder", view.container),
        };
      }
      case "ServiceInstance":
        return { content: () => this.content(), serverClock: () => new Date() };
      case "PerformanceManager":
        return { perfCounter: perfCounterList };
      case "SessionManager":
        return { currentSession: () => (session === undefined ? undefined : sessionSummary(session)) };
      default:
        return this.parts.inventory.properties(object);
    }
  }

  #inView(view: { container: string; types: string[]; recursive: boolean }): Reference[] {
    const all = [...this.parts.inventory.below(view.container, view.recursive)];
    return view.types.length === 0 ? all : all.filter(({ type }) => view.types.some((base) => isA(type, base)));
  }
}

/**
 * A collector answers whoever has no session, too: with the objects as long as they exist, and with NotAuthenticated in the place
 * of each property (govmomi's simulator, property_collector.go).
 */
const withoutSession: Readonly<Record<string, (from: PropertyCollectors, args: VimElement) => VimValue | undefined>> = {
  RetrievePropertiesEx: (from, args) => from.retrieve(args),
  RetrieveProperties: (from, args) => from.retrieveAll(args),
};

function notAuthenticated(object: Reference, privilegeId: string): VimFault {
  return new VimFault("NotAuthenticated", "The session is not authenticated.", { object, privilegeId });
}

function sessionSummary(session: Session): Data {
  return data("UserSession", { key: session.key, userName: session.userName, loginTime: session.loginTime });
}
