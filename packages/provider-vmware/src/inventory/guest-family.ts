/** What a guest is, by the identifiers of VirtualMachineGuestOsIdentifier; `other` for what is neither. */
export function guestFamily(guestId: string): "linux" | "windows" | "other" {
  if (/^win/i.test(guestId)) return "windows";
  const linux =
    /linux|^(rhel|centos|oracle|sles|opensuse|ubuntu|debian|fedora|asianux|coreos|vmwarePhoton|amazon|rocky|almalinux|mandr|redhat|suse|turbo|nld|sjds|crxPod|crxSys)/i;
  return linux.test(guestId) ? "linux" : "other";
}
