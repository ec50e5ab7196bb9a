/** Releases that can be simulated, oldest first. */
export const releaseNames = ["4.19.0.0", "4.19.1.0", "4.20.0.0", "4.21.0.0", "4.22.0.0", "4.22.1.0"] as const;

/** A release of CloudStack. */
export type ReleaseName = (typeof releaseNames)[number];

/** Whether a text names a release that can be simulated. */
export function isReleaseName(text: string): text is ReleaseName {
  return (releaseNames as readonly string[]).includes(text);
}

/** Whether `release` is `since` or later. */
export function reaches(release: ReleaseName, since: ReleaseName): boolean {
  return releaseNames.indexOf(release) >= releaseNames.indexOf(since);
}

/** What differs between releases beyond the commands that exist. */
export interface ReleaseTraits {
  /** `deployVirtualMachine` takes `volumeid` and `snapshotid` (pull request 10503). */
  readonly deploysFromVolume: boolean;
  /** The default of `kvm.snapshot.enabled`: whether a running machine's volumes can be snapshotted. */
  readonly snapshotsRunningMachines: boolean;
  /** `listSnapshots` tells parents and chain sizes (pull request 9270). */
  readonly snapshotChains: boolean;
  /** Disk-only machine snapshots on KVM (pull request 10632). */
  readonly diskOnlyMachineSnapshots: boolean;
  /** Volumes and machines have `deleteprotection`. */
  readonly deleteProtection: boolean;
  /** An uploaded volume can become a root volume (pull request 10267). */
  readonly attachesUploadedAsRoot: boolean;
  /** Characters of a template's name: 32 in old releases, 255 in 4.22; between them the change was not looked up. */
  readonly longestTemplateName: number;
}

/** The traits of a release. */
export function traitsOf(release: ReleaseName): ReleaseTraits {
  return {
    deploysFromVolume: reaches(release, "4.21.0.0"),
    snapshotsRunningMachines: reaches(release, "4.22.0.0"),
    snapshotChains: reaches(release, "4.21.0.0"),
    diskOnlyMachineSnapshots: reaches(release, "4.21.0.0"),
    deleteProtection: reaches(release, "4.20.0.0"),
    attachesUploadedAsRoot: reaches(release, "4.20.0.0"),
    longestTemplateName: reaches(release, "4.22.0.0") ? 255 : 32,
  };
}
