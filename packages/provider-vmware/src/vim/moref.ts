/** A managed object reference ("moref"): what vim25 calls objects by. Plain JSON; valid within one vCenter or host. */
export type MoRef = {
  /** The object's type: `VirtualMachine`, `VirtualMachineSnapshot`, `Task` … */
  type: string;
  /** `vm-42`, `snapshot-7`; on a host plain numbers. */
  value: string;
};

/** The reference to an object. */
export function moRef(type: string, value: string): MoRef {
  return { type, value };
}

/** `VirtualMachine:vm-42`, for messages and map keys. */
export function moRefText(ref: MoRef): string {
  return `${ref.type}:${ref.value}`;
}
