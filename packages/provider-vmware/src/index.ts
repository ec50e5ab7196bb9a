export { openQuickInventory, type QuickInventory } from "./inventory/quick-inventory.ts";
export type { DetailedMachine, ListedMachine } from "./rest/automation-client.ts";
export { openTicketSession, type TicketSession } from "./ticket-session.ts";
export { provider } from "./provider.ts";
export {
  type ReaderName,
  type SnapshotOptions,
  type TrackingOptions,
  type VddkOptions,
  type VsphereOptions,
  optionsSchema,
} from "./options.ts";
