/** What the client needs to know of one vim25 method. */
export interface VimMethod {
  /** The type of object that has it. */
  readonly on: string;
  /** Its parameters in the order of the schema. */
  readonly parameters: readonly string[];
  /** Repeating it does no harm, so the client does when a connection breaks. Absent: it may have happened; the caller looks. */
  readonly repeatable?: true;
}

/** The name of a call of the table. */
export type VimMethodName =
  | "RetrieveServiceContent"
  | "CurrentTime"
  | "Login"
  | "CloneSession"
  | "AcquireCloneTicket"
  | "Logout"
  | "RetrievePropertiesEx"
  | "ContinueRetrievePropertiesEx"
  | "CancelRetrievePropertiesEx"
  | "CreatePropertyCollector"
  | "DestroyPropertyCollector"
  | "CreateFilter"
  | "WaitForUpdatesEx"
  | "CreateContainerView"
  | "DestroyView"
  | "FindByInventoryPath"
  | "FindAllByUuid"
  | "HasPrivilegeOnEntities"
  | "QueryPerf"
  | "ReconfigVM_Task"
  | "CreateSnapshot_Task"
  | "CreateSnapshotEx_Task"
  | "RemoveSnapshot_Task"
  | "ConsolidateVMDisks_Task"
  | "QueryChangedDiskAreas"
  | "PowerOnVM_Task"
  | "PowerOffVM_Task"
  | "ShutdownGuest"
  | "CancelTask"
  | "ExportSnapshot"
  | "ExportVm"
  | "HttpNfcLeaseProgress"
  | "HttpNfcLeaseComplete"
  | "HttpNfcLeaseAbort";

/**
 * Every vim25 call of this provider (vSphere Web Services API, vim.wsdl of 6.5 to 9.0). Both encodings are made from it;
 * a method that is not here cannot be called.
 */
const vimMethods: Readonly<Record<VimMethodName, VimMethod>> = {
  RetrieveServiceContent: { on: "ServiceInstance", parameters: [], repeatable: true },
  CurrentTime: { on: "ServiceInstance", parameters: [], repeatable: true },

  Login: { on: "SessionManager", parameters: ["userName", "password", "locale"] },
  CloneSession: { on: "SessionManager", parameters: ["cloneTicket"] },
  AcquireCloneTicket: { on: "SessionManager", parameters: [], repeatable: true },
  Logout: { on: "SessionManager", parameters: [] },

  RetrievePropertiesEx: { on: "PropertyCollector", parameters: ["specSet", "options"], repeatable: true },
  /** A token is good once. */
  ContinueRetrievePropertiesEx: { on: "PropertyCollector", parameters: ["token"] },
  CancelRetrievePropertiesEx: { on: "PropertyCollector", parameters: ["token"], repeatable: true },
  /** One too many goes with the session, as does a view. */
  CreatePropertyCollector: { on: "PropertyCollector", parameters: [], repeatable: true },
  DestroyPropertyCollector: { on: "PropertyCollector", parameters: [] },
  CreateFilter: { on: "PropertyCollector", parameters: ["spec", "partialUpdates"] },
  WaitForUpdatesEx: { on: "PropertyCollector", parameters: ["version", "options"] },

  CreateContainerView: { on: "ViewManager", parameters: ["container", "type", "recursive"], repeatable: true },
  DestroyView: { on: "ContainerView", parameters: [] },

  FindByInventoryPath: { on: "SearchIndex", parameters: ["inventoryPath"], repeatable: true },
  FindAllByUuid: {
    on: "SearchIndex",
    parameters: ["datacenter", "uuid", "vmSearch", "instanceUuid"],
    repeatable: true,
  },

  HasPrivilegeOnEntities: {
    on: "AuthorizationManager",
    parameters: ["entity", "sessionId", "privId"],
    repeatable: true,
  },

  QueryPerf: { on: "PerformanceManager", parameters: ["querySpec"], repeatable: true },

  ReconfigVM_Task: { on: "VirtualMachine", parameters: ["spec"] },
  CreateSnapshot_Task: { on: "VirtualMachine", parameters: ["name", "description", "memory", "quiesce"] },
  CreateSnapshotEx_Task: { on: "VirtualMachine", parameters: ["name", "description", "memory", "quiesceSpec"] },
  RemoveSnapshot_Task: { on: "VirtualMachineSnapshot", parameters: ["removeChildren", "consolidate"] },
  ConsolidateVMDisks_Task: { on: "VirtualMachine", parameters: [] },
  QueryChangedDiskAreas: {
    on: "VirtualMachine",
    parameters: ["snapshot", "deviceKey", "startOffset", "changeId"],
    repeatable: true,
  },

  PowerOnVM_Task: { on: "VirtualMachine", parameters: ["host"] },
  PowerOffVM_Task: { on: "VirtualMachine", parameters: [] },
  ShutdownGuest: { on: "VirtualMachine", parameters: [] },
  CancelTask: { on: "Task", parameters: [], repeatable: true },

  ExportSnapshot: { on: "VirtualMachineSnapshot", parameters: [] },
  ExportVm: { on: "VirtualMachine", parameters: [] },
  HttpNfcLeaseProgress: { on: "HttpNfcLease", parameters: ["percent"], repeatable: true },
  HttpNfcLeaseComplete: { on: "HttpNfcLease", parameters: [] },
  HttpNfcLeaseAbort: { on: "HttpNfcLease", parameters: ["fault"] },
};

/** What is known of a method. */
export function vimMethod(name: VimMethodName): VimMethod {
  return vimMethods[name];
}
