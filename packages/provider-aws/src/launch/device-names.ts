import { ProviderError } from "@diskferry/core/provider";

/** The root device of the images that are registered here; HVM images may use it on every type (EC2, "Device names"). */
export const ROOT_DEVICE = "/dev/sda1";

const each = (letters: string): string[] => letters.split("");
const alphabet = "abcdefghijklmnopqrstuvwxyz";
const pairs = each("bc").flatMap((first) => each(alphabet).map((second) => first + second));

/** Recommended for data volumes of Linux, then what HVM instances accept besides. */
const linuxNames = [
  ...each("fghijklmnopbcde").map((letter) => `/dev/sd${letter}`),
  ...pairs.map((pair) => `/dev/xvd${pair}`),
];
/** EC2 user guide for Windows, "Device names on Windows instances". */
const windowsNames = [...each("fghijklmnopqrstuvwxyz"), ...pairs].map((letters) => `xvd${letters}`);

/**
 * The device names of the data volumes, in the order of the disks. Guests must not rely on them: on Nitro types the volumes
 * appear as NVMe devices in any order.
 * @throws ProviderError UNSUPPORTED when there are more disks than names
 */
export function dataDeviceNames(count: number, guestFamily: "linux" | "windows" | "other" = "linux"): string[] {
  const names = guestFamily === "windows" ? windowsNames : linuxNames;
  if (count <= names.length) return names.slice(0, count);
  throw new ProviderError(
    "UNSUPPORTED",
    `An EC2 instance has device names for ${names.length} data volumes; this machine has ${count}. Launch it with fewer disks.`,
    { provider: "aws-ebs", operation: "launch" },
  );
}
