/** What one release of vCenter or ESXi says of itself and which endpoints it has. */
export interface Release {
  /** `about.version`. */
  readonly version: string;
  readonly build: string;
  /** The newest API version that `SOAPAction` may ask for. */
  readonly apiVersion: string;
  /** Whether VI/JSON is served: vCenter 8.0 U1 and newer (Virtual Infrastructure JSON API, 8.0.1.0). */
  readonly viJson: boolean;
  /** Whether `/api` is served (7.0 and newer); `/rest` came with 6.5. */
  readonly api: boolean;
  readonly rest: boolean;
  /** Whether `CreateSnapshotEx_Task` exists (vSphere API 6.5). */
  readonly snapshotEx: boolean;
  /** Whether new machines track finer blocks ("CBT v2": VDDK 7.0 release notes, with hardware version 17). */
  readonly fineTracking: boolean;
  /** The newest virtual hardware version. */
  readonly hardware: number;
}

/** Releases that can be simulated. */
export type ReleaseName = "6.0" | "6.5" | "6.7" | "7.0" | "8.0" | "8.0.1" | "8.0.2" | "8.0.3" | "9.0";

const releases: Record<ReleaseName, Release> = {
  "6.0": release("6.0.0", "9313458", "6.0", 11),
  "6.5": release("6.5.0", "5973321", "6.5", 13),
  "6.7": release("6.7.0", "18010599", "6.7.3", 14),
  "7.0": release("7.0.3", "20051473", "7.0.3.0", 19),
  "8.0": release("8.0.0", "20519528", "8.0.0.1", 20),
  "8.0.1": release("8.0.1", "21560480", "8.0.1.0", 20),
  "8.0.2": release("8.0.2", "22385739", "8.0.2.0", 21),
  "8.0.3": release("8.0.3", "24022515", "8.0.3.0", 21),
  "9.0": release("9.0.0", "24755230", "9.0.0.0", 22),
};

function release(version: string, build: string, apiVersion: string, hardware: number): Release {
  const at = (least: string): boolean => compareVersions(apiVersion, least) >= 0;
  return {
    version,
    build,
    apiVersion,
    viJson: at("8.0.1"),
    api: at("7.0"),
    rest: at("6.5"),
    snapshotEx: at("6.5"),
    fineTracking: at("7.0"),
    hardware,
  };
}

/** Every release that can be simulated. */
export const releaseNames: readonly string[] = Object.keys(releases);

/** Whether a release of this name can be simulated. */
export function isReleaseName(name: string): name is ReleaseName {
  return Object.hasOwn(releases, name);
}

/** The release of this name. */
export function releaseOf(name: ReleaseName): Release {
  return releases[name];
}

/** Orders dotted versions by their numbers; missing ones count as 0. */
export function compareVersions(one: string, other: string): number {
  const left = one.split(".").map(Number);
  const right = other.split(".").map(Number);
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
