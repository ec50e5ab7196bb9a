/** What decides how blocks read that a snapshot was never given. */
export interface SnapshotNature {
  /** The snapshot it was started from, whose blocks show through. */
  parent: string | undefined;
  /** As StartSnapshot answered or DescribeSnapshots says, never as it was asked for: an account may encrypt by default. */
  encrypted: boolean;
}

/**
 * Whether blocks that were not put into a snapshot read as zeroes. A parent's blocks show through where nothing was
 * put, and behind the holes of an encrypted snapshot lie random bytes (awslabs/coldsnap #395): there zeroes are written.
 */
export function readsAsZeroes({ parent, encrypted }: SnapshotNature): boolean {
  return parent === undefined && !encrypted;
}
